"""Collective communication: the backend's all-reduce, NCCL, and pipeline hand-over.

Latency is linear in the message between measurements and proportional to it outside. A group between two measured
ones (6 of 4 and 8) is interpolated in log2 of the GPUs. Beyond the widest measured group the ring traffic and the
slower link scale it:

    t(n) = t(w) * ((n - 1) / n) / ((w - 1) / w) * bandwidth(w) / bandwidth(n)

Source: specs/op_model.md 2.14 and 2.15.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from serveopt.errors import MissingTable
from serveopt.perfdata.store import Table
from serveopt.perfdata.systems import SystemSpec
from serveopt.solver.operators.curve import TokenCurve, blended, line, proportional_ends
from serveopt.solver.operators.curve_tables import CurveTable, Key, list_values
from serveopt.solver.operators.data_modes import Relative, TokenPrice
from serveopt.solver.operators.descriptions import AllReduce, Nccl, PointToPoint
from serveopt.solver.operators.rooflines import all_reduce_bound, hand_over_bound, nccl_bound

if TYPE_CHECKING:
    from serveopt.solver.operators.pricing import Pricing

EAGER_SUFFIX = "_eager"


def ring_scale(system: SystemSpec, gpus: int, measured: int) -> float:
    """How much longer a ring over ``gpus`` takes than over the ``measured`` ones."""
    traffic = (gpus - 1) / gpus * measured / (measured - 1)
    return traffic * system.p2p_bw(measured) / system.p2p_bw(gpus)


def group_curve(table: CurveTable, lead: Key, gpus: int, name: str) -> TokenCurve:
    """Latency over message elements of a group of ``gpus``; the key is ``lead`` and the number of GPUs."""
    exact = table.curve((*lead, gpus))
    if exact is not None:
        return reach_far(exact)
    widths = [int(key[-1]) for key in table if key[:-1] == lead]
    below, above = ([w for w in widths if w < gpus], [w for w in widths if w > gpus])
    if not below or not above:
        measured = list_values([(width,) for width in widths], 0)
        text = ", ".join([*map(str, lead), f"num_gpus={gpus}"])
        raise MissingTable(name, f"{text} (measured: {measured})")
    low, high = max(below), min(above)
    few, many = group_curve(table, lead, low, name), group_curve(table, lead, high, name)
    return blended(few, many, float(np.log2(gpus / low) / np.log2(high / low)))


def reach_far(curve: TokenCurve) -> TokenCurve:
    """The curve with ends in proportion to the message."""
    return TokenCurve(*proportional_ends(curve.tokens, curve.latency_ms), curve.source)


def compiled_rows(table: Table) -> np.ndarray:
    """Rows measured inside a CUDA graph: serving never runs the eager variant where both exist."""
    every = np.arange(table.source.size)
    if "kernel_source" not in table.columns:
        return every
    eager = [code for code, name in enumerate(table.categories["kernel_source"]) if name.endswith(EAGER_SUFFIX)]
    rows = np.flatnonzero(~np.isin(table.columns["kernel_source"], eager))
    return rows if rows.size else every


def read_all_reduce(table: Table) -> CurveTable:
    """The all-reduces of a backend by group size."""
    return CurveTable.read(table, ("num_gpus",), "message_size", rows=compiled_rows(table))


def read_nccl(table: Table) -> CurveTable:
    """NCCL collectives by operation, type and group size."""
    return CurveTable.read(table, ("op_name", "nccl_dtype", "num_gpus"), "message_size")


def price_all_reduce(pricing: "Pricing", operator: AllReduce) -> TokenCurve:
    """Latency over tokens of the backend's all-reduce; nothing for one GPU."""
    if operator.gpus == 1:
        return line(0.0, 0.0, "silicon")
    system = pricing.system
    node = system.gpus_per_node
    curve = group_curve(
        pricing.indexed("custom_allreduce", read_all_reduce), (), min(operator.gpus, node), "custom_allreduce"
    )
    scale = ring_scale(system, operator.gpus, node) if operator.gpus > node else 1.0
    source = "estimated" if operator.gpus > node else curve.source  # no group was measured across nodes
    return TokenCurve(curve.tokens / operator.hidden, curve.latency_ms * scale, source)


def nccl_table(pricing: "Pricing") -> CurveTable:
    """The collectives of the system's NCCL, else of its oneCCL."""
    held = next((name for name in ("nccl", "oneccl") if pricing.database.table(name) is not None), "nccl")
    return pricing.indexed(held, read_nccl)


def price_nccl(pricing: "Pricing", operator: Nccl) -> TokenCurve:
    """Latency over tokens of an NCCL collective; nothing for one GPU."""
    if operator.gpus == 1:
        return line(0.0, 0.0, "silicon")
    table, lead = nccl_table(pricing), (operator.operation, operator.comm)
    widths = [int(key[-1]) for key in table if key[:-1] == lead]
    if not widths:
        raise MissingTable("nccl", f"{operator.operation}, {operator.comm} (measured: {list_values(list(table), 0)})")
    measured = min(operator.gpus, max(widths))
    curve = group_curve(table, lead, measured, "nccl")
    scale = ring_scale(pricing.system, operator.gpus, measured) if operator.gpus > measured else 1.0
    source = "estimated" if operator.gpus > measured else curve.source
    return TokenCurve(curve.tokens / operator.elements_per_token, curve.latency_ms * scale, source)


def price_hand_over(pricing: "Pricing", operator: PointToPoint) -> TokenCurve:
    """Latency over tokens of handing bf16 activations to the next stage, at the inter-node bandwidth."""
    slope = operator.hidden * 2.0 / pricing.system.inter_node_bw_b_s
    return line(1e3 * pricing.system.p2p_latency_s, 1e3 * slope, "empirical")


def other_groups(pricing: "Pricing", operator: AllReduce) -> Iterable[Relative]:
    """The same all-reduce over the measured groups, the nearest first."""
    widths = [int(key[0]) for key in pricing.indexed("custom_allreduce", read_all_reduce)] if pricing.database.table(
        "custom_allreduce") is not None else []  # fmt: skip
    for width in sorted(widths, key=lambda width: abs(np.log2(width / operator.gpus))):
        yield Relative(replace(operator, gpus=width))


def other_collectives(pricing: "Pricing", operator: Nccl) -> Iterable[Relative]:
    """The same collective in another type or over another group, then an all-gather."""
    if all(pricing.database.table(name) is None for name in ("nccl", "oneccl")):
        return
    for operation in (operator.operation, "all_gather"):
        keys = [key for key in nccl_table(pricing) if key[0] == operation and key[1] in ("half", "int8")]
        for key in sorted(keys, key=lambda key: (key[1] != operator.comm, abs(np.log2(int(key[2]) / operator.gpus)))):
            yield Relative(replace(operator, operation=operation, comm=str(key[1]), gpus=int(key[2])))


ALL_REDUCE = TokenPrice(price_all_reduce, all_reduce_bound, other_groups, typical=0.6)
NCCL = TokenPrice(price_nccl, nccl_bound, other_collectives, typical=0.6)
HAND_OVER = TokenPrice(price_hand_over, hand_over_bound, formula=True)
