"""Dense decoders with grouped-query attention: Llama, Qwen2, Qwen3, MiMo.

One layer is norm, QKV, attention, projection, all-reduce, norm, gate and up, activation, down, all-reduce.
Source: specs/search_model.md 1.5 (family LLAMA).
"""

from types import MappingProxyType

from serveopt.solver.families.blocks import (
    attention_core,
    embedding,
    gated_ffn,
    grouped_kv_bytes,
    model_heads,
    norm,
    output,
    part_quant,
    step_scale,
    token_share,
)
from serveopt.solver.families.table import Family, Phases, Setting
from serveopt.solver.operators import descriptions as ops

ACTIVATION_WIDTHS = MappingProxyType(
    {"trtllm": (11, 6.5, 5, 5), "vllm": (11, 6.5, 5, 5), "sglang": (14, 8.5, 6.5, 6.5)}
)


def build_phases(setting: Setting) -> Phases:
    """Operators of a prefill and a decode step on one GPU."""
    return Phases(
        context=(*build_step(setting, ops.CONTEXT),),
        generation=(*build_step(setting, ops.GENERATION),),
    )


def build_step(setting: Setting, phase: str) -> list[ops.Operator]:
    """Operators of one step, in order of execution but for the collectives, which stand at the end."""
    model, tp = setting.model, setting.layout.tp
    hidden, share = model.hidden_size, token_share(setting, phase)
    layers = model.num_layers * step_scale(setting, phase)
    names = (f"{phase}_gate_ffn1_gemm", f"{phase}_act_gate", f"{phase}_ffn2_gemm")
    sizes = (2 * model.intermediate_size // tp, hidden, model.intermediate_size // tp)
    look_up, embedding_reduce = embedding(setting, phase, sharded=True)
    logits, hand_over = output(setting, phase)
    return [
        look_up,
        norm(f"{phase}_add_norm_1", layers, hidden, share),
        *attention_core(phase, setting, phase, part_quant(setting, "attention"), (layers, model_heads(setting))),
        norm(f"{phase}_add_norm_2", layers, hidden, share),
        *gated_ffn(names, layers, sizes, part_quant(setting, "dense_mlp"), share, low_precision=True),
        logits,
        embedding_reduce,
        ops.AllReduce(f"{phase}_ar_1", layers, hidden, tp, share),
        ops.AllReduce(f"{phase}_ar_2", layers, hidden, tp, share),
        hand_over,
    ]


LLAMA = Family(
    name="LLAMA",
    build_phases=build_phases,
    kv_bytes=grouped_kv_bytes,
    activation_widths=ACTIVATION_WIDTHS,
    context_parallel=True,
)
