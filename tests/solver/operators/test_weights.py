"""Bytes of weights of every kind of operator, by hand."""

from dataclasses import replace
from typing import get_args

import pytest

from serveopt.solver.operators import descriptions as ops
from serveopt.solver.operators.weights import WEIGHTS, resident_bytes

GEMM = ops.Gemm("up", 3, 32, 64, "nvfp4")
EXPERTS = ops.Moe("moe", 2, 10, 7, 2, 9, 2, 4, "nvfp4", "balanced")
MODULE = ops.MlaModule("module", 5, ops.CONTEXT, 16, 128, "bfloat16", "bfloat16", "bfloat16")


@pytest.mark.parametrize(
    ("operator", "size"),
    [
        (GEMM, 3 * 32 * 64 * 0.5625),
        (ops.Embedding("look_up", 1, 100, 8), 100 * 8 * 2),
        (EXPERTS, 2 * (int(10 * 7 * 9 * 0.5625 * 3 / 4) // 2)),
        (replace(EXPERTS, gated=False), 2 * (int(10 * 7 * 9 * 0.5625 * 2 / 4) // 2)),
        (ops.MegaMoe("moe", 2, ops.CONTEXT, 10, 7, 2, 8, 4, "w4a16_mxfp4", "balanced"), 2 * 10 * 7 * 8 * 0.5 * 3 / 4),
        (ops.ExpertCompute("moe", 2, ops.CONTEXT, 10, 7, 2, 8, 12, 4, "fp8", "balanced"), 2 * 10 * 7 * 12 * 3 / 4),
        (ops.Mhc("pre", 2, "pre", 4, 16), 2 * 2 * (24 * 4 * 16 + 24 + 3) * 2),
        (ops.Resident("weights", 12.5, 2), 25.0),
        (ops.Overlap("beside", (GEMM,), (EXPERTS, GEMM)), 2 * resident_bytes(GEMM) + resident_bytes(EXPERTS)),
        (ops.Fallback("block", MODULE, (GEMM, GEMM)), 2 * resident_bytes(GEMM)),
        (ops.AllReduce("reduce", 4, 64, 8), 0.0),
        (MODULE, 0.0),
    ],
    ids=lambda value: type(value).__name__ if hasattr(value, "label") else "",
)
def test_bytes(operator: ops.Operator, size: float) -> None:
    assert resident_bytes(operator) == pytest.approx(size)


def test_only_known_records_weigh() -> None:
    """A record that is renamed or removed leaves no stale row behind."""
    assert set(WEIGHTS) <= {*get_args(ops.TokenOperator), *get_args(ops.SequenceOperator), ops.Fallback, ops.Resident}
