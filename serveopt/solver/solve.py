"""A search, aloud: read, resolve, plan, enumerate, sweep, match, rank.

>>> from serveopt.solver.problem import Problem
>>> problem = Problem(model="Qwen/Qwen3-8B", system="h100_sxm", total_gpus=2, max_ctx_tokens=4000)
>>> solve(problem).chosen in ("agg", "disagg")
True
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from serveopt.errors import ConfigError, MissingTable, NoFeasible, ServeoptError
from serveopt.kernels.records import REASON_TEXT, Reason
from serveopt.perfdata.systems import load_system
from serveopt.solver.breakdown import add_measured_share
from serveopt.solver.encoders import Encoder, leave_room, matches_beside, plan_encoders, tightened, try_kinds
from serveopt.solver.engine import Engine, EngineQuery, check_context, check_speculation, open_engine, query_engine
from serveopt.solver.events import OnEvent, Progress, ignore
from serveopt.solver.layout import Layout
from serveopt.solver.limits import check_exchange
from serveopt.solver.match import Matches, Pool, fastest_prefill, match, note_nearest, price_decode, price_prefill
from serveopt.solver.options import QUANTS
from serveopt.solver.pools import DECODE_LOSS, PREFILL_LOSS
from serveopt.solver.problem import BACKENDS, Problem
from serveopt.solver.rank import order_rows, pareto_rows, rank_rows
from serveopt.solver.reference_match import match_reference
from serveopt.solver.relax import relaxation
from serveopt.solver.rows import agg_frame, disagg_frame, stack
from serveopt.solver.shape import Shape, request_shape
from serveopt.solver.splits import role_filter, split_layouts
from serveopt.solver.sweep import Tally, sweep_workers
from serveopt.solver.warm import compile_kernels
from serveopt.solver.worker import Worker

if TYPE_CHECKING:
    import polars as pl


# Under --backend auto an error in one of these is a reason to leave that backend out.
BACKEND_FIELDS = ("backend", "backend_version", "attention_backend", "moe_backend", "system", *QUANTS)


@dataclass(frozen=True, slots=True)
class Ranking:
    """The answer: best rows of both serving modes, the front, and what was counted on the way.

    ``evaluated`` worker configurations priced, ``matched`` pairs of pools decided; ``rejected`` maps serving mode
    and reason to a count.
    """

    problem: Problem
    chosen: str
    agg: "pl.DataFrame"
    disagg: "pl.DataFrame"
    pareto: "pl.DataFrame"
    evaluated: int
    matched: int
    search_ms: float
    rejected: dict[str, dict[str, int]]
    notes: tuple[str, ...] = ()
    partial: bool = False  # interrupted: only what was priced until then is ranked


@dataclass(frozen=True, slots=True)
class Found:
    """All rows of one backend and its counts."""

    agg: "pl.DataFrame"
    disagg: "pl.DataFrame"
    matched: int
    tallies: dict[str, Tally]
    notes: tuple[str, ...]
    workers: dict[tuple[str, str, Layout], Worker]


def solve(problem: Problem, on_event: OnEvent = ignore) -> Ranking:
    """The ranking of a problem; NoFeasible when nothing meets the target, with what to relax."""
    started = time.perf_counter()
    engines, errors = open_engines(problem)
    opened = time.perf_counter() - started
    compile_kernels(on_event)  # once every name is known to be right
    started = time.perf_counter() - opened
    founds = []
    for backend, engine in engines.items():
        try:
            founds.append(search_backend(replace(problem, backend=backend), engine, on_event))
        except (MissingTable, ConfigError) as error:
            errors[backend] = skippable(problem, error)
        if founds and founds[-1].tallies["agg"].interrupted:
            break
    missing = [f"{backend}: {error.message}" for backend, error in errors.items()]
    if not founds and len({error.message for error in errors.values()}) == 1:
        raise next(iter(errors.values()))
    if not founds:
        raise MissingTable("any backend", message="; ".join(missing))
    frames = {mode: stack([getattr(found, mode) for found in founds]) for mode in ("agg", "disagg")}
    workers = {key: worker for found in founds for key, worker in found.workers.items()}
    ranked = {
        mode: add_measured_share(problem, rank_rows(problem, frame, mode), mode, workers)
        for mode, frame in frames.items()
    }
    search_ms = 1e3 * (time.perf_counter() - started)
    tallies = {mode: merge([found.tallies[mode] for found in founds]) for mode in ("agg", "disagg")}
    nothing = all(frame.is_empty() for frame in ranked.values())
    if nothing and tallies["agg"].interrupted:
        raise KeyboardInterrupt
    if nothing:
        raise no_feasible(problem, engines, on_event)
    return Ranking(
        problem=problem,
        chosen=better(ranked),
        agg=ranked["agg"],
        disagg=ranked["disagg"],
        pareto=pareto_rows(problem, frames["agg"], frames["disagg"]),
        evaluated=sum(int(tally.counts[Reason.PRICED]) for tally in tallies.values()),
        matched=sum(found.matched for found in founds),
        search_ms=search_ms,
        rejected={mode: count_reasons(tally) for mode, tally in tallies.items()},
        notes=(*dict.fromkeys(note for found in founds for note in found.notes), *missing),
        partial=any(tally.interrupted for tally in tallies.values()),
    )


def open_engines(problem: Problem) -> tuple[dict[str, Engine], dict[str, ServeoptError]]:
    """(engine by backend, error by backend that has none); what is wrong under every backend is raised."""
    engines: dict[str, Engine] = {}
    errors: dict[str, ServeoptError] = {}
    check_decode_system(problem)
    for backend in BACKENDS if problem.backend == "auto" else (problem.backend,):
        try:
            engines[backend] = open_engine(query_of(replace(problem, backend=backend), problem.system))
        except (MissingTable, ConfigError) as error:
            errors[backend] = skippable(problem, error)
    if not engines and len({error.message for error in errors.values()}) == 1:
        raise next(iter(errors.values()))
    return engines, errors


def check_decode_system(problem: Problem) -> None:
    """Nothing; ConfigError for a decode system that does not exist."""
    try:
        load_system(problem.decode_system or problem.system, problem.systems_paths)
    except ConfigError as error:
        field = "decode_system" if problem.decode_system else "system"
        raise ConfigError(error.message, field=field, hint=error.hint) from error


def skippable(problem: Problem, error: MissingTable | ConfigError) -> MissingTable | ConfigError:
    """The error, where it only rules out one of several backends; raises it otherwise."""
    if problem.backend != "auto" or getattr(error, "field", "backend") not in BACKEND_FIELDS:
        raise error
    return error


def search_backend(problem: Problem, engine: Engine, on_event: OnEvent, diagnose: bool = False) -> Found:
    """All rows of one backend, both serving modes; ``diagnose`` also keeps what comes nearest to the targets."""
    import polars as pl

    decode_engine, notes = plan_pools(problem, engine)
    encoders = plan_encoders(problem, engine.query)
    warning = check_context(engine.model, problem.isl, problem.osl)
    notes += [text for text in (warning, check_speculation(engine)) if text]
    shape = request_shape(problem, engine)
    tallies = {"agg": Tally(), "disagg": Tally()}
    workers = plan_workers(problem, engine, tallies["agg"])
    decode_workers = workers
    agg = disagg = pl.DataFrame()
    matched = 0
    if problem.serving_mode != "disagg":
        mixed = in_role(problem, workers, "agg")

        def sweep(encoder: Encoder | None) -> "pl.DataFrame":
            asked, delay = tightened(problem, encoder)
            placed = leave_room(problem, mixed, encoder)
            fronts, part = sweep_workers(asked, shape, placed, report(on_event, problem.backend), diagnose)
            part.nearest[[0, 2, 5]] += delay  # the times to first token in it
            tallies["agg"].add(part)
            return agg_frame(problem, shape, fronts)

        agg = try_kinds(problem, takewhile(lambda _: not tallies["agg"].interrupted, encoders), "agg", sweep)
    if tallies["agg"].interrupted:
        notes.append("interrupted: partial, only what was priced until then is ranked")
    elif decode_engine is not None:
        if decode_engine is not engine:
            decode_workers = plan_workers(problem, decode_engine, tallies["disagg"])
        pools = (in_role(problem, workers, "prefill"), in_role(problem, decode_workers, "decode"))
        disagg, matched = search_pools(problem, shape, pools, encoders, (tallies["disagg"], on_event))
    known = {(w.engine.backend.name, w.engine.system.name, w.layout): w for w in (*workers, *decode_workers)}
    return Found(agg, disagg, matched, tallies, tuple(notes), known)


def search_pools(
    problem: Problem,
    shape: Shape,
    pools: tuple[list[Worker], list[Worker]],
    encoders: list[Encoder | None],
    told: tuple[Tally, OnEvent],
) -> "tuple[pl.DataFrame, int]":
    """(matched rows, pairs decided) of disaggregated serving; ``pools`` prefill and decode workers."""
    (workers, decode_workers), (tally, on_event) = pools, told
    stage = f"{problem.backend} disaggregated"
    on_event(Progress(stage, 0, 3))
    prefill = price_prefill(problem, shape, workers, tally)
    on_event(Progress(stage, 1, 3, prefill.index.size))
    decode = price_decode(problem, shape, decode_workers, tally)
    on_event(Progress(stage, 2, 3, prefill.index.size + decode.index.size))
    tally.counts[Reason.PRICED] += prefill.index.size + decode.index.size
    tally.counts[Reason.TPOT] += int((decode.latency_ms > problem.tpot_ms).sum())
    equal_tp = workers[0].engine.backend.equal_tp_pools if workers else False
    decided = 0

    def pair(encoder: Encoder | None) -> "pl.DataFrame":
        nonlocal decided
        delayed = encoder.delay(prefill) if encoder else prefill
        found = list(pair_pools(problem, (delayed, decode), equal_tp, encoder, tally))
        decided += sum(matches.decided for matches in found)
        return stack([disagg_frame(problem, shape, matches, (PREFILL_LOSS, DECODE_LOSS)) for matches in found])

    frame = try_kinds(problem, encoders, "disagg", pair)
    on_event(Progress(stage, 3, 3, prefill.index.size + decode.index.size))
    return frame, decided


def pair_pools(
    problem: Problem, pools: tuple[Pool, Pool], equal_tp: bool, encoder: Encoder | None, tally: Tally
) -> Iterator[Matches]:
    """What is matched, all of it; several times where encode workers of one kind need room beside the pools."""
    prefill, decode = pools
    fastest = fastest_prefill(problem, prefill, tally)
    room = problem.replica_limit - (encoder.tp if encoder else 0)
    note_nearest(replace(problem, total_gpus=max(room, 1)), prefill, decode, equal_tp, tally)
    if problem.space == "reference":
        yield match_reference(problem, prefill, decode, equal_tp)
    elif encoder is None:
        yield match(problem, fastest, decode, equal_tp)
    else:
        yield from matches_beside(problem, fastest, decode, equal_tp, encoder)


def plan_pools(problem: Problem, engine: Engine) -> tuple[Engine | None, list[str]]:
    """(engine of the decode pool or None where nothing is to be disaggregated, notes on why not)."""
    if problem.serving_mode == "agg":
        return None, []
    if problem.osl == 1:
        if problem.serving_mode == "disagg":
            raise ConfigError("1 is not allowed; an answer of one token needs no decode worker", field="osl")
        return None, ["disaggregated serving was left out: an answer of one token needs no decode worker"]
    if problem.decode_system in (None, problem.system):
        return engine, []
    try:
        decode_engine = open_engine(query_of(problem, str(problem.decode_system)))
        Worker(decode_engine, Layout()).check_data()
        return decode_engine, []
    except ConfigError as error:
        if error.field != "system":
            raise
        raise ConfigError(error.message, field="decode_system", hint=error.hint) from error
    except MissingTable as error:
        message = f"decode system {problem.decode_system}: {error.message}"
        if problem.serving_mode == "disagg":
            raise MissingTable(error.op, error.key, message=message) from error
        return None, [f"disaggregated serving was left out: {message}"]


def plan_workers(problem: Problem, engine: Engine, tally: Tally) -> list[Worker]:
    """Workers of every layout whose operators were measured; the others are counted with their reason."""
    layouts, faulty = split_layouts(problem, engine)
    tally.counts[Reason.INDIVISIBLE] += len(faulty)
    workers, misses = [], []
    for layout in layouts:
        try:
            check_exchange(engine, layout)
            worker = Worker(engine, layout, problem.free_gpu_memory_fraction)
            worker.check_data()
        except MissingTable as error:
            tally.counts[Reason.NO_DATA] += 1
            misses.append(error)
        else:
            workers.append(worker)
    if not workers and misses:
        raise misses[0]
    return workers


def in_role(problem: Problem, workers: list[Worker], role: str) -> list[Worker]:
    """The workers that are tried in a role: agg, prefill or decode."""
    if not workers:
        return []
    allowed = role_filter(problem, workers[0].engine, role)
    return [worker for worker in workers if allowed(worker.layout)]


def query_of(problem: Problem, system: str) -> EngineQuery:
    """The engine that a problem needs on ``system``."""
    query = query_engine(problem, (problem.model, system, problem.backend), problem.pricing, searching=True)
    return replace(query, encodes=not problem.enable_epd)


def report(on_event: OnEvent, backend: str):  # type: ignore[no-untyped-def]
    """A reader of sweep tallies that tells them as Progress."""

    def told(tally: Tally, done: int, total: int) -> None:
        on_event(Progress(f"{backend} aggregated", done, total, int(tally.counts[Reason.PRICED])))

    return told


def merge(tallies: list[Tally]) -> Tally:
    """The sum of tallies."""
    total = Tally()
    for tally in tallies:
        total.add(tally)
    return total


def count_reasons(tally: Tally) -> dict[str, int]:
    """Rejected candidates by reason, zeros left out."""
    counted = {reason.name.lower(): int(tally.counts[reason]) for reason in REASON_TEXT}
    return {name: count for name, count in counted.items() if count}


def better(ranked: "dict[str, pl.DataFrame]") -> str:
    """The serving mode whose best row serves more tokens/s per GPU of the cluster."""
    best: dict[str, Any] = {
        mode: order_rows(frame)["tokens_s_gpu_cluster"][0] for mode, frame in ranked.items() if not frame.is_empty()
    }
    return max(best, key=lambda mode: best[mode])


def no_feasible(problem: Problem, engines: dict[str, Engine], on_event: OnEvent) -> NoFeasible:
    """The error that says what to relax and by how much; searches once more to find what comes nearest."""
    tallies: dict[str, list[Tally]] = {"agg": [], "disagg": []}
    for backend, engine in engines.items():
        try:
            found = search_backend(replace(problem, backend=backend), engine, on_event, diagnose=True)
        except (MissingTable, ConfigError):
            continue
        for mode, tally in found.tallies.items():
            tallies[mode].append(tally)
    merged = {mode: merge(parts) for mode, parts in tallies.items()}
    message, nearest, hint = relaxation(problem, merged)
    return NoFeasible(message, {mode: count_reasons(tally) for mode, tally in merged.items()}, nearest, hint)
