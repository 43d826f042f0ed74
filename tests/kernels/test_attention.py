"""Attention of whole batches against the oracle: prefix squares, five lengths, strides of a generation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serveopt.kernels.attention import fill_decode_attention, fill_prefill_attention, spread_lengths
from serveopt.kernels.grids import fill_efficiency
from serveopt.kernels.records import CONTEXT_ATTENTION, GENERATION_ATTENTION, Grid, Roofline
from serveopt.solver.operators.attention import nest
from tests import oracle

BOUNDED = settings(max_examples=40, deadline=None)
PREFILL = Roofline(CONTEXT_ATTENTION, 2e13, 1e11, 128.0, 0.0, 4.0, 2.0)
DECODE = Roofline(GENERATION_ATTENTION, 2e13, 1e11, 128.0, 0.0, 4.0, 2.0)


def staircase(roof: Roofline, middle: tuple[int, ...], last: tuple[int, ...]) -> oracle.Leaves:
    """A grid without the corner of large keys, of uneven efficiency."""
    leaves: oracle.Leaves = {}
    for heads in (4.0, 16.0):
        leaves[heads] = {}
        for i, b in enumerate(middle):
            keys = last[: len(last) - i // 2]
            uneven = {c: 1.3 + 0.2 * ((i + j) % 3) for j, c in enumerate(keys)}
            leaves[heads][float(b)] = {
                float(c): factor * oracle.bound_ms(roof, (heads, b, c)) for c, factor in uneven.items()
            }
    return leaves


def build(leaves: oracle.Leaves, roof: Roofline) -> Grid:
    """The grid as the kernels read it."""
    rows = [(a, b, c, ms) for a, inner in leaves.items() for b, last in inner.items() for c, ms in last.items()]
    columns = np.array(rows).T
    grid = nest([columns[0], columns[1], columns[2]], columns[3])
    fill_efficiency(grid, roof, grid.efficiency)
    return grid


PREFILL_LEAVES = staircase(PREFILL, (16, 64, 256, 1024), (1, 2, 4, 8))
DECODE_LEAVES = staircase(DECODE, (1, 4, 16, 64), (16, 64, 256, 1024))


@given(st.integers(1, 1500), st.integers(0, 700), st.integers(0, 12), st.sampled_from([4, 5, 16]))
@BOUNDED
def test_prefill_equals_oracle(new_tokens: int, prefix: int, prompts: int, heads: int) -> None:
    """Every batch up to the largest, behind a prefix."""
    out = np.empty(prompts + 1)
    fill_prefill_attention(build(PREFILL_LEAVES, PREFILL), PREFILL, float(heads), new_tokens, prefix, out)
    expected = [
        oracle.prefill_attention(
            PREFILL_LEAVES, lambda at: oracle.bound_ms(PREFILL, at), float(heads), (new_tokens, prefix), prompt
        )
        for prompt in range(prompts + 1)
    ]
    np.testing.assert_allclose(out, expected, rtol=1e-9)


def test_prefix_saves_its_square() -> None:
    """Half of a prompt in the cache saves a quarter of its attention."""
    grid, out = build(PREFILL_LEAVES, PREFILL), np.empty((2, 3))
    fill_prefill_attention(grid, PREFILL, 4.0, 256, 0, out[0])
    fill_prefill_attention(grid, PREFILL, 4.0, 128, 128, out[1])
    np.testing.assert_allclose(out[1], 0.75 * out[0], rtol=1e-12)


@given(
    st.lists(
        st.tuples(st.integers(4, 3000), st.integers(1, 32)), min_size=1, max_size=4, unique_by=lambda pair: pair[0]
    ),
    st.lists(st.integers(1, 100), min_size=1, max_size=4),
    st.sampled_from([4, 7, 16]),
)
@BOUNDED
def test_decode_equals_oracle(steps: list[tuple[int, int]], batches: list[int], heads: int) -> None:
    """The sum over lengths and repeats; 1 % where anchors stand in for an extrapolation."""
    lengths, repeats = (np.array(column, np.int64) for column in zip(*steps, strict=True))
    out = np.empty(len(batches))
    grid, sizes = build(DECODE_LEAVES, DECODE), np.array(batches, np.float64)
    fill_decode_attention(grid, DECODE, float(heads), lengths, repeats, sizes, out)
    for i, batch in enumerate(batches):
        expected = sum(
            repeat
            * oracle.decode_attention(DECODE_LEAVES, lambda at: oracle.bound_ms(DECODE, at), heads, batch, length)
            for length, repeat in steps
        )
        assert out[i] == pytest.approx(expected, rel=0.01)


@given(st.integers(72, 900), st.integers(1, 4), st.sampled_from([4, 7, 16]))
@BOUNDED
def test_decode_inside_is_exact(length: int, batch: int, heads: int) -> None:
    """Inside the measured area nothing is approximated."""
    out, one = np.empty(1), np.ones(1, np.int64)
    grid = build(DECODE_LEAVES, DECODE)
    fill_decode_attention(grid, DECODE, float(heads), length * one, one, np.array([float(batch)]), out)
    bound = lambda at: oracle.bound_ms(DECODE, at)  # noqa: E731
    assert out[0] == pytest.approx(oracle.decode_attention(DECODE_LEAVES, bound, heads, batch, length), rel=1e-12)


@given(st.integers(1, 1_000_000))
@BOUNDED
def test_spread_lengths(length: int) -> None:
    """Five whole lengths from 90 to 110 % of the nominal one, never below one token."""
    out = np.empty(5)
    spread_lengths(np.array([length], np.int64), out)
    low = max(1, int(0.9 * length))
    high = max(low, int(1.1 * length))
    assert out.tolist() == [low + (high - low) * i // 4 for i in range(5)]
