"""A search, aloud: read, resolve, plan, enumerate, sweep, match, rank.

    >>> from serveopt.solver.problem import Problem
    >>> problem = Problem(model="Qwen/Qwen3-8B", system="h100_sxm", total_gpus=2, max_ctx_tokens=4000)
    >>> solve(problem).chosen in ("agg", "disagg")
    True
"""

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from serveopt.errors import ConfigError, MissingTable, NoFeasible
from serveopt.kernels.records import REASON_TEXT, Reason
from serveopt.solver.engine import QUANT_FIELDS, Engine, EngineQuery, check_context, open_engine
from serveopt.solver.events import OnEvent, Progress, ignore
from serveopt.solver.layout import Layout
from serveopt.solver.match import fastest_prefill, match, note_nearest, price_decode, price_prefill
from serveopt.solver.pools import DECODE_LOSS, PREFILL_LOSS
from serveopt.solver.problem import BACKENDS, Problem
from serveopt.solver.rank import order_rows, pareto_rows, rank_rows
from serveopt.solver.reference_match import match_reference
from serveopt.solver.relax import relaxation
from serveopt.solver.rows import agg_frame, disagg_frame
from serveopt.solver.space import split_layouts
from serveopt.solver.sweep import Tally, sweep_workers
from serveopt.solver.warm import compile_kernels
from serveopt.solver.worker import Shape, Worker

if TYPE_CHECKING:
    import polars as pl


# Under --backend auto an error in one of these is a reason to leave that backend out.
BACKEND_FIELDS = ("backend", "backend_version", "attention_backend", "system")


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


@dataclass(frozen=True, slots=True)
class Found:
    """All rows of one backend and its counts."""

    agg: "pl.DataFrame"
    disagg: "pl.DataFrame"
    matched: int
    tallies: dict[str, Tally]
    notes: tuple[str, ...]


def solve(problem: Problem, on_event: OnEvent = ignore) -> Ranking:
    """The ranking of a problem; NoFeasible when nothing meets the target, with what to relax."""
    compile_kernels(on_event)
    started = time.perf_counter()
    backends = BACKENDS if problem.backend == "auto" else (problem.backend,)
    founds, missing, errors = [], [], []
    for backend in backends:
        try:
            founds.append(search_backend(replace(problem, backend=backend), on_event))
        except (MissingTable, ConfigError) as error:
            if len(backends) == 1 or getattr(error, "field", "backend") not in BACKEND_FIELDS:
                raise
            errors.append(error)
            missing.append(f"{backend}: {error.message}")
        if founds and founds[-1].tallies["agg"].interrupted:
            break
    if not founds and len({error.message for error in errors}) == 1:
        raise errors[0]
    if not founds:
        raise MissingTable("any backend", message="; ".join(missing))
    frames = {mode: stack([getattr(found, mode) for found in founds]) for mode in ("agg", "disagg")}
    ranked = {mode: rank_rows(problem, frame, mode) for mode, frame in frames.items()}
    search_ms = 1e3 * (time.perf_counter() - started)
    tallies = {mode: merge([found.tallies[mode] for found in founds]) for mode in ("agg", "disagg")}
    nothing = all(frame.is_empty() for frame in ranked.values())
    if nothing and tallies["agg"].interrupted:
        raise KeyboardInterrupt
    if nothing:
        raise no_feasible(problem, on_event)
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
    )


def search_backend(problem: Problem, on_event: OnEvent, diagnose: bool = False) -> Found:
    """All rows of one backend, both serving modes; ``diagnose`` also keeps what comes nearest to the targets."""
    import polars as pl

    engine = open_engine(query_of(problem, problem.system))
    decode_engine, notes = plan_pools(problem, engine)
    warning = check_context(engine.model, problem.isl, problem.osl)
    notes += [warning] if warning else []
    shape = Shape(problem.isl, problem.osl, problem.prefix_len, problem.max_seq_len)
    tallies = {"agg": Tally(), "disagg": Tally()}
    workers = plan_workers(problem, engine, shape, tallies["agg"])
    agg = disagg = pl.DataFrame()
    matched = 0
    if problem.serving_mode != "disagg":
        fronts, tally = sweep_workers(problem, shape, workers, report(on_event, problem.backend), diagnose)
        tallies["agg"].add(tally)
        agg = agg_frame(problem, fronts)
    if tallies["agg"].interrupted:
        notes.append("interrupted: partial, only what was priced until then is ranked")
    elif decode_engine is not None:
        decode_workers = workers
        if decode_engine is not engine:
            decode_workers = plan_workers(problem, decode_engine, shape, tallies["disagg"])
        disagg, matched = search_pools(problem, shape, (workers, decode_workers), tallies["disagg"], on_event)
    return Found(agg, disagg, matched, tallies, tuple(notes))


