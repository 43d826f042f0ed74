"""Experts and their exchange: loads and node counts that were not measured, ends, and repairs."""

from functools import cache

import numpy as np
import pytest

from serveopt.errors import MissingTable
from serveopt.perfdata.store import open_database
from serveopt.perfdata.systems import load_system
from serveopt.solver.operators import descriptions as ops
from serveopt.solver.operators.curve import TokenCurve
from serveopt.solver.operators.outliers import repaired
from serveopt.solver.operators.pricing import Pricing

TOKENS = np.array([1.0, 16.0, 100.0, 512.0, 4096.0, 16384.0])


@cache
def pricing(system: str, backend: str, cost_model: str = "measured") -> Pricing:
    """Prices of one database, opened once."""
    return Pricing(open_database(system, backend), load_system(system), cost_model)


def experts(load: str = "power_law_1.01", quant: str = "fp8_block", **changes: object) -> ops.Moe:
    """Experts of DeepSeek-V3 over eight GPUs."""
    given = {"hidden": 7168, "inter": 2048, "topk": 8, "experts": 256, "moe_tp": 1, "moe_ep": 8}
    return ops.Moe("op", 1, **{**given, "quant": quant, "distribution": load, **changes})  # type: ignore[arg-type]


def dispatch(nodes: int, per_node: int = 8, shape: tuple[int, int, int] = (4096, 8, 128)) -> ops.AllToAll:
    """High-throughput dispatch over whole nodes."""
    return ops.AllToAll("op", 1, "deepep_ht", "dispatch", "default", *shape, nodes * per_node, nodes)


def test_load_between_two_measured_ones() -> None:
    """An exponent between two measured ones costs their weighted mean; one outside, the nearest."""
    prices = pricing("h200_sxm", "trtllm")
    low, middle, high, beyond = (
        prices.token_curve(experts(f"power_law_{alpha}")) for alpha in ("1.01", "1.1", "1.2", "3")
    )
    weight = (1.1 - 1.01) / (1.2 - 1.01)
    np.testing.assert_allclose(middle.at(TOKENS), (1 - weight) * low.at(TOKENS) + weight * high.at(TOKENS), rtol=1e-9)
    np.testing.assert_allclose(beyond.at(TOKENS), high.at(TOKENS))
    assert (low.source, middle.source, beyond.source) == ("silicon", "estimated", "estimated")


def test_few_tokens_have_their_own_kernel() -> None:
    """Up to 128 tokens of all ranks another kernel serves gated nvfp4 experts; other experts have none."""
    prices = pricing("b200_sxm", "trtllm", "reference")
    gated = prices.token_curve(experts(quant="nvfp4"))
    plain = prices.token_curve(experts(quant="nvfp4", gated=False)).at(TOKENS)
    assert (gated.at(TOKENS)[TOKENS > 128] == plain[TOKENS > 128]).all()
    assert (gated.at(TOKENS)[:3] != plain[:3]).all()
    assert (np.diff(gated.tokens) > 0).all()


def test_share_stretches_the_curve() -> None:
    """With eight attention ranks the experts see eight times the tokens of one."""
    prices = pricing("h200_sxm", "trtllm")
    one, eight = (prices.token_curve(experts(share=share)) for share in (1.0, 8.0))
    np.testing.assert_allclose(eight.at(TOKENS), one.at(8.0 * TOKENS), rtol=1e-9)


def test_measurements_over_nodes_are_kept() -> None:
    """Where several nodes were measured, the measurement counts; between them it is estimated."""
    prices = pricing("h200_sxm", "sglang")
    curves = [prices.token_curve(dispatch(nodes, shape=(7168, 8, 256))) for nodes in (1, 2, 3, 4, 8, 16)]
    ms = np.array([curve.at(TOKENS) for curve in curves])
    assert (np.diff(ms, axis=0) > 0).all()
    assert [curve.source for curve in curves] == ["silicon", "silicon", "estimated", "silicon", "silicon", "estimated"]
    assert ms[3, 3] == pytest.approx(0.3438, rel=1e-3)  # 512 tokens over four nodes


@pytest.mark.parametrize(("system", "per_node"), [("h200_sxm", 8), ("b200_sxm", 8), ("gb200", 4)])
def test_nodes_are_not_free(system: str, per_node: int) -> None:
    """More nodes cost more, less so where the link between nodes is as fast as inside."""
    prices = pricing(system, "sglang")
    two, four, sixteen = (prices.token_curve(dispatch(nodes, per_node)).at(TOKENS) for nodes in (2, 4, 16))
    assert (four > two).all()
    assert (sixteen > four).all()
    ratio = float((four / two)[-1])
    assert 1.0 < ratio < (1.5 if system == "gb200" else 3.0)


def test_part_of_a_node() -> None:
    """Four of the eight measured GPUs cost no more than all, and say that they are estimated."""
    prices = pricing("h200_sxm", "sglang")
    part, whole = (prices.token_curve(dispatch(1, per_node)) for per_node in (4, 8))
    assert (part.source, whole.source) == ("estimated", "silicon")
    assert (part.at(TOKENS) <= whole.at(TOKENS)).all()
    assert (part.at(TOKENS) > 0.4 * whole.at(TOKENS)).all()


def test_missing_exchange_and_experts_list_what_is_there() -> None:
    """The sizes that were measured, in one line."""
    prices = pricing("h200_sxm", "sglang")
    cases = [
        (dispatch(1, shape=(5000, 8, 128)), "4096/8/128"),
        (experts(quant="fp8"), "fp8_block"),
        (experts(moe_tp=3), "tp1 ep8"),
        (ops.Mhc("op", 1, "pre", 4, 5000), "4096, 7168"),
    ]
    for operator, known in cases:
        with pytest.raises(MissingTable, match=known) as caught:
            prices.token_curve(operator)
        assert "\n" not in caught.value.message


def test_lone_spike_is_levelled_and_steps_are_kept() -> None:
    """A spike goes; a dip, a step and an end stay."""
    tokens = np.arange(1.0, 7.0)
    kept = TokenCurve(tokens, np.array([5.0, 2.0, 2.0, 6.0, 6.0, 1.0]), "silicon")
    assert repaired(kept) is kept
    spiked = TokenCurve(tokens, np.array([1.0, 2.0, 9.0, 4.0, 5.0, 6.0]), "silicon")
    assert repaired(spiked).latency_ms.tolist() == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]


def test_first_tokens_are_not_cheaper_than_a_launch() -> None:
    """Below the first measurement the latency is held; the reference lets it shrink with the roofline."""
    operator = ops.ExpertCompute("op", 1, "context", 7168, 2048, 8, 256, 256, 16, "fp8_block", "power_law_1.01")
    ours, theirs = (pricing("h200_sxm", "sglang", model).token_curve(operator) for model in ("measured", "reference"))
    first = np.array([4.0, 32.0])
    assert ours.at(first)[0] == ours.at(first)[1]
    assert theirs.at(first)[0] < theirs.at(first)[1]
