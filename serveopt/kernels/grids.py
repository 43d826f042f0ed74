"""Latency on a ragged measured grid: bilinear between keys, exact at keys, roofline-scaled outside.

    t(q) = (1 - w) t(lo) + w t(hi)            along each axis in turn, outer to inner, w = (q - lo) / (hi - lo)
    t(q)^p = (1 - w) t(lo)^p + w t(hi)^p      along the prompt length of prefill, p = 1/2 where it is quadratic
    t(q) = t(edge) * roofline(q) / roofline(q at the edge)   where only one neighbour was measured
    t(q) = roofline(q) / efficiency           outside, the efficiency blended over the four nearest measurements

Outside, the weights fall to zero at the fifth neighbour (a tapered inverse distance in log2 of the keys).
Source: specs/op_model.md section 1.1; checked against reference values in tests/solver/test_operators.py.
"""

import numpy as np

from serveopt.kernels.jit import kernel
from serveopt.kernels.records import CONTEXT, FEATURES

FOUND = 0
OUTSIDE = 1
MISSING = 2
ANCHORS_PER_OCTAVE = 16


@kernel
def charge(weights, heads, features):
    """Seconds: the features weighted by ``weights`` float64[2 * FEATURES]."""
    plain, per_head = 0.0, 0.0
    for i in range(FEATURES):
        plain += weights[i] * features[i]
        per_head += weights[FEATURES + i] * features[i]
    return plain + heads * per_head


@kernel
def causal_pairs(start, count, cap):
    """Pairs of a query and the keys up to it: ``count`` queries behind ``start`` keys, at most ``cap`` keys each."""
    stop = start + count
    if cap <= 0.0 or stop <= cap:
        return 0.5 * (stop * (stop + 1.0) - start * (start + 1.0))
    if start >= cap:
        return count * cap
    return 0.5 * (cap * (cap + 1.0) - start * (start + 1.0)) + (stop - cap) * cap


@kernel
def compressed_pairs(stop, ratio, limit):
    """Pairs of each of the first ``stop`` tokens and its compressed keys: one per ``ratio`` tokens, at most ``limit``.

    The sum of min(floor(i / ratio), limit) over i = 1 .. stop.
    """
    last = np.floor(stop / ratio)
    if limit > 0.0:
        last = min(last, limit)
    return last * (0.5 * ratio * (last - 1.0) + stop - last * ratio + 1.0)


@kernel
def context_features(roof, tokens, batch):
    """The features of ``batch`` prompts of ``tokens`` new tokens behind the roofline's prefix."""
    full = tokens + roof.prefix
    if roof.step_window == 0:
        pairs = causal_pairs(roof.prefix, tokens, roof.cap)
    elif roof.cap > 0.0 and full > roof.cap:
        pairs = tokens * roof.cap
    else:
        pairs = 0.5 * (full * full - roof.prefix * roof.prefix)
    compressed = 0.0
    if roof.ratio > 0.0:
        compressed = compressed_pairs(full, roof.ratio, roof.limit) - compressed_pairs(
            roof.prefix, roof.ratio, roof.limit
        )
    seen = min(full, roof.cap) if roof.cap > 0.0 else full
    indexed = full if full > roof.gate else 0.0
    return (
        1.0, batch, batch * tokens, batch * pairs, batch * full, batch * seen,
        batch * indexed, batch * tokens * indexed, batch * compressed,
    )  # fmt: skip


@kernel
def generation_features(roof, batch, last):
    """The features of one decode step of ``batch`` sequences at a KV length of ``last`` tokens."""
    length = last - roof.prefix
    seen = min(length, roof.cap) if roof.cap > 0.0 else length
    indexed = length if length > roof.gate else 0.0
    compressed = 0.0
    if roof.ratio > 0.0:
        compressed = np.floor(length / roof.ratio)
        if roof.limit > 0.0:
            compressed = min(compressed, roof.limit)
    return (1.0, batch, batch, batch * seen, batch * length, batch * seen, batch * indexed, batch * indexed,
            batch * compressed)  # fmt: skip


