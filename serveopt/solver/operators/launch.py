"""GEMM tables whose short kernels were timed with their launches, and their repair from another backend's table.

A GEMM of a few rows takes a few microseconds inside a CUDA graph; timed one call at a time it takes as long as the
host needs to launch it, 60 to 450 us, whatever its shape, until the kernel itself is longer. Serving replays graphs.
Such a table is known by its fastest shape, and confirmed by the others':

    fastest shapes (1st percentile, m <= 64) above 30 us   and   median ratio to each other backend above 3

Median ratio of vllm's fp8_block to trtllm's and sglang's, m <= 64: h100 5.1 and 5.1, h200 5.4 and 5.3, b200 20.7 and
18.5, gb200 40 and 38; of every other table of these systems 0.5 to 1.8. Points within twice the launch time are taken
from the other backend, times what this backend's kernels cost relative to it where both are long.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from serveopt.solver.operators.gemm import GemmTable

SMALL_M = 64
SUSPECT_MS = 0.030
SUSPECT_RATIO = 3.0
HIDDEN = 2.0  # times the launch: below this the kernel hides behind it
LONG = 4.0  # times the launch: above this the kernel is seen


def launch_ms(table: GemmTable) -> float:
    """The time that the fastest small shapes take."""
    return float(np.nanpercentile(table.latency_ms[:, :, table.m <= SMALL_M], 1))


def is_suspect(table: GemmTable) -> bool:
    """True if even the fastest small shapes take as long as a launch."""
    return launch_ms(table) > SUSPECT_MS


def common_points(table: GemmTable, other: GemmTable) -> np.ndarray:
    """float64[n, k, m]: the other table's latencies on this one's axes, NaN where it has none."""
    out = np.full(table.latency_ms.shape, np.nan)
    n, k = np.intersect1d(table.n, other.n), np.intersect1d(table.k, other.k)
    own = np.ix_(np.searchsorted(table.n, n), np.searchsorted(table.k, k))
    theirs = other.latency_ms[np.ix_(np.searchsorted(other.n, n), np.searchsorted(other.k, k))]
    out[own] = on_axis(other.m, theirs, table.m)
    return out


def on_axis(m: np.ndarray, latency_ms: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """float64[n, k, wanted]: curves over ``m`` at the token counts ``wanted``, NaN outside."""
    at = np.clip(np.searchsorted(m, wanted, side="right") - 1, 0, m.size - 2)
    weight = (wanted - m[at]) / (m[at + 1] - m[at])
    low, high = latency_ms[:, :, at], latency_ms[:, :, at + 1]
    out = np.where(weight == 0, low, np.where(weight == 1, high, low + weight * (high - low)))
    out[:, :, (wanted < m[0]) | (wanted > m[-1])] = np.nan
    return out


def slow_against(table: GemmTable, others: Iterable[GemmTable]) -> Iterator[tuple[float, np.ndarray]]:
    """(median ratio at small m, the other's latencies on this table's axes) of every other table."""
    small = table.m <= SMALL_M
    for other in others:
        theirs = common_points(table, other)
        ratio = table.latency_ms[:, :, small] / theirs[:, :, small]
        if not np.isnan(ratio).all():
            yield float(np.nanmedian(ratio)), theirs


def without_launches(table: GemmTable, others: Iterable[GemmTable]) -> GemmTable:
    """The table with launch-bound points replaced; the table itself where the others do not contradict it."""
    compared = list(slow_against(table, others))
    if not compared or min(ratio for ratio, _ in compared) < SUSPECT_RATIO:
        return table
    theirs = compared[0][1]
    for _, more in compared[1:]:
        theirs = np.where(np.isnan(theirs), more, np.fmin(theirs, more))
    launch = float(np.nanmedian(table.latency_ms[:, :, table.m <= SMALL_M]))
    both_long = (table.latency_ms > LONG * launch) & ~np.isnan(theirs)
    cost = float(np.median(table.latency_ms[both_long] / theirs[both_long])) if both_long.any() else 1.0
    hidden = (table.latency_ms <= HIDDEN * launch) & ~np.isnan(theirs)
    latency = np.where(hidden, np.fmin(table.latency_ms, theirs * cost), table.latency_ms)
    return replace(table, latency_ms=np.maximum(latency, table.bound_ms), cache={}, source="estimated")
