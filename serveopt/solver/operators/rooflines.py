"""Speed-of-light bounds of token operators, in ms: max(arithmetic / FLOP/s, bytes / bandwidth).

Source: specs/op_model.md sections 0.1 and 2.
"""

import numpy as np

from serveopt.perfdata.quant_modes import COMM_BYTES, GEMM_MODES, MOE_MODES
from serveopt.perfdata.systems import SystemSpec
from serveopt.solver.operators import descriptions as ops
from serveopt.solver.operators.curve import Bound

Size = np.ndarray | float
BF16_BYTES = 2.0


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


def per_token(ms: float) -> Bound:
    """A bound in proportion to the tokens."""
    return lambda tokens: ms * tokens


def gemm_bound(system: SystemSpec, operator: ops.Gemm) -> Bound:
    """The bound of a weight shape over tokens."""
    system.flops(GEMM_MODES[operator.quant].pipeline)  # an arithmetic that the GPU lacks is an error here and now
    return lambda tokens: gemm_bound_ms(system, operator.quant, tokens, float(operator.n), float(operator.k))


def memory_move_bound(system: SystemSpec, operator: ops.MemoryMove) -> Bound:
    """Bytes at the full bandwidth."""
    return per_token(1e3 * operator.bytes_per_token / system.mem_bw_b_s)


def embedding_bound(system: SystemSpec, operator: ops.Embedding) -> Bound:
    """The rows read, at the full bandwidth."""
    return per_token(1e3 * operator.hidden * BF16_BYTES / system.mem_bw_b_s)


def all_reduce_bound(system: SystemSpec, operator: ops.AllReduce) -> Bound:
    """A ring's traffic over the slowest link."""
    return per_token(ring_ms(system, operator.gpus, 2.0 * BF16_BYTES * operator.hidden))


def nccl_bound(system: SystemSpec, operator: ops.Nccl) -> Bound:
    """A ring's traffic over the slowest link, twice for an all-reduce."""
    passes = 2.0 if operator.operation == "all_reduce" else 1.0
    size = passes * COMM_BYTES[operator.comm] * operator.elements_per_token
    return per_token(ring_ms(system, operator.gpus, size))


def hand_over_bound(system: SystemSpec, operator: ops.PointToPoint) -> Bound:
    """Bytes over the link between nodes."""
    return per_token(1e3 * operator.hidden * BF16_BYTES / system.inter_node_bw_b_s)


def ring_ms(system: SystemSpec, gpus: int, size_bytes: float) -> float:
    """Ms that one GPU of a ring takes to send its part of ``size_bytes``."""
    return 1e3 * size_bytes * (gpus - 1) / gpus / system.p2p_bw(gpus)


def moe_bound(system: SystemSpec, operator: ops.Moe | ops.MegaMoe) -> Bound:
    """Routed experts, fused: weights of the experts touched, activations and arithmetic of one rank."""
    mode = MOE_MODES[operator.quant]
    split = (operator.moe_tp, 3 if operator.gated else 2) if isinstance(operator, ops.Moe) else (1, 3)
    return experts_bound(system, operator, split, (system.flops(mode.pipeline), operator.experts))


def expert_compute_bound(system: SystemSpec, operator: ops.ExpertCompute) -> Bound:
    """The same with the slots of a load balancer; arithmetic as a multiple of bf16."""
    rate = system.flops("bfloat16") * MOE_MODES[operator.quant].compute_multiple
    return experts_bound(system, operator, (1, 3), (rate, operator.slots))


def experts_bound(
    system: SystemSpec, operator: ops.Moe | ops.MegaMoe | ops.ExpertCompute, split: tuple[int, int],
    rate: tuple[float, int],
) -> Bound:  # fmt: skip
    """The bound of one rank's experts; ``split`` (moe_tp, matrices), ``rate`` (FLOP/s, slots).

    Floor divisions as in op_model.md 2.10, from left to right.
    """
    (moe_tp, matrices), (flops, slots), moe_ep = split, rate, operator.moe_ep
    hidden, inter = operator.hidden, operator.inter
    width = MOE_MODES[operator.quant].bytes_per_element

    def bound(tokens: np.ndarray) -> np.ndarray:
        routed = np.asarray(tokens, np.float64) * operator.topk
        math = np.floor(np.floor(routed * hidden * inter * matrices * 2.0 / moe_ep) / moe_tp)
        local = np.floor(routed / moe_ep)
        elements = local * hidden * 2.0 + np.floor(local * inter * matrices / moe_tp)
        elements = elements + (hidden * inter * matrices // moe_tp) * np.minimum(slots // moe_ep, local)
        return 1e3 * np.maximum(math / flops, elements * width / system.mem_bw_b_s)

    return bound


def exchange_bound(system: SystemSpec, operator: ops.AllToAll) -> Bound:
    """Every token to the ranks of its experts, over the slowest link."""
    width = 0.5625 if operator.dtype in ("nvfp4", "fp4") else 1.0 if operator.dtype.startswith("fp8") else BF16_BYTES
    size = operator.hidden * width * remote_peers(operator.moe_ep, operator.topk)
    return per_token(1e3 * size / system.p2p_bw(operator.moe_ep))


def remote_peers(peers: int, topk: int) -> float:
    """How many of the other ``peers - 1`` a token goes to when it chooses ``topk`` experts at random.

    >>> remote_peers(2, 1)
    0.5
    """
    return (peers - 1) * (1.0 - (1.0 - 1.0 / peers) ** topk)


def hyper_connection_bound(system: SystemSpec, operator: ops.Mhc) -> Bound:
    """Mixing of the residual streams before or behind a block, bf16. Source: op_model.md 2.19."""
    streams, hidden, pre = operator.hc_mult, operator.hidden, operator.step == "pre"
    wide, mix = streams * hidden, (2 + streams) * streams
    once = 2.0 * wide * mix + 3.0 * wide + 20.0 * (streams**2 + 2 * streams) + 2.0 * streams * hidden
    math = 2.0 * (once if pre else 2.0 * streams**2 * hidden + 2.0 * streams * hidden)
    moved = 2.0 * wide * 2 * 2 + (2.0 * (2 * streams + streams**2) * 4 if pre else 0.0)
    fixed = 2.0 * (2.0 * (mix * wide + mix + 3))
    flops, bandwidth = system.flops("bfloat16"), system.mem_bw_b_s
    return lambda tokens: 1e3 * np.maximum(tokens * math / flops, (fixed + tokens * moved) / bandwidth)
