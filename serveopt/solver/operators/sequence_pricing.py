"""From a sequence operator to its price: a row of a table, most of them measured grids (grid_pricing.py)."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from serveopt.solver.operators import descriptions as ops
from serveopt.solver.operators.batch_pricing import price_bmm, price_state
from serveopt.solver.operators.grid_pricing import finish, price_grid, read_measured
from serveopt.solver.operators.sequence import GridPrice, SequencePrice, SumPrice
from serveopt.solver.operators.sequence_bounds import as_collected, bound_dsa, bound_dsv4, is_collected
from serveopt.solver.operators.sequence_kinds import Kind, kind_of
from serveopt.solver.operators.slice_choice import find_rows, lane_choices, table_index, wanted_key
from serveopt.solver.operators.slices import SliceIndex
from serveopt.solver.operators.topk import CorrectedPrice, read_correction

if TYPE_CHECKING:
    from serveopt.solver.operators.pricing import Pricing


def price_sequence(pricing: "Pricing", operator: ops.SequenceOperator) -> SequencePrice:
    """The price of one layer of an operator; MissingTable where it was not measured and the mode is silicon."""
    special = SPECIAL.get(type(operator))
    return special(pricing, operator) if special else price_grid(pricing, operator)


def price_dsa(pricing: "Pricing", operator: ops.Dsa) -> SequencePrice:
    """Sparse attention: layers that run the indexer and layers that reuse its choice, in their shares."""
    full = price_grid(pricing, operator)
    if operator.full_share >= 1.0 or pricing.mode == "sol":
        return full
    kind = kind_of(operator)
    table = pricing.database.table(kind.table(operator))
    if table is None:
        return full
    index = table_index(pricing, kind, table)
    key = (1, *wanted_key(operator, kind)[1:])
    rows = find_rows(table, index, [key], lane_choices(pricing, kind, table, operator, index))
    if rows is None:
        return full
    roof, own = bound_dsa(pricing.system, operator, skip=True), is_collected(operator)
    other = roof if own else bound_dsa(pricing.system, as_collected(operator), skip=True)
    measured = read_measured(table, kind, rows, other, operator.phase != ops.CONTEXT)
    measured.held = pricing.mode == "empirical"
    source = "silicon" if own and not measured.held else "empirical"
    skipping = finish(pricing, operator, measured, roof, source, transferred=not own)
    return SumPrice(((operator.full_share, full), (1.0 - operator.full_share, skipping)))


def price_dsv4(pricing: "Pricing", operator: ops.Dsv4) -> SequencePrice:
    """Compressed attention, less what its top-k selection was overcharged for."""
    kind = kind_of(operator)
    table = pricing.database.table(kind.table(operator))
    own = operator
    if table is not None and pricing.mode != "sol":
        operator = nearest_split(table_index(pricing, kind, table), kind, operator)
    module = price_grid(pricing, operator)
    if own.heads != operator.heads and pricing.cost_model == "measured" and isinstance(module, GridPrice):
        # Fewer or more heads than were measured: their share of the roofline.
        roof = bound_dsv4(pricing.system, own)
        module = replace(module, roof=roof, transferred=True, source="estimated")
    if operator.kind != "csa" or pricing.mode == "sol":
        return module
    selector = "v1" if operator.phase == ops.CONTEXT else "v2"
    correction = read_correction(pricing.database.table("dsv4_csa_topk_calib"), operator.native_heads, selector)
    return CorrectedPrice(module, correction) if correction else module


def nearest_split(index: SliceIndex, kind: Kind, operator: ops.Dsv4) -> ops.Dsv4:
    """The operator with the measured head counts that stand for its own: equal, else the largest below, else least."""
    native, heads = index.position("native"), index.position("num_heads")
    key = wanted_key(operator, kind)
    types = [other for other in index.rows if other[:native] == key[:native]]
    if not types:
        return operator
    chosen = at_most({int(str(other[native])) for other in types}, operator.native_heads)
    local = at_most({int(str(other[heads])) for other in types if other[native] == chosen}, operator.heads)
    return replace(operator, native_heads=chosen, heads=local)


def at_most(known: set[int], wanted: int) -> int:
    """``wanted`` if known, else the largest known below it, else the smallest.

    >>> at_most({8, 16}, 12), at_most({8, 16}, 4)
    (8, 8)
    """
    return max((value for value in known if value <= wanted), default=min(known))


SPECIAL: Mapping[type, Callable[["Pricing", Any], SequencePrice]] = MappingProxyType(
    {
        ops.Dsa: price_dsa,
        ops.Dsv4: price_dsv4,
        ops.MlaBmm: price_bmm,
        ops.StateKernel: price_state,
        ops.Mamba2: price_state,
    }
)
