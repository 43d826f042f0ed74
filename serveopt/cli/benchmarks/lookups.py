"""Kernel lookups in ns: what a search pays for one latency, on made-up tables of the size of the measured ones.

A kernel is called often enough to fill ``ROUND_S``, several times; the least time per item is kept. One thread.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from serveopt.cli.benchmarks.figures import NUMPY, Figure, least
from serveopt.kernels import attention, curves, grids, pareto, records

PART = "kernels"
ROUND_S = 0.05
ITEMS = 20_000  # of one call: what entering a kernel costs does not show
OUTER, MIDDLE, LAST = (2.0 ** np.arange(0, stop) for stop in (8, 11, 18))  # keys of the axes
SECONDS = (1e-13,) * (2 * records.FEATURES)  # of the roofline, per feature
BETWEEN = 5.3  # no measured key
PROMPT = 700.0  # between the keys of the middle axis
OUTSIDE = 2.0 * OUTER[-1]
GENERATION_LENGTHS = np.arange(4001, 5001, 32)
CURVES, KNOTS = 7, 50


class Lookup(NamedTuple):
    """A kernel call and how many items it prices."""

    call: Callable[[], object]
    items: int


def measure_lookups(repeat: int, items: int = ITEMS, round_s: float = ROUND_S) -> list[Figure]:
    """One figure per kernel."""
    return [
        least((PART, name, "ns"), time_items(lookup, repeat, round_s), NUMPY) for name, lookup in lookups(items).items()
    ]


def time_items(lookup: Lookup, repeat: int, round_s: float) -> list[float]:
    """ns per item of every repeat, each as many calls as fill ``round_s``."""
    lookup.call()  # loads the compiled code
    calls = max(1, round(round_s / max(time_calls(lookup, 1), 1e-7)))
    return [1e9 * time_calls(lookup, calls) / (calls * lookup.items) for _ in range(repeat)]


def time_calls(lookup: Lookup, calls: int) -> float:
    """Seconds of a number of calls."""
    started = time.perf_counter()
    for _ in range(calls):
        lookup.call()
    return time.perf_counter() - started


def lookups(items: int) -> dict[str, Lookup]:
    """Every kernel that is measured, by name."""
    return {**grid_lookups(items), **curve_lookups(items), "front, per row": front_lookup(items)}


def grid_lookups(items: int) -> dict[str, Lookup]:
    """Lookups in one grid of three axes; prefill reads it once per batch, decode along a line of lengths."""
    grid, roof = measured_grid(), records.Roofline(records.CONTEXT, 0.0, 0.0, 0.0, 0.0, 0.0, 0, SECONDS, SECONDS)
    inside, outside = (np.zeros(count + 1) for count in (items, max(1, items // 10)))
    spans = (GENERATION_LENGTHS, np.full(GENERATION_LENGTHS.size, 32, np.int64))
    per_batch = attention.SPREAD * GENERATION_LENGTHS.size
    batches = np.linspace(1.0, MIDDLE[-1], max(2, items // per_batch))
    tokens, steps, bounds = np.linspace(1.0, LAST[-1], items), np.zeros(batches.size), np.zeros(items)

    def prefill(prompts: np.ndarray, heads: float) -> Callable[[], object]:
        return lambda: attention.fill_prompts(grid, roof, heads, PROMPT, 1.0, prompts)

    def decode() -> None:
        attention.fill_decode_attention(grid, roof, BETWEEN, spans, batches, attention.SPREAD, steps)

    return {
        "grid lookup": Lookup(prefill(inside, BETWEEN), inside.size - 1),
        "grid lookup, outside": Lookup(prefill(outside, OUTSIDE), outside.size - 1),
        "decode attention fill": Lookup(decode, per_batch * batches.size),
        "roofline": Lookup(lambda: grids.fill_bounds(roof, 4.0, tokens, tokens, bounds), items),
    }


def measured_grid() -> records.Grid:
    """A full grid of 8 x 11 x 18 measurements with smooth latencies and one efficiency."""
    shape = (OUTER.size, MIDDLE.size, LAST.size)
    outer, inner, innermost = np.meshgrid(OUTER, MIDDLE, LAST, indexing="ij")
    latency = (3e-3 + 2e-8 * outer**0.9 * inner * innermost**0.95).ravel()
    middle, last = np.tile(MIDDLE, shape[0]), np.tile(LAST, shape[0] * shape[1])
    below = np.arange(shape[0] + 1, dtype=np.int64) * shape[1]
    leaf = np.arange(shape[0] * shape[1] + 1, dtype=np.int64) * shape[2]
    logs = (np.log2(keys) for keys in (OUTER, middle, last))
    return records.Grid(OUTER, below, middle, leaf, last, latency, np.full(latency.size, 0.5), *logs)


def curve_lookups(items: int) -> dict[str, Lookup]:
    """Lookups in, and tabulation of, the curves of one layout's token operators."""
    knots = np.append(np.unique(np.geomspace(1, 32_768, KNOTS).astype(int)), 1e9)
    knots[0] = 0.0
    latencies = np.concatenate([0.01 + 1e-5 * slope * knots for slope in range(1, CURVES + 1)])
    offset = np.arange(CURVES + 1, dtype=np.int64) * knots.size
    joined = records.Curves(offset, np.tile(knots, CURVES), latencies)
    count = max(2, items // CURVES)
    tokens = np.random.default_rng(1).uniform(1.0, 32_768.0, count)
    points, table = np.zeros((CURVES, count)), np.zeros(count)
    return {
        "curve lookup": Lookup(lambda: curves.fill_curve_points(joined, tokens, points), points.size),
        "curve tabulation": Lookup(lambda: curves.tabulate_sum(joined, table), points.size),
    }


def front_lookup(items: int) -> Lookup:
    """Marking the front of random rows that are in order."""
    x, y = np.random.default_rng(2).random((2, items))
    order, keep = np.lexsort((-y, -x)), np.zeros(items, bool)
    return Lookup(lambda: pareto.mark_front(order, x, y, keep), items)
