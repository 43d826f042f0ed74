"""Silicon, hybrid, empirical and sol prices of the same operators, and launch-bound tables."""

from functools import cache

import numpy as np
import pytest

from serveopt.errors import ConfigError, DataError, MissingTable
from serveopt.perfdata.store import open_database
from serveopt.perfdata.systems import load_system
from serveopt.solver.operators import descriptions as ops
from serveopt.solver.operators import launch
from serveopt.solver.operators.curve import line
from serveopt.solver.operators.data_modes import MODES
from serveopt.solver.operators.pricing import TOKEN_PRICES, Pricing

TOKENS = np.array([1.0, 16.0, 128.0, 1000.0, 8192.0])
MEASURED = [
    ops.Gemm("op", 1, 4096, 4096, "fp8"),
    ops.Gemm("op", 1, 4000, 3000, "fp8_block"),
    ops.Moe("op", 1, 7168, 2048, 8, 256, 1, 8, "fp8_block", "power_law_1.01"),
    ops.AllReduce("op", 1, 5120, 8),
    ops.Nccl("op", 1, "all_gather", 5120, 8),
    ops.ExpertCompute("op", 1, "context", 7168, 2048, 8, 256, 256, 16, "fp8_block", "power_law_1.01"),
    ops.AllToAll("op", 1, "trtllm_deepep_ht", "combine", "bfloat16", 7168, 8, 256, 8, 1),
    ops.Mhc("op", 1, "post", 4, 7168),
]
MISSING = [
    ops.Gemm("op", 1, 4096, 4096, "int4_wo"),
    ops.Moe("op", 1, 7000, 2000, 8, 250, 1, 5, "fp8_block", "power_law_1.01"),
    ops.Moe("op", 1, 7168, 2048, 8, 256, 1, 8, "w4afp8", "power_law_1.01"),
    ops.ExpertCompute("op", 1, "generation", 4096, 2048, 8, 128, 128, 16, "bfloat16", "power_law_1.01"),
    ops.AllToAll("op", 1, "trtllm_deepep_ht", "dispatch", "bfloat16", 5000, 8, 256, 8, 1),
    ops.Mhc("op", 1, "post", 4, 6144),
]
NEVER = ops.MegaMoe("op", 1, "context", 7168, 2048, 8, 256, 8, "fp8_block", "balanced")


@cache
def pricing(mode: str, system: str = "h200_sxm", backend: str = "trtllm", cost_model: str = "measured") -> Pricing:
    """Prices of one database in one mode, opened once."""
    return Pricing(open_database(system, backend), load_system(system), cost_model, mode=mode)


def names(operators: list[ops.TokenOperator]) -> list[str]:
    return [f"{i}-{type(operator).__name__}" for i, operator in enumerate(operators)]


@pytest.mark.parametrize("operator", MEASURED, ids=names(MEASURED))
def test_measured_operator_in_every_mode(operator: ops.TokenOperator) -> None:
    """Hybrid is silicon, empirical agrees at measured points, the roofline lies below."""
    curves = {mode: pricing(mode).token_curve(operator) for mode in MODES}
    assert curves["hybrid"].source == curves["silicon"].source == "silicon"
    assert (curves["empirical"].source, curves["sol"].source) == ("empirical", "sol")
    np.testing.assert_allclose(curves["hybrid"].at(TOKENS), curves["silicon"].at(TOKENS), rtol=1e-12)
    np.testing.assert_allclose(curves["empirical"].at(TOKENS), curves["silicon"].at(TOKENS), rtol=0.1)
    inside = TOKENS[TOKENS <= 1000]
    if not isinstance(operator, ops.AllToAll):  # its bound counts tokens sent to each peer once more
        assert (curves["sol"].at(inside) <= 1.001 * curves["silicon"].at(inside)).all()
    for curve in curves.values():
        assert (np.diff(curve.tokens) > 0).all()
        assert np.isfinite(curve.latency_ms).all()


@pytest.mark.parametrize("operator", MISSING, ids=names(MISSING))
def test_missing_operator_takes_a_relative(operator: ops.TokenOperator) -> None:
    """Silicon refuses; hybrid and empirical scale what is most alike, between the roofline and fifty times it."""
    with pytest.raises(MissingTable):
        pricing("silicon").token_curve(operator)
    bound = TOKEN_PRICES[type(operator)].bound(load_system("h200_sxm"), operator)(TOKENS[2:])
    for mode in ("hybrid", "empirical"):
        curve = pricing(mode).token_curve(operator)
        assert curve.source == "empirical"
        assert (curve.at(TOKENS[2:]) < 50.0 * bound).all()


