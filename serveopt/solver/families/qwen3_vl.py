"""Qwen3-VL: the decoders of Qwen3, dense or with experts, behind a vision encoder.

Source: specs/search_model.md 1.5 and 1.7 (families QWEN3VL, QWEN3VL_MOE).
"""

from serveopt.solver.families import llama, moe
from serveopt.solver.families.blocks import block_fault, grouped_kv_bytes
from serveopt.solver.families.table import Family, Phases, Setting
from serveopt.solver.families.vision import build_encoder


def build_dense(setting: Setting) -> Phases:
    """Operators of the dense model on one GPU."""
    decoder = llama.build_phases(setting)
    return Phases(decoder.context, decoder.generation, build_encoder(setting))


def build_experts(setting: Setting) -> Phases:
    """Operators of the model with experts on one GPU."""
    decoder = moe.build_phases(setting)
    return Phases(decoder.context, decoder.generation, build_encoder(setting))


def fault(setting: Setting) -> tuple[str, str] | None:
    """An encoder that is split over tp needs heads for every GPU; one that is not has no such need."""
    heads = setting.model.extra["vision_config"]["num_heads"]
    whole = setting.encoder_dp or not setting.encodes
    if not any(setting.image[:2]) or whole or heads % setting.layout.tp == 0:
        return None
    return "tp", f"the vision encoder's {heads} heads are not divisible by {setting.layout.tp}; encode data parallel"


def expert_fault(setting: Setting) -> tuple[str, str] | None:
    """What the encoder or the experts cannot do."""
    return fault(setting) or block_fault(setting)


QWEN3VL = Family(
    name="QWEN3VL", build_phases=build_dense, kv_bytes=grouped_kv_bytes, context_parallel=True, fault=fault
)
QWEN3VL_MOE = Family(name="QWEN3VL_MOE", build_phases=build_experts, kv_bytes=grouped_kv_bytes, fault=expert_fault)
