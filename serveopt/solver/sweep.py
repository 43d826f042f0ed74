"""Aggregated search: every batch and context budget of every worker layout, reduced to one front per layout.

Tasks are ranges of batches of one layout. They run side by side in threads (the kernels release the GIL) and are
merged in the order of enumeration, so the result does not depend on the number of threads.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from serveopt.kernels.aggregate import (
    FRONT_BATCH,
    FRONT_CTX,
    FRONT_ROWS,
    FRONT_TOKENS_S,
    FRONT_TPOT,
    FRONT_TTFT,
    check_memory,
    sweep_batches,
)
from serveopt.kernels.pareto import mark_front
from serveopt.kernels.records import REASONS, Memory, Serving, Steps
from serveopt.solver.budgets import price_budgets
from serveopt.solver.footprint import NO_ROOM
from serveopt.solver.problem import Problem
from serveopt.solver.shape import Shape
from serveopt.solver.space import REFERENCE_AGG_BATCHES, batches, context_budgets, reference_budget_groups
from serveopt.solver.worker import Worker

TASK_CANDIDATES = 2_000_000  # priced in some 20 ms: progress and Ctrl-C are never further away
FRONT_CAPACITY = 2048


@dataclass(frozen=True, slots=True)
class LayoutFront:
    """The front of one layout: arrays in order of TPOT; ``tokens_s`` is that of one replica."""

    worker: Worker
    memory: Memory
    batch: np.ndarray
    ctx_tokens: np.ndarray
    ttft_ms: np.ndarray
    tpot_ms: np.ndarray
    tokens_s: np.ndarray


@dataclass
class Tally:
    """What was priced and what was rejected; ``nearest`` float64[7] as in kernels.aggregate.tally_block.

    The nearest misses of the aggregated sweep are only kept when asked for: they cost as much as the pricing.
    """

    counts: np.ndarray = field(default_factory=lambda: np.zeros(REASONS, np.int64))
    nearest: np.ndarray = field(default_factory=lambda: np.full(7, np.inf))
    interrupted: bool = False  # by Ctrl-C: not every task was run

    def add(self, other: "Tally") -> None:
        """Nothing; takes in another tally."""
        self.counts += other.counts
        self.interrupted |= other.interrupted
        self.nearest[:4] = np.minimum(self.nearest[:4], other.nearest[:4])
        if other.nearest[4] < self.nearest[4]:
            self.nearest[4:] = other.nearest[4:]


@dataclass(frozen=True, slots=True)
class Task:
    """Batches of one layout under the same budgets."""

    index: int
    steps: Steps
    memories: tuple[Memory, Memory]  # of the layout and of the one that dominates it
    batches: np.ndarray
    budgets: np.ndarray


def dominating(workers: list[Worker], index: int) -> Worker | None:
    """The worker with the same split of layers and fewer pipeline stages, if any.

    A pipeline of pp stages serves pp batches at once on pp times the GPUs, each step as long as on one stage plus
    the hand-overs: whatever fits without it is at least as fast, as productive per GPU and as easy to place.
    Only what does not fit there remains to be priced.
    """
    own = workers[index].layout
    shallower = [
        (worker.layout.pp, position)
        for position, worker in enumerate(workers)
        if worker.layout._replace(pp=own.pp) == own and own.pp % worker.layout.pp == 0 and worker.layout.pp < own.pp
    ]
    return workers[max(shallower)[1]] if shallower else None


def plan_tasks(problem: Problem, shape: Shape, workers: list[Worker], index: int) -> tuple[Memory, list[Task]]:
    """The tasks of one layout."""
    worker = workers[index]
    memory = worker.memory("agg", shape)
    shallower = dominating(workers, index)
    memories = (memory, shallower.memory("agg", shape) if shallower else NO_ROOM)
    sizes = batches(problem, worker, memory, REFERENCE_AGG_BATCHES)
    if sizes.size == 0:
        return memory, []
    budgets = context_budgets(problem)
    steps = worker.steps(shape, int(budgets[-1]), int(sizes[-1]))
    if problem.space == "reference":
        groups: Iterator[tuple[np.ndarray, np.ndarray]] = reference_budget_groups(problem, sizes)
    else:
        pieces = max(1, -(-sizes.size * budgets.size // TASK_CANDIDATES))
        groups = ((part, budgets) for part in np.array_split(sizes, pieces))
    return memory, [Task(index, steps, memories, part, limits) for part, limits in groups]


def run_task(problem: Problem, shape: Shape, worker: Worker, task: Task, diagnose: bool) -> tuple[np.ndarray, Tally]:
    """(front float64[5, n], tally) of one task."""
    work = worker.workload(shape, problem.ttft_ms, problem.tpot_ms)
    serving = Serving(task.steps, price_budgets(worker, shape, task.budgets), work, worker.scheduler(shape))
    capacity = FRONT_CAPACITY
    while True:
        tally, front = Tally(), np.zeros((FRONT_ROWS, capacity))
        nearest = tally.nearest if diagnose else tally.nearest[:0]
        size = sweep_batches(serving, task.memories, task.batches, front, tally.counts, nearest)
        if size >= 0:
            return front[:, :size].copy(), tally
        capacity *= 4


def sweep_workers(
    problem: Problem,
    shape: Shape,
    workers: list[Worker],
    on_task: Callable[[Tally, int, int], None],
    diagnose: bool = False,
) -> tuple[list[LayoutFront], Tally]:
    """(one front per layout, tally); ``on_task`` is told the running tally, tasks done and tasks in all.

    ``diagnose`` keeps what comes nearest to the targets, for when nothing meets them.
    """
    tally = Tally()
    memories, tasks = [], []
    for index in range(len(workers)):
        memory, planned = plan_tasks(problem, shape, workers, index)
        memories.append(memory)
        tasks += planned
        if not planned:
            tally.counts[check_memory(memory, 1.0, 1.0)] += 1
    parts: list[list[np.ndarray]] = [[] for _ in workers]
    with ThreadPoolExecutor(problem.worker_threads) as pool:
        futures = [pool.submit(run_task, problem, shape, workers[task.index], task, diagnose) for task in tasks]
        try:
            for done, (task, future) in enumerate(zip(tasks, futures, strict=True), 1):
                front, part = future.result()
                parts[task.index].append(front)
                tally.add(part)
                on_task(tally, done, len(tasks))
        except KeyboardInterrupt:
            # What was found until now is an answer too, and said to be partial.
            pool.shutdown(wait=True, cancel_futures=True)
            tally.interrupted = True
    fronts = [merge_fronts(worker, memory, part) for worker, memory, part in zip(workers, memories, parts, strict=True)]
    return fronts, tally


def merge_fronts(worker: Worker, memory: Memory, parts: list[np.ndarray]) -> LayoutFront:
    """One front from those of a layout's tasks."""
    rows = np.concatenate([np.zeros((FRONT_ROWS, 0)), *parts], axis=1)
    order = np.lexsort((-rows[FRONT_TOKENS_S], rows[FRONT_TPOT]))
    keep = np.zeros(order.size, bool)
    mark_front(order, -rows[FRONT_TPOT], rows[FRONT_TOKENS_S], keep)
    rows = rows[:, order[keep[order]]]
    return LayoutFront(
        worker=worker,
        memory=memory,
        batch=rows[FRONT_BATCH].astype(np.int64),
        ctx_tokens=rows[FRONT_CTX].astype(np.int64),
        ttft_ms=rows[FRONT_TTFT],
        tpot_ms=rows[FRONT_TPOT],
        tokens_s=rows[FRONT_TOKENS_S] * (worker.layout.pp * worker.layout.attn_dp),
    )