def test_table_never_collected_takes_the_roofline() -> None:
    """At a typical efficiency, and it says so."""
    curve, roof = (pricing(mode).token_curve(NEVER) for mode in ("hybrid", "sol"))
    assert curve.source == "sol"
    np.testing.assert_allclose(curve.at(TOKENS), roof.at(TOKENS) / TOKEN_PRICES[ops.MegaMoe].typical, rtol=1e-9)


def test_arithmetic_that_the_gpu_lacks_is_an_error_in_every_mode() -> None:
    """An H200 has no fp4 tensor cores; nothing stands in for them."""
    for mode in ("hybrid", "empirical", "sol"):
        with pytest.raises(DataError, match="fp4"):
            pricing(mode).token_curve(ops.Gemm("op", 1, 4096, 4096, "nvfp4"))


def test_unknown_mode_names_the_known_ones() -> None:
    """A ConfigError at the field."""
    with pytest.raises(ConfigError, match="data mode"):
        Pricing(open_database("h200_sxm", "trtllm"), load_system("h200_sxm"), mode="gold")


def test_overlap_is_the_longer_chain() -> None:
    """At every token count, also between knots."""
    first = (ops.Gemm("op", 2, 4096, 4096, "fp8"), ops.MemoryMove("op", 3, 1e4))
    second = (ops.Gemm("op", 1, 16384, 4096, "fp8"),)
    prices = pricing("silicon")
    tokens = np.arange(1.0, 3000.0, 7.0)
    sums = [sum(prices.token_curve(part).at(tokens) for part in chain) for chain in (first, second)]
    both = prices.token_curve(ops.Overlap("op", first, second))
    np.testing.assert_allclose(both.at(tokens), np.maximum(*sums), rtol=1e-9)
    assert (sums[0] > sums[1]).any()
    assert (sums[1] > sums[0]).any()


def test_shapes_far_outside_are_estimated() -> None:
    """More than an octave beyond the measured shapes."""
    prices = pricing("silicon")
    sources = [prices.token_curve(ops.Gemm("op", 1, n, 4096, "fp8")).source for n in (4096, 4000, 130_000, 200_000)]
    assert sources == ["silicon", "silicon", "silicon", "estimated"]


def test_a_single_column_costs_a_kernel() -> None:
    """A gate of one output takes as long as the narrowest measured GEMM; the reference charges its roofline."""
    one, narrow = (ops.Gemm("op", 1, n, 4096, "bfloat16") for n in (1, 32))
    ours, theirs = pricing("silicon"), pricing("silicon", cost_model="reference")
    np.testing.assert_array_equal(ours.token_curve(one).at(TOKENS), ours.token_curve(narrow).at(TOKENS))
    assert (ours.token_curve(one).source, theirs.token_curve(one).source) == ("estimated", "sol")
    assert (theirs.token_curve(one).at(TOKENS[:3]) < 1e-3).all()


@pytest.mark.parametrize(("system", "floor"), [("h200_sxm", 0.05), ("b200_sxm", 0.15)])
def test_launch_bound_table_is_repaired(system: str, floor: float) -> None:
    """vllm's small fp8_block GEMMs cost what kernels cost, not what launching them from the host costs."""
    small, large = (ops.Gemm("op", 1, n, n, "fp8_block") for n in (4096, 16384))
    ours, theirs = (pricing("silicon", system, "vllm", model) for model in ("measured", "reference"))
    other = pricing("silicon", system, "trtllm")
    one = np.array([1.0, 32.0])
    assert (theirs.token_curve(small).at(one) > floor).all()
    np.testing.assert_allclose(ours.token_curve(small).at(one), other.token_curve(small).at(one), rtol=0.5)
    long = np.array([32768.0])
    np.testing.assert_allclose(ours.token_curve(large).at(long), theirs.token_curve(large).at(long), rtol=1e-9)
    assert ours.token_curve(small).source == "estimated"


def test_graph_timed_tables_are_left_alone() -> None:
    """No other table of these systems is suspected."""
    for backend, quants in (("trtllm", ("bfloat16", "fp8", "fp8_block")), ("vllm", ("bfloat16", "fp8"))):
        for quant in quants:
            assert not launch.is_suspect(pricing("silicon", "h200_sxm", backend).gemm_table(quant))


def test_count_multiplies_and_zero_is_free() -> None:
    """All runs of an operator in one step."""
    prices = pricing("silicon")
    none, one, many = (prices.token_curve(ops.Gemm("op", count, 4096, 4096, "fp8")) for count in (0, 1, 64))
    np.testing.assert_allclose(many.at(TOKENS), 64 * one.at(TOKENS), rtol=1e-12)
    assert not none.at(TOKENS).any()
    assert line(0.0, 0.0, "sol").at(TOKENS).tolist() == [0.0] * TOKENS.size
