"""Feed-forward layers of models with shared and routed experts, and the dense layers before them.

Shared experts run beside the routed chain (router, dispatch, experts, combine): in prefill one after the other, in
decode side by side. Source: specs/search_model.md 1.4 to 1.6.
"""

from dataclasses import replace

from serveopt.perfdata.model_config import ModelConfig
from serveopt.solver.families import blocks
from serveopt.solver.families.table import Setting
from serveopt.solver.operators import descriptions as ops

ALPHA = 1.01  # exponent of the expert load of these families


def dense_count(model: ModelConfig) -> int:
    """Layers at the bottom of the model that are dense."""
    return min(int(model.extra.get("first_k_dense_replace", 0)), model.num_layers)


def layer_count(setting: Setting, phase: str) -> float:
    """Layers that a step runs, those of the draft included."""
    return setting.model.num_layers * blocks.step_scale(setting, phase)


def dense_layers(setting: Setting, phase: str, count: int, width: int, reduces: int = 2) -> list[ops.Operator]:
    """``count`` gated layers of ``width``, with the all-reduces that dispatch does elsewhere (attention, output)."""
    if not count:
        return []
    hidden, tp, share = setting.model.hidden_size, setting.layout.tp, blocks.token_share(setting, phase)
    names = (f"{phase}_dense_gate_up_gemm", f"{phase}_dense_act_gate", f"{phase}_dense_ffn2_gemm")
    sizes = (2 * width // tp, hidden, width // tp)
    return [
        *blocks.gated_ffn(names, count, sizes, blocks.part_quant(setting, "dense_mlp"), share),
        ops.AllReduce(f"{phase}_dense_ar", reduces * count, hidden, tp, share),
    ]


def expert_layers(setting: Setting, phase: str, count: float, shared_width: int, mode: str) -> list[ops.Operator]:
    """``count`` layers of routed and shared experts; ``shared_width`` is that of one GPU, ``mode`` its GEMM mode."""
    share = blocks.token_share(setting, phase)
    names = (f"{phase}_shared_gate_up_gemm", f"{phase}_shared_act_gate", f"{phase}_shared_ffn2_gemm")
    sizes = (2 * shared_width, setting.model.hidden_size, shared_width)
    shared = blocks.gated_ffn(names, count, sizes, mode, share)
    routed = routed_chain(setting, phase, count)
    return beside(phase, routed, shared)


def beside(phase: str, routed: list[ops.Operator], shared: list[ops.Operator]) -> list[ops.Operator]:
    """Both chains: one after the other in prefill, side by side in decode."""
    if phase == ops.CONTEXT:
        return [*shared, *routed]
    return [ops.Overlap(f"{phase}_moe_overlap", tuple(routed), tuple(shared))]  # type: ignore[arg-type]


def routed_chain(setting: Setting, phase: str, count: float) -> list[ops.Operator]:
    """Router, dispatch, experts, combine; the three last are one kernel where the user asks for it."""
    chain = blocks.routed_experts(phase, setting, count, phase, ALPHA)
    if setting.moe_backend != "megamoe":
        return chain
    router = next(operator for operator in chain if operator.label.endswith("router_gemm"))
    return [router, mega_moe(setting, phase, count)]


def mega_moe(setting: Setting, phase: str, count: float) -> ops.MegaMoe:
    """Dispatch, experts and combine in one kernel; it sees the tokens of its own rank."""
    model, layout = setting.model, setting.layout
    # One kernel serves every layout of 4-bit weights: the name of another kernel does not matter here.
    quant = setting.quant.moe.removesuffix("_trtllm")
    return ops.MegaMoe(
        f"{phase}_moe", count, phase, model.hidden_size, model.moe_intermediate_size, model.experts_per_token,
        model.num_experts, layout.moe_ep, quant, blocks.load_distribution(setting, ALPHA),
        blocks.token_share(setting, phase),
    )  # fmt: skip


def scaled(operator: ops.Operator, factor: float) -> ops.Operator:
    """The operator run ``factor`` times as often, its members too."""
    if isinstance(operator, ops.Overlap):
        first, second = ([scaled(one, factor) for one in chain] for chain in (operator.first, operator.second))
        return replace(operator, first=tuple(first), second=tuple(second))  # type: ignore[arg-type]
    if isinstance(operator, ops.Fallback):
        parts = tuple(scaled(one, factor) for one in operator.parts)
        return replace(operator, primary=scaled(operator.primary, factor), parts=parts)  # type: ignore[arg-type]
    return replace(operator, count=operator.count * factor)
