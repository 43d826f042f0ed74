"""Hyper-connections of DeepSeek-V4: the mixing of residual streams before (pre) or behind (post) a block.

One curve over tokens per step, number of streams and hidden size. Source: specs/op_model.md 2.19.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from serveopt.errors import MissingTable
from serveopt.perfdata.store import Table
from serveopt.solver.operators.curve import TokenCurve, held_ends
from serveopt.solver.operators.curve_tables import CurveTable, list_values, nearest_keys
from serveopt.solver.operators.data_modes import Relative, TokenPrice
from serveopt.solver.operators.descriptions import Mhc
from serveopt.solver.operators.rooflines import hyper_connection_bound

if TYPE_CHECKING:
    from serveopt.solver.operators.pricing import Pricing

TABLE = "mhc_module"


def read_mhc(table: Table) -> CurveTable:
    """The measured steps."""
    return CurveTable.read(table, ("op_name", "hc_mult", "hidden_size"), "num_tokens")


def price_mhc(pricing: "Pricing", operator: Mhc) -> TokenCurve:
    """Latency over tokens of one step."""
    table = pricing.indexed(TABLE, read_mhc)
    points = table.curve((operator.step, operator.hc_mult, operator.hidden))
    if points is None:
        held = [key for key in table if key[0] == operator.step]
        text = f"{operator.step}, hc_mult={operator.hc_mult}, hidden_size={operator.hidden}"
        raise MissingTable(TABLE, f"{text} (measured hidden_size: {list_values(held, 2)})")
    bound = hyper_connection_bound(pricing.system, operator)
    return held_ends(points, bound, flat_head=pricing.cost_model == "measured")


def alike_steps(pricing: "Pricing", operator: Mhc) -> Iterable[Relative]:
    """The same step at the nearest measured width."""
    if pricing.database.table(TABLE) is None:
        return
    held = [key for key in pricing.indexed(TABLE, read_mhc) if key[0] == operator.step]
    for _, key in nearest_keys(held, {1: operator.hc_mult, 2: operator.hidden}):
        yield Relative(replace(operator, hc_mult=int(key[1]), hidden=int(key[2])))


MHC = TokenPrice(price_mhc, hyper_connection_bound, alike_steps, typical=0.5)