@kernel
def bound_ms(roof, heads, middle, last):
    """Speed-of-light ms of one call; (heads, prompt, batch) in prefill, (heads, batch, length) in decode.

    Features, each per layer: 1; sequences; new tokens; query-key pairs; keys; keys seen (window, top-k); keys behind
    the gate of the indexer; new tokens x those; pairs with compressed keys.
    """
    if roof.kind == CONTEXT:
        features = context_features(roof, middle, last)
    else:
        features = generation_features(roof, middle, last)
    return 1e3 * max(charge(roof.math, heads, features), charge(roof.memory, heads, features))


@kernel
def fill_bounds(roof, heads, middle, last, out):
    """Nothing; fills out[i] (float64[n], ms) with the bound at (heads, middle[i], last[i])."""
    for i in range(out.size):
        out[i] = bound_ms(roof, heads, middle[i], last[i])


@kernel
def find_bracket(keys, start, stop, query):
    """(position, weight, status): the bracket [position, position + 1] of ``query`` in keys[start:stop]."""
    if stop <= start or query < keys[start] or query > keys[stop - 1]:
        return start, 0.0, OUTSIDE
    low, high = start, stop - 1
    while high - low > 1:
        mid = (low + high) // 2
        if keys[mid] <= query:
            low = mid
        else:
            high = mid
    if keys[high] == query:
        return high, 0.0, FOUND
    if keys[low] == query:
        return low, 0.0, FOUND
    return low, (query - keys[low]) / (keys[high] - keys[low]), FOUND


@kernel
def blend(low, high, weight, power):
    """The latency whose ``power`` is the linear blend of those of two others."""
    if power == 1.0:
        return (1.0 - weight) * low + weight * high
    if power == 0.5:
        value = (1.0 - weight) * np.sqrt(low) + weight * np.sqrt(high)
        return value * value
    return ((1.0 - weight) * low**power + weight * high**power) ** (1.0 / power)


# Below, arrays are passed on their own and not as the Grid: taking an array out of a named tuple costs two atomic
# reference counts each time, which is most of a lookup when it happens at every level.


@kernel
def resolve_last(last, latency_ms, start, stop, query):
    """(latency ms, status) along the innermost axis."""
    at, weight, status = find_bracket(last, start, stop, query)
    if status != FOUND:
        return 0.0, status
    if weight == 0.0:
        return latency_ms[at], FOUND
    return (1.0 - weight) * latency_ms[at] + weight * latency_ms[at + 1], FOUND


@kernel
def resolve_middle(axes, latency_ms, roof, span, point, power):
    """(latency ms, status) along the two inner axes; ``axes`` middle keys, leaf offsets, last keys."""
    middle, leaf, last = axes
    at, weight, status = find_bracket(middle, span[0], span[1], point[1])
    if status != FOUND:
        return 0.0, status
    low, low_status = resolve_last(last, latency_ms, leaf[at], leaf[at + 1], point[2])
    if weight == 0.0:
        return low, low_status
    high, high_status = resolve_last(last, latency_ms, leaf[at + 1], leaf[at + 2], point[2])
    if low_status == FOUND and high_status == FOUND:
        return blend(low, high, weight, power), FOUND
    bound = bound_ms(roof, point[0], point[1], point[2])
    if low_status == FOUND:
        return low * bound / bound_ms(roof, point[0], middle[at], point[2]), FOUND
    if high_status == FOUND:
        return high * bound / bound_ms(roof, point[0], middle[at + 1], point[2]), FOUND
    return 0.0, OUTSIDE if low_status == OUTSIDE or high_status == OUTSIDE else MISSING


