"""Attention slices: the measured grid of one kernel lane, ready for the kernels.

A slice is one (lane, arithmetic, KV type, KV heads, head size, window). KV heads are stored as 0 when there are as
many as query heads. The first lane in order that holds the slice serves it alone. Source: specs/op_model.md 2.2-2.4.
"""

from dataclasses import dataclass

import numpy as np

from serveopt.errors import MissingTable
from serveopt.kernels.grids import fill_efficiency
from serveopt.kernels.records import CONTEXT_ATTENTION, GENERATION_ATTENTION, Grid, Roofline
from serveopt.perfdata.quant_modes import FMHA_MODES, KV_BYTES
from serveopt.perfdata.store import Table
from serveopt.perfdata.systems import SystemSpec
from serveopt.solver.operators.descriptions import AttentionOperator, ContextAttention
from serveopt.solver.operators.rooflines import memory_move_ms

FUSED_EXTRA_FACTOR = 1.1  # rotary embedding, KV write and norms are charged 10 % over their memory time


@dataclass(frozen=True)
class AttentionSlice:
    """One measured slice with its roofline; ``extra_ms`` is added to every call."""

    grid: Grid
    roofline: Roofline
    extra_ms: float
    source: str


def read_slice(
    table: Table, system: SystemSpec, operator: AttentionOperator, lanes: tuple[str, ...]
) -> AttentionSlice:
    """The slice that serves ``operator``; MissingTable names the slice that was not measured."""
    context = isinstance(operator, ContextAttention)
    rows = find_rows(table, slice_keys(operator), lanes)
    roofline = attention_roofline(system, operator)
    axes = ("num_heads", "isl", "batch_size") if context else ("num_heads", "batch_size", "step")
    columns = [table.columns[name][rows].astype(np.float64) for name in axes]
    if not context:
        columns[2] = columns[2] + table.columns["isl"][rows] if "isl" in table.columns else columns[2] + 1.0
    grid = nest(columns, table.values["latency_ms"][rows].astype(np.float64))
    fill_efficiency(grid, roofline, grid.efficiency)
    if not context:
        clamp_to_roofline(grid)
    extra = fused_extra_ms(system, operator) if isinstance(operator, ContextAttention) else 0.0
    return AttentionSlice(grid, roofline, extra, "mixed" if context else "silicon")


def slice_keys(operator: AttentionOperator) -> dict[str, str | int]:
    """Key columns and values of the operator's slice."""
    kv_heads = 0 if operator.kv_heads == operator.heads else operator.kv_heads
    keys: dict[str, str | int] = {"kv_cache_dtype": operator.kv, "head_dim": operator.head_dim}
    keys |= {"num_key_value_heads": kv_heads, "window_size": operator.window}
    if isinstance(operator, ContextAttention):
        keys["attn_dtype"] = operator.fmha
    return keys


def find_rows(table: Table, keys: dict[str, str | int], lanes: tuple[str, ...]) -> np.ndarray:
    """Row numbers of the slice in the first lane that has it."""
    mask = np.ones(table.source.size, bool)
    for name, value in keys.items():
        column = table.columns[name]
        if name == "num_key_value_heads":
            stored = np.where(column == table.columns["num_heads"], 0, column)
            mask &= stored == value
        elif name in table.categories:
            names = table.categories[name]
            mask &= column == (names.index(str(value)) if value in names else -1)
        else:
            mask &= column == value
    rows = np.flatnonzero(mask)
    if rows.size == 0:
        raise MissingTable(table.name, ", ".join(f"{name}={value}" for name, value in keys.items()))
    if "kernel_source" not in table.columns:
        return rows
    lane_of = table.columns["kernel_source"][rows]
    names = table.categories["kernel_source"]
    for lane in (*lanes, *sorted(names)):
        if lane in names and (lane_of == names.index(lane)).any():
            return rows[lane_of == names.index(lane)]
    return rows


def nest(axes: list[np.ndarray], latency_ms: np.ndarray) -> Grid:
    """A ragged grid from three key columns; of rows with equal keys the first counts."""
    order = np.lexsort((np.arange(latency_ms.size), axes[2], axes[1], axes[0]))
    a, b, c = (axis[order] for axis in axes)
    first = np.ones(order.size, bool)
    first[1:] = (np.diff(a) != 0) | (np.diff(b) != 0) | (np.diff(c) != 0)
    a, b, c, latency = a[first], b[first], c[first], latency_ms[order][first]
    new_middle = np.ones(a.size, bool)
    new_middle[1:] = (np.diff(a) != 0) | (np.diff(b) != 0)
    middle_at = np.flatnonzero(new_middle)
    new_outer = np.ones(middle_at.size, bool)
    new_outer[1:] = np.diff(a[middle_at]) != 0
    outer_at = np.flatnonzero(new_outer)
    outer, middle = a[middle_at][outer_at], b[middle_at]
    return Grid(
        outer=outer,
        inner=np.append(outer_at, middle_at.size).astype(np.int64),
        middle=middle,
        leaf=np.append(middle_at, a.size).astype(np.int64),
        last=c,
        latency_ms=latency,
        efficiency=np.zeros(a.size),
        outer_log=np.log2(outer),
        middle_log=np.log2(middle),
        last_log=np.log2(c),
    )


def clamp_to_roofline(grid: Grid) -> None:
    """Nothing; lifts latencies below the roofline onto it (decode tables are read this way)."""
    faster = grid.efficiency > 1.0
    grid.latency_ms[faster] *= grid.efficiency[faster]
    grid.efficiency[faster] = 1.0


def attention_roofline(system: SystemSpec, operator: AttentionOperator) -> Roofline:
    """The speed-of-light bound of the operator's slice."""
    context = isinstance(operator, ContextAttention)
    fmha = operator.fmha if isinstance(operator, ContextAttention) else decode_arithmetic(system, operator.kv)
    return Roofline(
        kind=CONTEXT_ATTENTION if context else GENERATION_ATTENTION,
        flops=float(system.flops(FMHA_MODES[fmha].pipeline)),
        mem_bw_b_s=float(system.mem_bw_b_s),
        head_dim=float(operator.head_dim),
        window=float(operator.window),
        kv_heads=0.0 if operator.kv_heads == operator.heads else float(operator.kv_heads),
        kv_bytes=float(KV_BYTES[operator.kv]),
    )


def decode_arithmetic(system: SystemSpec, kv: str) -> str:
    """Arithmetic of decode attention: fp8 where the cache is fp8 and the GPU has it."""
    return "fp8" if kv == "fp8" and system.sm_version >= 89 else "bfloat16"


def fused_extra_ms(system: SystemSpec, operator: ContextAttention) -> float:
    """Rotary embedding, KV write and optional QK norm beside the attention kernel, in ms per call.

    Charged per call, not per token, as the reference does (specs/op_model.md 6.1).
    """
    query = operator.heads * operator.head_dim
    key = operator.kv_heads * operator.head_dim
    width = FMHA_MODES[operator.fmha].bytes_per_element
    extra = 2 * memory_move_ms(system, 2.0 * query + 2.0 * key) + 2 * memory_move_ms(system, key * width)
    if operator.qk_norm:
        extra += 2 * (2 * memory_move_ms(system, 2.0 * query) + 2 * memory_move_ms(system, 2.0 * key))
    return FUSED_EXTRA_FACTOR * extra
