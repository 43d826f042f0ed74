"""Attention of whole batches against the oracle: every batch, five lengths, strides of a generation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serveopt.kernels.attention import SPREAD, fill_decode_attention, fill_prompts, spread_lengths
from serveopt.kernels.grids import fill_efficiency
from serveopt.kernels.records import CONTEXT, GENERATION, Grid, Roofline
from serveopt.solver.operators.slices import nest
from tests import oracle

BOUNDED = settings(max_examples=40, deadline=None)
PREFILL = oracle.plain_attention(CONTEXT, kv_heads=4, kv_bytes=2)
DECODE = oracle.plain_attention(GENERATION, kv_heads=4, kv_bytes=2)


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


@given(st.integers(1, 1500), st.integers(0, 12), st.sampled_from([4, 5, 16]), st.sampled_from([0.5, 0.6, 1.0]))
@BOUNDED
def test_prefill_equals_oracle(tokens: int, prompts: int, heads: int, power: float) -> None:
    """Every batch up to the largest; any power of the latency linear in the prompt."""
    out = np.empty(prompts + 1)
    fill_prompts(build(PREFILL_LEAVES, PREFILL), PREFILL, float(heads), float(tokens), power, out)
    bound = lambda at: oracle.bound_ms(PREFILL, at)  # noqa: E731
    expected = [
        oracle.grid_ms(PREFILL_LEAVES, bound, (heads, tokens, prompt), (1.0, power, 1.0)) if prompt else 0.0
        for prompt in range(prompts + 1)
    ]
    np.testing.assert_allclose(out, expected, rtol=1e-9)


@given(
    st.lists(
        st.tuples(st.integers(4, 3000), st.integers(1, 32)), min_size=1, max_size=4, unique_by=lambda pair: pair[0]
    ),
    st.lists(st.integers(1, 100), min_size=1, max_size=4),
    st.sampled_from([4, 7, 16]),
    st.booleans(),
)
@BOUNDED
def test_decode_equals_oracle(steps: list[tuple[int, int]], batches: list[int], heads: int, spread: bool) -> None:
    """The sum over lengths and repeats; 1 % where anchors stand in for an extrapolation."""
    lengths, repeats = (np.array(column, np.int64) for column in zip(*steps, strict=True))
    out = np.empty(len(batches))
    grid, sizes = build(DECODE_LEAVES, DECODE), np.array(batches, np.float64)
    fill_decode_attention(grid, DECODE, float(heads), (lengths, repeats), sizes, SPREAD if spread else 1, out)
    bound = lambda at: oracle.bound_ms(DECODE, at)  # noqa: E731
    for i, batch in enumerate(batches):
        expected = sum(
            repeat * oracle.decode_attention(DECODE_LEAVES, bound, heads, batch, length, spread)
            for length, repeat in steps
        )
        assert out[i] == pytest.approx(expected, rel=0.01)


@given(st.integers(72, 900), st.integers(1, 4), st.sampled_from([4, 7, 16]))
@BOUNDED
def test_decode_inside_is_exact(length: int, batch: int, heads: int) -> None:
    """Inside the measured area nothing is approximated."""
    out, one = np.empty(1), np.ones(1, np.int64)
    grid = build(DECODE_LEAVES, DECODE)
    fill_decode_attention(grid, DECODE, float(heads), (length * one, one), np.array([float(batch)]), SPREAD, out)
    bound = lambda at: oracle.bound_ms(DECODE, at)  # noqa: E731
    assert out[0] == pytest.approx(oracle.decode_attention(DECODE_LEAVES, bound, heads, batch, length), rel=1e-12)


@given(st.integers(1, 1_000_000))
@BOUNDED
def test_spread_lengths(length: int) -> None:
    """Five whole lengths from 90 to 110 % of the nominal one, never below one token."""
    out = np.empty(5)
    spread_lengths(np.array([length], np.int64), SPREAD, out)
    low = max(1, int(0.9 * length))
    high = max(low, int(1.1 * length))
    assert out.tolist() == [low + (high - low) * i // 4 for i in range(5)]


def test_without_spread_lengths_stay() -> None:
    """Operators measured at the length itself are read there."""
    out = np.empty(3)
    spread_lengths(np.array([7, 100, 4096], np.int64), 1, out)
    assert out.tolist() == [7, 100, 4096]
