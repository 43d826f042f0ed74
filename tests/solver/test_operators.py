"""Weight shapes that were not measured, counts, and what an operator that was not measured says."""

from functools import cache

import numpy as np
import pytest

from serveopt.errors import MissingTable
from serveopt.kernels.curves import curve_ms
from serveopt.perfdata.store import open_database
from serveopt.perfdata.systems import load_system
from serveopt.solver.operators import descriptions as ops
from serveopt.solver.operators.curve import join
from serveopt.solver.operators.pricing import Pricing


@cache
def pricing(system: str, backend: str, version: str = "current", cost_model: str = "reference") -> Pricing:
    """Prices of one database, opened once."""
    return Pricing(open_database(system, backend, version), load_system(system), cost_model)


def price(prices: Pricing, operator: ops.Operator, tokens: float = 1.0) -> float:
    """ms of a token operator; of a sequence operator only whether it has a price."""
    if isinstance(operator, ops.SequenceOperator):
        prices.sequence(operator)
        return 0.0
    return float(prices.token_curve(operator).at(np.array([tokens]))[0])


@pytest.mark.parametrize("method", ["measured", "reference"])
@pytest.mark.parametrize(("n", "k"), [(4000, 4096), (5120, 3000), (100_000, 5120), (640, 25_600)])
def test_unmeasured_shapes_lie_between_bounds(method: str, n: int, k: int) -> None:
    """A shape between the measured ones is never faster than its roofline and never ten times slower."""
    table = pricing("h200_sxm", "trtllm").gemm_table("fp8")
    curve = table.curve(n, k, method)
    flops = load_system("h200_sxm").flops("fp8")
    knots = (curve.tokens >= 256) & (curve.tokens <= 32768)
    share = curve.latency_ms[knots] * flops / (2e3 * curve.tokens[knots] * n * k)
    assert (np.diff(curve.tokens) > 0).all()
    assert (share >= 1 - 1e-9).all()
    assert (share < 10).all()


@pytest.mark.parametrize("method", ["measured", "reference"])
def test_measured_shapes_do_not_depend_on_the_method(method: str) -> None:
    """A measured shape is its measurement."""
    table = pricing("h200_sxm", "trtllm").gemm_table("fp8")
    i, j = int(np.searchsorted(table.n, 4096)), int(np.searchsorted(table.k, 4096))
    curve = join([table.curve(4096, 4096, method)])
    got = [curve_ms(curve, 0, m) for m in table.m]
    np.testing.assert_allclose(got, table.latency_ms[i, j], rtol=1e-12)


@pytest.mark.parametrize("method", ["measured", "reference"])
def test_nearly_measured_shape_is_nearly_the_measurement(method: str) -> None:
    """One column more than a measured shape costs nearly the same."""
    table = pricing("h200_sxm", "trtllm").gemm_table("fp8")
    exact, near = (join([table.curve(n, 4096, method)]) for n in (4096, 4097))
    for m in (64.0, 512.0, 4096.0):
        assert curve_ms(near, 0, m) == pytest.approx(curve_ms(exact, 0, m), rel=0.1)


def test_one_gpu_needs_no_collective() -> None:
    """A group of one costs nothing, whatever was measured."""
    for operator in (ops.AllReduce("op", 1, 5120, 1), ops.Nccl("op", 1, "all_gather", 5120, 1)):
        assert price(pricing("h200_sxm", "trtllm"), operator, 4096.0) == 0.0


def test_count_multiplies() -> None:
    """All runs of an operator in one step."""
    prices = pricing("h200_sxm", "trtllm")
    one, many = (price(prices, ops.Gemm("op", count, 4096, 4096, "fp8"), 77.0) for count in (1, 64))
    assert many == pytest.approx(64 * one, rel=1e-12)


MISSING = [
    (ops.Gemm("op", 1, 4096, 4096, "int4_wo"), "gemm", "gemm_dtype=int4_wo"),
    (ops.ContextAttention("op", 1, 32, 8, 80, "bfloat16", "bfloat16"), "context_attention", "head_dim=80"),
    (ops.GenerationAttention("op", 1, 32, 8, 128, "fp8", window=77), "generation_attention", "window_size=77"),
    (ops.Nccl("op", 1, "broadcast", 5120, 2), "nccl", "broadcast"),
]


@pytest.mark.parametrize(("operator", "table", "key"), MISSING, ids=[row[1] for row in MISSING])
def test_missing_data_is_named(operator: ops.Operator, table: str, key: str) -> None:
    """The table and the slice that were asked for, in one line."""
    with pytest.raises(MissingTable) as caught:
        price(pricing("h200_sxm", "trtllm"), operator)
    assert caught.value.op == table
    assert key in caught.value.message
    assert "\n" not in caught.value.message


def test_table_never_collected_is_named() -> None:
    """Where a whole table is absent, the system, backend and version are named."""
    with pytest.raises(MissingTable, match=r"no measured data of nothing_perf.*h200_sxm/trtllm/"):
        pricing("h200_sxm", "trtllm").require("nothing_perf")
