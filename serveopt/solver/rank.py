"""Constrain, reduce and order: from priced rows to a ranking and a Pareto front."""

from typing import TYPE_CHECKING

import numpy as np

from serveopt.kernels.pareto import mark_front

if TYPE_CHECKING:
    import polars as pl

    from serveopt.solver.problem import Problem

GROUPS = {"agg": ["backend", "parallel"], "disagg": ["backend", "decode_parallel"]}
SAME_ROW = ("tokens_s_gpu_cluster", "ttft_ms", "tpot_ms", "concurrency", "memory_gib")
FRONT_COLUMNS = (
    "serving_mode", "tokens_s_user", "tokens_s_gpu_cluster", "tokens_s_gpu", "ttft_ms", "tpot_ms", "e2e_ms",
    "concurrency", "n_gpus", "replicas", "backend", "label",
)  # fmt: skip


def order_rows(frame: "pl.DataFrame") -> "pl.DataFrame":
    """The rows, best first: throughput of the cluster, then speed for the user, then fewer GPUs per replica."""
    keys = ["tokens_s_gpu_cluster", "tokens_s_user", "n_gpus", "concurrency"]
    return frame.sort(keys, descending=[True, True, False, True], maintain_order=True)


def rank_rows(problem: "Problem", frame: "pl.DataFrame", serving_mode: str) -> "pl.DataFrame":
    """The best row of every worker layout within the TPOT target, top_n of them, with a column ``rank``."""
    import polars as pl

    if frame.is_empty():
        return frame
    within = frame.filter(pl.col("tpot_ms") <= problem.tpot_ms)
    ordered = order_rows(within)
    if problem.vary:
        # Variants may come to the same: a kernel that a backend lets one choose is not always another kernel.
        ordered = ordered.unique([*GROUPS[serving_mode], *SAME_ROW], keep="first", maintain_order=True)
    groups = [*GROUPS[serving_mode], *(["variant"] if problem.vary else [])]
    best = ordered.unique(groups, keep="first", maintain_order=True).head(problem.top_n)
    return best.with_row_index("rank", offset=1).with_columns(pl.col("rank").cast(pl.Int64))


def front_rows(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """int64[k]: the rows that no other row beats where both metrics are to be large, largest x first.

    >>> front_rows(np.array([1.0, 3.0, 2.0]), np.array([5.0, 1.0, 0.5])).tolist()
    [1, 0]
    """
    order = np.lexsort((-y, -x))
    keep = np.zeros(order.size, bool)
    mark_front(order, x, y, keep)
    return order[keep[order]]


def pareto_rows(problem: "Problem", agg: "pl.DataFrame", disagg: "pl.DataFrame") -> "pl.DataFrame":
    """Rows of each serving mode that no other of it beats in both tokens/s/user and tokens/s/GPU of the cluster."""
    import polars as pl

    labels = {"agg": pl.col("parallel") if not agg.is_empty() else None, "disagg": None}
    if not disagg.is_empty():
        labels["disagg"] = pl.concat_str(
            pl.col("xpyd"), pl.lit(" "), pl.col("prefill_parallel"), pl.lit(" + "), pl.col("decode_parallel")
        )
    frames = []
    for mode, frame in (("agg", agg), ("disagg", disagg)):
        if frame.is_empty():
            continue
        if problem.strict_sla:
            frame = frame.filter(pl.col("tpot_ms") <= problem.tpot_ms)
        named = frame.with_columns(pl.lit(mode).alias("serving_mode"), labels[mode].alias("label"))  # type: ignore[union-attr]
        # Copies: polars hands out read-only views, which are another type to a compiled kernel.
        x, y = np.array(named["tokens_s_user"]), np.array(named["tokens_s_gpu_cluster"])
        frames.append(named.select(FRONT_COLUMNS)[front_rows(x, y)[::-1]])
    return pl.concat(frames) if frames else pl.DataFrame()
