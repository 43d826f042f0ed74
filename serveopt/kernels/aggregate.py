"""Aggregated serving (continuous batching): latency and throughput of one worker at every (batch, context budget).

With b requests per rank, a budget of c context tokens per step and prompts of isl tokens, a wave of b requests takes

    S = ceil(isl b / c) mixed steps      each c context tokens and g decoding requests
    D = 1 + (osl - 1) / P output steps   of which D - S carry decode only; P tokens per step, 1 without speculation
    wave = S mixed + (D - S) decode      tokens/s = b osl / wave (reference: osl - 1)
    TTFT = (mixed ceil(isl / c) + overhead) Q        Q: queueing factor of the backend
    TPOT = mean over the steps, some mixed ones hidden by the scheduler's overlap

Source: specs/search_model.md sections 3 and 4.2. What attention costs where a budget cuts a prompt is decided in
solver/budgets.py. With ``strict_chunks`` a cut prompt pays for all its chunks, and where prefill is the bottleneck
(S > D) TTFT is at least the (S - D + 1) mixed steps that b requests in flight imply by Little's law.
"""

import math

import numpy as np

from serveopt.kernels.jit import kernel
from serveopt.kernels.records import Reason

MEMORY = int(Reason.MEMORY)
KV_CACHE = int(Reason.KV_CACHE)
TTFT = int(Reason.TTFT)
TPOT = int(Reason.TPOT)
PRICED = int(Reason.PRICED)
DOMINATED = int(Reason.DOMINATED)
CHUNK = 4096  # candidates priced at once: their metrics stay in the second-level cache
HALF = 32
BLOCK = 2 * HALF  # candidates that are judged by their bounds before they are looked at
FRONT_TPOT, FRONT_TOKENS_S, FRONT_TTFT, FRONT_BATCH, FRONT_CTX = range(5)  # rows of a front
FRONT_ROWS = 5
LANES = 8


