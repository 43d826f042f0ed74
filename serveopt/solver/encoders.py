"""Encode workers: images are encoded on GPUs of their own, and prefill or aggregated workers encode nothing.

An encode worker splits the vision encoder over tp GPUs and takes ``batch`` requests at once:

    rate_e = batch / latency * 0.9          requests/s
    e      = ceil(k rate / rate_e)          encode workers that k replicas of a row need

Every k and every kind of encode worker (tp, batch) is tried on every row of both serving modes; what serves most on the
whole cluster stays, of equals the smallest replica. TTFT grows by the encoder's latency: as it is beside aggregated
workers, times the queue of a prefill pool beside those. Source: specs/search_model.md section 6, "EPD".
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from serveopt.errors import ConfigError, MissingTable
from serveopt.perfdata.systems import load_system
from serveopt.solver.backends import GIB
from serveopt.solver.engine import Engine, EngineQuery, open_engine
from serveopt.solver.images import ENCODED_FAMILIES, encoder_bytes, vision_config
from serveopt.solver.layout import Layout
from serveopt.solver.match import Matches, Pool, match
from serveopt.solver.operators.weights import resident_bytes
from serveopt.solver.pools import DECODE_LOSS, ENCODER_LOSS, PREFILL_LOSS
from serveopt.solver.problem import Problem
from serveopt.solver.rank import order_rows
from serveopt.solver.rows import cluster_columns, stack
from serveopt.solver.worker import Worker

if TYPE_CHECKING:
    import polars as pl

MOST_REPLICAS = 32  # of a row that share encode workers
SAME = 1e-12  # relative difference below which rates are equal
LEAST_TTFT_MS = 1e-3  # what is left where the encoder alone takes longer than the target
WIDTHS = ("num_heads", "hidden_size", "intermediate_size")  # of an encoder that is split


@dataclass(frozen=True, slots=True)
class Encoder:
    """One kind of encode worker; ``rate_rps`` is what one sustains, ``memory_gib`` that of one of its GPUs."""

    tp: int
    batch: int
    latency_ms: float
    rate_rps: float
    memory_gib: float

    def delay(self, prefill: Pool) -> Pool:
        """The prefill pool as a request sees it: encoding first, at unchanged rates."""
        return replace(prefill, latency_ms=prefill.latency_ms + self.latency_ms)

    def beats(self, other: "Encoder") -> bool:
        """True if workers of this kind serve whatever the other's serve on no more GPUs and no later.

        Degrees that are tried together are powers of two, so one wide worker makes way for whole narrow ones.
        """
        no_slower = self.latency_ms <= other.latency_ms and self.rate_rps / self.tp >= other.rate_rps / other.tp
        return self != other and self.tp <= other.tp and no_slower


def plan_encoders(problem: Problem, query: EngineQuery) -> list[Encoder | None]:
    """The kinds of encode workers worth a look, narrow ones and short latencies first; [None] where none are wanted."""
    if not problem.enable_epd:
        return [None]
    system = problem.encoder_system or problem.system
    try:
        load_system(system, problem.systems_paths)
    except ConfigError as error:
        raise ConfigError(error.message, field="encoder_system", hint=error.hint) from error
    engine = open_engine(replace(query, system=system, encoder_dp=False, encodes=True))
    found: list[Encoder] = []
    misses = []
    for tp in encoder_degrees(problem, engine):
        try:
            found += price_encoder(problem, engine, tp)
        except MissingTable as error:
            misses.append(error)
    if misses and not found:
        raise misses[0]
    in_time = [encoder for encoder in found if encoder.latency_ms < problem.ttft_ms]
    # Where none is fast enough the fastest says what to relax.
    worthy = in_time or sorted(found, key=lambda encoder: encoder.latency_ms)[:1]
    kept = [encoder for encoder in worthy if not any(other.beats(encoder) for other in worthy)]
    return [*sorted(kept, key=lambda encoder: (encoder.tp, encoder.latency_ms))]


def encoder_degrees(problem: Problem, engine: Engine) -> list[int]:
    """Over how many GPUs an encode worker may be split; ConfigError for a degree that does not divide the encoder."""
    model = engine.model
    if model.family not in ENCODED_FAMILIES:
        raise ConfigError(f"{model.name} has no vision encoder", field="enable_epd", hint="only Qwen3-VL has one here")
    vision = vision_config(model)
    node = engine.system.gpus_per_node
    divides = [tp for tp in range(1, node + 1) if not any(vision[name] % tp for name in WIDTHS)]
    if problem.encoder_tp is None:
        return [tp for tp in divides if tp & (tp - 1) == 0 and tp < problem.replica_limit] or [1]
    if problem.encoder_tp not in divides:
        allowed = ", ".join(map(str, divides))
        raise ConfigError(f"{problem.encoder_tp} is not allowed; choose one of {allowed}", field="encoder_tp")
    return [problem.encoder_tp]


def price_encoder(problem: Problem, engine: Engine, tp: int) -> Iterator[Encoder]:
    """Every batch that fits in memory."""
    worker = Worker(engine, Layout(tp=tp, moe_tp=tp if engine.model.is_moe else 1))
    weights = sum(map(resident_bytes, worker.listed.encoder))
    fixed = weights + worker.footprint.communication_bytes + worker.footprint.other_bytes
    for batch in range(1, problem.max_encoder_batch + 1):
        taken = fixed + encoder_bytes(worker.setting, batch)
        if taken < engine.system.mem_capacity_bytes:
            latency = worker.encoder_ms(batch)
            yield Encoder(tp, batch, latency, batch / latency * 1e3 * ENCODER_LOSS, taken / GIB)


def tightened(problem: Problem, encoder: Encoder | None) -> tuple[Problem, float]:
    """(the problem with the time to first token that encoding leaves, ms that encoding takes)."""
    if encoder is None:
        return problem, 0.0
    left = max(problem.ttft_ms - encoder.latency_ms, LEAST_TTFT_MS)
    return replace(problem, ttft_ms=left), encoder.latency_ms


def leave_room(problem: Problem, workers: list[Worker], encoder: Encoder | None) -> list[Worker]:
    """The workers beside which a replica has room for an encode worker."""
    room = problem.replica_limit - (encoder.tp if encoder else 0)
    return [worker for worker in workers if worker.layout.n_gpus <= room]


def matches_beside(
    problem: Problem, prefill: Pool, decode: Pool, equal_tp: bool, encoder: Encoder
) -> Iterator[Matches]:
    """Pools that leave room for 1, 2, ... encode workers, until these serve whatever fits beside them."""
    limit = problem.replica_limit
    for count in range(1, problem.max_encoder_workers + 1):
        rest = limit - count * encoder.tp
        if rest < 2:
            break
        found = match(replace(problem, total_gpus=rest), prefill, decode, equal_tp)
        yield found
        if found.decode.index.size == 0:
            break
        x, y, row = found.prefill_workers, found.decode_workers, found.prefill_row
        supply, demand = found.prefill.rate_rps[row] * x * PREFILL_LOSS, found.decode.rate_rps * y * DECODE_LOSS
        gpus = found.prefill.gpus[row] * x + found.decode.gpus * y
        if (np.minimum(supply, demand) * (rest // gpus)).max() <= count * encoder.rate_rps:
            break


def try_kinds(
    problem: Problem,
    encoders: Iterable[Encoder | None],
    mode: str,
    search: "Callable[[Encoder | None], pl.DataFrame]",
) -> "pl.DataFrame":
    """The rows that ``search`` finds for every kind of encode worker, with the best number of them."""
    frames: list[pl.DataFrame] = []
    enough: Encoder | None = None
    for encoder in encoders:
        if enough is not None and encoder is not None and is_later(encoder, enough):
            continue
        frame = search(encoder)
        if frame.is_empty() or encoder is None:
            frames.append(frame)
            continue
        frames.append(add_encoders(problem, frame, encoder, mode))
        if enough is None and serves_alone(problem, frame, encoder):
            enough = encoder
    rows = stack(frames)
    if mode == "agg" or not problem.enable_epd or rows.is_empty():
        return rows
    # Of a decode row only throughput matters, whichever pools and encode workers feed it.
    return order_rows(rows).unique(["decode_parallel", "decode_batch"], keep="first", maintain_order=True)


def is_later(encoder: Encoder, other: Encoder) -> bool:
    """True if a worker of the first kind takes no fewer GPUs and no less time than one of the other."""
    return encoder.tp >= other.tp and encoder.latency_ms >= other.latency_ms


def serves_alone(problem: Problem, frame: "pl.DataFrame", encoder: Encoder) -> bool:
    """True if one encode worker is enough for as many replicas of any row as fit."""
    n_gpus, rate = frame["n_gpus"].to_numpy(), frame["request_rate_rps"].to_numpy()
    most = np.minimum((problem.replica_limit - encoder.tp) // n_gpus, MOST_REPLICAS)
    return bool((most * rate).max() <= encoder.rate_rps)


def choose(
    problem: Problem, n_gpus: np.ndarray, rate_rps: np.ndarray, encoder: Encoder
) -> tuple[np.ndarray, np.ndarray]:
    """(replicas k int64[n], encode workers e int64[n]) of every row; k is 0 where nothing fits."""
    k = np.arange(1, MOST_REPLICAS + 1)
    rate = k * rate_rps[:, None]
    e = np.maximum(np.ceil(rate / encoder.rate_rps * (1.0 - SAME)), 1.0).astype(np.int64)
    gpus = k * n_gpus[:, None] + e * encoder.tp
    fits = (e <= problem.max_encoder_workers) & (gpus <= problem.replica_limit)
    served = np.where(fits, rate * (problem.total_gpus // gpus), 0.0)
    equal = fits & (served >= served.max(axis=1, keepdims=True) * (1.0 - SAME))
    at = np.where(equal, gpus, np.iinfo(np.int64).max).argmin(axis=1)
    rows = np.arange(n_gpus.size)
    return np.where(fits.any(axis=1), k[at], 0), e[rows, at]


def add_encoders(problem: Problem, frame: "pl.DataFrame", encoder: Encoder, mode: str) -> "pl.DataFrame":
    """The rows that encode workers of one kind can serve: k of each make a replica with e encode workers."""
    import polars as pl

    n_gpus, rate = frame["n_gpus"].to_numpy(), frame["request_rate_rps"].to_numpy()
    k, e = choose(problem, n_gpus, rate, encoder)
    kept = np.flatnonzero(k)
    if kept.size == 0:
        return pl.DataFrame()
    frame, k, e, n_gpus = frame[kept], k[kept], e[kept], n_gpus[kept]
    tokens_s, tpot, ttft = (frame[name].to_numpy() for name in ("tokens_s", "tpot_ms", "ttft_ms"))
    delay = encoder.latency_ms if mode == "agg" else 0.0  # Encoder.delay has added that of a pool
    metrics = cluster_columns(problem, tokens_s * k, n_gpus * k + e * encoder.tp, tpot, ttft + delay)
    counted = ("prefill_workers", "decode_workers") if mode == "disagg" else ()
    times = pl.Series(k)
    served = frame.with_columns(
        *(pl.Series(name, values) for name, values in metrics.items()),
        *((pl.col(name) * times).alias(name) for name in ("request_rate_rps", "concurrency", *counted)),
        pl.max_horizontal("memory_gib", pl.lit(encoder.memory_gib)).alias("memory_gib"),
        pl.Series("encoder_workers", e),
        pl.lit(encoder.tp).alias("encoder_tp"),
        pl.lit(encoder.batch).alias("encoder_batch"),
        pl.lit(encoder.memory_gib).alias("encoder_memory_gib"),
    )
    if mode == "agg":
        return served.with_columns(times.alias("agg_workers"))
    return served.with_columns(pl.format("{}P{}D", "prefill_workers", "decode_workers").alias("xpyd"))
