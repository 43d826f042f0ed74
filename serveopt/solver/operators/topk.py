"""What compressed sparse attention was overcharged for when its module was measured.

The module was timed on scores that make top-k selection slow; serving sees scores that decay with distance. The
calibration table times selection on both (flat, top_last): the difference is taken off the module, never below zero.

    t(s, p, b) = module(s, p, b) - max(0, flat(p, s, b) - top_last(p, s, b))

Linear between measurements along prefix, prompt and batch in turn, ends held. Source: specs/op_model.md 2.19.
"""

from dataclasses import dataclass

import numpy as np

from serveopt.perfdata.store import Table
from serveopt.solver.operators.sequence import SequencePrice


@dataclass(frozen=True)
class Correction:
    """Overcharge in ms at (prefix, prompt, batch): sorted arrays per level, ``ms`` one array per (prefix, prompt)."""

    levels: dict[float, dict[float, tuple[np.ndarray, np.ndarray]]]

    def at(self, prefix: float, tokens: float, batches: np.ndarray) -> np.ndarray:
        """float64[n]: the overcharge of every batch."""
        return blend(self.levels, prefix, lambda rows: blend(rows, tokens, lambda row: np.interp(batches, *row)))


def blend(level, query: float, inner):  # type: ignore[no-untyped-def]
    """``inner`` of the entry at ``query``, linear between its neighbours, ends held."""
    keys = np.array(sorted(level))
    high = int(np.searchsorted(keys, query))
    if high == 0 or high == keys.size or keys[high] == query:
        return inner(level[keys[min(high, keys.size - 1)]])
    low, above = keys[high - 1], keys[high]
    weight = (query - low) / (above - low)
    return (1.0 - weight) * inner(level[low]) + weight * inner(level[above])


def read_correction(table: Table | None, native_heads: int, selector: str) -> Correction | None:
    """The overcharge of a selector (v1 in prefill, v2 in decode); None where it was not calibrated."""
    if table is None:
        return None
    columns, modes = table.columns, table.categories["score_mode"]
    own = np.flatnonzero(columns["num_heads"] == native_heads)
    found: dict[tuple[int, int, int], list[float]] = {}
    for row in own.tolist():
        mode = modes[columns["score_mode"][row]]
        if mode.startswith(selector):
            place = (int(columns["step"][row]), int(columns["isl"][row]), int(columns["batch_size"][row]))
            pair = found.setdefault(place, [np.nan, np.nan])
            if np.isnan(pair[mode.endswith("top_last")]):
                pair[mode.endswith("top_last")] = float(table.values["latency_ms"][row])
    levels: dict[float, dict[float, dict[float, float]]] = {}
    for (prefix, tokens, batch), (flat, top) in sorted(found.items()):
        if not np.isnan(flat + top):
            levels.setdefault(prefix, {}).setdefault(tokens, {})[batch] = max(0.0, flat - top)
    if not levels:
        return None
    return Correction(
        {
            prefix: {t: (np.array(list(row), float), np.array(list(row.values()))) for t, row in rows.items()}
            for prefix, rows in levels.items()
        }
    )


@dataclass(frozen=True)
class CorrectedPrice:
    """A module's price less its overcharge."""

    module: SequencePrice
    correction: Correction

    @property
    def source(self) -> str:
        """The module's source."""
        return self.module.source

    def prefill(self, new_tokens: int, prefix: int, out: np.ndarray) -> None:
        """Nothing; fills out[b] with prefill of b prompts."""
        self.module.prefill(new_tokens, prefix, out)
        out[1:] -= self.correction.at(prefix, new_tokens, np.arange(1.0, out.size))
        np.maximum(out, 0.0, out=out)

    def decode(
        self, lengths: np.ndarray, repeats: np.ndarray, batches: np.ndarray, out: np.ndarray, drafts: int = 1
    ) -> None:
        """Nothing; fills out[i] with decode of batches[i]."""
        self.module.decode(lengths, repeats, batches, out, drafts)
        for length, count in zip(lengths.tolist(), repeats.tolist(), strict=True):
            out -= count * self.correction.at(max(length - 1, 0), 1.0, batches)
        np.maximum(out, 0.0, out=out)
