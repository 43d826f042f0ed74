"""The reference's own choice of pools, for comparison in ``--space reference``.

It ranks within 75 TPOT targets, cuts to the 32 best prefill and 16 best decode rows by requests/s per GPU, and
allows only some replica sizes and 32 workers of a kind. Source: specs/search_model.md section 6.
"""

import numpy as np

from serveopt.solver.match import Matches, Pool
from serveopt.solver.pools import DECODE_LOSS, PREFILL_LOSS, PREFILL_QUEUE
from serveopt.solver.problem import Problem
from serveopt.solver.space import REFERENCE_REPLICAS

TARGETS_MS = (*range(1, 20), *range(20, 300, 5))
PREFILL_KEPT = 32
DECODE_KEPT = 16
MOST_WORKERS = 32
MOST_GPUS = 128  # of the largest replica that it allows
SAME = 1e-9  # relative difference below which rates are equal


def match_reference(problem: Problem, prefill: Pool, decode: Pool, equal_tp: bool) -> Matches:
    """The rows that the reference keeps: per target and decode layout the best by requests/s per GPU."""
    replicas = np.array([size for size in REFERENCE_REPLICAS if size <= problem.total_gpus])
    rows = np.flatnonzero(prefill.latency_ms * PREFILL_QUEUE < problem.ttft_ms)
    order = np.lexsort((prefill.batch[rows], -(prefill.rate_rps / prefill.gpus)[rows]))
    first = prefill.take(rows[order][:PREFILL_KEPT])
    per_gpu = decode.rate_rps / np.maximum(decode.gpus, 1)
    found: dict[int, tuple[float, int, int, int]] = {}
    chosen: set[int] = set()
    decided = 0
    for target in TARGETS_MS:
        for layout in range(len(decode.workers)):
            members = np.flatnonzero((decode.index == layout) & (decode.latency_ms < target) & (decode.latency_ms > 0))
            members = members[np.argsort(-per_gpu[members], kind="stable")][:DECODE_KEPT]
            for row in members.tolist():
                if row not in found:
                    found[row] = best_pair(first, decode, row, replicas, equal_tp)
                    decided += first.index.size * MOST_WORKERS**2
            fit = [row for row in members.tolist() if found[row][1] >= 0]
            if fit:
                chosen.add(max(fit, key=lambda row: found[row][0]))
    kept = np.array(sorted(chosen), np.int64)
    pairs = np.array([found[row][1:] for row in kept.tolist()], np.int64).reshape(-1, 3)
    return Matches(first, decode.take(kept), pairs[:, 0], pairs[:, 1], pairs[:, 2], decided)


def best_pair(
    prefill: Pool, decode: Pool, row: int, replicas: np.ndarray, equal_tp: bool
) -> tuple[float, int, int, int]:
    """(requests/s per GPU, prefill row, x, y) for one decode row; row -1 when nothing fits."""
    workers = np.arange(1, MOST_WORKERS + 1)
    x, y = workers[None, None, :], workers[None, :, None]
    gpus = x * prefill.gpus[:, None, None] + y * decode.gpus[row]
    supply = x * prefill.rate_rps[:, None, None] * PREFILL_LOSS
    rate = np.minimum(supply, y * decode.rate_rps[row] * DECODE_LOSS) / gpus
    allowed = np.zeros(MOST_GPUS + 2, bool)  # the last place stands for all larger ones
    allowed[replicas] = True
    rate = np.where(allowed[np.minimum(gpus, allowed.size - 1)], rate, 0.0).reshape(prefill.index.size, -1)
    if equal_tp:
        rate[prefill.tp != decode.tp[row]] = 0.0
    # The same ratio of workers gives the same rate but for rounding: the first of equals is the smallest replica.
    at = (rate >= rate.max(axis=1, keepdims=True) * (1.0 - SAME)).argmax(axis=1)
    best = (0.0, -1, 0, 0)
    for p, value in enumerate(rate[np.arange(at.size), at].tolist()):
        if value > best[0]:
            best = (value, p, int(at[p]) % MOST_WORKERS + 1, int(at[p]) // MOST_WORKERS + 1)
    return best
