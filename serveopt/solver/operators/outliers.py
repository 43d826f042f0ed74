"""Repair of measured expert curves: lone spikes, which later measurements contradict.

A point more than 30 % above both of its neighbours takes the line between them. A kernel does not get slower and then
faster again with more tokens by that much; a timer that was disturbed once does.

Every interior point left out in turn and interpolated from the rest, mean / 99.9th percentile / largest error in
percent over all shapes, as measured -> repaired (share of points replaced):

    h200_sxm  trtllm 4.83 / 171 / 776 -> 4.75 / 115 / 590 (0.16 %)    sglang 4.42 / 42 / 347 -> 4.41 / 42 / 91 (0.02 %)
              vllm   4.53 /  97 / 668 -> 4.46 /  85 / 238 (0.12 %)
    b200_sxm  trtllm 3.41 /  40 / 814 -> 3.39 /  38 / 168 (0.03 %)    sglang 3.80 / 36 /  74 -> 3.80 / 36 /  74 (0.02 %)
              vllm   4.63 /  85 / 1466 -> 4.43 / 71 / 190 (0.05 %)
    h100_sxm  trtllm 5.40 / 330 / 2461 -> 5.18 / 268 / 657            gb200 unchanged within 0.015

An isotonic repair (points more than 10 % below the running maximum lifted to it) makes it worse in every table (h200
trtllm mean 6.21, b200 trtllm 4.15), and so does a median over four neighbours (5.32, 3.82): the 8 to 12 % of points
below their left neighbour are real, kernels change their tile with the number of tokens.
"""

import numpy as np

from serveopt.solver.operators.curve import TokenCurve

SPIKE = 1.3


def repaired(curve: TokenCurve) -> TokenCurve:
    """The curve with lone spikes levelled.

    >>> repaired(TokenCurve(np.array([1.0, 2.0, 3.0]), np.array([1.0, 9.0, 2.0]), "silicon")).latency_ms.tolist()
    [1.0, 1.5, 2.0]
    """
    tokens, latency = curve.tokens, curve.latency_ms
    if tokens.size < 3:
        return curve
    left, right = latency[:-2], latency[2:]
    weight = (tokens[1:-1] - tokens[:-2]) / (tokens[2:] - tokens[:-2])
    spike = latency[1:-1] > SPIKE * np.maximum(left, right)
    if not spike.any():
        return curve
    out = latency.copy()
    out[1:-1][spike] = ((1.0 - weight) * left + weight * right)[spike]
    return TokenCurve(tokens, out, curve.source)
