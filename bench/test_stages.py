"""Stages of a search beside numpy doing the same job on the same tables.

    python -m pytest bench/test_stages.py -q --benchmark-only

"aggregated search" is ``solve`` of one layout, everything but the first opening of tables included, against numpy that
prices every candidate of one batch at a time and keeps the best within the targets. "layout tables" fills the token
tables of a layout from its curves. Both engines must agree before the clock starts.
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest

from serveopt.kernels.records import Memory, Serving
from serveopt.solver.budgets import price_budgets
from serveopt.solver.engine import Engine, open_engine, query_engine
from serveopt.solver.layout import Layout
from serveopt.solver.problem import Problem
from serveopt.solver.shape import Shape, request_shape
from serveopt.solver.solve import solve
from serveopt.solver.worker import Worker

ENGINES = ["serveopt", "numpy"]
# candidates -> (batches, context tokens)
SIZES = {10**5: (100, 1_000), 10**7: (1_000, 10_000)}
ROUNDS = {10**5: 10, 10**7: 3}
TOKENS = 32_768


class Space(NamedTuple):
    """One layout of a small model and everything that prices its candidates."""

    problem: Problem
    serving: Serving
    memory: Memory


def question(batches: int, tokens: int) -> Problem:
    """A question that one layout answers."""
    return Problem(
        model="Qwen/Qwen3-8B", system="h100_sxm", total_gpus=1, serving_mode="agg", isl=200, osl=50, threads=1,
        max_batch=batches, max_ctx_tokens=tokens, top_n=1,
    )  # fmt: skip


@cache
def opened() -> tuple[Engine, Shape]:
    """(engine, request shape) of the questions."""
    problem = question(1, 1)
    engine = open_engine(query_engine(problem, (problem.model, problem.system, problem.backend), "measured", True))
    return engine, request_shape(problem, engine)


def make_space(size: int) -> Space:
    """The space of about ``size`` candidates."""
    problem = question(*SIZES[size])
    engine, shape = opened()
    worker = Worker(engine, Layout())
    assert problem.max_batch and problem.max_ctx_tokens
    limits = np.arange(1, problem.max_ctx_tokens + 1, dtype=np.int64)
    steps = worker.steps(shape, problem.max_ctx_tokens, problem.max_batch)
    work = worker.workload(shape, problem.ttft_ms, problem.tpot_ms)
    serving = Serving(steps, price_budgets(worker, shape, limits), work, worker.scheduler(shape))
    return Space(problem, serving, worker.memory("agg", shape))


def fits(memory: Memory, tokens: np.ndarray, batch: int) -> np.ndarray:
    """bool[n]: whether steps of so many tokens leave room for the cache of a batch."""
    taken = memory.fixed + np.maximum(memory.per_token * np.maximum(tokens, memory.tokens_floor), memory.floor)
    held = memory.per_sequence * batch
    return (taken + held < memory.capacity) & (held <= memory.share * memory.capacity - memory.taken * taken)


def best_of_batch(space: Space, batch: int) -> float:
    """The best tokens/s of one batch within the targets, under every budget; trtllm's scheduling."""
    (steps, budgets, work, _), osl = space.serving, float(space.serving.work.osl)
    waves = np.ceil(work.isl * batch / budgets.size)
    many = np.maximum(1, batch // np.maximum(waves / osl, 1e-9))
    rest = np.maximum(1, batch - budgets.prompts) if batch > 1 else 0 * budgets.prompts
    decoding = np.where((waves >= osl) & (batch > 1), many, rest).astype(np.int64)
    logits = steps.context_logits[np.minimum(budgets.prompts + decoding, steps.context_logits.size - 1)]
    mixed = steps.context[budgets.new_tokens + decoding] + logits + budgets.attention_ms
    mixed += steps.decode_attention[decoding]
    decode = steps.decode[batch] + steps.decode_attention[batch]
    ready = mixed * budgets.chunks * np.minimum(2 + (waves - 3) / 20, 4)
    ttft = np.maximum(ready, np.maximum(waves - (osl - 1), 0) * mixed)
    decodes = np.maximum(osl - waves, 0)
    counted = np.where(decodes > 0, np.maximum(1, waves - 3), waves)
    tpot = (mixed * counted + decode * decodes) / (counted + decodes)
    wave = waves * mixed + decode * decodes
    if batch == 1:
        tpot, wave = np.full(tpot.size, decode), mixed * budgets.chunks + decode * (osl - 1)
    possible = budgets.prompts <= max(batch - 1, 1)
    room = fits(space.memory, budgets.ctx_tokens + (batch - budgets.prompts if batch > 1 else 0), batch)
    within = possible & room & (ttft <= work.ttft_ms) & (tpot <= work.tpot_ms)
    return float(np.where(within, 1e3 * batch * osl / wave, 0.0).max())


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("size", SIZES)
def test_aggregated_search(benchmark: Any, size: int, engine: str) -> None:
    space = make_space(size)

    def searched() -> float:
        return float(solve(space.problem).agg["tokens_s_gpu_cluster"][0])

    def plain() -> float:
        return max(best_of_batch(space, batch) for batch in range(1, SIZES[size][0] + 1))

    assert solve(space.problem).evaluated > 0.5 * size
    assert searched() == pytest.approx(plain(), rel=1e-9)
    benchmark.group = f"aggregated search {size:.0e}"
    benchmark.pedantic(searched if engine == "serveopt" else plain, rounds=ROUNDS[size])


@pytest.mark.parametrize("engine", ENGINES)
def test_layout_tables(benchmark: Any, engine: str) -> None:
    worker = Worker(opened()[0], Layout())
    parts = [curve for _, curve in worker.curves("context")]
    tokens = np.arange(TOKENS, dtype=np.float64)

    def compiled() -> np.ndarray:
        return worker.tabulate("context", TOKENS)[1:]

    def plain() -> np.ndarray:
        return sum(np.interp(tokens, curve.tokens, curve.latency_ms) for curve in parts)[1:]

    np.testing.assert_allclose(compiled(), plain(), rtol=1e-9)
    benchmark.group = f"layout tables, {TOKENS} tokens"
    benchmark.pedantic(compiled if engine == "serveopt" else plain, rounds=50)
