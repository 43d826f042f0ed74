"""Where a token operator's price comes from when it is asked for in one of four data modes.

    silicon     the measured table; a miss is an error
    hybrid      the measured table; on a miss, a related measurement
    empirical   roofline / efficiency, the efficiency interpolated over the logarithm of tokens
    sol         the roofline

A related measurement is another operator that was measured (the nearest shape, another quantisation, another group of
GPUs). It lends its efficiency, corrected by what the two quantisations typically reach:

    t(tokens) = roofline(tokens) / (efficiency of the relative(tokens) * scale)

Where nothing related was measured either: the roofline at a typical efficiency. Source: specs/op_model.md 3.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from serveopt.errors import MissingTable
from serveopt.perfdata.quant_modes import Mode
from serveopt.perfdata.systems import SystemSpec
from serveopt.solver.operators import descriptions as ops
from serveopt.solver.operators.curve import FAR_TOKENS, Bound, TokenCurve

if TYPE_CHECKING:
    from serveopt.solver.operators.pricing import Pricing

SUBDIVISIONS = 4  # knots put between two measurements where an efficiency, not a latency, is interpolated
# Efficiency that kernels typically reach, by (bytes per weight, multiple of bf16 arithmetic): op_model.md 3.
GEMM_EFFICIENCY = {
    (2.0, 1): 0.70, (1.0, 1): 0.55, (0.5625, 1): 0.45, (0.5, 1): 0.45, (1.0, 2): 0.45, (0.5, 2): 0.35,
    (1.0, 4): 0.30, (0.5, 4): 0.30, (0.5625, 4): 0.30,
}  # fmt: skip
MOE_EFFICIENCY = {
    (2.0, 1): 0.53, (1.0, 1): 0.45, (0.5625, 1): 0.07, (0.5, 1): 0.07, (1.0, 2): 0.40, (0.5, 2): 0.15,
    (1.0, 4): 0.30, (0.5, 4): 0.23, (0.5625, 4): 0.23,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Relative:
    """A measured operator whose efficiency stands for another's; ``scale``: wanted over own typical efficiency."""

    operator: ops.TokenOperator
    scale: float = 1.0


def alone(pricing: "Pricing", operator: ops.TokenOperator) -> Iterable[Relative]:
    """No relatives."""
    return ()


@dataclass(frozen=True, slots=True)
class TokenPrice:
    """How one kind of token operator is priced.

    ``measured`` reads the tables, ``bound`` is the roofline, ``relatives`` yields measured operators, the most alike
    first, ``typical`` the efficiency where nothing alike was measured. ``formula``: priced without any table.
    """

    measured: Callable[["Pricing", Any], TokenCurve]
    bound: Callable[[SystemSpec, Any], Bound]
    relatives: Callable[["Pricing", Any], Iterable[Relative]] = alone
    typical: float = 0.5
    formula: bool = False


def resolve(pricing: "Pricing", price: TokenPrice, operator: ops.TokenOperator) -> TokenCurve:
    """The curve of an operator in the pricing's data mode."""
    return MODES[pricing.mode](pricing, price, operator)


def from_table(pricing: "Pricing", price: TokenPrice, operator: ops.TokenOperator) -> TokenCurve:
    """The measured curve."""
    return price.measured(pricing, operator)


def from_table_or_relative(pricing: "Pricing", price: TokenPrice, operator: ops.TokenOperator) -> TokenCurve:
    """The measured curve, else a related one."""
    try:
        return price.measured(pricing, operator)
    except MissingTable:
        return transferred(pricing, price, operator)


def from_efficiency(pricing: "Pricing", price: TokenPrice, operator: ops.TokenOperator) -> TokenCurve:
    """Roofline over the efficiency of the operator's own measurements, else of a related one."""
    if price.formula:
        return price.measured(pricing, operator)
    try:
        own = price.measured(pricing, operator)
    except MissingTable:
        return transferred(pricing, price, operator)
    bound = price.bound(pricing.system, operator)
    return by_efficiency(own, bound, bound, 1.0)


def from_roofline(pricing: "Pricing", price: TokenPrice, operator: ops.TokenOperator) -> TokenCurve:
    """The roofline."""
    return bound_curve(price.bound(pricing.system, operator), 1.0)


MODES: MappingProxyType[str, Callable[["Pricing", TokenPrice, Any], TokenCurve]] = MappingProxyType(
    {
        "silicon": from_table,
        "hybrid": from_table_or_relative,
        "empirical": from_efficiency,
        "sol": from_roofline,
    }
)


def transferred(pricing: "Pricing", price: TokenPrice, operator: ops.TokenOperator) -> TokenCurve:
    """The roofline at the efficiency of the first relative that was measured, else at the typical one."""
    bound = price.bound(pricing.system, operator)
    for relative in price.relatives(pricing, operator):
        try:
            curve = price.measured(pricing, relative.operator)
        except MissingTable:
            continue
        return by_efficiency(curve, price.bound(pricing.system, relative.operator), bound, relative.scale)
    return bound_curve(bound, price.typical)


def by_efficiency(curve: TokenCurve, own: Bound, wanted: Bound, scale: float) -> TokenCurve:
    """``wanted`` over the efficiency own / curve, which is linear in the logarithm of tokens between knots."""
    known = (curve.tokens > 0) & (curve.latency_ms > 0)
    if not known.any():
        return curve  # one GPU has nothing to exchange
    tokens, latency = curve.tokens[known], curve.latency_ms[known]
    efficiency = own(tokens) / latency
    usable = np.isfinite(efficiency) & (efficiency > 0)
    at = np.log(tokens[usable])
    knots = np.exp(np.unique(np.concatenate([at, *(at[:-1] + np.diff(at) * i / SUBDIVISIONS for i in (1, 2, 3))])))
    knots[np.searchsorted(knots, tokens[usable] * (1 - 1e-12))] = tokens[usable]
    return TokenCurve(knots, wanted(knots) / (np.interp(np.log(knots), at, efficiency[usable]) * scale), "empirical")


def bound_curve(bound: Bound, efficiency: float) -> TokenCurve:
    """The roofline over an efficiency, as a curve; bounds bend where memory gives way to arithmetic."""
    knots = np.unique(np.concatenate([np.arange(1.0, 65.0), np.round(np.geomspace(64.0, 1e6, 240)), [FAR_TOKENS]]))
    ms = bound(knots)
    slopes = np.diff(ms) / np.diff(knots)
    bends = np.append(np.abs(np.diff(slopes)) > 1e-9 * np.abs(slopes[1:]), True)
    keep = np.concatenate([[True], bends])
    return TokenCurve(knots[keep], ms[keep] / efficiency, "sol")


def other_modes(
    wanted: str, measured: Iterable[str], modes: MappingProxyType[str, Mode], typical: dict[tuple[float, int], float]
) -> Iterable[tuple[str, float]]:
    """(quantisation, scale) of the measured ones other than ``wanted``, the most alike arithmetic first."""
    own = modes[wanted]
    alike = typical.get((own.bytes_per_element, own.compute_multiple), 0.4)
    others = [(name, modes[name]) for name in measured if name != wanted and name in modes]

    def unlike(entry: tuple[str, Mode]) -> tuple[int, float]:
        mode = entry[1]
        return abs(mode.compute_multiple - own.compute_multiple), abs(mode.bytes_per_element - own.bytes_per_element)

    for name, mode in sorted(others, key=unlike):
        yield name, alike / typical.get((mode.bytes_per_element, mode.compute_multiple), 0.4)
