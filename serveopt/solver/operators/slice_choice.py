"""Which slice of a table serves a sequence operator: its own key in the first lane that has it, else the nearest.

Nearest: slices differ in few columns, weighted by how much each changes efficiency (DISTANCES).
"""

from collections.abc import Mapping
from dataclasses import fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from serveopt.perfdata.store import Table
from serveopt.perfdata.versions import attention_lanes
from serveopt.solver.operators import descriptions as ops
from serveopt.solver.operators.sequence_kinds import LENGTH, ONE, Kind
from serveopt.solver.operators.slices import Key, SliceIndex, index_slices

if TYPE_CHECKING:
    from serveopt.solver.operators.pricing import Pricing

WIDE_MLA_KERNELS = ("flashinfer", "fa3")
# What a mismatch of a key column costs when the nearest slice is sought; sizes cost |log2| of their ratio times this.
DISTANCES: Mapping[str, float] = MappingProxyType(
    {"kernel_source": 100.0, "phase": 100.0, "op_name": 100.0, "architecture": 4.0, "window_size": 4.0,
     "gemm_type": 2.0,
     "kv_cache_dtype": 1.0, "attn_dtype": 1.0, "mla_dtype": 1.0, "bmm_dtype": 1.0, "skips": 1.0}
)  # fmt: skip
# Rows of kernels that serve the same purpose under another name, tried after the kernel's own.
KERNEL_NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "fused_sigmoid_gating_delta_rule_update": (
            "fused_recurrent_gated_delta_rule_packed_decode", "fused_recurrent_gated_delta_rule"
        ),
        "chunk_gated_delta_rule": (
            "chunk_gated_delta_rule_flashinfer", "chunk_gated_delta_rule_triton", "chunk_gated_delta_rule_cutedsl"
        ),
        "chunk_kda": ("flashkda_fwd",),
    }
)  # fmt: skip


def table_index(pricing: "Pricing", kind: Kind, table: Table) -> SliceIndex:
    """The index of a table by the columns of a kind, made once per pricing."""
    names = tuple(column for column, _ in kind.keys) + ((kind.lane,) if kind.lane else ())
    place = (table.name, names)
    if place not in pricing.slice_indices:
        pricing.slice_indices[place] = index_slices(table, names, kind.derived)
    return pricing.slice_indices[place]


def wanted_key(operator: ops.SequenceOperator, kind: Kind) -> Key:
    """The key of an operator, kernel lane left out."""
    return tuple(attribute(operator, name) for _, name in kind.keys)


def attribute(operator: Any, name: str) -> object:
    """A field of an operator as tables spell it."""
    if name == "stored_kv_heads":
        return 0 if operator.kv_heads == operator.heads else operator.kv_heads
    if name == "skips":
        return 0
    if name == "name":
        return f"mla_gen_{operator.step}"
    return getattr(operator, name)


def lane_choices(
    pricing: "Pricing", kind: Kind, table: Table, operator: Any, index: SliceIndex
) -> list[tuple[str, ...]]:
    """Groups of lanes, best first; the first group that holds the slice serves it alone."""
    if not kind.lane:
        return [()]
    if kind.lane == "bucket":
        first, second = ("flashmla_kv", "trtllm") if getattr(operator, "cp", 1) > 1 else ("trtllm", "flashmla_kv")
        return [(first, "both"), (second, "both")]
    known = sorted({str(key[-1]) for key in index.rows})
    if isinstance(operator, ops.WideEpMla):
        order = (operator.kernel, *(name for name in WIDE_MLA_KERNELS if name != operator.kernel), *known)
    else:
        place = (pricing.database.backend, pricing.database.version, pricing.system.sm_version)
        order = (*attention_lanes(table, *place, pricing.attention_backend), *known)
    return [(lane,) for lane in dict.fromkeys(order)]


def find_rows(table: Table, index: SliceIndex, keys: list[Key], lanes: list[tuple[str, ...]]) -> np.ndarray | None:
    """Rows of the first group of lanes that holds one of the keys, in file order; of several keys the best source's."""
    for group in lanes:
        found = []
        for key in keys:
            full = [(*key, lane) for lane in group] if group else [key]
            parts = [index.rows[one] for one in full if one in index.rows]
            if parts:
                found.append(np.sort(np.concatenate(parts)) if len(parts) > 1 else parts[0])
        if found:
            return min(found, key=lambda rows: int(table.source[rows[0]]))
    return None


def spellings(kind: Kind, key: Key) -> list[Key]:
    """The key, and the same with kernels that serve the same purpose."""
    if not kind.keys or kind.keys[0][0] != "kernel_source":
        return [key]
    return [key, *((name, *key[1:]) for name in KERNEL_NAMES.get(str(key[0]), ()))]


def nearest_key(index: SliceIndex, kind: Kind, key: Key) -> tuple[Key, float]:
    """(the measured key nearest to ``key``, lane included; its distance)."""
    columns = [column for column, _ in kind.keys]

    def distance(other: Key) -> float:
        total = 0.0
        for column, mine, theirs in zip(columns, key, other, strict=False):
            if mine == theirs:
                continue
            weight = DISTANCES.get(column, 1.0)
            if isinstance(mine, int) and isinstance(theirs, int) and mine > 0 and theirs > 0:
                total += weight * abs(np.log2(mine / theirs))
            else:
                total += weight
        return total

    best = min(index.rows, key=lambda other: (distance(other), str(other)))
    return best, distance(best)


def as_measured(operator: Any, kind: Kind, key: Key) -> Any:
    """The operator as it would be with the key's sizes and types: what the slice's roofline is computed for."""
    known = {field.name for field in fields(operator)}
    changed: dict[str, Any] = {}
    for (_, name), value in zip(kind.keys, key, strict=False):
        if name in known:
            changed[name] = value
        elif name == "stored_kv_heads":
            changed["kv_heads"] = value or operator.heads
    return replace(operator, **changed)


def axis_values(columns: Mapping[str, np.ndarray], name: str, rows: np.ndarray) -> np.ndarray:
    """float64[rows]: the values of an axis."""
    if name == ONE:
        return np.ones(rows.size)
    if name == LENGTH:
        values = columns["step"][rows].astype(np.float64)
        return values + columns["isl"][rows] if "isl" in columns else values + 1.0
    return columns[name][rows].astype(np.float64)


def describe(kind: Kind, key: Key, index: SliceIndex) -> str:
    """The key that is missing, and what was measured in the first column that has no such value."""
    text = ", ".join(f"{column}={value}" for (column, _), value in zip(kind.keys, key, strict=True))
    for at, value in enumerate(key):
        known = {other[at] for other in index.rows}
        if value not in known:
            return f"{text} (measured {kind.keys[at][0]}: {', '.join(map(str, sorted(known, key=str)))})"
    return text
