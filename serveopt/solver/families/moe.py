"""Decoders whose every layer has routed experts: Mixtral, Qwen2 and Qwen3 MoE, gpt-oss, MiniMax-M2.

One layer is norm, QKV, attention, projection, norm, router, dispatch, experts, combine; the layer's two all-reduces
are dispatch and combine. gpt-oss alternates windowed and full attention; Qwen2 has a shared expert beside the routed
ones. Source: specs/search_model.md 1.5 and 1.6 (family MOE).
"""

from serveopt.solver.families.blocks import (
    Heads,
    attention_core,
    block_fault,
    embedding,
    gated_ffn,
    model_heads,
    norm,
    output,
    part_quant,
    routed_experts,
    step_scale,
    token_share,
)
from serveopt.solver.families.table import WIDE, Family, Phases, Setting
from serveopt.solver.families.wide_ep import attention_sum, wide_experts
from serveopt.solver.operators import descriptions as ops

ALPHA = 1.2  # exponent of the expert load


def build_phases(setting: Setting) -> Phases:
    """Operators of a prefill and a decode step on one GPU."""
    return Phases(
        context=(*build_step(setting, ops.CONTEXT),),
        generation=(*build_step(setting, ops.GENERATION),),
    )


def build_step(setting: Setting, phase: str) -> list[ops.Operator]:
    """Operators of one step, in order of execution."""
    model, scale, share = setting.model, step_scale(setting, phase), token_share(setting, phase)
    layers, hidden = model.num_layers * scale, model.hidden_size
    # Under wide expert parallelism sglang keeps the whole look-up on every rank.
    sharded = setting.wide_ep is None or setting.backend != "sglang"
    return [
        *embedding(setting, phase, sharded),
        norm(f"{phase}_add_norm_1", layers, hidden, share),
        *attention_layers(setting, phase, scale),
        norm(f"{phase}_add_norm_2", layers, hidden, share),
        *expert_layers(setting, phase, layers),
        *output(setting, phase),
    ]


def attention_kinds(setting: Setting) -> list[tuple[float, Heads]]:
    """How many layers have which heads: half of gpt-oss's see a window."""
    layers = setting.model.num_layers
    if setting.model.architecture != "GptOssForCausalLM":
        return [(layers, model_heads(setting))]
    window = int(setting.model.extra.get("sliding_window", 128))
    kinds = setting.model.extra.get("layer_types", ())
    windowed = sum(kind == "sliding_attention" for kind in kinds) if kinds else layers // 2
    return [(windowed, model_heads(setting, window)), (layers - windowed, model_heads(setting))]


def attention_layers(setting: Setting, phase: str, scale: float) -> list[ops.Operator]:
    """Projections and attention of all layers."""
    kinds = [(layers * scale, heads) for layers, heads in attention_kinds(setting)]
    return attention_core(phase, setting, phase, part_quant(setting, "attention"), *kinds)


def expert_layers(setting: Setting, phase: str, layers: float) -> list[ops.Operator]:
    """Routed experts of all layers, and the shared one where a model has it."""
    model, tp, share = setting.model, setting.layout.tp, token_share(setting, phase)
    width = int(model.extra.get("shared_expert_intermediate_size", 0))
    if setting.wide_ep is not None:
        return [
            *attention_sum(phase, setting, layers, phase),
            *wide_experts(phase, setting, layers, phase, ALPHA, width),
        ]
    names = (f"{phase}_shared_gate_up_gemm", f"{phase}_shared_act_gate", f"{phase}_shared_ffn2_gemm")
    sizes = (2 * width // tp, model.hidden_size, width // tp)
    shared = gated_ffn(names, layers, sizes, part_quant(setting, "shared_experts"), share) if width else []
    return [*shared, *routed_experts(phase, setting, layers, phase, ALPHA)]


def kv_bytes(setting: Setting, length: int) -> float:
    """Bytes on one GPU of keys and values of one sequence."""
    return sum(heads.kv_bytes(setting, length, layers) for layers, heads in attention_kinds(setting))


MOE = Family(
    name="MOE",
    build_phases=build_phases,
    kv_bytes=kv_bytes,
    activation_widths=WIDE,
    context_parallel=True,
    wide_ep=True,
    fault=block_fault,
)
