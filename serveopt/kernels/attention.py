"""Attention latency of whole batches, at the lengths that a search needs.

Prefill is read from the grid one batch after the other; what a cached prefix changes is the caller's business
(solver/operators/sequence.py). A decode step of plain attention is the mean over five lengths within 10 % of the
nominal one, since requests of a batch are never in step; other operators are read at the nominal length.
Generating osl tokens integrates decode steps in strides. Source: specs/op_model.md 2.2 and 2.3, search_model.md 3.
"""

import numpy as np

from serveopt.kernels.grids import fill_line, grid_ms
from serveopt.kernels.jit import kernel

SPREAD = 5  # lengths over which a decode step is averaged


@kernel
def fill_prompts(grid, roof, heads, tokens, power, out):
    """Nothing; fills out[b] (float64[batch + 1], ms) with prefill of b prompts of ``tokens`` tokens; out[0] = 0."""
    near = np.empty((2, 5))
    out[0] = 0.0
    for batch in range(1, out.size):
        out[batch] = grid_ms(grid, roof, near, (heads, tokens, float(batch)), power)


@kernel
def spread_lengths(lengths, spread, out):
    """Nothing; fills out[5 i + j] (float64) with five whole lengths from 90 % to 110 % of lengths[i].

    A ``spread`` of 1 keeps the lengths as they are.
    """
    for i in range(lengths.size):
        if spread == 1:
            out[i] = lengths[i]
            continue
        low = max(1, int(0.9 * lengths[i]))
        high = max(low, int(1.1 * lengths[i]))
        for j in range(SPREAD):
            out[SPREAD * i + j] = low + ((high - low) * j) // (SPREAD - 1)


@kernel
def fill_decode_attention(grid, roof, heads, spans, batches, spread, out):
    """Nothing; fills out[i] (float64[n], ms) with decode attention of batches[i] (float64[n]) summed over ``spans``.

    ``spans`` is (lengths int64[k], repeats int64[k]): the KV lengths at which a step is priced and how many steps
    each stands for. A step is the mean over ``spread`` lengths around the nominal one, five or one.
    """
    lengths, repeats = spans
    near = np.empty((2, 5))
    lasts = np.empty(spread * lengths.size)
    values = np.empty(lasts.size)
    spread_lengths(lengths, spread, lasts)
    logs = np.empty(lasts.size)
    for j in range(lasts.size):
        logs[j] = np.log2(lasts[j])
    line = (lasts, logs)
    for i in range(batches.size):
        fill_line(grid, roof, near, (heads, batches[i], 0.0), line, 1.0, values)
        total = 0.0
        for j in range(lengths.size):
            mean = 0.0
            for k in range(spread):
                mean += values[spread * j + k]
            total += mean / spread * repeats[j]
        out[i] = total
