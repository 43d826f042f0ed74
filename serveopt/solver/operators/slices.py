"""Measured slices of sequence operators: rows of one categorical key, nested into a grid.

An index maps every key of a table (kernel lane, types, head sizes ...) to its rows once, so that planning thousands of
layouts asks a dictionary and not the table. A grid has three axes, outermost first; a fourth one, the cached prefix,
makes one grid per measured prefix (a plane).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from serveopt.kernels.grids import fill_efficiency
from serveopt.kernels.records import Grid, Roofline
from serveopt.perfdata.store import Table, run_starts

Key = tuple[object, ...]
Column = Callable[[Table], np.ndarray]  # derived key or axis values, one per row


@dataclass(frozen=True, slots=True)
class SliceIndex:
    """Row numbers of every key of a table; ``names`` are the key columns in order."""

    names: tuple[str, ...]
    rows: Mapping[Key, np.ndarray]

    def position(self, name: str) -> int:
        """Where a column stands in a key."""
        return self.names.index(name)


def index_slices(table: Table, names: tuple[str, ...], derived: Mapping[str, Column]) -> SliceIndex:
    """The index of a table by key columns; ``derived`` computes columns that the table does not store.

    A column that the table lacks has one empty value.
    """
    columns = {name: derived[name](table) if name in derived else table.columns.get(name) for name in names}
    starts = run_starts([column for column in columns.values() if column is not None], len(table))
    values: list[Sequence[object]] = []
    for name, column in columns.items():
        found: list[Any] = [""] * starts.size if column is None else column[starts].tolist()
        words = table.categories.get(name) if name not in derived else None
        values.append([words[code] for code in found] if words and column is not None else found)
    runs: dict[Key, list[np.ndarray]] = {}
    stops = np.append(starts, len(table))[1:]
    for *key, start, stop in zip(*values, starts.tolist(), stops.tolist(), strict=True):
        runs.setdefault(tuple(key), []).append(np.arange(start, stop))
    return SliceIndex(names, {key: np.concatenate(rows) for key, rows in runs.items()})


def nest(axes: Sequence[np.ndarray], latency_ms: np.ndarray) -> Grid:
    """A ragged grid from three key columns; of rows with equal keys the first counts."""
    order = np.lexsort((np.arange(latency_ms.size), axes[2], axes[1], axes[0]))
    a, b, c = (axis[order].astype(np.float64) for axis in axes)
    first = np.ones(order.size, bool)
    first[1:] = (np.diff(a) != 0) | (np.diff(b) != 0) | (np.diff(c) != 0)
    a, b, c, latency = a[first], b[first], c[first], latency_ms[order][first].astype(np.float64)
    new_middle = np.ones(a.size, bool)
    new_middle[1:] = (np.diff(a) != 0) | (np.diff(b) != 0)
    middle_at = np.flatnonzero(new_middle)
    new_outer = np.ones(middle_at.size, bool)
    new_outer[1:] = np.diff(a[middle_at]) != 0
    outer_at = np.flatnonzero(new_outer)
    outer, middle = a[middle_at][outer_at], b[middle_at]
    return Grid(
        outer=outer,
        inner=np.append(outer_at, middle_at.size).astype(np.int64),
        middle=middle,
        leaf=np.append(middle_at, a.size).astype(np.int64),
        last=c,
        latency_ms=latency,
        efficiency=np.zeros(a.size),
        outer_log=np.log2(outer),
        middle_log=np.log2(np.maximum(middle, 1e-12)),
        last_log=np.log2(np.maximum(c, 1e-12)),
    )


def single_leaf(efficiency: float) -> Grid:
    """A grid without measurements that holds one efficiency everywhere."""
    none, one, two = np.zeros(0), np.ones(1), np.array([0, 1], np.int64)
    return Grid(none, two, one, two, one, one.copy(), one * efficiency, np.zeros(1), np.zeros(1), np.zeros(1))


def clamp_to_roofline(grid: Grid) -> None:
    """Nothing; lifts latencies below the roofline onto it (decode tables are read this way)."""
    faster = grid.efficiency > 1.0
    grid.latency_ms[faster] *= grid.efficiency[faster]
    grid.efficiency[faster] = 1.0


@dataclass
class Measured:
    """One slice: its rows, its roofline and the grids made of them, one per measured prefix.

    ``prefix``: cached tokens of every row; None: the table has no such axis. ``held``: the grid's latencies are not
    used, only its efficiencies (data mode empirical).
    """

    axes: tuple[np.ndarray, np.ndarray, np.ndarray]
    prefix: np.ndarray | None
    latency_ms: np.ndarray
    roof: Roofline
    clamp: bool = False
    held: bool = False
    grids: dict[float, Grid] = field(default_factory=dict)

    @property
    def prefixes(self) -> np.ndarray:
        """float64[n]: the measured prefixes."""
        return np.zeros(1) if self.prefix is None else np.unique(self.prefix).astype(np.float64)

    def plane_roof(self, prefix: float) -> Roofline:
        """The roofline at a cached prefix."""
        return self.roof if self.prefix is None else self.roof._replace(prefix=float(prefix))

    def grid(self, prefix: float = 0.0) -> Grid:
        """The grid measured at a prefix."""
        if prefix not in self.grids:
            rows = np.arange(self.latency_ms.size) if self.prefix is None else np.flatnonzero(self.prefix == prefix)
            grid = nest([axis[rows] for axis in self.axes], self.latency_ms[rows])
            fill_efficiency(grid, self.plane_roof(prefix), grid.efficiency)
            if self.clamp:
                clamp_to_roofline(grid)
            self.grids[prefix] = grid._replace(outer=np.zeros(0)) if self.held else grid
        return self.grids[prefix]
