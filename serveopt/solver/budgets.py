"""Context budgets: how many prompt tokens a mixed step may carry, and what prefill attention then costs.

Without chunked prefill a step carries whole prompts. With it, any number of tokens. Two prices of a budget that cuts
a prompt exist:

    reference    attention(ceil(c / isl) prompts) / ceil(isl / c)
    measured     attention(ceil(c / isl) prompts) * c / (isl ceil(c / isl))

They agree wherever c divides isl or isl divides c. Elsewhere the reference's price of a prompt depends on how its
boundary falls (half a prompt's attention is free at c = isl - 1), which an exhaustive search would exploit.
"""

import numpy as np

from serveopt.kernels.records import Budgets
from serveopt.solver.families.table import ceil_div
from serveopt.solver.worker import Shape, Worker

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


def price_budgets(worker: Worker, shape: Shape, ctx_tokens: np.ndarray) -> Budgets:
    """The budgets with the attention of one step each."""
    prompts = -(-ctx_tokens // shape.isl)
    chunks = -(-shape.isl // ctx_tokens)
    attention = worker.prefill_attention(shape, int(prompts.max()))[prompts]
    if worker.engine.cost_model == "measured":
        attention = attention * (ctx_tokens / (shape.isl * prompts))
    else:
        attention = attention / chunks
    return Budgets(
        ctx_tokens=ctx_tokens,
        size=ctx_tokens.astype(np.float64),
        prompts=prompts,
        chunks=chunks.astype(np.float64),
        attention_ms=attention,
        cached=shape.prefix * (ctx_tokens // shape.isl),
    )
