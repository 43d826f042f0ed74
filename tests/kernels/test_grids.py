"""Ragged measured grids: the resolver against its oracle, and what interpolation must keep."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from serveopt.kernels.grids import bound_ms, fill_bounds, fill_efficiency, fill_line, grid_ms
from serveopt.kernels.records import CONTEXT, FEATURES, GENERATION, Grid, Roofline
from serveopt.solver.operators.slices import nest
from tests import oracle

BOUNDED = settings(max_examples=60, deadline=None)
PREFILL = oracle.plain_attention(CONTEXT, kv_heads=4, kv_bytes=2)
DECODE = oracle.plain_attention(GENERATION, kv_heads=0, kv_bytes=1)
WINDOWED = [PREFILL._replace(cap=64.0), DECODE._replace(cap=64.0)]
ROOFLINES = [PREFILL, DECODE, *WINDOWED]
POWERS = st.sampled_from([1.0, 0.5, 0.85])  # of the latency that is linear in the prompt


@st.composite
def rooflines(draw: st.DrawFn) -> Roofline:
    """Any features, prefix, window or top-k, gate and compression."""
    weights = st.tuples(*[st.sampled_from([0.0, 1e-9, 3e-8])] * (2 * FEATURES))
    ratio = draw(st.sampled_from([0.0, 0.0, 4.0, 128.0]))
    return Roofline(
        kind=draw(st.sampled_from([CONTEXT, GENERATION])),
        prefix=float(draw(st.integers(0, 300))),
        cap=float(draw(st.sampled_from([0, 0, 1, 64, 128]))),
        gate=float(draw(st.sampled_from([0, 100]))),
        ratio=ratio,
        limit=float(draw(st.sampled_from([0, 1, 20]))),
        step_window=draw(st.integers(0, 1)),
        math=draw(weights),
        memory=draw(weights),
    )


@given(rooflines(), st.integers(1, 64), st.integers(1, 400), st.integers(1, 400))
@BOUNDED
def test_bound_equals_counting(roof: Roofline, heads: int, middle: int, last: int) -> None:
    """Closed forms of pairs behind prefixes, windows, gates and compressed keys are what counting one by one gives."""
    if roof.kind == GENERATION:
        last += int(roof.prefix)
    expected = oracle.bound_ms(roof, (heads, middle, last))
    assert bound_ms(roof, float(heads), float(middle), float(last)) == pytest.approx(expected, rel=1e-12)


def test_bounds_of_many_points_are_those_of_each() -> None:
    """One call, many points."""
    middle, last, out = np.arange(1.0, 9.0), np.arange(11.0, 19.0), np.zeros(8)
    fill_bounds(DECODE, 8.0, middle, last, out)
    expected = [bound_ms(DECODE, 8.0, b, s) for b, s in zip(middle, last, strict=True)]
    np.testing.assert_array_equal(out, expected)


def axis(largest: int, size: int) -> st.SearchStrategy[list[int]]:
    """Distinct keys of one axis."""
    return st.lists(st.integers(1, largest), min_size=1, max_size=size, unique=True)


@st.composite
def ragged_leaves(draw: st.DrawFn) -> oracle.Leaves:
    """A grid in which every branch has its own keys."""
    latency = st.floats(1e-3, 1e2)
    leaves: oracle.Leaves = {}
    for a in draw(axis(64, 3)):
        leaves[float(a)] = {}
        for b in draw(axis(512, 4)):
            keys = draw(axis(512, 4))
            leaves[float(a)][float(b)] = {float(c): draw(latency) for c in keys}
    return leaves


def build(leaves: oracle.Leaves, roof: Roofline) -> Grid:
    """The grid as the kernels read it."""
    rows = [(a, b, c, ms) for a, inner in leaves.items() for b, last in inner.items() for c, ms in last.items()]
    columns = np.array(rows).T
    grid = nest([columns[0], columns[1], columns[2]], columns[3])
    fill_efficiency(grid, roof, grid.efficiency)
    return grid


def look_up(leaves: oracle.Leaves, roof: Roofline, point: tuple[float, ...], power: float = 1.0) -> float:
    """The kernel's latency at ``point``."""
    return grid_ms(build(leaves, roof), roof, np.empty((2, 5)), tuple(map(float, point)), power)


