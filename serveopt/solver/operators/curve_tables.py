"""Measured one-axis curves of a table, found by key.

A table is sorted when it is packed, so the rows of one key lie together: its runs are found once by comparing
neighbours, and a query is one look-up. Rows of the best source come first and the first row of a key and axis value
wins (specs/op_model.md 1.3).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from serveopt.perfdata.store import Table, run_starts
from serveopt.solver.operators.curve import TokenCurve

Key = tuple[str | int, ...]


@dataclass
class CurveTable:
    """Curves of one table: ``runs`` maps a key to the (start, stop) ranges of its rows, best source first."""

    names: tuple[str, ...]
    axis: np.ndarray
    value: np.ndarray
    runs: dict[Key, list[tuple[int, int]]]
    cache: dict[Key, TokenCurve] = field(default_factory=dict)

    @classmethod
    def read(
        cls, table: Table, names: tuple[str, ...], axis: str, value: str = "latency_ms", rows: np.ndarray | None = None
    ) -> "CurveTable":
        """The curves of ``rows`` (default: all) over ``axis``, keyed by the columns ``names``."""
        pick = slice(None) if rows is None else rows
        columns = [table.columns[name][pick] for name in names]
        size = table.source[pick].size
        # Without a key column every row is a run of its own.
        starts = run_starts(columns, size) if columns else np.arange(size)
        words = [table.categories.get(name) for name in names]
        texts = [
            [known[code] for code in column[starts].tolist()] if known else column[starts].tolist()
            for column, known in zip(columns, words, strict=True)
        ]
        runs: dict[Key, list[tuple[int, int]]] = {}
        stops = np.append(starts, size)[1:].tolist()
        for *key, start, stop in zip(*texts, starts.tolist(), stops, strict=True):
            runs.setdefault(tuple(key), []).append((start, stop))
        return cls(names, table.columns[axis][pick].astype(np.float64), table.values[value][pick], runs)

    def __contains__(self, key: Key) -> bool:
        return key in self.runs

    def __iter__(self) -> Iterator[Key]:
        return iter(self.runs)

    def curve(self, key: Key) -> TokenCurve | None:
        """The measured points of a key, nothing beyond them; None where it was not measured."""
        if key not in self.cache:
            if key not in self.runs:
                return None
            rows = np.concatenate([np.arange(start, stop) for start, stop in self.runs[key]])
            axis, first = np.unique(self.axis[rows], return_index=True)
            self.cache[key] = TokenCurve(axis, self.value[rows][first].astype(np.float64), "silicon")
        return self.cache[key]


def nearest_keys(keys: Sequence[Key], wanted: Mapping[int, int | float]) -> list[tuple[float, Key]]:
    """(distance in octaves, key) of ``keys`` from ``wanted`` (position -> number) in log2 space, nearest first.

    >>> nearest_keys([("a", 8), ("b", 4096), ("c", 2048)], {1: 4096})
    [(0.0, ('b', 4096)), (1.0, ('c', 2048)), (9.0, ('a', 8))]
    """
    if not keys:
        return []
    at = np.array([[float(key[i]) for i in wanted] for key in keys])
    away = np.log2(np.maximum(at, 1e-9)) - np.log2(np.maximum(np.array(list(wanted.values()), float), 1e-9))
    distance = np.sqrt((away**2).sum(axis=1))
    return [(float(distance[i]), keys[i]) for i in np.argsort(distance, kind="stable").tolist()]


def list_values(keys: Sequence[Key], position: int, most: int = 12) -> str:
    """The values that the keys have at ``position``, for messages.

    >>> list_values([(8,), (4,), (8,)], 0)
    '4, 8'
    """
    values = sorted({key[position] for key in keys}, key=lambda value: (isinstance(value, str), value))
    shown = ", ".join(str(value) for value in values[:most])
    return shown + (", ..." if len(values) > most else "") if values else "none"
