"""A search in plain nested loops over every layout, batch, budget and pair of pools, for small spaces.

Only step latencies and memory figures come from Worker, whose kernels are compared with the oracle elsewhere; what
is enumerated, priced, matched and compared is written here again.
"""

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from serveopt.errors import MissingTable
from serveopt.kernels.records import Reason, Workload
from serveopt.solver.engine import open_engine
from serveopt.solver.layout import Layout
from serveopt.solver.opening import query_of
from serveopt.solver.problem import Problem
from serveopt.solver.worker import Shape, Worker
from tests import oracle


class Row(NamedTuple):
    """A candidate that fits in memory."""

    parallel: str
    ttft_ms: float
    tpot_ms: float
    tokens_s_user: float
    tokens_s_gpu_cluster: float


class PoolRow(NamedTuple):
    """One worker of a pool with one batch."""

    parallel: str
    tp: int
    gpus: int
    latency_ms: float  # a prefill step, or one output token
    rate_rps: float


def shape_of(problem: Problem) -> Shape:
    """The request shape of a problem."""
    return Shape(problem.isl, problem.osl, problem.prefix_len, problem.max_seq_len)


def workers_of(problem: Problem) -> list[Worker]:
    """Workers of every layout that divides the model, fits the replica limit and was measured."""
    engine = open_engine(query_of(problem, problem.system))
    workers = []
    for tp in range(1, problem.replica_limit + 1):
        for pp in range(1, problem.replica_limit // tp + 1):
            if engine.model.num_heads % tp or engine.model.num_layers % pp:
                continue
            worker = Worker(engine, Layout(tp=tp, pp=pp))
            try:
                worker.check_data()
            except MissingTable:
                continue
            workers.append(worker)
    return workers


def price_worker(problem: Problem, worker: Worker, counts: dict[Reason, int]) -> list[Row]:
    """Every batch and budget of one aggregated worker."""
    shape, layout = shape_of(problem), worker.layout
    most_batch, most_tokens = problem.max_batch, problem.max_ctx_tokens
    assert most_batch is not None
    assert most_tokens is not None
    steps, memory = worker.steps(shape, most_tokens, most_batch), worker.memory("agg", shape)
    whole = worker.prefill_attention(shape, math.ceil(most_tokens / shape.isl))
    work = Workload(shape.isl, shape.osl, shape.prefix, problem.ttft_ms, problem.tpot_ms, shape.osl)
    scheduler = worker.scheduler(shape)
    strict = bool(scheduler.strict_chunks)
    rows = []
    for batch in range(1, most_batch + 1):
        decode = steps.decode[batch] + steps.decode_attention[batch]
        for budget in range(1, most_tokens + 1):
            if not oracle.possible(shape.isl, batch, budget, strict):
                continue
            verdict = oracle.check_memory(memory, oracle.step_tokens(shape.isl, batch, budget, strict), batch)
            counts[verdict] += 1
            if verdict != Reason.PRICED:
                continue
            decoding = oracle.decoding_requests(work, scheduler, batch, budget)
            attention = oracle.budget_attention(whole, shape.isl, budget, strict)
            tokens = budget + decoding - oracle.cached_tokens(shape.isl, shape.prefix, budget, strict)
            ending = oracle.step_prompts(shape.isl, budget, strict) + decoding
            logits = steps.context_logits[min(ending, steps.context_logits.size - 1)]
            mixed = steps.context[tokens] + logits + attention + steps.decode_attention[decoding]
            ttft, tpot, rate = oracle.price(work, scheduler, batch, budget, (mixed, decode))
            replicas = problem.total_gpus // layout.n_gpus
            served = rate * layout.pp * replicas / problem.total_gpus
            rows.append(Row(layout.parallel(False), ttft, tpot, 1000 / tpot, served))
    return rows


def search_agg(problem: Problem) -> tuple[list[Row], dict[Reason, int]]:
    """(aggregated rows within the TTFT target, counts)."""
    counts = dict.fromkeys(Reason, 0)
    rows = [row for worker in workers_of(problem) for row in price_worker(problem, worker, counts)]
    within = [row for row in rows if row.ttft_ms <= problem.ttft_ms]
    counts[Reason.TTFT] = len(rows) - len(within)
    counts[Reason.TPOT] = sum(row.tpot_ms > problem.tpot_ms for row in within)
    return within, counts


def price_pool(problem: Problem, role: str) -> list[PoolRow]:
    """Every batch of every layout in one role, with what separate pools lose (search_model.md 4.4)."""
    shape, rows = shape_of(problem), []
    most = problem.max_prefill_batch if role == "prefill" else problem.max_batch
    assert most is not None
    for worker in workers_of(problem):
        memory, layout = worker.memory(role, shape), worker.layout
        for batch in range(1, most + 1):
            tokens = batch * (shape.isl - shape.prefix) if role == "prefill" else batch
            if oracle.check_memory(memory, tokens, batch) != Reason.PRICED:
                break
            one = np.array([batch])
            if role == "prefill":
                total = latency = 1.1 * worker.prefill_ms(shape, one)[0]
            else:
                total = 1.08 * worker.generation_ms(shape, one)[0]
                latency = total / (shape.osl - 1)
            rate = batch * layout.pp * 1000 / total
            rows.append(PoolRow(layout.parallel(False), layout.tp, layout.n_gpus, latency, rate))
    return rows


def search_disagg(problem: Problem) -> list[Row]:
    """For every decode row the best pair of pools over all prefill rows, x and y."""
    prefill = [row for row in price_pool(problem, "prefill") if 1.8 * row.latency_ms < problem.ttft_ms]
    limit = problem.replica_limit
    rows = []
    for decode in price_pool(problem, "decode"):
        usable = [row for row in prefill if problem.backend != "sglang" or row.tp == decode.tp]
        first = [(0.9 * row.rate_rps, row.gpus) for row in usable]
        cluster = (problem.total_gpus, limit, limit, limit)
        rate, _, _ = oracle.match_pools(first, (0.92 * decode.rate_rps, decode.gpus), cluster)
        if rate > 0:
            served = rate * problem.osl / problem.total_gpus
            rows.append(Row(decode.parallel, 0.0, decode.latency_ms, 1000 / decode.latency_ms, served))
    return rows


def best(problem: Problem, rows: list[Row]) -> float:
    """The largest tokens/s per GPU of the cluster within the TPOT target; 0 where there is none."""
    return max((row.tokens_s_gpu_cluster for row in rows if row.tpot_ms <= problem.tpot_ms), default=0.0)


def relaxed(problem: Problem, hint: str) -> list[Problem]:
    """The problems that a hint proposes: alternatives are joined by "or", what belongs together by "and"."""
    proposals = []
    for alternative in hint.split(" or "):
        words = alternative.removeprefix("raise ").split(" and ")
        targets = {f"{word.split()[0]}_ms": float(word.split()[2]) for word in words}
        proposals.append(replace(problem, **targets))
    return proposals
