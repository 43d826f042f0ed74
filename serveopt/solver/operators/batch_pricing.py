"""Prices of decode kernels whose cost depends on the batch alone, and of linear attention in general.

A curve over sequences (or, with drafts, over their tokens), ends held by the roofline.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from serveopt.kernels.grids import fill_bounds
from serveopt.kernels.records import Roofline
from serveopt.perfdata.store import Table
from serveopt.solver.operators import descriptions as ops
from serveopt.solver.operators.curve import FAR_TOKENS, TokenCurve, line
from serveopt.solver.operators.grid_pricing import bare, finish, price_grid
from serveopt.solver.operators.sequence import CurvePrice, SequencePrice, SumPrice
from serveopt.solver.operators.sequence_bounds import BOUNDS, FUSED_KDA
from serveopt.solver.operators.sequence_kinds import Kind, kind_of
from serveopt.solver.operators.slice_choice import (
    DISTANCES,
    as_measured,
    find_rows,
    nearest_key,
    spellings,
    table_index,
    wanted_key,
)
from serveopt.solver.operators.slices import SliceIndex

if TYPE_CHECKING:
    from serveopt.solver.operators.pricing import Pricing


def price_bmm(pricing: "Pricing", operator: ops.MlaBmm) -> SequencePrice:
    """An absorbed up-projection: a curve over the batch; types not measured are priced as bfloat16."""
    kind = kind_of(operator)
    table = pricing.database.table("mla_bmm") if pricing.mode != "sol" else None
    if table is None and pricing.mode == "silicon":
        pricing.require("mla_bmm")
    factor = 1.0
    measured = operator
    if table is not None:
        index = table_index(pricing, kind, table)
        quants = {key[0] for key in index.rows}
        measured = replace(operator, quant=operator.quant if operator.quant in quants else "bfloat16")
        if wanted_key(measured, kind) not in index.rows:
            power = 1 << max(0, operator.heads - 1).bit_length()
            measured, factor = replace(measured, heads=power), operator.heads / power
    price = price_batches(pricing, measured)
    return SumPrice(((factor, price),)) if factor != 1.0 else price


def price_batches(pricing: "Pricing", operator: Any) -> SequencePrice:
    """A decode kernel as a curve over the batch, ends held by the roofline."""
    kind, roof, heads = kind_of(operator), BOUNDS[type(operator)](pricing.system, operator), batch_heads(operator)
    table = pricing.database.table(kind.table(operator)) if pricing.mode != "sol" else None
    knots, source = np.array([1.0]), "sol"
    latency = bounds_over(roof, heads, knots)
    if table is not None:
        index = table_index(pricing, kind, table)
        key = wanted_key(operator, kind)
        rows = find_rows(table, index, spellings(kind, key), [()])
        if rows is None:
            return unmeasured_batches(pricing, operator, kind, index)
        knots, latency = batch_knots(table, kind, operator, rows)
        source = "silicon"
    if pricing.mode == "empirical" and table is not None:
        source = "empirical"
    return CurvePrice(extend(knots, latency, (roof, heads), source), state_bound(operator, roof))


def batch_knots(table: Table, kind: Kind, operator: Any, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(sequences or tokens, ms) of the rows, sorted; of speculation only the nearest draft length."""
    columns = table.columns
    batch = columns[kind.generation_axes[1]][rows].astype(np.float64)
    drafts = getattr(operator, "draft_tokens", 0)
    if getattr(operator, "phase", "") == "verify" and drafts:
        lengths = columns["seq_len"][rows].astype(np.float64)
        nearest = lengths[np.argmin(np.abs(np.log2(lengths / drafts)))]
        rows, batch = rows[lengths == nearest], batch[lengths == nearest] * nearest
    knots, first = np.unique(batch, return_index=True)
    return knots, table.values["latency_ms"][rows][first].astype(np.float64)


def unmeasured_batches(pricing: "Pricing", operator: Any, kind: Kind, index: SliceIndex) -> SequencePrice:
    """A kernel geometry that was not measured: the nearest one's efficiency, or the roofline where the mode says so."""
    roof, heads = BOUNDS[type(operator)](pricing.system, operator), batch_heads(operator)
    key = wanted_key(operator, kind)
    near, far = nearest_key(index, kind, key)
    if far >= DISTANCES["kernel_source"] or (pricing.mode == "silicon" and pricing.cost_model == "reference"):
        one = np.array([1.0])
        return CurvePrice(extend(one, bounds_over(roof, heads, one), (roof, heads), "sol"), state_bound(operator, roof))
    table = pricing.database.table(kind.table(operator))
    assert table is not None
    other = as_measured(operator, kind, near)
    knots, latency = batch_knots(table, kind, other, index.rows[near])
    ratio = bounds_over(roof, heads, knots) / bounds_over(BOUNDS[type(operator)](pricing.system, other), heads, knots)
    return CurvePrice(extend(knots, latency * ratio, (roof, heads), "estimated"), state_bound(operator, roof))


