"""Speed-of-light bounds of token operators, in ms: max(arithmetic / FLOP/s, bytes / bandwidth).

Source: specs/op_model.md sections 0.1 and 2.
"""

import numpy as np

from serveopt.perfdata.quant_modes import GEMM_MODES
from serveopt.perfdata.systems import SystemSpec

Size = np.ndarray | float


def gemm_bound_ms(system: SystemSpec, quant: str, m: np.ndarray, n: Size, k: Size) -> np.ndarray:
    """Roofline of C[m, n] = A[m, k] W[n, k] in ms, element-wise over broadcast arrays.

    Operands and output are charged at the weight's width, as the reference does.
    """
    mode = GEMM_MODES[quant]
    math_s = 2.0 * m * n * k / system.flops(mode.pipeline)
    bytes_s = mode.bytes_per_element * (m * n + m * k + n * k) / system.mem_bw_b_s
    return 1e3 * np.maximum(math_s, bytes_s)


def memory_move_ms(system: SystemSpec, size_bytes: float) -> float:
    """Latency in ms of a kernel that moves ``size_bytes``: launch plus bytes at the sustained bandwidth."""
    return 1e3 * (size_bytes / (system.mem_bw_b_s * system.mem_bw_efficiency) + system.mem_latency_s)
