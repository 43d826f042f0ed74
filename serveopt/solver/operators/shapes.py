"""Efficiency of a GEMM whose weight shape was not measured, from the measured shapes around it.

Both methods work on efficiency = roofline / latency, at every token count on its own.

    neighbours   four nearest shapes in (log2 n, log2 k), weights 1 / distance^2        (the reference's rule)
    regression   log2 efficiency fitted by a plane over the twelve nearest, weights 1 / distance^3, kept inside
                 the range of those twelve

``regression`` was chosen by leave-one-out error on the measured tables: ARCHITECTURE.md, "GEMM shapes that were not
measured", has the table and bench/gemm_leave_one_out.py makes it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from serveopt.solver.operators.gemm import GemmTable

NEIGHBOURS = 4
NEIGHBOUR_REACH = 2.0  # octaves
PLANE_SHAPES = 12


@dataclass(frozen=True)
class Sites:
    """Measured shapes and their efficiency at every knot.

    ``log_n``, ``log_k`` float64[sites]; ``efficiency`` float64[sites, knots + 1], NaN outside a shape's own curve. The
    last column is what a shape holds beyond its curve: the median of its last three measurements.
    """

    log_n: np.ndarray
    log_k: np.ndarray
    efficiency: np.ndarray

    @classmethod
    def read(cls, table: "GemmTable", knots: np.ndarray) -> "Sites":
        """The sites of a GEMM table, each curve linear between its own measurements."""
        log_n, log_k = np.meshgrid(np.log2(table.n), np.log2(table.k), indexing="ij")
        latency = table.latency_ms.reshape(-1, table.m.size)
        dense = interpolate_rows(table.m, latency, knots)
        bound = interpolate_rows(table.m, table.bound_ms.reshape(-1, table.m.size), knots)
        measured = ~np.isnan(latency).all(axis=1)
        at_points = (table.bound_ms.reshape(-1, table.m.size) / latency)[measured]
        # The last three measurements of every row, found from the right.
        from_right = np.cumsum(~np.isnan(at_points)[:, ::-1], axis=1)[:, ::-1]
        ends = np.where((from_right <= 3) & ~np.isnan(at_points), at_points, np.nan)
        held = np.nanmedian(ends[:, np.any(~np.isnan(ends), axis=0)], axis=1)
        efficiency = np.column_stack([(bound / dense)[measured], held])
        return cls(log_n.ravel()[measured], log_k.ravel()[measured], efficiency)

    @cached_property
    def spans(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """(knots, sites) groups in which the same shapes have data."""
        known = ~np.isnan(self.efficiency)
        patterns, group = np.unique(known, axis=1, return_inverse=True)
        return [
            (np.flatnonzero(group.ravel() == index), np.flatnonzero(patterns[:, index]))
            for index in range(patterns.shape[1])
        ]

    def without(self, site: int) -> "Sites":
        """The sites less one, for leave-one-out."""
        keep = np.arange(self.log_n.size) != site
        return Sites(self.log_n[keep], self.log_k[keep], self.efficiency[keep])


def interpolate_rows(m: np.ndarray, values: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """float64[rows, knots]: every row of ``values`` float64[rows, m] linear between its own non-NaN entries."""
    at = np.clip(np.searchsorted(m, knots, side="right") - 1, 0, m.size - 2)
    weight = (knots - m[at]) / (m[at + 1] - m[at])
    out = values[:, at] * (1.0 - weight) + values[:, at + 1] * weight
    exact = np.searchsorted(m, knots)
    hit = (exact < m.size) & (m[np.minimum(exact, m.size - 1)] == knots)
    out[:, hit] = values[:, exact[hit]]
    for row in np.flatnonzero(np.isnan(values).any(axis=1)):
        known = ~np.isnan(values[row])
        if known.any():
            out[row] = np.interp(knots, m[known], values[row, known], left=np.nan, right=np.nan)
    return out


def nearest_within_reach(dx: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """Indices of the four nearest shapes within two octaves, or within two on the axis that is not exceeded."""
    distance = np.hypot(dx, dy)
    near = distance <= NEIGHBOUR_REACH
    if not near.any():
        beyond = [bool((axis < 0).all()) for axis in (dx, dy)]
        other = np.abs(dy if beyond[0] else dx)
        near = other <= NEIGHBOUR_REACH if sum(beyond) == 1 else np.ones_like(near)
    candidates = np.flatnonzero(near)
    return candidates[np.argsort(distance[candidates], kind="stable")[:NEIGHBOURS]]


def blend_neighbours(sites: Sites, n: float, k: float) -> np.ndarray:
    """Efficiency float64[knots + 1] of shape (n, k): inverse-distance mean over the nearest shapes."""
    out = np.full(sites.efficiency.shape[1], np.nan)
    for knots, members in sites.spans:
        dx, dy = sites.log_n[members] - np.log2(n), sites.log_k[members] - np.log2(k)
        chosen = nearest_within_reach(dx, dy)
        weight = 1.0 / (dx[chosen] ** 2 + dy[chosen] ** 2 + 1e-12)
        out[knots] = weight @ sites.efficiency[np.ix_(members[chosen], knots)] / weight.sum()
    return out


def fit_plane(sites: Sites, n: float, k: float) -> np.ndarray:
    """Efficiency float64[knots + 1] of shape (n, k): a weighted plane through log2 efficiency of the nearest shapes."""
    out = np.full(sites.efficiency.shape[1], np.nan)
    for knots, members in sites.spans:
        dx, dy = sites.log_n[members] - np.log2(n), sites.log_k[members] - np.log2(k)
        distance = np.hypot(dx, dy)
        chosen = np.argsort(distance, kind="stable")[:PLANE_SHAPES]
        values = np.log2(sites.efficiency[np.ix_(members[chosen], knots)])
        root = np.sqrt(1.0 / (distance[chosen] ** 3 + 1e-3))[:, None]
        design = np.stack([np.ones(chosen.size), dx[chosen], dy[chosen]], axis=1)
        plane = np.linalg.lstsq(design * root, values * root, rcond=None)[0][0]
        out[knots] = 2.0 ** np.clip(plane, values.min(axis=0), values.max(axis=0))
    return out


SHAPE_METHODS: dict[str, Callable[[Sites, float, float], np.ndarray]] = {
    "reference": blend_neighbours,
    "measured": fit_plane,
}
