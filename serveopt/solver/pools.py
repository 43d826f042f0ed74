"""Constants of disaggregated serving: what separate pools lose against their static latencies.

Source: specs/search_model.md 4.4, where they stand as the reference's constants.
"""

PREFILL_SLOWDOWN = 1.1  # a prefill step against the sum of its kernels
DECODE_SLOWDOWN = 1.08  # a decode step against the sum of its kernels
PREFILL_QUEUE = 1.8  # TTFT against the prefill step: waiting for a worker
PREFILL_LOSS = 0.9  # share of its rate that a prefill pool sustains
DECODE_LOSS = 0.92
ENCODER_LOSS = 0.9
