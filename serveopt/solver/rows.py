"""Frames of results: fronts and matches as polars rows under the names of design.md section 4."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from serveopt.kernels.records import Memory
from serveopt.solver.backends import GIB
from serveopt.solver.budgets import step_prompts
from serveopt.solver.footprint import activation_bytes
from serveopt.solver.match import Matches, Pool
from serveopt.solver.pools import PREFILL_QUEUE
from serveopt.solver.problem import Problem
from serveopt.solver.shape import Shape
from serveopt.solver.sweep import LayoutFront
from serveopt.solver.worker import Worker

if TYPE_CHECKING:
    import polars as pl


def memory_gib(memory: Memory, tokens: np.ndarray, sequences: np.ndarray) -> np.ndarray:
    """float64[n]: GiB in use on one GPU."""
    return (memory.fixed + activation_bytes(memory, tokens) + memory.per_sequence * sequences) / GIB


def worker_table(workers: Sequence[Worker], prefix: str = "") -> "pl.DataFrame":
    """What every worker is, a row each."""
    import polars as pl

    rows = []
    for worker in workers:
        engine, layout = worker.engine, worker.layout
        rows.append(
            {
                "system": engine.system.name,
                "backend": engine.backend.name,
                "version": engine.version,
                "parallel": layout.parallel(engine.model.is_moe),
                **layout._asdict(),
                **{f"{name}_quant": mode for name, mode in worker.setting.quant.as_dict().items()},
            }
        )
    return pl.DataFrame({f"{prefix}{name}": [row[name] for row in rows] for name in rows[0]} if rows else {})


def cluster_columns(
    problem: Problem, tokens_s: np.ndarray, n_gpus: np.ndarray, tpot_ms: np.ndarray, ttft_ms: np.ndarray
) -> dict[str, Any]:
    """Metrics every row has; GPUs left over by whole replicas count against ``tokens_s_gpu_cluster``."""
    replicas = problem.total_gpus // n_gpus
    with np.errstate(divide="ignore"):
        user = np.where(tpot_ms > 0, 1e3 / tpot_ms, 0.0)
    return {
        "tokens_s_gpu": tokens_s / n_gpus,
        "tokens_s_gpu_cluster": tokens_s * replicas / problem.total_gpus,
        "tokens_s_user": user,
        "ttft_ms": ttft_ms,
        "tpot_ms": tpot_ms,
        "e2e_ms": ttft_ms + tpot_ms * (problem.osl - 1),
        "tokens_s": tokens_s,
        "replicas": replicas,
        "n_gpus": n_gpus,
        "n_gpus_used": n_gpus * replicas,
    }


def agg_frame(problem: Problem, shape: Shape, fronts: Sequence[LayoutFront]) -> "pl.DataFrame":
    """All rows of the aggregated fronts."""
    import polars as pl

    fronts = [front for front in fronts if front.batch.size]
    if not fronts:
        return pl.DataFrame()
    sizes = [front.batch.size for front in fronts]
    index = np.repeat(np.arange(len(fronts)), sizes)
    layouts = [front.worker.layout for front in fronts]
    joined = {
        name: np.concatenate([getattr(front, name) for front in fronts])
        for name in ("batch", "ctx_tokens", "ttft_ms", "tpot_ms", "tokens_s")
    }
    memory = [memory_gib(front.memory, tokens_in_flight(front, shape), front.batch) for front in fronts]
    n_gpus = np.array([layout.n_gpus for layout in layouts], np.int64)[index]
    groups = np.array([layout.pp * layout.attn_dp for layout in layouts], np.int64)[index]
    answers = max(fronts[0].worker.answer_tokens(shape), 1)
    metrics = cluster_columns(problem, joined["tokens_s"], n_gpus, joined["tpot_ms"], joined["ttft_ms"])
    own = pl.DataFrame(
        {
            **metrics,
            "request_rate_rps": joined["tokens_s"] / answers,
            "concurrency": joined["batch"] * groups,
            "batch": joined["batch"],
            "ctx_tokens": joined["ctx_tokens"],
            "chunked_prefill": joined["ctx_tokens"] % shape.isl != 0,
            "memory_gib": np.concatenate(memory),
        }
    )
    return pl.concat([own, worker_table([front.worker for front in fronts])[index]], how="horizontal")


def tokens_in_flight(front: LayoutFront, shape: Shape) -> np.ndarray:
    """int64[n]: tokens of the largest step of every row."""
    prompts = step_prompts(front.worker.engine.cost_model, shape.isl, front.ctx_tokens)
    return front.ctx_tokens + np.where(front.batch == 1, 0, front.batch - prompts) * front.worker.drafts


def pool_columns(pool: Pool, rows: np.ndarray, shape: Shape, role: str) -> "pl.DataFrame":
    """What the chosen rows of a pool are, one row each."""
    import polars as pl

    memory = np.zeros(rows.size)
    for index, record in enumerate(pool.memories):
        at = pool.index[rows] == index
        tokens_each = shape.isl - shape.prefix if role == "prefill" else pool.workers[index].drafts
        memory[at] = memory_gib(record, pool.batch[rows][at] * tokens_each, pool.batch[rows][at])
    return worker_table(pool.workers, f"{role}_")[pool.index[rows]].with_columns(
        pl.Series(f"{role}_batch", pool.batch[rows]),
        pl.Series(f"{role}_n_gpus", pool.gpus[rows]),
        pl.Series(f"{role}_memory_gib", memory),
        pl.Series(f"{role}_seq_s", pool.rate_rps[rows]),
    )


def disagg_frame(problem: Problem, shape: Shape, matches: Matches, losses: tuple[float, float]) -> "pl.DataFrame":
    """All matched rows; ``losses`` are the shares that the prefill and the decode pool sustain."""
    import polars as pl

    prefill, decode = matches.prefill, matches.decode
    if decode.index.size == 0:
        return pl.DataFrame()
    x, y, row = matches.prefill_workers, matches.decode_workers, matches.prefill_row
    every = np.arange(decode.index.size)
    rate = np.minimum(prefill.rate_rps[row] * x * losses[0], decode.rate_rps * y * losses[1])
    rate = np.minimum(rate, matches.most_rps)
    n_gpus = x * prefill.gpus[row] + y * decode.gpus + matches.beside_gpus
    first, second = pool_columns(prefill, row, shape, "prefill"), pool_columns(decode, every, shape, "decode")
    ttft = prefill.latency_ms[row] * PREFILL_QUEUE
    groups = [worker.layout.attn_dp * worker.layout.pp for worker in decode.workers]
    groups_of = np.array(groups, np.int64)[decode.index]
    metrics = cluster_columns(problem, rate * problem.osl, n_gpus, decode.latency_ms, ttft)
    own = pl.DataFrame(
        {
            **metrics,
            "request_rate_rps": rate,
            "concurrency": decode.batch * groups_of * y,
            "xpyd": [f"{a}P{b}D" for a, b in zip(x.tolist(), y.tolist(), strict=True)],
            "prefill_workers": x,
            "decode_workers": y,
        }
    )
    joined = pl.concat([own, first, second], how="horizontal")
    return joined.with_columns(
        pl.max_horizontal("prefill_memory_gib", "decode_memory_gib").alias("memory_gib"),
        pl.col("decode_backend").alias("backend"),
        pl.col("decode_version").alias("version"),
        pl.col("decode_system").alias("system"),
    )


def stack(frames: "list[pl.DataFrame]") -> "pl.DataFrame":
    """The frames under one another; those without rows have no columns either."""
    import polars as pl

    filled = [frame for frame in frames if not frame.is_empty()]
    return pl.concat(filled) if filled else pl.DataFrame()
