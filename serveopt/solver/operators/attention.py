"""Kernels that run beside prefill attention: rotary embedding, KV write and the norms of queries and keys.

    t = 1.1 * (launches + bytes of the step / sustained bandwidth)

The reference charges the bytes of one token whatever the prompt and writes the cache at the width of the arithmetic
(specs/op_model.md 6.1); the measured cost model charges every token, at the width of the cache.
"""

from serveopt.perfdata.quant_modes import FMHA_MODES, KV_BYTES
from serveopt.perfdata.systems import SystemSpec
from serveopt.solver.operators.descriptions import ContextAttention
from serveopt.solver.operators.rooflines import memory_move_ms

FUSED_EXTRA_FACTOR = 1.1  # charged 10 % over their memory time


def fused_extras(system: SystemSpec, operator: ContextAttention, cost_model: str) -> tuple[float, float]:
    """(ms per call, ms per new token of the call) beside the attention kernel."""
    query = operator.heads * operator.head_dim
    key = operator.kv_heads * operator.head_dim
    measured = cost_model == "measured"
    width = KV_BYTES[operator.kv] if measured else FMHA_MODES[operator.fmha].bytes_per_element
    moves = [2.0 * query + 2.0 * key] * 2 + [key * width] * 2
    if operator.qk_norm:
        moves += [2.0 * query] * 4 + [2.0 * key] * 4
    launch = memory_move_ms(system, 0.0)
    bytes_ms = sum(memory_move_ms(system, size) - launch for size in moves)
    if measured:
        return FUSED_EXTRA_FACTOR * launch * len(moves), FUSED_EXTRA_FACTOR * bytes_ms
    return FUSED_EXTRA_FACTOR * (launch * len(moves) + bytes_ms), 0.0
