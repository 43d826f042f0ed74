"""Aggregated pricing against the oracle: every scheduler, every budget, memory."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serveopt.kernels.aggregate import check_memory, price_block
from serveopt.kernels.records import Memory, Reason, Scheduler
from serveopt.solver.backends import BACKENDS
from tests import oracle
from tests.kernels.serving_cases import BOUNDED, MEMORIES, SCHEDULERS, Case, build_case, cases, expected, workload


def priced(case: Case, batch: int) -> np.ndarray:
    """The kernel's TTFT, TPOT and tokens/s over all budgets."""
    size = case.budgets.ctx_tokens.size
    out = np.full((3, size), np.nan)
    price_block(case.serving, batch, 0, np.zeros((2, size)), out)
    return out


@given(cases(least_osl=1), st.data())
@BOUNDED
def test_block_equals_oracle(case: Case, data: st.DataObject) -> None:
    """Every budget that leaves room for a decode, under every scheduler."""
    batch = data.draw(st.integers(1, case.most))
    got = priced(case, batch)
    for at, budget in enumerate(case.budgets.ctx_tokens.tolist()):
        if oracle.possible(case.work.isl, batch, budget, bool(case.scheduler.strict_chunks)):
            np.testing.assert_allclose(got[:, at], expected(case, batch, at), rtol=1e-12)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_accepted_drafts_shorten_answers(scheduler: Scheduler) -> None:
    """Two tokens per step halve the steps behind the first token; what a step costs stays the same."""
    plain, speculating = (build_case(workload(8, 9, 0, 1e9, 1e9, p), scheduler, [8], 1) for p in (1.0, 2.0))
    steps = plain.steps.decode[1] + plain.steps.decode_attention[1]
    assert priced(plain, 1)[1, 0] == pytest.approx(steps, rel=1e-12)
    assert priced(speculating, 1)[1, 0] == pytest.approx(steps / 2, rel=1e-12)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_images_delay_the_first_token(scheduler: Scheduler) -> None:
    """Every request of a wave waits for the encoder of the whole wave; decoding does not change."""
    plain, seeing = (
        build_case(workload(8, 9, 0, 1e9, 1e9), scheduler._replace(encoder_ms=ms), [4, 8, 20], 5) for ms in (0.0, 3.0)
    )
    before, after = priced(plain, 5), priced(seeing, 5)
    np.testing.assert_allclose(after[0], before[0] + 15.0, rtol=1e-12)
    np.testing.assert_array_equal(after[1], before[1])
    assert (after[2] < before[2]).all()


def test_block_may_start_anywhere() -> None:
    """A range of budgets is priced as in one piece."""
    case = build_case(workload(7, 5, 2, 1e9, 1e9), SCHEDULERS[0], list(range(1, 30)), 6)
    part = np.zeros((3, 10))
    price_block(case.serving, 6, 11, np.zeros((2, 10)), part)
    np.testing.assert_array_equal(part, priced(case, 6)[:, 11:21])


@pytest.mark.parametrize("name", sorted(BACKENDS))
def test_strict_chunks_change_cut_prompts_only(name: str) -> None:
    """Where budgets hold whole prompts both cost models agree."""
    work = workload(8, 6, 0, 1e9, 1e9)
    both = [build_case(work, BACKENDS[name].scheduler(4, 5, strict), [8, 16, 24], 6) for strict in (False, True)]
    np.testing.assert_array_equal(priced(both[0], 6), priced(both[1], 6))


@given(MEMORIES, st.integers(1, 60), st.integers(1, 20))
@BOUNDED
def test_memory_equals_oracle(memory: Memory, tokens: int, sequences: int) -> None:
    """Capacity first, then the share of the KV cache."""
    assert check_memory(memory, float(tokens), float(sequences)) == oracle.check_memory(memory, tokens, sequences)


@given(MEMORIES, st.integers(1, 60), st.integers(1, 20), st.floats(0, 100))
@BOUNDED
def test_more_memory_never_loses_feasibility(memory: Memory, tokens: int, sequences: int, more: float) -> None:
    """What fits keeps fitting on a larger GPU."""
    if check_memory(memory, float(tokens), float(sequences)) == Reason.PRICED:
        larger = memory._replace(capacity=memory.capacity + more)
        assert check_memory(larger, float(tokens), float(sequences)) == Reason.PRICED
