"""Context budgets: how many prompt tokens a mixed step may carry, and what prefill attention then costs.

Without chunked prefill a step carries whole prompts. With it, any number of tokens. Two prices of a budget that cuts
a prompt exist:

    reference    attention(ceil(c / isl) prompts) / ceil(isl / c), ceil(c / isl) requests not decoding,
                 a cached prefix saved for whole prompts only
    measured     attention linear in c between whole prompts, floor(c / isl) (at least one) requests not decoding,
                 a cached prefix saved in proportion

They agree wherever c divides isl and nothing is cached, and wherever isl divides c. Elsewhere the reference's price
depends on how the boundary of a prompt falls (half a prompt's attention is free at c = isl - 1, a third prompt that
contributes one token is one decode less at c = 2 isl + 1), which an exhaustive search would exploit.
"""

from dataclasses import dataclass

import numpy as np

from serveopt.kernels.records import Budgets
from serveopt.solver.families.table import ceil_div
from serveopt.solver.shape import Shape
from serveopt.solver.worker import Worker

REFERENCE_LIMIT = 8192


def exhaustive_budgets(isl: int, limit: int) -> np.ndarray:
    """int64[m]: every whole number of tokens up to the limit; multiples of isl need no chunked prefill."""
    return np.arange(1, limit + 1, dtype=np.int64)


def reference_budgets(isl: int) -> np.ndarray:
    """int64[m]: the reference's grid without chunked prefill (specs/search_model.md section 5).

    >>> reference_budgets(4000).tolist()
    [4000, 8000]
    """
    largest = max(REFERENCE_LIMIT, 2 * isl)
    small = max(isl, 512)
    wide = ceil_div(max(1024, 512, largest // 8), isl) * isl
    values, value = [], 0
    while True:
        value += small if value < REFERENCE_LIMIT else wide
        if value > largest:
            break
        values.append(value)
    return np.array(sorted({*values, isl, 2 * isl}), np.int64)


def step_prompts(cost_model: str, isl: int, ctx_tokens: np.ndarray) -> np.ndarray:
    """int64[m]: prompts of a step, whose requests do not decode in it."""
    return np.maximum(ctx_tokens // isl, 1) if cost_model == "measured" else -(-ctx_tokens // isl)


@dataclass(frozen=True, slots=True)
class BudgetGrid:
    """Budgets with all that depends on the request and the cost model; only attention differs between layouts."""

    shape: Shape
    measured: bool
    plain: Budgets  # attention 0
    whole: np.ndarray  # int64[m]: whole prompts in a step
    touched: np.ndarray  # int64[m]: prompts that a step has a part of

    def price(self, worker: Worker) -> Budgets:
        """The budgets with the attention of one step on a worker."""
        table = worker.prefill_attention(self.shape, int(self.touched.max()))
        if self.measured:
            cut = self.plain.size / self.shape.isl - self.whole
            attention = table[self.whole] + cut * (table[self.touched] - table[self.whole])
        else:
            attention = table[self.touched] / self.plain.chunks
        return self.plain._replace(attention_ms=attention)


def grid_budgets(cost_model: str, shape: Shape, ctx_tokens: np.ndarray, drafts: int) -> BudgetGrid:
    """The budgets int64[m], increasing, for requests of one shape that bring ``drafts`` tokens into a decode step."""
    touched, whole = -(-ctx_tokens // shape.isl), ctx_tokens // shape.isl
    chunks = (-(-shape.isl // ctx_tokens)).astype(np.float64)
    measured = cost_model == "measured"
    cached = shape.prefix * ctx_tokens // shape.isl if measured else shape.prefix * whole
    prompts = step_prompts(cost_model, shape.isl, ctx_tokens)
    plain = make_budgets(ctx_tokens, prompts, chunks, np.zeros(ctx_tokens.size), cached, drafts)
    return BudgetGrid(shape, measured, plain, whole, touched)


def price_budgets(worker: Worker, shape: Shape, ctx_tokens: np.ndarray) -> Budgets:
    """The budgets int64[m] on one worker."""
    return grid_budgets(worker.engine.cost_model, shape, ctx_tokens, worker.drafts).price(worker)


def make_budgets(
    ctx_tokens: np.ndarray,
    prompts: np.ndarray,
    chunks: np.ndarray,
    attention_ms: np.ndarray,
    cached: np.ndarray,
    drafts: int = 1,
) -> Budgets:
    """The budgets, with the stretches that the kernels price at once; ``cached`` int64[m] tokens of each budget.

    A budget allows every smaller step too. With drafts the largest step may be one of those: a prompt less in it is
    ``drafts`` decoding tokens more.

    >>> tokens = np.arange(1, 5)
    >>> make_budgets(tokens, tokens // 3, np.ones(4), np.ones(4), 0 * tokens).stop.tolist()
    [2, 2, 4, 4]
    """
    ends = np.append(np.flatnonzero(np.diff(prompts)) + 1, prompts.size)
    new_tokens = ctx_tokens - cached
    return Budgets(
        ctx_tokens=ctx_tokens,
        size=ctx_tokens.astype(np.float64),
        prompts=prompts,
        chunks=chunks,
        attention_ms=attention_ms,
        new_tokens=new_tokens,
        stop=np.repeat(ends, np.diff(ends, prepend=0)),
        gaps=np.cumsum(np.diff(new_tokens, prepend=new_tokens[:1] - 1) != 1),
        held=np.maximum.accumulate(ctx_tokens - prompts * drafts),
    )
