"""Events of searches that were never run, as realistic as real ones and the same every time: (seconds, event) pairs."""

import random
from collections.abc import Iterator

from serveopt.solver.events import Compiling, Event, Finished, Found, Front, Progress, Started
from serveopt.solver.problem import Problem

Timed = tuple[float, Event]
KERNELS = ("efficiency", "prefill attention", "decode attention", "bounds", "curves", "memory", "sweep", "matching")
UNITS = 400_000  # candidates of one unit of an aggregated stage


def make_problem(**changes: object) -> Problem:
    """The README's question."""
    fields = {"model": "Qwen/Qwen3-32B-FP8", "system": "h200_sxm", "total_gpus": 32} | changes
    return Problem(**fields)


def layout_names(backend: str, experts: bool) -> list[str]:
    """Worker layouts as rows spell them."""
    if not experts:
        return [f"tp{tp}pp{pp}" for tp in (1, 2, 4, 8) for pp in (1, 2, 4)]
    return [f"tp{tp}pp1dp{dp}etp1ep{tp * dp}" for tp in (1, 2, 4, 8) for dp in (1, 4, 16)]


def make_row(chance: random.Random, backend: str, mode: str, names: list[str]) -> dict[str, object]:
    """A row within the limits."""
    user = chance.uniform(33.5, 160.0)
    rate = 2100.0 * (1.0 - user / 260.0) * chance.uniform(0.55, 1.0)
    gpus = chance.choice((1, 2, 4, 8, 16))
    parallel = chance.choice(names)
    if mode == "disagg":
        parallel = f"{parallel} + {chance.choice(names)}"
    return {
        "backend": backend, "parallel": parallel, "xpyd": f"{chance.randint(1, 14)}P{chance.randint(1, 9)}D"
        if mode == "disagg" else "", "tokens_s_gpu_cluster": rate, "tokens_s_gpu": rate, "tokens_s_user": user,
        "ttft_ms": chance.uniform(300, 1990), "tpot_ms": 1000.0 / user, "e2e_ms": 25_000.0, "concurrency": 128,
        "replicas": 32 // gpus, "n_gpus": gpus, "batch": chance.randint(1, 512),
    }  # fmt: skip


def make_front(chance: random.Random, mode: str, share: float) -> Front:
    """A front that reaches further out the more of the search is done."""
    users = sorted(chance.uniform(12.0, 60.0 + 180.0 * share) for _ in range(12 + int(60 * share)))
    lift = (0.7 + 0.3 * share) * (1.0 if mode == "agg" else 1.04)
    return Front(mode, tuple(users), tuple(lift * 2200.0 * (1.0 - user / 300.0) ** 1.6 for user in users))


def stage_events(
    backend: str, mode: str, start_s: float, span_s: float, evaluated: int, experts: bool = False
) -> Iterator[Timed]:
    """One stage: progress 25 times a second, a row and a front now and then."""
    chance = random.Random(f"{backend} {mode}")
    name = f"{backend} {'aggregated' if mode == 'agg' else 'disaggregated'}"
    names = layout_names(backend, experts)
    total = max(int(25 * span_s), 4)
    for done in range(total + 1):
        t_s = start_s + span_s * done / total
        count = evaluated + done * (UNITS if mode == "agg" else UNITS // 10)
        rejected = {"kv_cache": 114 * done, "ttft": count // 4, "tpot": count // 2, "dominated": count // 5}
        layout = names[done * len(names) // (total + 1)]
        yield t_s, Progress(name, done, total, count, layout, rejected)
        if done % 4 == 3:
            yield t_s, Found(mode, make_row(chance, backend, mode, names))
            yield t_s, make_front(chance, mode, done / total)


def search_events(
    problem: Problem, stage_s: float = 2.0, compile_s: float = 0.0, experts: bool = False
) -> Iterator[Timed]:
    """A whole search, ``stage_s`` seconds per stage."""
    backends = ("trtllm", "sglang", "vllm") if problem.backend == "auto" else (problem.backend,)
    modes = ("agg", "disagg") if problem.serving_mode == "auto" else (problem.serving_mode,)
    plan = [(backend, mode) for backend in backends for mode in modes]
    names = tuple(f"{backend} {'aggregated' if mode == 'agg' else 'disaggregated'}" for backend, mode in plan)
    yield 0.0, Started(problem, 2, names)
    if compile_s:
        for done, kernel in enumerate((*KERNELS, "done")):
            yield 0.5 + compile_s * done / len(KERNELS), Compiling(kernel, done, len(KERNELS))
    start_s, evaluated = 0.5 + compile_s if compile_s else 0.0, 0
    for backend, mode in plan:
        for t_s, event in stage_events(backend, mode, start_s, stage_s, evaluated, experts):
            yield t_s, event
            if isinstance(event, Progress):
                last = event.evaluated
        start_s, evaluated = start_s + stage_s, last
    yield start_s, Finished(evaluated, 594_232, 1000.0 * start_s)
