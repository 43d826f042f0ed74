"""The Pareto mask equals the O(n^2) definition and does not depend on the order of the rows."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from serveopt.kernels.pareto import mark_front
from tests import oracle

BOUNDED = settings(max_examples=80, deadline=None)
# Few distinct values: ties are the hard part.
POINTS = st.lists(st.tuples(st.integers(0, 6).map(float), st.integers(0, 6).map(float)), max_size=25)


def kept(points: list[tuple[float, float]]) -> list[int]:
    """Rows that the kernel keeps."""
    x, y = (np.array([point[i] for point in points]) for i in (0, 1))
    keep = np.zeros(len(points), bool)
    mark_front(np.lexsort((-y, -x)), x, y, keep)
    return np.flatnonzero(keep).tolist()


@given(POINTS)
@BOUNDED
def test_equals_definition(points: list[tuple[float, float]]) -> None:
    """The undominated points, each once."""
    front = [points[i] for i in kept(points)]
    assert len(front) == len(set(front))
    assert set(front) == oracle.pareto(points)


@given(POINTS, st.randoms(use_true_random=False))
@BOUNDED
def test_ignores_order(points: list[tuple[float, float]], random) -> None:
    """Shuffled rows give the same points."""
    shuffled = points.copy()
    random.shuffle(shuffled)
    assert {points[i] for i in kept(points)} == {shuffled[i] for i in kept(shuffled)}


@given(POINTS)
@BOUNDED
def test_first_of_equal_rows_stays(points: list[tuple[float, float]]) -> None:
    """Of equal rows the first counts, so that results do not depend on how work was split."""
    assert all(points.index(points[i]) == i for i in kept(points))
