"""Fronts of candidates equal their definition, whatever the order of the offers."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from serveopt.kernels.fronts import FRONT_ROWS, insert_front
from tests import oracle
from tests.kernels.serving_cases import BOUNDED

COORDINATES = st.integers(0, 6).map(float)
OFFERS = st.lists(st.tuples(COORDINATES, COORDINATES), max_size=20)


def offer_all(offers: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The front after offering (TPOT, tokens/s) pairs one by one."""
    front, size = np.zeros((FRONT_ROWS, 32)), 0
    for number, (tpot, rate) in enumerate(offers):
        size = insert_front(front, size, (tpot, rate, 0.0, float(number), 0.0))
    return [tuple(column) for column in front[:2, :size].T.tolist()]


@given(OFFERS)
@BOUNDED
def test_front_equals_definition(offers: list[tuple[float, float]]) -> None:
    """Undominated pairs, in order of TPOT, each once."""
    assert offer_all(offers) == oracle.slow_front(offers)


@given(OFFERS, st.randoms(use_true_random=False))
@BOUNDED
def test_front_ignores_order(offers: list[tuple[float, float]], random) -> None:
    """Shuffled offers end in the same front."""
    shuffled = offers.copy()
    random.shuffle(shuffled)
    assert offer_all(offers) == offer_all(shuffled)


def test_full_front_says_so() -> None:
    """A front without room is reported, not written past."""
    front, size = np.zeros((FRONT_ROWS, 2)), 0
    for value in (1.0, 2.0):
        size = insert_front(front, size, (value, value, 0.0, 0.0, 0.0))
    assert insert_front(front, size, (3.0, 3.0, 0.0, 0.0, 0.0)) == -1
    assert insert_front(front, size, (1.5, 9.0, 0.0, 0.0, 0.0)) == 2
