"""Expert layers under wide expert parallelism: an exchange library brings each token to its experts and back.

    router, shared experts (whole on every rank), [prepare], dispatch, expert compute, combine

Dispatch and combine see the tokens of one rank; the experts see those of all attention ranks. With a load balancer,
sglang and vllm flatten the load of prefill and drop a fifth of its tokens, trtllm has measurements of its own.
Source: specs/search_model.md 1.6, op_model.md 2.11 and 2.12.
"""

from types import MappingProxyType

from serveopt.solver.families.blocks import (
    BALANCED_ALPHA,
    BALANCED_TOKENS,
    gated_ffn,
    load_distribution,
    part_quant,
    router,
    token_share,
)
from serveopt.solver.families.table import Setting, WideEp
from serveopt.solver.operators import descriptions as ops

# Type of the activations that experts of a quantisation take; bfloat16 for the rest (weight-only modes).
ACTIVATIONS = MappingProxyType(
    dict.fromkeys(("fp8", "fp8_static", "fp8_block", "w4afp8", "w4a8_mxfp4_mxfp8"), "fp8") | {"nvfp4": "nvfp4"}
)


def plain_dtype(step: str, activations: str) -> str:
    """Tokens travel as the experts take them."""
    return activations


def packed_combine_dtype(step: str, activations: str) -> str:
    """As the experts take them; sums of 4-bit experts come back in 4 bits."""
    return "fp4" if step == "combine" and activations == "nvfp4" else activations


def normal_trtllm_dtype(step: str, activations: str) -> str:
    """The high-throughput kernels of trtllm carry 4-bit tokens or bfloat16 ones."""
    return activations if activations == "nvfp4" else "bfloat16"


# Library, then phase -> the type of tokens on the wire; libraries that are not here know one type only.
WIRE_TYPES = MappingProxyType(
    {
        ("trtllm_deepep_ht", ops.CONTEXT): normal_trtllm_dtype,
        ("trtllm_deepep_ht", ops.GENERATION): normal_trtllm_dtype,
        ("trtllm_deepep_ll", ops.CONTEXT): packed_combine_dtype,
        ("trtllm_deepep_ll", ops.GENERATION): packed_combine_dtype,
        ("nvlink_two_sided", ops.CONTEXT): plain_dtype,
        ("nvlink_two_sided", ops.GENERATION): packed_combine_dtype,
        ("nvlink_one_sided", ops.CONTEXT): plain_dtype,
        ("nvlink_one_sided", ops.GENERATION): packed_combine_dtype,
    }
)
PREPARED = frozenset(("nvlink_two_sided",))  # libraries with a step before dispatch


def wire_dtype(library: str, step: str, phase: str, quant: str) -> str:
    """Type of the exchanged values, as the exchange tables name it.

    >>> wire_dtype("nvlink_two_sided", "combine", "generation", "nvfp4")
    'fp4'
    """
    rule = WIRE_TYPES.get((library, phase))
    return rule(step, ACTIVATIONS.get(quant, "bfloat16")) if rule else "default"


def wide_ep(setting: Setting) -> WideEp:
    """The exchange of a setting that has one."""
    assert setting.wide_ep is not None
    return setting.wide_ep


def exchange_share(setting: Setting, phase: str, library: str) -> float:
    """Tokens that one rank exchanges per token of its step: in prefill DeepEP splits them over tp and cp."""
    layout = setting.layout
    return 1.0 / (layout.tp * layout.cp) if phase == ops.CONTEXT and library.startswith("deepep") else 1.0


def exchange(prefix: str, setting: Setting, count: float, phase: str, step: str) -> ops.AllToAll:
    """One step of the exchange: prepare, dispatch or combine."""
    model, layout, wide = setting.model, setting.layout, wide_ep(setting)
    library = wide.context if phase == ops.CONTEXT else wide.generation
    return ops.AllToAll(
        f"{prefix}_moe_{step}", count, library, step, wire_dtype(library, step, phase, setting.quant.moe),
        model.hidden_size, model.experts_per_token, model.num_experts, layout.moe_ep, wide.nodes,
        exchange_share(setting, phase, library),
    )  # fmt: skip


def expert_compute(prefix: str, setting: Setting, count: float, phase: str, alpha: float) -> ops.ExpertCompute:
    """The experts alone, with what a load balancer makes of their load."""
    model, layout = setting.model, setting.layout
    share, slots = float(layout.attn_dp), model.num_experts
    load = load_distribution(setting, alpha)
    if setting.eplb and setting.backend == "trtllm":
        load, slots = f"{load}_eplb", setting.slots or slots
    elif setting.eplb and phase == ops.CONTEXT:
        load, share = load_distribution(setting, BALANCED_ALPHA), share * BALANCED_TOKENS
    return ops.ExpertCompute(
        f"{prefix}_moe", count, phase, model.hidden_size, model.moe_intermediate_size, model.experts_per_token,
        model.num_experts, slots, layout.moe_ep, setting.quant.moe, load, share,
    )  # fmt: skip


def wide_routed(prefix: str, setting: Setting, count: float, phase: str, alpha: float) -> list[ops.Operator]:
    """Router, [prepare], dispatch, experts, combine."""
    wide = wide_ep(setting)
    library = wide.context if phase == ops.CONTEXT else wide.generation
    prepare = [exchange(prefix, setting, count, phase, "prepare")] if library in PREPARED else []
    return [
        router(prefix, setting, count, phase),
        *prepare,
        exchange(prefix, setting, count, phase, "dispatch"),
        expert_compute(prefix, setting, count, phase, alpha),
        exchange(prefix, setting, count, phase, "combine"),
    ]


def wide_shared(prefix: str, setting: Setting, count: float, phase: str, width: int) -> list[ops.Operator]:
    """Shared experts of ``width``, whole on every rank; nothing for none. Prefill splits the tokens over tp and cp."""
    if not width:
        return []
    share = token_share(setting, phase) / (setting.layout.tp if phase == ops.CONTEXT else 1)
    names = (f"{prefix}_shared_gate_up_gemm", f"{prefix}_shared_act_gate", f"{prefix}_shared_ffn2_gemm")
    quant = part_quant(setting, "shared_experts")
    return gated_ffn(names, count, (2 * width, setting.model.hidden_size, width), quant, share)


def attention_sum(prefix: str, setting: Setting, count: float, phase: str) -> list[ops.Operator]:
    """What adds up the parts of attention split over tp: the exchange library does not.

    Where the exchange splits the tokens over tp the sum is scattered, and gathered before the next attention.
    """
    wide, tp, hidden = wide_ep(setting), setting.layout.tp, setting.model.hidden_size
    library = wide.context if phase == ops.CONTEXT else wide.generation
    if exchange_share(setting, phase, library) == 1.0:
        return [ops.AllReduce(f"{prefix}_attention_ar", count, hidden, tp)]
    return [
        ops.Nccl(f"{prefix}_attention_gather", count, "all_gather", hidden, tp),
        ops.Nccl(f"{prefix}_attention_scatter", count, "reduce_scatter", hidden, tp),
    ]


def wide_experts(
    prefix: str, setting: Setting, count: float, phase: str, alpha: float, shared_width: int = 0
) -> list[ops.Operator]:
    """Router, shared experts, [prepare], dispatch, experts, combine of ``count`` layers, one after the other."""
    first, *rest = wide_routed(prefix, setting, count, phase, alpha)
    return [first, *wide_shared(prefix, setting, count, phase, shared_width), *rest]
