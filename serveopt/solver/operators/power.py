"""Power that a GPU drew while an operator was measured, in watts, where somebody collected it.

Linear between the measured points along every axis that a latency is read along; outside, that of the nearest point.
The tables are those of latencies with watts in their place, rows without any left out (b200_sxm, vllm 0.22.0: attention
and experts), so that one way of finding rows serves both. An operator without watts has None.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from serveopt.errors import MissingTable
from serveopt.perfdata.store import Database, Table
from serveopt.solver.operators import descriptions as ops
from serveopt.solver.operators.grid_pricing import price_grid
from serveopt.solver.operators.moe import FAST_QUANT, FEW_TOKENS, model_experts, moe_shape
from serveopt.solver.operators.pricing import Pricing
from serveopt.solver.operators.sequence_pricing import SPECIAL

if TYPE_CHECKING:
    from serveopt.solver.operators.curve import TokenCurve
    from serveopt.solver.operators.sequence import GridPrice

COLUMN = "power_w"
SOURCES = ("silicon", "mixed", "estimated")  # of latencies that rest on the operator's own measurements


class PowerTables(Database):
    """The tables of a database with watts for latencies; a table without any is missing."""

    def __init__(self, database: Database) -> None:
        super().__init__(database.system, database.backend, database.version, (), database.paths)
        self._plain = database

    def table(self, name: str) -> Table | None:
        """Return the rows with watts."""
        if name not in self._cache:
            self._cache[name] = with_watts(self._plain.table(name))
        return self._cache[name]


def with_watts(table: Table | None) -> Table | None:
    """The rows of a table that have watts, which stand for latencies in it; None where there are none."""
    if table is None or COLUMN not in table.values:
        return None
    rows = np.flatnonzero(np.isfinite(table.values[COLUMN]))
    columns = {name: column[rows] for name, column in table.columns.items()}
    values = {"latency_ms": table.values[COLUMN][rows]}
    return replace(table, columns=columns, values=values, source=table.source[rows]) if rows.size else None


def power_pricing(pricing: Pricing) -> Pricing:
    """A pricing over the watts of the same tables."""
    return pricing.built(
        COLUMN,
        lambda own: Pricing(PowerTables(own.database), own.system, own.cost_model, own.attention_backend),
    )


def token_power(pricing: Pricing, operator: ops.Operator, tokens: float) -> float | None:
    """Watts of a token operator at so many tokens of the step; only experts were measured with them."""
    if not isinstance(operator, ops.Moe) or pricing.token_curve(operator).source not in SOURCES:
        return None
    tokens *= operator.share
    few = expert_watts(pricing, operator, fast=True) if operator.quant == FAST_QUANT and operator.gated else None
    curve = few if few is not None and tokens <= FEW_TOKENS else expert_watts(pricing, operator, fast=False) or few
    return None if curve is None else float(np.interp(tokens, curve.tokens, curve.latency_ms))


def expert_watts(pricing: Pricing, operator: ops.Moe, fast: bool) -> "TokenCurve | None":
    """Watts of the fused experts over tokens, of the kernel for few tokens or of the others."""
    try:
        table = model_experts(power_pricing(pricing), (operator.experts, operator.hidden), fast)
    except MissingTable:
        return None
    return table.curve(moe_shape(operator), operator.distribution)


def prompt_power(pricing: Pricing, operator: ops.SequenceOperator, prompts: int, tokens: int) -> float | None:
    """Watts of the prefill of so many prompts of so many tokens, cached ones included."""
    found = sequence_watts(pricing, operator)
    return (
        interpolate(found.measured.axes, found.measured.latency_ms, (found.heads, tokens, prompts)) if found else None
    )


def decode_power(pricing: Pricing, operator: ops.SequenceOperator, batch: float, length: float) -> float | None:
    """Watts of the decode of a batch at one length of the KV cache."""
    found = sequence_watts(pricing, operator)
    return interpolate(found.measured.axes, found.measured.latency_ms, (found.heads, batch, length)) if found else None


def sequence_watts(pricing: Pricing, operator: ops.SequenceOperator) -> "GridPrice | None":
    """The slice of watts of a sequence operator."""
    if type(operator) in SPECIAL or pricing.sequence(operator).source not in SOURCES:
        return None
    try:
        return price_grid(power_pricing(pricing), operator)  # type: ignore[return-value]
    except MissingTable:
        return None


def interpolate(axes: Sequence[np.ndarray], values: np.ndarray, point: Sequence[float]) -> float:
    """The value at a point, linear between the neighbours along each axis, held at the ends.

    >>> interpolate([np.array([1, 1, 4]), np.array([8, 16, 8])], np.array([100.0, 200.0, 400.0]), (2, 12))
    233.33333333333331
    """
    if not axes:
        return float(values[0])
    keys = np.unique(axes[0])
    at = float(np.clip(point[0], keys[0], keys[-1]))
    upper = int(np.searchsorted(keys, at))
    ends = (keys[upper],) if keys[upper] == at else (keys[upper - 1], keys[upper])
    parts = [
        interpolate([axis[axes[0] == key] for axis in axes[1:]], values[axes[0] == key], point[1:]) for key in ends
    ]
    return float(np.interp(at, ends, parts))