@kernel
def resolve_outer(keys, inner, axes, latency_ms, roof, point, power):
    """(latency ms, status) along all three axes; ``keys`` outer keys with offsets ``inner``."""
    at, weight, status = find_bracket(keys, 0, keys.size, point[0])
    if status != FOUND:
        return 0.0, status
    low, low_status = resolve_middle(axes, latency_ms, roof, (inner[at], inner[at + 1]), point, power)
    if weight == 0.0:
        return low, low_status
    high, high_status = resolve_middle(axes, latency_ms, roof, (inner[at + 1], inner[at + 2]), point, power)
    if low_status == FOUND and high_status == FOUND:
        return blend(low, high, weight, 1.0), FOUND
    bound = bound_ms(roof, point[0], point[1], point[2])
    if low_status == FOUND:
        return low * bound / bound_ms(roof, keys[at], point[1], point[2]), FOUND
    if high_status == FOUND:
        return high * bound / bound_ms(roof, keys[at + 1], point[1], point[2]), FOUND
    return 0.0, OUTSIDE if low_status == OUTSIDE or high_status == OUTSIDE else MISSING


@kernel
def insert_nearest(near, distance, value):
    """Nothing; inserts one leaf into ``near`` float64[2, 5], the distances and values of the nearest, sorted."""
    at = 4
    while at > 0 and near[0, at - 1] > distance:
        near[0, at] = near[0, at - 1]
        near[1, at] = near[1, at - 1]
        at -= 1
    near[0, at] = distance
    near[1, at] = value


@kernel
def scan_column(logs, efficiency, near, start, stop, column, query):
    """Nothing; offers the leaves [start, stop) of a column at squared distance ``column`` to the nearest.

    Outward from the query: once a leaf is beyond the fifth nearest, those behind it are farther still.
    """
    low, high = start, stop
    while low < high:
        mid = (low + high) // 2
        if logs[mid] < query:
            low = mid + 1
        else:
            high = mid
    for k in range(low, stop):
        gap = logs[k] - query
        distance = column + gap * gap
        if distance >= near[0, 4]:
            break
        if efficiency[k] > 0.0:
            insert_nearest(near, distance, efficiency[k])
    for k in range(low - 1, start - 1, -1):
        gap = logs[k] - query
        distance = column + gap * gap
        if distance >= near[0, 4]:
            break
        if efficiency[k] > 0.0:
            insert_nearest(near, distance, efficiency[k])


@kernel
def blend_nearest(near):
    """The tapered inverse-distance mean of the four nearest; NaN when there is none."""
    if np.isinf(near[0, 0]):
        return np.nan
    reach = np.sqrt(near[0, 4])
    total, weighted, plain, count = 0.0, 0.0, 0.0, 0
    for i in range(4):
        if np.isinf(near[0, i]):
            break
        distance = np.sqrt(near[0, i])
        if np.isinf(reach):
            weight = 1.0 / (near[0, i] + 1e-12)
        else:
            weight = max(reach - distance, 0.0) / (reach * distance + 1e-12)
            weight *= weight
        total += weight
        weighted += weight * near[1, i]
        plain += near[1, i]
        count += 1
    return weighted / total if total > 0.0 else plain / count


@kernel
def nearest_efficiency(grid, near, point):
    """Efficiency (roofline / latency) blended over the nearest measurements; ``near`` float64[2, 5] is scratch."""
    for i in range(near.shape[1]):
        near[0, i] = np.inf
    x, y, z = np.log2(max(point[0], 1e-12)), np.log2(max(point[1], 1e-12)), np.log2(max(point[2], 1e-12))
    inner, leaf, efficiency = grid.inner, grid.leaf, grid.efficiency
    outer_log, middle_log, last_log = grid.outer_log, grid.middle_log, grid.last_log
    for i in range(outer_log.size):
        dx = outer_log[i] - x
        if dx * dx >= near[0, 4]:
            continue
        for j in range(inner[i], inner[i + 1]):
            dy = middle_log[j] - y
            column = dx * dx + dy * dy
            if column < near[0, 4]:
                scan_column(last_log, efficiency, near, leaf[j], leaf[j + 1], column, z)
    return blend_nearest(near)


