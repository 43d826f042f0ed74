"""Disaggregated serving: the best number of prefill and decode workers for every decode row, exactly.

A replica of x prefill workers (rate p each, gp GPUs) and y decode workers (rate d, gd GPUs) serves

    rate(x, y) = min(x p a, y d b)          a, b: what rate matching loses on each side
    cluster    = rate(x, y) floor(G / (x gp + y gd))

Every pair (x, y) with x gp + y gd <= replica limit is decided; ties go to the replica with fewer GPUs.
A prefill worker matters only through its rate, so of the prefill rows that meet the TTFT target with the same GPU
count and tp the fastest dominates the others, and only it is passed. Source: search_model.md 4.4, 6.
"""

from serveopt.kernels.jit import kernel

SAME = 1e-12  # relative difference below which rates are equal: 2P1D eight times is 16P8D but for rounding


@kernel
def match_pools(prefill, decode, allowed, cluster, best_index, best_value):
    """Pairs decided; fills the best prefill row and worker counts for each decode row.

    ``prefill`` and ``decode`` are (requests/s of a worker after rate-matching loss float64[n], GPUs of a worker
    int64[n]); ``allowed`` bool[p, d]; ``cluster`` int64[4] total GPUs, GPUs per replica,
    most prefill workers, most decode workers. ``best_index`` int64[d, 3] receives (prefill row, x, y), -1 when no
    pair fits; ``best_value`` float64[d] requests/s of the whole cluster.
    """
    prefill_rate, prefill_gpus = prefill
    decode_rate, decode_gpus = decode
    decided = 0
    total, limit = cluster[0], cluster[1]
    for d in range(decode_rate.size):
        best_index[d, 0] = -1
        best_value[d] = 0.0
        best_gpus = limit + 1
        for p in range(prefill_rate.size):
            if not allowed[p, d]:
                continue
            most_y = min((limit - prefill_gpus[p]) // decode_gpus[d], cluster[3])
            for y in range(1, most_y + 1):
                demand = y * decode_rate[d]
                most_x = min((limit - y * decode_gpus[d]) // prefill_gpus[p], cluster[2])
                decided += max(most_x, 0)
                for x in range(1, most_x + 1):
                    gpus = x * prefill_gpus[p] + y * decode_gpus[d]
                    supply = x * prefill_rate[p]
                    value = min(supply, demand) * (total // gpus)
                    better = value > best_value[d] * (1.0 + SAME)
                    smaller = gpus < best_gpus and value >= best_value[d] * (1.0 - SAME) and value > 0.0
                    if better or smaller:
                        best_value[d] = value
                        best_gpus = gpus
                        best_index[d, 0], best_index[d, 1], best_index[d, 2] = p, x, y
                    if supply >= demand:
                        # More prefill workers cannot serve more, only cost GPUs: every larger x is decided.
                        break
    return decided
