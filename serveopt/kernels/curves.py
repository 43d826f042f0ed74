"""Sums of piecewise-linear token curves.

All token-only operators of a layout add up to one curve, f(x) = sum_i f_i(x), which is tabulated at every integer
x: tile edges stay where they were measured, and a lookup is one load. Source: specs/datapack.md section 5.
"""

from serveopt.kernels.jit import kernel


@kernel
def curve_ms(curves, index, tokens):
    """Latency in ms of curve ``index`` at ``tokens``; the end segments run on."""
    start, stop = curves.offset[index], curves.offset[index + 1]
    if stop - start == 1:
        return curves.latency_ms[start]
    low, high = start, stop - 1
    while high - low > 1:
        mid = (low + high) // 2
        if curves.tokens[mid] <= tokens:
            low = mid
        else:
            high = mid
    span = curves.tokens[high] - curves.tokens[low]
    weight = (tokens - curves.tokens[low]) / span
    return (1.0 - weight) * curves.latency_ms[low] + weight * curves.latency_ms[high]


@kernel
def fill_curve_points(curves, tokens, out):
    """Nothing; fills out[i, j] (float64[curves, points], ms) with curve i at tokens[j] (float64[points])."""
    for i in range(curves.offset.size - 1):
        for j in range(tokens.size):
            out[i, j] = curve_ms(curves, i, tokens[j])


@kernel
def tabulate_sum(curves, out):
    """Nothing; fills out[x] (float64[n], ms) with the sum of all curves at x = 0, 1, ... n - 1 tokens; out[0] = 0."""
    for x in range(out.size):
        out[x] = 0.0
    for i in range(curves.offset.size - 1):
        start, stop = curves.offset[i], curves.offset[i + 1]
        at = start
        for x in range(1, out.size):
            while at < stop - 2 and curves.tokens[at + 1] <= x:
                at += 1
            if stop - start == 1:
                out[x] += curves.latency_ms[start]
            else:
                weight = (x - curves.tokens[at]) / (curves.tokens[at + 1] - curves.tokens[at])
                out[x] += (1.0 - weight) * curves.latency_ms[at] + weight * curves.latency_ms[at + 1]
