"""Token curves and their sums: exact at knots, linear between, end segments run on."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serveopt.kernels.curves import curve_ms, fill_curve_points, tabulate_sum
from serveopt.solver.operators.curve import TokenCurve, join, line
from tests import oracle

BOUNDED = settings(max_examples=60, deadline=None)
KNOTS = st.lists(
    st.tuples(st.integers(0, 60), st.floats(0, 100)), min_size=1, max_size=6, unique_by=lambda knot: knot[0]
).map(sorted)


def token_curve(knots: list[tuple[int, float]]) -> TokenCurve:
    """The knots as arrays."""
    tokens, latency = zip(*knots, strict=True)
    return TokenCurve(np.array(tokens, np.float64), np.array(latency, np.float64), "silicon")


@given(st.lists(KNOTS, min_size=1, max_size=4), st.lists(st.floats(0, 200), min_size=1, max_size=5))
@BOUNDED
def test_points_equal_oracle(curves: list[list[tuple[int, float]]], tokens: list[float]) -> None:
    """Every curve at every token count, whole or not."""
    joined = join([token_curve(knots) for knots in curves])
    out = np.empty((len(curves), len(tokens)))
    fill_curve_points(joined, np.array(tokens), out)
    expected = [[oracle.curve_ms(knots, x) for x in tokens] for knots in curves]
    np.testing.assert_allclose(out, expected, rtol=1e-9, atol=1e-9)


@given(st.lists(KNOTS, max_size=4), st.integers(1, 90))
@BOUNDED
def test_tabulated_sum_equals_oracle(curves: list[list[tuple[int, float]]], size: int) -> None:
    """The sum at every whole number of tokens; no tokens cost nothing."""
    out = np.full(size, np.nan)
    tabulate_sum(join([token_curve(knots) for knots in curves]), out)
    expected = [0.0, *(sum(oracle.curve_ms(knots, x) for knots in curves) for x in range(1, size))]
    np.testing.assert_allclose(out, expected, rtol=1e-9, atol=1e-9)


@given(KNOTS)
@BOUNDED
def test_exact_at_knots(knots: list[tuple[int, float]]) -> None:
    """Tile edges stay where they were measured."""
    joined = join([token_curve(knots)])
    for tokens, latency in knots:
        assert curve_ms(joined, 0, float(tokens)) == latency


def test_line_is_a_line() -> None:
    """Two far knots keep the slope to the last digits that matter."""
    joined = join([line(0.25, 0.5, "sol")])
    for tokens in (0.0, 1.0, 17.0, 8192.0):
        assert curve_ms(joined, 0, tokens) == pytest.approx(0.25 + 0.5 * tokens, rel=1e-9)


def test_scaled_multiplies_latency() -> None:
    """Runs of an operator add up."""
    curve = line(1.0, 2.0, "sol")
    assert curve_ms(join([curve.scaled(3)]), 0, 5.0) == pytest.approx(3 * curve_ms(join([curve]), 0, 5.0))
