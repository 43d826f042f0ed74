"""Statically scaled fp8: the fp8 GEMM without the passes that a checkpoint's static scales make needless.

    t(fp8_static) = t(fp8) - t(compute scale) - [input already quantised] t(scale matrix)      >= roofline

Source: specs/op_model.md 2.1. The two passes are tables over (m, k), linear in both, k held at the table's ends.
"""

import numpy as np

from serveopt.errors import MissingTable
from serveopt.perfdata.store import Table
from serveopt.perfdata.systems import SystemSpec
from serveopt.solver.operators.curve import FAR_TOKENS, TokenCurve
from serveopt.solver.operators.gemm import spread
from serveopt.solver.operators.rooflines import gemm_bound_ms


def pass_curve(table: Table | None, name: str, k: int, grows: bool) -> TokenCurve:
    """Latency over tokens of one quantisation pass on [tokens, k]; beyond the table flat, or growing with m k."""
    if table is None:
        raise MissingTable(name, f"k={k}")
    columns = table.columns
    m_axis, k_axis = np.unique(columns["m"]), np.unique(columns["k"])
    at = [np.searchsorted(m_axis, columns["m"]), np.searchsorted(k_axis, columns["k"])]
    grid = spread(at, [m_axis.size, k_axis.size], table.values["latency_ms"])
    held = float(np.clip(k, k_axis[0], k_axis[-1]))
    row = np.array([np.interp(held, k_axis[~np.isnan(g)], g[~np.isnan(g)]) for g in grid])
    last = float(m_axis[-1])
    tail = row[-1] * FAR_TOKENS / last if grows else row[-1]
    scale = k / held if grows else 1.0
    return TokenCurve(np.append(m_axis.astype(np.float64), FAR_TOKENS), np.append(row, tail) * scale, "silicon")


def static_fp8_curve(fp8: TokenCurve, passes: list[TokenCurve], system: SystemSpec, n: int, k: int) -> TokenCurve:
    """The fp8 curve less the passes, never below the roofline."""
    knots = np.unique(np.concatenate([fp8.tokens, *(curve.tokens for curve in passes)]))
    latency = np.interp(knots, fp8.tokens, fp8.latency_ms)
    for curve in passes:
        latency = latency - np.interp(knots, curve.tokens, curve.latency_ms)
    bound = gemm_bound_ms(system, "fp8_static", knots, float(n), float(k))
    above = latency - bound
    crossed = np.flatnonzero(above[:-1] * above[1:] < 0)
    if crossed.size:
        # The curve bends where it meets the roofline: between knots, so a knot is put there.
        share = above[crossed] / (above[crossed] - above[crossed + 1])
        knots = np.insert(knots, crossed + 1, knots[crossed] + share * np.diff(knots)[crossed])
        latency = np.insert(latency, crossed + 1, latency[crossed] + share * np.diff(latency)[crossed])
        bound = gemm_bound_ms(system, "fp8_static", knots, float(n), float(k))
    return TokenCurve(knots, np.maximum(latency, bound), "estimated")
