"""Bytes of weights that an operator keeps on one GPU, all its layers.

    GEMM n k, embedding rows h, experts 3 h Im E / (ep tp), hyper-connections 2 (m H + m + 3) with m = (2 + hc) hc

Times the bytes of one element and the operator's count; kernels without weights weigh nothing. A measured block lists
its weights in a Resident beside it, unless it stands in for operators that have them (Fallback).
Source: specs/search_model.md 1.4.
"""

from collections.abc import Callable, Mapping
from math import floor
from types import MappingProxyType
from typing import Any

from serveopt.perfdata.quant_modes import GEMM_MODES, MOE_MODES
from serveopt.solver.operators import descriptions as ops

BF16_BYTES = 2
GATED, PLAIN = 3, 2  # matrices of one expert


def resident_bytes(operator: ops.Operator) -> float:
    """Bytes of weights of an operator on one GPU, all its layers.

    >>> resident_bytes(ops.Gemm("proj", 2, 16, 8, "fp8"))
    256.0
    """
    weigh = WEIGHTS.get(type(operator))
    return float(weigh(operator)) * operator.count if weigh else 0.0


def _gemm(operator: ops.Gemm) -> float:
    return operator.n * operator.k * GEMM_MODES[operator.quant].bytes_per_element


def _embedding(operator: ops.Embedding) -> float:
    return operator.rows * operator.hidden * BF16_BYTES


def _experts(operator: ops.Moe) -> float:
    matrices = GATED if operator.gated else PLAIN
    size = operator.hidden * operator.inter * operator.experts * MOE_MODES[operator.quant].bytes_per_element * matrices
    return floor(floor(size / operator.moe_ep) / operator.moe_tp)


def _mega_experts(operator: ops.MegaMoe) -> float:
    return _wide(operator, operator.experts)


def _expert_compute(operator: ops.ExpertCompute) -> float:
    return _wide(operator, operator.slots)  # redundant copies of experts take memory too


def _wide(operator: ops.MegaMoe | ops.ExpertCompute, experts: int) -> float:
    size = operator.hidden * operator.inter * experts * MOE_MODES[operator.quant].bytes_per_element * GATED
    return floor(size / operator.moe_ep)


def _connections(operator: ops.Mhc) -> float:
    mixes = (2 + operator.hc_mult) * operator.hc_mult
    return 2 * (mixes * operator.hc_mult * operator.hidden + mixes + 3) * BF16_BYTES


def _resident(operator: ops.Resident) -> float:
    return operator.size_bytes


def _overlap(operator: ops.Overlap) -> float:
    return sum(resident_bytes(one) for one in (*operator.first, *operator.second))


def _fallback(operator: ops.Fallback) -> float:
    return resident_bytes(operator.primary) or sum(resident_bytes(one) for one in operator.parts)


WEIGHTS: Mapping[type, Callable[[Any], float]] = MappingProxyType(
    {
        ops.Gemm: _gemm,
        ops.Embedding: _embedding,
        ops.Moe: _experts,
        ops.MegaMoe: _mega_experts,
        ops.ExpertCompute: _expert_compute,
        ops.Mhc: _connections,
        ops.Resident: _resident,
        ops.Overlap: _overlap,
        ops.Fallback: _fallback,
    }
)
