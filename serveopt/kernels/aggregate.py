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
PRICED = int(Reason.PRICED)


@kernel
def count_spread(serving, batch, waves):
    """How many of the leading budgets spread their decodes: prefill of the batch outlasts its answers there."""
    if serving.scheduler.spread_decode == 0 or batch <= 1:
        return 0
    low, high = 0, waves.size
    while low < high:
        mid = (low + high) // 2
        if waves[mid] >= serving.work.answer_steps:
            low = mid + 1
        else:
            high = mid
    return low


@kernel
def spread_shares(batch, waves, output_steps, shares):
    """Nothing; fills shares (float64[count]) with the decoding requests of mixed steps: batch // (S / D).

    A quotient that rounds to a whole number may hide one just below it, which floor division tells apart.
    """
    for j in range(shares.size):
        ratio = waves[j] / output_steps
        share = np.floor(batch / ratio)
        shares[j] = -1.0 if share * ratio == batch else share
    for j in range(shares.size):
        if shares[j] < 0.0:
            shares[j] = batch // (waves[j] / output_steps)


@kernel
def gather_spread(serving, start, shares, mixed):
    """Nothing; fills mixed float64[count] (ms) under budgets from start on that spread their decodes by ``shares``.

    ``mixed`` may be ``shares``.
    """
    steps, budgets = serving.steps, serving.budgets
    context, decode_attention, logits = steps.context, steps.decode_attention, steps.context_logits
    new_tokens = budgets.new_tokens[start : start + mixed.size]
    prompts = budgets.prompts[start : start + mixed.size]
    attention_ms = budgets.attention_ms[start : start + mixed.size]
    drafts, most = serving.scheduler.drafts, logits.size - 1
    for j in range(mixed.size):
        decoding = max(1, int(shares[j]))
        ending = min(prompts[j] + decoding * drafts, most)
        mixed[j] = context[new_tokens[j] + decoding * drafts] + attention_ms[j]
        mixed[j] += logits[ending] + decode_attention[decoding]


@kernel
def gather_mixed(serving, batch, start, waves, mixed):
    """Nothing; fills mixed[j] (float64[count], ms) with the mixed step under budget start + j, see waves[j]."""
    # Taken out of the named tuples once: inside the loop each would cost two atomic reference counts.
    steps, budgets = serving.steps, serving.budgets
    context, decode_attention = steps.context, steps.decode_attention
    new_tokens, prompts, gaps = budgets.new_tokens, budgets.prompts, budgets.gaps
    stops, attention_ms, logits = budgets.stop, budgets.attention_ms, steps.context_logits
    drafts = serving.scheduler.drafts
    j = count_spread(serving, batch, waves)
    if j > 0:
        spread_shares(float(batch), waves[:j], serving.work.answer_steps, mixed[:j])
        gather_spread(serving, start, mixed[:j], mixed[:j])
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
