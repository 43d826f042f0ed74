"""GEMM latency over tokens for any weight shape (n, k).

A measured shape is its own curve over m, linear between measurements. Beyond the last one the efficiency (roofline
over latency) of the last three is held:

    t(m) = roofline(m) / median(efficiency of the three end points)

A shape between the measured ones takes its efficiency from the measured shapes around it (shapes.py); more than an
octave outside it is estimated. Launch-bound tables are repaired (launch.py).
Source of the rules: specs/op_model.md 1.2 and 2.1.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np

from serveopt.errors import MissingTable
from serveopt.perfdata.store import Table
from serveopt.perfdata.systems import SystemSpec
from serveopt.solver.operators.curve import FAR_TOKENS, TokenCurve
from serveopt.solver.operators.data_modes import bound_curve
from serveopt.solver.operators.rooflines import gemm_bound_ms
from serveopt.solver.operators.shapes import SHAPE_METHODS, Sites

# Between the wide knots above 4353 tokens a shape that was not measured is priced at these fractions too: its
# efficiency, not its latency, is what is blended.
SUBDIVISIONS = 8
WIDE_GAP = 256
REACH_BELOW = 4  # the reference prices shapes down to a quarter of the narrowest from measurements


@dataclass
class GemmTable:
    """All measured GEMMs of one quantisation: latency_ms float64[n, k, m], NaN where nothing was measured."""

    system: SystemSpec
    quant: str
    n: np.ndarray
    k: np.ndarray
    m: np.ndarray
    latency_ms: np.ndarray
    bound_ms: np.ndarray
    source: str = "silicon"
    cache: dict[tuple[int, int, str], TokenCurve] = field(default_factory=dict)

    def curve(self, n: int, k: int, method: str) -> TokenCurve:
        """The latency curve of the weight shape (n, k); ``method`` names how an unmeasured shape is priced."""
        key = (n, k, method)
        if key not in self.cache:
            self.cache[key] = self._measured(n, k) or BELOW[method](self, n, k) or self._unmeasured(n, k, method)
        return self.cache[key]

    def widened(self, n: int, k: int) -> TokenCurve | None:
        """For a shape narrower than any measured one, the narrowest: kernels have tiles and launches."""
        wide = max(n, int(self.n[0])), max(k, int(self.k[0]))
        return None if wide == (n, k) else replace(self.curve(*wide, "measured"), source="estimated")

    def bare(self, n: int, k: int) -> TokenCurve | None:
        """For a shape two octaves narrower than any measured one, its roofline, as in the reference."""
        if n * REACH_BELOW >= self.n[0] and k * REACH_BELOW >= self.k[0]:
            return None
        return bound_curve(partial(gemm_bound_ms, self.system, self.quant, n=float(n), k=float(k)), 1.0)

    def reaches(self, n: int, k: int) -> bool:
        """True if (n, k) lies within an octave of the measured shapes."""
        return all(axis[0] / 2 <= size <= axis[-1] * 2 for size, axis in ((n, self.n), (k, self.k)))

    @cached_property
    def sites(self) -> Sites:
        """The measured shapes at every knot."""
        return Sites.read(self, subdivide(self.m))

    def _measured(self, n: int, k: int) -> TokenCurve | None:
        i, j = int(np.searchsorted(self.n, n)), int(np.searchsorted(self.k, k))
        if i == self.n.size or j == self.k.size or self.n[i] != n or self.k[j] != k:
            return None
        valid = np.flatnonzero(~np.isnan(self.latency_ms[i, j]))
        if valid.size == 0:
            return None
        m, latency = self.m[valid], self.latency_ms[i, j, valid]
        ends = self.bound_ms[i, j, valid] / latency
        head = self._held(n, k, np.array([1.0]), float(np.median(ends[:3]))) if m[0] > 1 else None
        tail = self._held(n, k, self._tail_knots(n, k, m[-1]), float(np.median(ends[-3:])))
        parts = [p for p in (head, (m, latency), tail) if p is not None]
        return TokenCurve(np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts]), self.source)

    def _unmeasured(self, n: int, k: int, method: str) -> TokenCurve:
        knots = subdivide(self.m)
        efficiency = SHAPE_METHODS[method](self.sites, float(n), float(k))
        bound = gemm_bound_ms(self.system, self.quant, knots, float(n), float(k))
        latency = np.maximum(bound / efficiency[:-1], bound)
        tail = self._held(n, k, self._tail_knots(n, k, knots[-1]), min(float(efficiency[-1]), 1.0))
        source = self.source if self.reaches(n, k) else "estimated"
        return TokenCurve(np.concatenate([knots, tail[0]]), np.concatenate([latency, tail[1]]), source)

    def _held(self, n: int, k: int, m: np.ndarray, efficiency: float) -> tuple[np.ndarray, np.ndarray]:
        return m, gemm_bound_ms(self.system, self.quant, m, float(n), float(k)) / efficiency

    def _tail_knots(self, n: int, k: int, last: float) -> np.ndarray:
        """Where the held tail bends: right behind the last measurement, and where memory and math bounds cross."""
        far = np.array([last + 1.0, FAR_TOKENS])
        two = gemm_bound_ms(self.system, self.quant, far, float(n), float(k))
        slopes = np.diff(gemm_bound_ms(self.system, self.quant, far[:1] + np.array([0.0, 1.0]), float(n), float(k)))
        if np.isclose(slopes[0] * (far[1] - far[0]) + two[0], two[1], rtol=1e-9):
            return far
        return np.unique(np.concatenate([far, np.geomspace(far[0], 64.0 * far[0], 33)]))


BELOW: dict[str, Callable[[GemmTable, int, int], TokenCurve | None]] = {
    "measured": GemmTable.widened,
    "reference": GemmTable.bare,
}


def subdivide(m: np.ndarray) -> np.ndarray:
    """The measured token counts with wide gaps cut into equal parts."""
    wide = np.flatnonzero(np.diff(m) > WIDE_GAP)
    fractions = np.arange(1, SUBDIVISIONS) / SUBDIVISIONS
    extra = (m[wide, None] + np.diff(m)[wide, None] * fractions).ravel()
    return np.unique(np.concatenate([m, extra]))


def spread(at: list[np.ndarray], shape: list[int], values: np.ndarray) -> np.ndarray:
    """float64[shape] with ``values`` at the index arrays ``at``, NaN elsewhere; of equal places the first counts."""
    out = np.full(shape, np.nan)
    place, first = np.unique(np.ravel_multi_index(tuple(at), tuple(shape)), return_index=True)
    out.reshape(-1)[place] = values[first]
    return out


def read_gemm(table: Table, system: SystemSpec, quant: str) -> GemmTable:
    """The measured GEMMs of one quantisation; MissingTable where there are none."""
    names = table.categories["gemm_dtype"]
    rows = np.flatnonzero(table.columns["gemm_dtype"] == names.index(quant)) if quant in names else np.zeros(0, int)
    if rows.size == 0:
        raise MissingTable("gemm", f"gemm_dtype={quant} (measured: {', '.join(names)})")
    columns = {name: table.columns[name][rows] for name in ("n", "k", "m")}
    axes = {name: np.unique(values) for name, values in columns.items()}
    at = [np.searchsorted(axes[name], columns[name]) for name in ("n", "k", "m")]
    latency = spread(at, [axes[name].size for name in ("n", "k", "m")], table.values["latency_ms"][rows])
    n, k, m = (axes[name].astype(np.float64) for name in ("n", "k", "m"))
    bound = gemm_bound_ms(system, quant, m[None, None, :], n[:, None, None], k[None, :, None])
    return GemmTable(system, quant, n, k, m, np.maximum(latency, bound), bound)
