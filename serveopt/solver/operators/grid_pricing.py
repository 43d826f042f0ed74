"""From a sequence operator to its price: the slice that serves it, in the data mode asked for.

    silicon     the measured slice, else MissingTable
    hybrid      the same, else the efficiency of the nearest slice of the table under the operator's own roofline
    empirical   the efficiency of the slice, or of the nearest one
    sol         the roofline

Where a table holds
nothing at all, hybrid and empirical charge the roofline at TYPICAL_EFFICIENCY, marked estimated.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from serveopt.errors import MissingTable
from serveopt.kernels.records import Roofline
from serveopt.perfdata.store import Table
from serveopt.solver.operators import descriptions as ops
from serveopt.solver.operators.attention import fused_extras
from serveopt.solver.operators.sequence import GridPrice, SequencePrice, averaged
from serveopt.solver.operators.sequence_bounds import BOUNDS, as_collected, is_collected
from serveopt.solver.operators.sequence_kinds import ONE, Kind, kind_of
from serveopt.solver.operators.slice_choice import (
    as_measured,
    axis_values,
    describe,
    find_rows,
    lane_choices,
    nearest_key,
    spellings,
    table_index,
    wanted_key,
)
from serveopt.solver.operators.slices import Measured, single_leaf

if TYPE_CHECKING:
    from serveopt.solver.operators.pricing import Pricing

TYPICAL_EFFICIENCY = 0.4  # of the roofline, where nothing of the kind was measured


def price_grid(pricing: "Pricing", operator: Any, transfer: bool = False) -> SequencePrice:
    """The price read from a slice of measurements, as the data mode says.

    ``transfer``: the nearest slice lends its efficiency in the silicon mode too, marked estimated.
    """
    kind, bound = kind_of(operator), BOUNDS[type(operator)]
    roof = bound(pricing.system, operator)
    generation = getattr(operator, "phase", ops.CONTEXT) != ops.CONTEXT or isinstance(operator, ops.GenerationAttention)
    if pricing.mode == "sol":
        return finish(pricing, operator, bare(1.0, roof), roof, "sol")
    table = pricing.database.table(kind.table(operator))
    if table is None:
        if pricing.mode == "silicon":
            pricing.require(kind.table(operator))
        return finish(pricing, operator, bare(TYPICAL_EFFICIENCY, roof), roof, "estimated")
    index, key = table_index(pricing, kind, table), wanted_key(operator, kind)
    rows = find_rows(table, index, spellings(kind, key), lane_choices(pricing, kind, table, operator, index))
    if rows is not None and is_collected(operator):
        measured = read_measured(table, kind, rows, roof, generation)
        measured.held = pricing.mode == "empirical"
        source = "empirical" if measured.held else "silicon"
        return finish(pricing, operator, measured, roof, source)
    if pricing.mode == "silicon" and not transfer:
        reason = describe(kind, key, index) if rows is None else "a block of these sizes"
        raise MissingTable(table.name, reason)
    near = key if rows is not None else nearest_key(index, kind, key)[0]
    rows = index.rows[near] if rows is None else rows
    other = bound(pricing.system, as_measured(as_collected(operator), kind, near))
    measured = read_measured(table, kind, rows, other, generation)
    measured.held = pricing.mode == "empirical"
    source = "estimated" if pricing.mode == "silicon" else "empirical"
    return finish(pricing, operator, measured, roof, source, transferred=True)


def bare(efficiency: float, roof: Roofline) -> Measured:
    """A slice without measurements: one efficiency everywhere."""
    empty = np.zeros(0)
    return Measured((empty, empty, empty), None, empty, roof, grids={0.0: single_leaf(efficiency)})


def read_measured(table: Table, kind: Kind, rows: np.ndarray, roof: Roofline, generation: bool) -> Measured:
    """The slice of some rows of a table."""
    columns = table.columns
    a, b, c = (axis_values(columns, name, rows) for name in (kind.generation_axes if generation else kind.context_axes))
    prefix = columns[kind.prefix][rows].astype(np.float64) if kind.prefix and not generation else None
    return Measured((a, b, c), prefix, table.values["latency_ms"][rows], roof, kind.clamp)


def finish(
    pricing: "Pricing", operator: Any, measured: Measured, roof: Roofline, source: str, transferred: bool = False
) -> GridPrice:
    """The price of an operator from its slice."""
    kind = kind_of(operator)
    extra, per_token = (0.0, 0.0)
    if isinstance(operator, ops.ContextAttention) and pricing.mode != "sol":
        extra, per_token = fused_extras(pricing.system, operator, pricing.cost_model)
        source = "mixed" if source == "silicon" else source
    tabled = source in ("silicon", "mixed") or transferred
    heads_axis = (kind.generation_axes if roof.kind else kind.context_axes)[0]
    return GridPrice(
        measured=measured,
        roof=roof,
        heads=1.0 if heads_axis == ONE else float(operator.heads),
        source=source,
        rule=kind.rule if tabled and pricing.cost_model == "reference" else "planes",
        power=getattr(kind.power, pricing.cost_model),
        by_bound=kind.by_bound and pricing.cost_model == "measured",
        spread=averaged(kind.spread),
        cp=getattr(operator, "cp", 1),
        transferred=transferred,
        extra_ms=extra,
        extra_ms_per_token=per_token,
    )
