"""Attention latency of whole batches, at the lengths that a search needs.

Prefill of s new tokens behind a cached prefix p is the measured cost of the full length, less the prefix square:

    t(s, p) = t(s + p) * ((s + p)^2 - p^2) / (s + p)^2

Decode is the mean over five lengths within 10 % of the nominal one: requests of a batch are never in step.
Generating osl tokens integrates decode steps in strides. Source: specs/op_model.md 2.2 and 2.3, search_model.md 3.
"""

import numpy as np

from serveopt.kernels.grids import fill_line, grid_ms
from serveopt.kernels.jit import kernel

SPREAD = 5  # lengths over which a decode step is averaged


@kernel
def fill_prefill_attention(grid, roof, heads, new_tokens, prefix, out):
    """Nothing; fills out[b] (float64[batch + 1], ms) with prefill attention of b prompts; out[0] = 0."""
    near = np.empty((2, 5))
    full = float(new_tokens + prefix)
    share = (full * full - float(prefix) * float(prefix)) / (full * full)
    out[0] = 0.0
    for batch in range(1, out.size):
        out[batch] = share * grid_ms(grid, roof, near, (heads, full, float(batch)), True)


@kernel
def spread_lengths(lengths, out):
    """Nothing; fills out[5 i + j] (float64) with five whole lengths from 90 % to 110 % of lengths[i]."""
    for i in range(lengths.size):
        low = max(1, int(0.9 * lengths[i]))
        high = max(low, int(1.1 * lengths[i]))
        for j in range(SPREAD):
            out[SPREAD * i + j] = low + ((high - low) * j) // (SPREAD - 1)


@kernel
def fill_decode_attention(grid, roof, heads, lengths, repeats, batches, out):
    """Nothing; fills out[i] (float64[n], ms) with decode attention of batches[i] (float64[n]) summed over lengths.

    ``lengths`` int64[k] are the KV lengths at which a step is priced, ``repeats`` int64[k] how many steps each
    stands for. A step is the mean over five lengths around the nominal one.
    """
    near = np.empty((2, 5))
    lasts = np.empty(SPREAD * lengths.size)
    values = np.empty(lasts.size)
    spread_lengths(lengths, lasts)
    logs = np.empty(lasts.size)
    for j in range(lasts.size):
        logs[j] = np.log2(lasts[j])
    line = (lasts, logs)
    for i in range(batches.size):
        fill_line(grid, roof, near, (heads, batches[i], 0.0), line, False, values)
        total = 0.0
        for j in range(lengths.size):
            mean = 0.0
            for k in range(SPREAD):
                mean += values[SPREAD * j + k]
            total += mean / SPREAD * repeats[j]
        out[i] = total
