"""Decoders whose layers differ: full or windowed attention, dense or expert feed-forward.

Layers that are alike form a group, whose operators are listed once with the number of its layers:

    norm, QKV, attention, projection, norm, then router, dispatch, experts, combine, or all-reduce, gate and up,
    activation, down, all-reduce

Source: specs/search_model.md 1.5 (families HYBRIDMOE, STEP3P7).
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from serveopt.solver.families.blocks import (
    Heads,
    attention_core,
    embedding,
    gated_ffn,
    norm,
    output,
    part_quant,
    routed_experts,
    step_scale,
    token_share,
)
from serveopt.solver.families.table import Phases, Setting
from serveopt.solver.operators import descriptions as ops

ALPHA = 1.01  # exponent of the expert load


@dataclass(frozen=True, slots=True)
class Group:
    """Layers that are alike. ``dense``: width of a dense feed-forward part; 0: experts."""

    name: str
    layers: int
    heads: Heads
    dense: int = 0


Groups = Callable[[Setting], list[Group]]
Extra = Callable[[Setting, str, list[Group]], list[ops.Operator]]


def group_layers(kinds: Iterable[tuple[bool, bool]], full: Heads, windowed: Heads, dense: int) -> list[Group]:
    """Groups of layers given as (full attention, experts) each; ``dense`` is the width of the dense ones."""
    counts = Counter(kinds)
    rows = (
        Group("global", counts[True, True], full),
        Group("swa", counts[False, True], windowed),
        Group("swa_dense", counts[False, False], windowed, dense),
        Group("global_dense", counts[True, False], full, dense),
    )
    return [row for row in rows if row.layers]


def build_phases(setting: Setting, groups: Groups, extra: Extra) -> Phases:
    """Operators of a prefill and a decode step on one GPU; ``extra`` are those beside attention and feed-forward."""
    found = groups(setting)
    return Phases(
        context=(*build_step(setting, ops.CONTEXT, found), *extra(setting, ops.CONTEXT, found)),
        generation=(*build_step(setting, ops.GENERATION, found), *extra(setting, ops.GENERATION, found)),
    )


def build_step(setting: Setting, phase: str, groups: list[Group]) -> list[ops.Operator]:
    """Operators of one step, group by group."""
    layers = [one for group in groups for one in group_step(setting, phase, group)]
    return [*embedding(setting, phase, sharded=False), *layers, *output(setting, phase)]


def group_step(setting: Setting, phase: str, group: Group) -> list[ops.Operator]:
    """Operators of the layers of one group."""
    prefix, count = f"{phase}_{group.name}", group.layers * step_scale(setting, phase)
    hidden, tp, share = setting.model.hidden_size, setting.layout.tp, token_share(setting, phase)
    core = attention_core(prefix, setting, phase, part_quant(setting, "attention"), (count, group.heads))
    first = [norm(f"{prefix}_attn_norm", count, hidden, share), *core]
    if not group.dense:
        experts = routed_experts(prefix, setting, count, phase, ALPHA)
        return [*first, norm(f"{prefix}_moe_norm", count, hidden, share), *experts]
    names = (f"{prefix}_gate_up_gemm", f"{prefix}_act", f"{prefix}_down_gemm")
    sizes = (2 * group.dense // tp, hidden, group.dense // tp)
    return [
        *first,
        ops.AllReduce(f"{prefix}_attn_ar", count, hidden, tp, share),
        norm(f"{prefix}_ffn_norm", count, hidden, share),
        *gated_ffn(names, count, sizes, part_quant(setting, "dense_mlp"), share, low_precision=True),
        ops.AllReduce(f"{prefix}_ffn_ar", count, hidden, tp, share),
    ]


def shared_expert(setting: Setting, phase: str, groups: list[Group], width: int) -> list[ops.Operator]:
    """A shared expert of ``width`` on all expert layers, split over tp; its sum travels with the routed experts'."""
    layers = sum(group.layers for group in groups if not group.dense)
    if not width or not layers:
        return []
    tp, share = setting.layout.tp, token_share(setting, phase)
    prefix, count = f"{phase}_shared_expert_dense", layers * step_scale(setting, phase)
    names = (f"{prefix}_gate_up_gemm", f"{prefix}_act", f"{prefix}_down_gemm")
    sizes = (2 * width // tp, setting.model.hidden_size, width // tp)
    return gated_ffn(names, count, sizes, part_quant(setting, "shared_experts"), share, low_precision=True)


def group_kv_bytes(setting: Setting, length: int, groups: Groups) -> float:
    """Bytes on one GPU of keys and values of one sequence, windowed layers up to their window."""
    return sum(group.heads.kv_bytes(setting, length, group.layers) for group in groups(setting))
