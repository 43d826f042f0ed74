"""Groups of GPUs that were not measured, and the collectives around experts."""

from functools import cache

import numpy as np
import pytest

from serveopt.errors import MissingTable
from serveopt.perfdata.store import open_database
from serveopt.perfdata.systems import load_system
from serveopt.solver.operators import descriptions as ops
from serveopt.solver.operators.pricing import Pricing

TOKENS = np.array([1.0, 77.0, 512.0, 5000.0])


@cache
def pricing(system: str, backend: str, mode: str = "silicon") -> Pricing:
    """Prices of one database, opened once."""
    return Pricing(open_database(system, backend), load_system(system), mode=mode)


@pytest.mark.parametrize("kind", ["all_reduce", "nccl"])
def test_group_between_two_measured_ones(kind: str) -> None:
    """Six GPUs cost something between four and eight, and say that they are estimated."""

    def curve(gpus: int) -> np.ndarray:
        operator = ops.AllReduce("op", 1, 5120, gpus) if kind == "all_reduce" else nccl(gpus)
        return pricing("h200_sxm", "trtllm").token_curve(operator)

    four, six, eight = (curve(gpus) for gpus in (4, 6, 8))
    low, high = np.minimum(four.at(TOKENS), eight.at(TOKENS)), np.maximum(four.at(TOKENS), eight.at(TOKENS))
    assert (six.at(TOKENS) >= low).all()
    assert (six.at(TOKENS) <= high).all()
    assert (four.source, six.source, eight.source) == ("silicon", "estimated", "silicon")


def nccl(gpus: int, elements: float = 5120) -> ops.Nccl:
    """An all-gather."""
    return ops.Nccl("op", 1, "all_gather", elements, gpus)


def test_one_gpu_needs_no_collective() -> None:
    """A group of one costs nothing, whatever was measured."""
    for operator in (ops.AllReduce("op", 1, 5120, 1), nccl(1)):
        assert not pricing("h200_sxm", "trtllm").token_curve(operator).at(TOKENS).any()


def test_wider_groups_cost_more() -> None:
    """Beyond a node the slower link counts."""
    prices = [pricing("h200_sxm", "vllm").token_curve(ops.AllReduce("op", 1, 5120, gpus)) for gpus in (8, 16, 32)]
    ms = np.array([price.at(TOKENS) for price in prices])
    assert (np.diff(ms, axis=0) > 0).all()


def test_unknown_collective_is_named() -> None:
    """The operation and what was measured instead."""
    with pytest.raises(MissingTable, match="broadcast"):
        pricing("h200_sxm", "trtllm").token_curve(ops.Nccl("op", 1, "broadcast", 5120, 2))
    hybrid = pricing("h200_sxm", "trtllm", "hybrid").token_curve(ops.Nccl("op", 1, "broadcast", 5120, 2))
    assert hybrid.source == "empirical"


# Composed by hand as the families do: (system, backend, operators, tokens, ms of the reference's dispatch).
DISPATCH = [
    ("h200_sxm", "trtllm", [ops.AllReduce("op", 1, 7168, 8)], 0.0432262),
    ("h200_sxm", "sglang", [ops.Nccl("op", 1, "reduce_scatter", 7168, 4), nccl(8, 2 * 7168)], 0.0716999),
    ("h200_sxm", "vllm", [ops.AllReduce("op", 1, 7168, 8), nccl(8, 2 * 7168)], 0.0683620),
    ("b200_sxm", "trtllm", [nccl(8, 8 * 7168 * 0.28125)], 0.0433481),
]


@pytest.mark.parametrize(("system", "backend", "operators", "expected"), DISPATCH)
def test_dispatch_is_its_collectives(
    system: str, backend: str, operators: list[ops.TokenOperator], expected: float
) -> None:
    """256 tokens before the experts of DeepSeek-V3 over eight GPUs."""
    total = sum(pricing(system, backend).token_curve(operator).at(np.array([256.0]))[0] for operator in operators)
    assert total == pytest.approx(expected, rel=2e-3)