@kernel
def spread_share(batch, waves, output_steps):
    """Decoding requests in a mixed step when the prefill of a batch outlasts its answers: batch // (S / D)."""
    ratio = waves / output_steps
    share = math.floor(batch / ratio)
    # A quotient that rounds to a whole number may hide one just below it, which floor division tells apart.
    return max(1, int(batch // ratio if share * ratio == batch else share))


@kernel
def gather_mixed(serving, batch, start, waves, mixed):
    """Nothing; fills mixed[j] (float64[count], ms) with the mixed step under budget start + j, see waves[j]."""
    # Taken out of the named tuples once: inside the loop each would cost two atomic reference counts.
    steps, budgets = serving.steps, serving.budgets
    context, decode_attention = steps.context, steps.decode_attention
    new_tokens, prompts, gaps = budgets.new_tokens, budgets.prompts, budgets.gaps
    stops, attention_ms, logits = budgets.stop, budgets.attention_ms, steps.context_logits
    osl, drafts = serving.work.answer_steps, serving.scheduler.drafts
    j = 0
    while j < mixed.size and serving.scheduler.spread_decode == 1 and batch > 1 and waves[j] >= osl:
        i = start + j
        decoding = spread_share(float(batch), waves[j], osl)
        mixed[j] = context[new_tokens[i] + decoding * drafts] + attention_ms[i]
        mixed[j] += logits[min(prompts[i] + decoding * drafts, logits.size - 1)] + decode_attention[decoding]
        j += 1
    while j < mixed.size:
        # Budgets with equally many prompts decode equally many requests, and mostly follow one another without a
        # gap: then the look-ups are a stretch of the table.
        i = start + j
        count = min(stops[i] - i, mixed.size - j)
        decoding = max(1, batch - prompts[i]) if batch > 1 else 0
        flat = logits[min(prompts[i] + decoding * drafts, logits.size - 1)] + decode_attention[decoding]
        out, attention = mixed[j : j + count], attention_ms[i : i + count]
        first = new_tokens[i] + decoding * drafts
        if gaps[i + count - 1] == gaps[i]:
            stretch = context[first : first + count]
            for k in range(count):
                out[k] = stretch[k] + attention[k] + flat
        else:
            own, shifted = new_tokens[i : i + count], context[decoding * drafts :]
            for k in range(count):
                out[k] = shifted[own[k]] + attention[k] + flat
        j += count


@kernel
def price_wave(serving, decode, batch, chunks, waves, mixed, priced):
    """Nothing; fills priced float64[3, count] with TTFT, TPOT (ms) and tokens/s of one rank group.

    ``decode`` is a decode step of the batch in ms, ``mixed`` float64[count] the mixed steps, of which ``waves``
    serve the whole batch.
    """
    work, scheduler = serving.work, serving.scheduler
    ttft, tpot, tokens_s = priced[0], priced[1], priced[2]
    size, osl = float(batch), work.answer_steps
    answers = osl - 1.0
    per_step = (work.osl - 1.0) / answers if answers > 0.0 else 1.0
    encoder = scheduler.encoder_ms * size
    hidden, overhead = float(scheduler.mixed_steps_hidden), scheduler.overhead_ms
    produced = 1e3 * size * scheduler.answer_tokens
    by_waves = 0.0 if scheduler.log_queue == 1 else 1.0
    strict = float(scheduler.strict_chunks)
    by_batch = 1.0 if batch <= 1 else min(1.0 + math.log2(size) / 8.0, 2.0)
    # One output per loop: with more arrays LLVM gives up proving that they do not overlap, and vectorises nothing.
    for j in range(mixed.size):
        queue = by_waves * min(2.0 + (waves[j] - 3.0) * 0.05, 4.0) + (1.0 - by_waves) * by_batch
        ready = (mixed[j] * chunks[j] + overhead) * queue
        # Where prefill is what limits, b requests in flight at this rate imply the wait.
        wait = max(waves[j] - answers, 0.0) * mixed[j] * strict
        ttft[j] = max(ready, wait) + encoder
    for j in range(mixed.size):
        decode_count = max(osl - waves[j], 0.0)
        counted = max(1.0, waves[j] - hidden) if decode_count > 0.0 else waves[j]
        tpot[j] = (mixed[j] * counted + decode * decode_count) / ((counted + decode_count) * per_step)
    for j in range(mixed.size):
        tokens_s[j] = produced / (encoder + waves[j] * mixed[j] + decode * max(osl - waves[j], 0.0))
    if batch == 1:
        for j in range(mixed.size):
            prefill = mixed[j] * (chunks[j] if scheduler.strict_chunks == 1 else 1.0)
            tpot[j] = decode / per_step if answers > 0.0 else 0.0
            tokens_s[j] = produced / (encoder + prefill + decode * answers)
    if answers == 0.0 and scheduler.strict_chunks == 1:
        for j in range(mixed.size):
            tpot[j] = 0.0
    if scheduler.capped == 1:
        for j in range(mixed.size):
            tokens_s[j] = min(tokens_s[j], produced / (ttft[j] + tpot[j] * answers * per_step))


@kernel
def price_block(serving, batch, start, scratch, priced):
    """Nothing; fills priced float64[3, count] with TTFT, TPOT (ms) and tokens/s of one rank group for one batch.

    The candidates are ``batch`` requests under budgets start .. start + count - 1; ``scratch`` float64[2, count].
    Look-ups and arithmetic are separate loops: the arithmetic alone is vectorised.
    """
    count = priced.shape[1]
    waves, mixed = scratch[0, :count], scratch[1, :count]
    chunks = serving.budgets.chunks[start : start + count]
    ctx_tokens = serving.budgets.size[start : start + count]
    prompt_tokens = serving.work.isl * float(batch)
    for j in range(count):
        # Exact in float64: both factors are integers far below 2^53, so a whole quotient is a whole number.
        waves[j] = np.ceil(prompt_tokens / ctx_tokens[j])
    gather_mixed(serving, batch, start, waves, mixed)
    decode = serving.steps.decode[batch] + serving.steps.decode_attention[batch]
    price_wave(serving, decode, batch, chunks, waves, mixed, priced)


@kernel
def check_memory(memory, tokens, sequences):
    """PRICED, MEMORY or KV_CACHE for a worker with ``tokens`` in flight and ``sequences`` in its cache."""
    taken = memory.fixed + max(memory.per_token * max(tokens, memory.tokens_floor), memory.floor)
    cache = memory.per_sequence * sequences
    if taken + cache >= memory.capacity:
        return MEMORY
    if cache > memory.share * memory.capacity - memory.taken * taken:
        return KV_CACHE
    return PRICED


@kernel
def find_slower(row, size, tpot):
    """Position of the first of ``size`` increasing entries above ``tpot``."""
    low, high = 0, size
    while low < high:
        mid = (low + high) // 2
        if row[mid] <= tpot:
            low = mid + 1
        else:
            high = mid
    return low


@kernel
def insert_front(front, size, candidate):
    """New size of the front after offering one candidate (five values); -1 when the array is full."""
    tpot, tokens_s = candidate[FRONT_TPOT], candidate[FRONT_TOKENS_S]
    at = find_slower(front[FRONT_TPOT], size, tpot)
    if at > 0 and front[FRONT_TOKENS_S, at - 1] >= tokens_s:
        return size
    if at > 0 and front[FRONT_TPOT, at - 1] == tpot:
        at -= 1
    end = at
    while end < size and front[FRONT_TOKENS_S, end] <= tokens_s:
        end += 1
    shift = 1 - (end - at)
    if size + shift > front.shape[1]:
        return -1
    for row in range(front.shape[0]):
        if shift == 1:
            for i in range(size, end, -1):
                front[row, i] = front[row, i - 1]
        elif shift < 0:
            for i in range(end, size):
                front[row, i + shift] = front[row, i]
        front[row, at] = candidate[row]
    return size + shift


@kernel
def count_possible(budgets, batch):
    """How many of the leading budgets leave room for a decode beside their prompts."""
    most = 1 if batch == 1 else batch - 1
    low, high = 0, budgets.prompts.size
    while low < high:
        mid = (low + high) // 2
        if budgets.prompts[mid] <= most:
            low = mid + 1
        else:
            high = mid
    return low


@kernel
def judge(memory, budgets, batch, i):
    """PRICED, MEMORY or KV_CACHE for ``batch`` requests under budget ``i``."""
    decoding = 0 if batch == 1 else batch - budgets.prompts[i]
    return check_memory(memory, budgets.ctx_tokens[i] + decoding * memory.drafts, float(batch))


@kernel
def count_fitting(memory, budgets, batch, possible):
    """How many of the first ``possible`` budgets fit in memory; a larger one never fits where a smaller does not."""
    low, high = 0, possible
    while low < high:
        mid = (low + high) // 2
        if judge(memory, budgets, batch, mid) == PRICED:
            low = mid + 1
        else:
            high = mid
    return low


@kernel
def bound_blocks(limit, priced, bounds):
    """Nothing; fills bounds float64[2, blocks] with the best rate and the least TPOT of every block.

    Candidates later than ``limit`` do not count; a block without any has rate -1. Halves are compared element by
    element until eight are left: a running extreme would be a chain of comparisons that no CPU can shorten.
    """
    ttft, tpot, tokens_s = priced[0], priced[1], priced[2]
    rates, times = np.empty(HALF), np.empty(HALF)
    for block in range(bounds.shape[1]):
        start = block * BLOCK
        count = min(HALF, ttft.size - start)
        for k in range(count):
            rates[k] = tokens_s[start + k] if ttft[start + k] <= limit else -1.0
        for k in range(count):
            times[k] = tpot[start + k] if ttft[start + k] <= limit else np.inf
        start += HALF
        for k in range(min(HALF, ttft.size - start)):
            rate = tokens_s[start + k] if ttft[start + k] <= limit else -1.0
            rates[k] = rate if rate > rates[k] else rates[k]
        for k in range(min(HALF, ttft.size - start)):
            time = tpot[start + k] if ttft[start + k] <= limit else np.inf
            times[k] = time if time < times[k] else times[k]
        if count == HALF:
            count = LANES
            for k in range(LANES):
                rates[k] = max(max(rates[k], rates[k + 8]), max(rates[k + 16], rates[k + 24]))
            for k in range(LANES):
                times[k] = min(min(times[k], times[k + 8]), min(times[k + 16], times[k + 24]))
        for k in range(1, count):
            rates[0], times[0] = max(rates[0], rates[k]), min(times[0], times[k])
        bounds[0, block], bounds[1, block] = rates[0], times[0]


@kernel
def offer_block(front, size, limit, batch, ctx_tokens, priced, best):
    """New size of the front after offering a block of candidates; -1 when its array is full.

    ``best`` float64[2] is the TPOT and rate of an entry of the front: what it dominates needs no search.
    """
    ttft, tpot, tokens_s = priced[0], priced[1], priced[2]
    for j in range(ttft.size):
        if ttft[j] > limit or (tpot[j] >= best[0] and tokens_s[j] <= best[1]):
            continue
        before = size
        size = insert_front(front, size, (tpot[j], tokens_s[j], ttft[j], float(batch), ctx_tokens[j]))
        if size < 0:
            return -1
        if size != before or tokens_s[j] > best[1]:
            best[0], best[1] = tpot[j], tokens_s[j]
    return size


@kernel
def offer_batch(front, size, limit, batch, ctx_tokens, priced, bounds):
    """New size of the front after offering all budgets of a batch; -1 when its array is full.

    The block with the best rate goes first. Of the others, one whose best rate at its least TPOT is dominated needs
    no look at its candidates, and most are.
    """
    bound_blocks(limit, priced, bounds)
    best = np.empty(2)
    best[0], best[1] = np.inf, -1.0
    leader = 0
    for block in range(bounds.shape[1]):
        if bounds[0, block] > bounds[0, leader]:
            leader = block
    for turn in range(-1, bounds.shape[1]):
        block = leader if turn < 0 else turn
        if bounds[0, block] < 0.0 or turn == leader:
            continue
        at = find_slower(front[FRONT_TPOT], size, bounds[1, block])
        if at > 0 and front[FRONT_TOKENS_S, at - 1] >= bounds[0, block]:
            continue
        start, stop = block * BLOCK, min(block * BLOCK + BLOCK, priced.shape[1])
        size = offer_block(front, size, limit, batch, ctx_tokens[start:stop], priced[:, start:stop], best)
        if size < 0:
            return -1
    return size


@kernel
def tally_block(work, priced, counts, nearest):
    """Nothing; counts misses of the targets and, where ``nearest`` has room, keeps the smallest latencies.

    ``nearest`` float64[7]: TTFT, TPOT, TTFT within the TPOT target, TPOT within the TTFT target, then the smallest
    factor by which both targets have to grow with its TTFT and TPOT; or float64[0].
    """
    ttft, tpot = priced[0], priced[1]
    late, slow = 0, 0
    for j in range(ttft.size):
        late += 1 if ttft[j] > work.ttft_ms else 0
    for j in range(ttft.size):
        slow += 1 if tpot[j] > work.tpot_ms and ttft[j] <= work.ttft_ms else 0
    counts[TTFT] += late
    counts[TPOT] += slow
    if nearest.size == 0:
        return
    for j in range(ttft.size):
        nearest[0] = min(nearest[0], ttft[j])
        nearest[1] = min(nearest[1], tpot[j])
        if tpot[j] <= work.tpot_ms:
            nearest[2] = min(nearest[2], ttft[j])
        if ttft[j] <= work.ttft_ms:
            nearest[3] = min(nearest[3], tpot[j])
        factor = max(ttft[j] / work.ttft_ms, tpot[j] / work.tpot_ms)
        if factor < nearest[4]:
            nearest[4], nearest[5], nearest[6] = factor, ttft[j], tpot[j]


@kernel
def sweep_batches(serving, memories, batches, front, counts, nearest):
    """Size of the front after pricing every (batch, budget); -1 when ``front`` is too small.

    ``front`` float64[5, capacity] is filled in order of TPOT: TPOT ms, tokens/s of one rank group, TTFT ms, batch,
    context tokens. Throughput increases along it: what is not there is dominated or later than the TTFT target.
    ``memories``: of this layout and of the one that dominates it, whose candidates are not priced again.
    ``batches`` int64[n] requests per rank; ``counts`` int64[REASONS] is added to; for ``nearest`` see tally_block.
    """
    budgets, work = serving.budgets, serving.work
    chunk = min(CHUNK, budgets.size.size)
    scratch, results = np.empty((2, chunk)), np.empty(3 * chunk)
    size = 0
    for batch in batches:
        possible = count_possible(budgets, batch)
        total = count_fitting(memories[0], budgets, batch, possible)
        if total < possible:
            counts[judge(memories[0], budgets, batch, total)] += possible - total
        first = count_fitting(memories[1], budgets, batch, total)
        counts[DOMINATED] += first
        counts[PRICED] += total - first
        for start in range(first, total, chunk):
            stop = min(start + chunk, total)
            # Contiguous by type: a part of the columns of a matrix is not, and nothing would be vectorised.
            priced = results[: 3 * (stop - start)].reshape(3, stop - start)
            price_block(serving, batch, start, scratch, priced)
            tally_block(work, priced, counts, nearest)
            bounds = np.empty((2, (stop - start + BLOCK - 1) // BLOCK))
            size = offer_batch(front, size, work.ttft_ms, batch, budgets.size[start:stop], priced, bounds)
            if size < 0:
                return -1
    return size