@kernel
def grid_ms(grid, roof, near, point, power):
    """Latency in ms at ``point`` (three coordinates); NaN where the roofline is not positive.

    ``near`` float64[2, 5] is scratch.
    """
    axes = (grid.middle, grid.leaf, grid.last)
    value, status = resolve_outer(grid.outer, grid.inner, axes, grid.latency_ms, roof, point, power)
    if status == FOUND:
        return value
    bound = bound_ms(roof, point[0], point[1], point[2])
    if not bound > 0.0:
        return np.nan
    return bound / nearest_efficiency(grid, near, point)


@kernel
def find_reach(keys, inner, axes, point):
    """The largest last coordinate measured beside ``point`` (its first two count); -inf where they are outside."""
    middle, leaf, last = axes
    at, weight, status = find_bracket(keys, 0, keys.size, point[0])
    reach = -np.inf
    if status != FOUND:
        return reach
    for i in range(at, at + (1 if weight == 0.0 else 2)):
        row, share, found = find_bracket(middle, inner[i], inner[i + 1], point[1])
        if found == FOUND:
            for j in range(row, row + (1 if share == 0.0 else 2)):
                reach = max(reach, last[leaf[j + 1] - 1])
    return reach


@kernel
def fill_line(grid, roof, near, point, line, power, out):
    """Nothing; fills out[j] with the latency in ms at ``point`` with its last coordinate replaced by lasts[j].

    ``line`` is (lasts float64[n], their log2). Outside the measured area the efficiency is blended at anchors a
    sixteenth of an octave apart and linear between them: it changes slowly there, and is an extrapolation anyway.
    """
    lasts, logs = line
    axes = (grid.middle, grid.leaf, grid.last)
    keys, inner, latency_ms = grid.outer, grid.inner, grid.latency_ms
    outside, low, high = 0, np.inf, -np.inf
    reach = find_reach(keys, inner, axes, point)
    for j in range(lasts.size):
        value, status = 0.0, OUTSIDE
        if lasts[j] <= reach:
            at = (point[0], point[1], lasts[j])
            value, status = resolve_outer(keys, inner, axes, latency_ms, roof, at, power)
        out[j] = value
        if status != FOUND:
            out[j] = -1.0
            outside += 1
            low, high = min(low, logs[j]), max(high, logs[j])
    if outside == 0:
        return
    count = int((high - low) * ANCHORS_PER_OCTAVE) + 2
    if outside <= count or not high > low:
        for j in range(lasts.size):
            if out[j] < 0.0:
                at = (point[0], point[1], lasts[j])
                out[j] = bound_ms(roof, at[0], at[1], at[2]) / nearest_efficiency(grid, near, at)
        return
    anchors = np.empty(count)
    step = (high - low) / (count - 1)
    for i in range(count):
        anchors[i] = nearest_efficiency(grid, near, (point[0], point[1], 2.0 ** (low + i * step)))
    for j in range(lasts.size):
        if out[j] < 0.0:
            place = (logs[j] - low) / step
            i = min(int(place), count - 2)
            efficiency = anchors[i] + (place - i) * (anchors[i + 1] - anchors[i])
            out[j] = bound_ms(roof, point[0], point[1], lasts[j]) / efficiency


@kernel
def fill_efficiency(grid, roof, out):
    """Nothing; fills ``out`` float64[leaves] with roofline / latency of every measurement."""
    for i in range(grid.outer.size):
        for j in range(grid.inner[i], grid.inner[i + 1]):
            for k in range(grid.leaf[j], grid.leaf[j + 1]):
                bound = bound_ms(roof, grid.outer[i], grid.middle[j], grid.last[k])
                out[k] = bound / grid.latency_ms[k] if grid.latency_ms[k] > 0.0 else 0.0
