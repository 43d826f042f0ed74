"""Every named tuple and code that crosses into a compiled kernel.

Arrays are float64 or int64 and C-contiguous; latencies are ms, token counts and batches are counts.
"""

from enum import IntEnum
from typing import NamedTuple

import numpy as np

F64 = np.ndarray
I64 = np.ndarray


class Grid(NamedTuple):
    """One measured slice with three nested axes, ragged: each outer key has its own inner keys.

    ``inner[i]:inner[i + 1]`` are the middle keys below outer key i; ``leaf[j]:leaf[j + 1]`` the leaves below
    middle key j.
    """

    outer: F64  # float64[n0], increasing
    inner: I64  # int64[n0 + 1]
    middle: F64  # float64[n1], increasing inside each outer key
    leaf: I64  # int64[n1 + 1]
    last: F64  # float64[n2], increasing inside each middle key
    latency_ms: F64  # float64[n2]
    efficiency: F64  # float64[n2], roofline / latency
    outer_log: F64  # log2 of the keys
    middle_log: F64
    last_log: F64


class Roofline(NamedTuple):
    """The speed-of-light bound of one sequence operator: max(math, memory), each linear in the features of a query.

    ``math`` and ``memory`` hold seconds per feature (``kernels.grids.bound_ms`` lists the features); the second half
    is multiplied by the number of heads.
    """

    kind: int  # CONTEXT or GENERATION: what the coordinates mean
    prefix: float  # cached tokens before the prompt (context); tokens a length counts too many (generation)
    cap: float  # keys that a query looks at: window or top-k; 0: all
    gate: float  # lengths up to this one need no indexer
    ratio: float  # keys that one compressed key stands for; 0: none
    limit: float  # compressed keys that a query looks at; 0: all
    step_window: int  # 1: a prompt longer than the window is charged the window for every token (context)
    math: tuple[float, ...]  # float64[2 * FEATURES]
    memory: tuple[float, ...]  # float64[2 * FEATURES]


CONTEXT = 0
GENERATION = 1
FEATURES = 9


class Curves(NamedTuple):
    """Piecewise-linear curves over tokens, one behind the other; the last segment of each runs on."""

    offset: I64  # int64[n + 1]
    tokens: F64  # float64[knots]
    latency_ms: F64  # float64[knots]


class Workload(NamedTuple):
    """The request shape and the latency target."""

    isl: int
    osl: int
    prefix: int
    ttft_ms: float
    tpot_ms: float
    answer_steps: float  # decode steps of an answer, the first token included; fewer than osl with speculation


class Scheduler(NamedTuple):
    """How one backend interleaves prefill and decode (search_model.md 4.2)."""

    spread_decode: int  # 1: decode share by the ratio of mixed steps to output tokens; 0: batch less prompts
    mixed_steps_hidden: int  # mixed steps left out of the mean TPOT
    overhead_ms: float  # added to a request's prefill
    log_queue: int  # 1: queue factor 1 + log2(batch) / 8 up to 2; 0: 2 + (steps - 3) / 20 up to 4
    capped: int  # 1: throughput is capped at batch over request latency
    answer_tokens: float  # tokens of an answer that count as throughput
    strict_chunks: int  # 1: a cut prompt pays for all its chunks and for the wait that its load implies
    drafts: int  # tokens that a decoding request brings into a step: 1, more with speculation
    encoder_ms: float  # vision encoder per request of a wave, before its prefill


class Memory(NamedTuple):
    """Bytes of one GPU as linear functions of tokens and sequences."""

    fixed: float  # weights + communication buffers + other
    per_token: float  # activations of one token in flight
    floor: float  # smallest activation workspace
    tokens_floor: float  # tokens the engine reserves for, whatever the step holds; 0: none
    per_sequence: float  # KV cache of one sequence at its longest
    capacity: float
    share: float  # KV budget = share * capacity - taken * (fixed + activations)
    taken: float
    drafts: float  # tokens in flight of a decoding request


class Steps(NamedTuple):
    """Step latencies of one worker layout, tabulated at every integer (ms)."""

    context: F64  # float64[tokens + 1]: token operators of the prefill list, without attention and logits
    context_logits: F64  # float64[sequences + 1]: logits of that many sequences in a mixed step
    decode: F64  # float64[batch + 1]: token operators of the decode list
    decode_attention: F64  # float64[batch + 1]: sequence operators of the decode list at the mean length


class Budgets(NamedTuple):
    """Context budgets of a mixed step, increasing, with what depends on the budget alone."""

    ctx_tokens: I64  # int64[m]
    size: F64  # float64[m]: the same, for arithmetic
    prompts: I64  # int64[m]: prompts in a step, whose requests do not decode in it
    chunks: F64  # float64[m]: steps that one prompt takes, ceil(isl / budget)
    attention_ms: F64  # float64[m]: prefill attention of one step
    new_tokens: I64  # int64[m]: tokens of the budget less those that the prefix cache answers
    stop: I64  # int64[m]: end of the stretch of budgets with equally many prompts
    gaps: I64  # int64[m]: how often new_tokens did not grow by exactly one until here
    held: I64  # int64[m]: most tokens of a step up to this budget, less those of requests that all decode


class Serving(NamedTuple):
    """All that prices the candidates of one worker layout."""

    steps: Steps
    budgets: Budgets
    work: Workload
    scheduler: Scheduler


class Reason(IntEnum):
    """Why a candidate or a layout is not in the ranking; the value indexes a counter array."""

    PRICED = 0
    MEMORY = 1
    KV_CACHE = 2
    TTFT = 3
    TPOT = 4
    DOMINATED = 5
    NO_DATA = 6
    INDIVISIBLE = 7


REASON_TEXT = {
    Reason.MEMORY: "weights and activations do not fit",
    Reason.KV_CACHE: "KV cache does not fit",
    Reason.TTFT: "TTFT above target",
    Reason.TPOT: "TPOT above target",
    Reason.NO_DATA: "no measured data",
    Reason.INDIVISIBLE: "heads, layers or GPUs do not divide",
}

REASONS = len(Reason)