def search_pools(
    problem: Problem, shape: Shape, pools: tuple[list[Worker], list[Worker]], tally: Tally, on_event: OnEvent
) -> "tuple[pl.DataFrame, int]":
    """(matched rows, pairs decided) of disaggregated serving; ``pools`` prefill and decode workers."""
    workers, decode_workers = pools
    stage = f"{problem.backend} disaggregated"
    on_event(Progress(stage, 0, 3))
    prefill = price_prefill(problem, shape, workers, tally)
    on_event(Progress(stage, 1, 3, prefill.index.size))
    decode = price_decode(problem, shape, decode_workers, tally)
    on_event(Progress(stage, 2, 3, prefill.index.size + decode.index.size))
    tally.counts[Reason.PRICED] += prefill.index.size + decode.index.size
    tally.counts[Reason.TPOT] += int((decode.latency_ms > problem.tpot_ms).sum())
    fastest = fastest_prefill(problem, prefill, tally)
    equal_tp = workers[0].engine.backend.equal_tp_pools if workers else False
    note_nearest(problem, prefill, decode, equal_tp, tally)
    if problem.space == "reference":
        matches = match_reference(problem, prefill, decode, equal_tp)
    else:
        matches = match(problem, fastest, decode, equal_tp)
    on_event(Progress(stage, 3, 3, prefill.index.size + decode.index.size))
    return disagg_frame(problem, shape, matches, (PREFILL_LOSS, DECODE_LOSS)), matches.decided


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


def plan_workers(problem: Problem, engine: Engine, shape: Shape, tally: Tally) -> list[Worker]:
    """Workers of every layout whose operators were measured; the others are counted with their reason."""
    layouts, faulty = split_layouts(problem, engine)
    tally.counts[Reason.INDIVISIBLE] += len(faulty)
    workers, misses = [], []
    for layout in layouts:
        worker = Worker(engine, layout, problem.free_gpu_memory_fraction)
        try:
            worker.check_data()
        except MissingTable as error:
            tally.counts[Reason.NO_DATA] += 1
            misses.append(error)
        else:
            workers.append(worker)
    if not workers and misses:
        raise misses[0]
    return workers


def query_of(problem: Problem, system: str) -> EngineQuery:
    """The engine that a problem needs on ``system``."""
    chosen = ((component, getattr(problem, name)) for component, name in QUANT_FIELDS.items())
    return EngineQuery(
        model=problem.model,
        system=system,
        backend=problem.backend,
        backend_version=problem.backend_version,
        cost_model=problem.pricing,
        quant=tuple((component, mode) for component, mode in chosen if mode is not None),
        attention_backend=problem.attention_backend,
        systems_paths=problem.systems_paths,
    )


def stack(frames: "list[pl.DataFrame]") -> "pl.DataFrame":
    """The frames under one another; those without rows have no columns either."""
    import polars as pl

    filled = [frame for frame in frames if not frame.is_empty()]
    return pl.concat(filled) if filled else pl.DataFrame()


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


def no_feasible(problem: Problem, on_event: OnEvent) -> NoFeasible:
    """The error that says what to relax and by how much; searches once more to find what comes nearest."""
    tallies: dict[str, list[Tally]] = {"agg": [], "disagg": []}
    for backend in BACKENDS if problem.backend == "auto" else (problem.backend,):
        try:
            found = search_backend(replace(problem, backend=backend), on_event, diagnose=True)
        except (MissingTable, ConfigError):
            continue
        for mode, tally in found.tallies.items():
            tallies[mode].append(tally)
    merged = {mode: merge(parts) for mode, parts in tallies.items()}
    message, nearest, hint = relaxation(problem, merged)
    return NoFeasible(message, {mode: count_reasons(tally) for mode, tally in merged.items()}, nearest, hint)
