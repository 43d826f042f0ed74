"""The space of a search: worker layouts, batches and context budgets.

``exhaustive`` takes every degree that divides, every integer batch up to what memory holds and every context
budget; ``reference`` the reference's grids (specs/search_model.md sections 5 to 7), for comparison.
"""

from collections.abc import Iterator

import numpy as np

from serveopt.kernels.records import Memory
from serveopt.solver.budgets import exhaustive_budgets, reference_budgets
from serveopt.solver.engine import Engine
from serveopt.solver.layout import Layout
from serveopt.solver.limits import layout_fault
from serveopt.solver.problem import Problem
from serveopt.solver.worker import Shape, Worker, most_sequences

DEFAULT_CTX_TOKENS = 8192  # what engines schedule by default; larger budgets are the user's choice
FRONT_REACH = 2.0  # the front is followed to this multiple of the TPOT target
REFERENCE_TP = (1, 2, 4, 8)
REFERENCE_RACK_TP = (*REFERENCE_TP, 16)
REFERENCE_AGG_BATCHES = np.array(
    [*range(1, 16), 16, 20, 24, 28, 32, 40, 48, 56, *range(64, 241, 16), *range(256, 481, 32), 512], np.int64
)
REFERENCE_DECODE_BATCHES = np.array(
    [*range(1, 16), *range(16, 31, 2), *range(32, 125, 4), *range(128, 505, 8), 512], np.int64
)
REFERENCE_REPLICAS = (1, 2, 4, 8, *range(16, 129, 8))


def divisors(number: int, limit: int) -> list[int]:
    """Divisors of ``number`` up to ``limit``.

    >>> divisors(64, 10)
    [1, 2, 4, 8]
    """
    return [d for d in range(1, min(number, limit) + 1) if number % d == 0]


def candidate_layouts(problem: Problem, engine: Engine) -> Iterator[Layout]:
    """Worker layouts worth a look; those that a model cannot run are left to ``split_layouts``."""
    if problem.space == "reference":
        rack = engine.system.gpus_per_rack is not None
        yield from (Layout(tp=tp) for tp in (REFERENCE_RACK_TP if rack else REFERENCE_TP) if tp <= problem.total_gpus)
        return
    # A layer is split over GPUs of one NVLink domain: no collective was measured across nodes, and across them it
    # would cost more than the layer saves. Pipeline stages may lie on any node.
    domain = engine.system.gpus_per_rack or engine.system.gpus_per_node
    for pp in divisors(engine.model.num_layers, problem.replica_limit):
        for tp in range(1, min(domain, problem.replica_limit // pp) + 1):
            if tp & (tp - 1) == 0 or engine.model.num_heads % tp == 0:
                yield Layout(tp=tp, pp=pp)


def split_layouts(problem: Problem, engine: Engine) -> tuple[list[Layout], list[tuple[Layout, str]]]:
    """(layouts that can run, layouts that cannot with the reason)."""
    valid, faulty = [], []
    for layout in candidate_layouts(problem, engine):
        fault = layout_fault(engine, layout)
        if fault:
            faulty.append((layout, fault[1]))
        else:
            valid.append(layout)
    return valid, faulty


def context_limit(problem: Problem) -> int:
    """The most context tokens of one step."""
    return problem.max_ctx_tokens or max(DEFAULT_CTX_TOKENS, 2 * problem.isl)


def context_budgets(problem: Problem) -> np.ndarray:
    """int64[m]: the context budgets of the space."""
    if problem.space == "reference":
        return reference_budgets(problem.isl)
    return exhaustive_budgets(problem.isl, context_limit(problem))


def batches(problem: Problem, worker: Worker, memory: Memory, grid: np.ndarray) -> np.ndarray:
    """int64[n]: batches per rank that the KV cache can hold; ``grid`` is used in the reference space.

    The exhaustive space ends where a decode step alone takes twice the TPOT target: no larger batch can be
    ranked, and the front is not followed further down.
    """
    most = most_sequences(memory)
    if problem.max_batch is not None:
        most = min(most, problem.max_batch)
    if problem.space == "reference":
        return grid[grid <= most]
    shape = Shape(problem.isl, problem.osl, problem.prefix_len, problem.max_seq_len)
    most = worker.largest_batch(shape, most, FRONT_REACH * problem.tpot_ms)
    return np.arange(1, most + 1, dtype=np.int64)


def prefill_batches(problem: Problem) -> np.ndarray:
    """int64[n]: prompts prefilled together by one worker of a prefill pool."""
    return np.arange(1, (1 if problem.space == "reference" else problem.max_prefill_batch) + 1, dtype=np.int64)


def reference_budget_groups(problem: Problem, sizes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(batches, budgets) of the reference: it drops points whose prefill-to-decode balance repeats an earlier one."""
    budgets = context_budgets(problem)
    seen: list[float] = []
    for batch in sizes.tolist():
        kept = []
        for budget in budgets.tolist():
            prompts = -(-budget // problem.isl)
            if batch - prompts < (0 if batch == 1 else 1):
                break
            balance = problem.isl * batch / budget / problem.osl
            share = batch // balance if balance > 1 else 0.0
            if share > 1 and share in seen:
                continue
            if share > 1:
                seen.append(share)
            kept.append(budget)
        if kept:
            yield np.array([batch], np.int64), np.array(kept, np.int64)