def has_tied_reach(leaves: oracle.Leaves, roof: Roofline, point: tuple[float, ...]) -> bool:
    """Five nearest measurements equally far: which four of them count is not defined."""
    rows = oracle.leaf_distances(leaves, lambda at: oracle.bound_ms(roof, at), point)
    return len(rows) > 4 and rows[4][0] - rows[0][0] < 1e-6


@given(ragged_leaves(), st.sampled_from(ROOFLINES), st.tuples(*[st.integers(1, 700)] * 3), POWERS)
@BOUNDED
def test_equals_oracle(leaves: oracle.Leaves, roof: Roofline, point: tuple[int, ...], power: float) -> None:
    """Inside, on edges with one neighbour, and outside."""
    point = (point[0] % 80 + 1, *point[1:])
    if roof.kind == GENERATION:
        point = (*point[:2], point[2] + 1)
    assume(not has_tied_reach(leaves, roof, point))
    expected = oracle.grid_ms(leaves, lambda at: oracle.bound_ms(roof, at), point, (1.0, power, 1.0))
    assert look_up(leaves, roof, point, power) == pytest.approx(expected, rel=1e-9)


@given(ragged_leaves(), st.sampled_from(ROOFLINES), POWERS)
@BOUNDED
def test_exact_at_nodes(leaves: oracle.Leaves, roof: Roofline, power: float) -> None:
    """A measured point is its measurement, bit for bit."""
    grid, near = build(leaves, roof), np.empty((2, 5))
    for a, inner in leaves.items():
        for b, last in inner.items():
            for c, latency in last.items():
                assert grid_ms(grid, roof, near, (a, b, c), power) == latency


@given(
    axis(64, 4), axis(512, 4), axis(512, 4), st.tuples(*[st.floats(0, 1)] * 3), st.lists(st.floats(0.1, 9), min_size=8)
)
@BOUNDED
def test_exact_on_multilinear_functions(
    a: list[int], b: list[int], c: list[int], at: tuple[float, ...], weights: list[float]
) -> None:
    """On a full grid any function that is linear along each axis is reproduced between the nodes."""

    def value(x: float, y: float, z: float) -> float:
        terms = (1, x, y, z, x * y, x * z, y * z, x * y * z)
        return sum(weight * term for weight, term in zip(weights, terms, strict=False))

    leaves = {float(x): {float(y): {float(z): value(x, y, z) for z in c} for y in b} for x in a}
    point = tuple(min(keys) + share * (max(keys) - min(keys)) for keys, share in zip((a, b, c), at, strict=True))
    assert look_up(leaves, PREFILL, point) == pytest.approx(value(*point), rel=1e-9)


@given(axis(512, 5), st.floats(0, 1), st.floats(1e-6, 1e-2), POWERS)
@BOUNDED
def test_power_is_exact_on_its_inverse(prompts: list[int], share: float, scale: float, power: float) -> None:
    """What grows with the square of the prompt is reproduced by blending roots, and so for any power."""
    leaves = {8.0: {float(s): {1.0: scale * s ** (1 / power)} for s in prompts}}
    at = min(prompts) + share * (max(prompts) - min(prompts))
    assert look_up(leaves, PREFILL, (8, at, 1), power) == pytest.approx(scale * at ** (1 / power), rel=1e-9)