def state_bound(operator: Any, roof: Roofline) -> tuple[Roofline, float] | None:
    """The bound of a kernel whose drafts share a state; verify kernels were measured with their drafts."""
    keeps = isinstance(operator, ops.StateKernel | ops.Mamba2) and operator.phase == ops.GENERATION
    return (roof, 1.0) if keeps else None


def batch_heads(operator: Any) -> float:
    """The heads that multiply an operator's bound; state kernels carry them in their constants."""
    return float(operator.heads) if isinstance(operator, ops.MlaBmm) else 1.0


def bounds_over(roof: Roofline, heads: float, batches: np.ndarray) -> np.ndarray:
    """float64[n]: the bound of every batch."""
    out = np.zeros(batches.size)
    fill_bounds(roof, heads, batches, np.ones(batches.size), out)
    return out


def extend(knots: np.ndarray, latency: np.ndarray, bound: tuple[Roofline, float], source: str) -> TokenCurve:
    """The curve held by its ``bound`` (roofline, heads) below and above the measurements."""
    roof, heads = bound
    beyond = np.array([knots[-1] * 2.0, knots[-1] * 64.0, FAR_TOKENS])
    tail = bounds_over(roof, heads, beyond) * latency[-1] / bounds_over(roof, heads, knots[-1:])[0]
    head = np.array(
        [latency[0] * bounds_over(roof, heads, np.array([1e-9]))[0] / bounds_over(roof, heads, knots[:1])[0]]
    )
    return TokenCurve(np.concatenate([[0.0], knots, beyond]), np.concatenate([head, latency, tail]), source)


def price_state(pricing: "Pricing", operator: ops.StateKernel | ops.Mamba2) -> SequencePrice:
    """A linear attention kernel; one that a fused kernel replaces costs nothing, or what the fused one does."""
    fused = fused_kernel(pricing, operator) if isinstance(operator, ops.StateKernel) else None
    if fused is not None and isinstance(operator, ops.StateKernel):
        if "conv1d" in operator.kernel:
            return CurvePrice(line(0.0, 0.0, "silicon"))
        operator = replace(operator, kernel=fused)
    if operator.phase != ops.CONTEXT:
        return price_batches(pricing, operator)
    if pricing.mode != "sol" and lends_efficiency(pricing, operator):
        return price_grid(pricing, operator, transfer=pricing.cost_model == "measured")
    # Kernels of linear attention are bound by their bytes: one that was not measured takes its roofline.
    roof = BOUNDS[type(operator)](pricing.system, operator)
    return finish(pricing, operator, bare(1.0, roof), roof, "sol")


def lends_efficiency(pricing: "Pricing", operator: Any) -> bool:
    """True if the kernel was measured, or another geometry of it that may lend its efficiency."""
    kind = kind_of(operator)
    table = pricing.database.table(kind.table(operator))
    if table is None:
        return False
    index, key = table_index(pricing, kind, table), wanted_key(operator, kind)
    if find_rows(table, index, spellings(kind, key), [()]) is not None:
        return True
    alike = pricing.cost_model == "measured" or pricing.mode != "silicon"
    return alike and nearest_key(index, kind, key)[1] < DISTANCES["kernel_source"]


def fused_kernel(pricing: "Pricing", operator: ops.StateKernel) -> str | None:
    """The kernel that does convolution and recurrence at once where only that one was measured."""
    if (
        operator.table != "kda"
        or operator.phase == ops.CONTEXT
        or operator.kernel in FUSED_KDA
        or pricing.mode == "sol"
    ):
        return None
    table = pricing.database.table("kda")
    if table is None:
        return None
    kind = kind_of(operator)
    index = table_index(pricing, kind, table)
    key = wanted_key(operator, kind)
    for name in FUSED_KDA:
        if (name, *key[1:]) in index.rows and not any(
            (other, *key[1:]) in index.rows for other in ("fused_recurrent_kda", "fused_recurrent_kda_packed_decode")
        ):
            return name
    return None