@pytest.mark.parametrize("roof", ROOFLINES)
def test_one_neighbour_is_scaled_by_the_roofline(roof: Roofline) -> None:
    """On a staircase the surviving neighbour is moved along the roofline, with the other coordinates kept."""
    leaves = {4.0: {16.0: {16.0: 0.5, 64.0: 2.0}, 64.0: {16.0: 3.0}}}
    expected = 1.25 * oracle.bound_ms(roof, (4, 32, 40)) / oracle.bound_ms(roof, (4, 16, 40))
    assert look_up(leaves, roof, (4, 32, 40)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("count", [1, 4, 5])
def test_outside_holds_efficiency(count: int) -> None:
    """Where all measurements reach the same share of the roofline, so does every extrapolation."""
    leaves = {8.0: {float(b): {64.0: 4 * oracle.bound_ms(DECODE, (8, b, 64))} for b in range(1, count + 1)}}
    point = (8.0, 100.0, 3000.0)
    assert look_up(leaves, DECODE, point) == pytest.approx(4 * oracle.bound_ms(DECODE, point), rel=1e-9)


def test_zero_latencies_do_not_count_outside() -> None:
    """A measurement of zero has no efficiency; inside the grid it is what was measured."""
    leaves = {8.0: {1.0: {64.0: 0.0, 128.0: 2 * oracle.bound_ms(DECODE, (8, 1, 128))}}}
    assert look_up(leaves, DECODE, (8, 1, 64)) == 0.0
    point = (8.0, 2.0, 64.0)
    assert look_up(leaves, DECODE, point) == pytest.approx(2 * oracle.bound_ms(DECODE, point), rel=1e-9)


def test_no_roofline_no_value() -> None:
    """Nothing is extrapolated to a point that costs nothing by its bound."""
    assert np.isnan(look_up({8.0: {4.0: {4.0: 1.0}}}, PREFILL, (8, 0, 0)))


# A full grid with efficiencies that vary smoothly, as measured ones do.
SMOOTH = {
    heads: {
        batch: {
            length: oracle.bound_ms(DECODE, (heads, batch, length)) * (1.5 + 4 / batch + 40 / length)
            for length in (16.0, 64.0, 128.0, 512.0, 1024.0)
        }
        for batch in (1.0, 2.0, 8.0, 32.0, 64.0)
    }
    for heads in (2.0, 8.0)
}


def line_at(lasts: np.ndarray, batch: float) -> np.ndarray:
    """The kernel's latencies along the last axis."""
    out = np.empty(lasts.size)
    fill_line(build(SMOOTH, DECODE), DECODE, np.empty((2, 5)), (8.0, batch, 0.0), (lasts, np.log2(lasts)), 1.0, out)
    return out


def points_at(lasts: np.ndarray, batch: float) -> np.ndarray:
    """The same, one look-up each."""
    grid, near = build(SMOOTH, DECODE), np.empty((2, 5))
    return np.array([grid_ms(grid, DECODE, near, (8.0, batch, float(last)), 1.0) for last in lasts])


@given(st.integers(16, 1000), st.integers(1, 24), st.integers(1, 64))
@BOUNDED
def test_line_inside_is_exact(start: int, stride: int, batch: int) -> None:
    """Inside the measured area a line is its points, bit for bit."""
    lasts = np.arange(start, 1025, stride, dtype=np.float64)
    np.testing.assert_array_equal(line_at(lasts, batch), points_at(lasts, batch))


@given(st.integers(900, 4000), st.integers(1, 40), st.integers(1, 200))
@BOUNDED
def test_line_outside_within_one_percent(start: int, stride: int, batch: int) -> None:
    """Beyond it efficiency is linear between anchors a sixteenth of an octave apart: an approximation."""
    lasts = np.arange(start, start + 60 * stride, stride, dtype=np.float64)
    np.testing.assert_allclose(line_at(lasts, batch), points_at(lasts, batch), rtol=0.01)


def test_few_points_outside_are_exact() -> None:
    """With fewer points than anchors nothing is gained by anchors, and none are used."""
    lasts = np.array([1500.0, 3000.0, 9000.0])
    np.testing.assert_allclose(line_at(lasts, 4), points_at(lasts, 4), rtol=1e-12)
