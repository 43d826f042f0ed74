"""Aggregated pricing and its sweep against the oracle: every scheduler, every budget, the front, the counts."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serveopt.kernels.aggregate import FRONT_ROWS, check_memory, insert_front, price_block, sweep_batches
from serveopt.kernels.records import REASONS, Budgets, Memory, Reason, Scheduler, Serving, Steps, Workload
from serveopt.solver.backends import BACKENDS
from serveopt.solver.budgets import make_budgets
from tests import oracle

BOUNDED = settings(max_examples=50, deadline=None)
SCHEDULERS = [BACKENDS[name].scheduler(4, 9, strict) for name in sorted(BACKENDS) for strict in (False, True)]
ROOMY = Memory(1.0, 0.0, 0.0, 0.0, 1e-6, 1e9, 1.0, 1.0, 1.0)
NO_ROOM = Memory(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def workload(isl: int, osl: int, prefix: int, ttft_ms: float, tpot_ms: float, tokens_per_step: float = 1.0) -> Workload:
    """A request shape; every decode step yields ``tokens_per_step`` tokens of an answer."""
    return Workload(isl, osl, prefix, ttft_ms, tpot_ms, 1.0 + (osl - 1) / tokens_per_step)


class Case(NamedTuple):
    """A worker's step latencies, its budgets and the question."""

    work: Workload
    scheduler: Scheduler
    steps: Steps
    budgets: Budgets
    whole_ms: np.ndarray  # attention of 0, 1, 2 ... whole prompts
    most: int

    @property
    def serving(self) -> Serving:
        """The case as the kernels read it."""
        return Serving(self.steps, self.budgets, self.work, self.scheduler)


def build_budgets(work: Workload, sizes: np.ndarray, whole_ms: np.ndarray, strict: bool) -> Budgets:
    """The budgets with what depends on them alone."""
    chunks = (-(-work.isl // sizes)).astype(np.float64)
    rows = [
        (
            oracle.step_prompts(work.isl, size, strict),
            oracle.budget_attention(whole_ms, work.isl, size, strict),
            oracle.cached_tokens(work.isl, work.prefix, size, strict),
        )
        for size in sizes.tolist()
    ]
    prompts, attention, cached = (np.array(column) for column in zip(*rows, strict=True))
    return make_budgets(sizes, prompts, chunks, attention.astype(np.float64), cached)


def build_case(work: Workload, scheduler: Scheduler, sizes: list[int], most: int, seed: int = 0) -> Case:
    """Random, increasing step latencies."""
    random = np.random.default_rng(seed)
    budgets = np.array(sorted(sizes), np.int64)
    whole_ms = np.append(0.0, np.cumsum(random.uniform(0.1, 2, -(-int(budgets[-1]) // work.isl))))
    context = np.cumsum(random.uniform(0, 0.2, int(budgets[-1]) + most * scheduler.drafts + 1))
    decode, attention = (np.cumsum(random.uniform(0, 0.3, most + 1)) for _ in range(2))
    logits = 0.37 + np.cumsum(random.uniform(0, 0.05, most * scheduler.drafts + int(budgets[-1]) // work.isl + 2))
    steps = Steps(context, logits, decode + 1.0, attention - attention[0])
    return Case(
        work, scheduler, steps, build_budgets(work, budgets, whole_ms, bool(scheduler.strict_chunks)), whole_ms, most
    )


@st.composite
def cases(draw: st.DrawFn, largest: int = 40, least_osl: int = 2) -> Case:
    """Any scheduler, prompt, answer, prefix, depth of speculation, encoder and set of budgets."""
    drafts = draw(st.sampled_from([1, 1, 2, 4]))
    isl = draw(st.integers(drafts, 24))  # a decoding request brings no more tokens than a prompt
    targets = (draw(st.floats(1, 400)), draw(st.floats(1, 60)))
    accepted = draw(st.floats(0, drafts - 1))
    work = workload(isl, draw(st.integers(least_osl, 20)), draw(st.integers(0, isl - 1)), *targets, accepted + 1)
    sizes = draw(st.lists(st.integers(1, largest), min_size=1, max_size=8, unique=True))
    encoder_ms = draw(st.sampled_from([0.0, 0.0, 7.3]))
    scheduler = draw(st.sampled_from(SCHEDULERS))._replace(drafts=drafts, encoder_ms=encoder_ms)
    return build_case(work, scheduler, sizes, draw(st.integers(1, 9)), draw(st.integers(0, 99)))


def expected(case: Case, batch: int, at: int) -> tuple[float, float, float]:
    """What the oracle says of ``batch`` under budget ``at``: TTFT, TPOT, tokens/s."""
    work, steps, budget = case.work, case.steps, int(case.budgets.ctx_tokens[at])
    decoding = oracle.decoding_requests(work, case.scheduler, batch, budget)
    strict = bool(case.scheduler.strict_chunks)
    tokens = budget + decoding * case.scheduler.drafts - oracle.cached_tokens(work.isl, work.prefix, budget, strict)
    attention = oracle.budget_attention(case.whole_ms, work.isl, budget, strict)
    ending = oracle.step_prompts(work.isl, budget, strict) + decoding * case.scheduler.drafts
    logits = steps.context_logits[min(ending, steps.context_logits.size - 1)]
    mixed = steps.context[tokens] + logits + attention + steps.decode_attention[decoding]
    return oracle.price(
        work, case.scheduler, batch, budget, (mixed, steps.decode[batch] + steps.decode_attention[batch])
    )


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


MEMORIES = st.builds(
    Memory,
    fixed=st.floats(0, 50),
    per_token=st.floats(0, 2),
    floor=st.floats(0, 30),
    tokens_floor=st.sampled_from([0.0, 16.0]),
    per_sequence=st.floats(0.1, 20),
    capacity=st.floats(1, 200),
    share=st.floats(0.3, 1),
    taken=st.floats(0.3, 1),
    drafts=st.just(1.0),
)


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


class Swept(NamedTuple):
    """What a sweep leaves behind."""

    front: np.ndarray
    counts: dict[Reason, int]
    nearest: np.ndarray


def sweep(case: Case, memories: tuple[Memory, Memory], capacity: int = 512) -> Swept | None:
    """The kernel's sweep over batches 1 .. most; None when the front had no room."""
    front, counts, nearest = np.zeros((FRONT_ROWS, capacity)), np.zeros(REASONS, np.int64), np.full(7, np.inf)
    batches = np.arange(1, case.most + 1, dtype=np.int64)
    size = sweep_batches(case.serving, memories, batches, front, counts, nearest)
    counted = {reason: int(counts[reason]) for reason in Reason if counts[reason]}
    return Swept(front[:, :size], counted, nearest) if size >= 0 else None


Priced = dict[tuple[int, int], tuple[float, float, float]]


def slow_sweep(case: Case, memories: tuple[Memory, Memory]) -> tuple[Priced, dict[Reason, int]]:
    """((batch, budget) -> price, counts) by trying every batch under every budget."""
    rows: Priced = {}
    counts = dict.fromkeys(Reason, 0)
    for batch in range(1, case.most + 1):
        for at, budget in enumerate(case.budgets.ctx_tokens.tolist()):
            if not oracle.possible(case.work.isl, batch, budget, bool(case.scheduler.strict_chunks)):
                continue
            strict = bool(case.scheduler.strict_chunks)
            tokens = oracle.step_tokens(case.work.isl, batch, budget, strict, memories[0].drafts)
            verdict = oracle.check_memory(memories[0], tokens, batch)
            if verdict == Reason.PRICED and oracle.check_memory(memories[1], tokens, batch) == Reason.PRICED:
                verdict = Reason.DOMINATED
            counts[verdict] += 1
            if verdict == Reason.PRICED:
                ttft, tpot, _ = rows[batch, budget] = expected(case, batch, at)
                counts[Reason.TTFT] += ttft > case.work.ttft_ms
                counts[Reason.TPOT] += tpot > case.work.tpot_ms and ttft <= case.work.ttft_ms
    return rows, counts


def join_memory(counts: dict[Reason, int]) -> dict[Reason, int]:
    """The counts with both memory reasons as one: of a batch only its first misfit is judged."""
    joined = {reason: count for reason, count in counts.items() if count and reason != Reason.KV_CACHE}
    lacking = counts.get(Reason.MEMORY, 0) + counts.get(Reason.KV_CACHE, 0)
    return joined | ({Reason.MEMORY: lacking} if lacking else {})


def check_front(case: Case, swept: Swept, rows: Priced) -> None:
    """Every row is a candidate within the TTFT target, and every such candidate is reached by a row."""
    assert (np.diff(swept.front[0]) > 0).all()
    assert (np.diff(swept.front[1]) > 0).all()
    for tpot, rate, ttft, batch, ctx_tokens in swept.front.T.tolist():
        np.testing.assert_allclose((ttft, tpot, rate), rows[int(batch), int(ctx_tokens)], rtol=1e-9)
        assert ttft <= case.work.ttft_ms
    for ttft, tpot, rate in rows.values():
        if ttft <= case.work.ttft_ms:
            # Sums in another order differ in the last digit.
            reached = swept.front[1, swept.front[0] <= tpot * (1 + 1e-9)]
            assert reached.size
            assert reached.max() >= rate * (1 - 1e-9)


@given(cases(), MEMORIES, st.one_of(st.just(NO_ROOM), MEMORIES))
@BOUNDED
def test_sweep_equals_brute_force(case: Case, memory: Memory, shallower: Memory) -> None:
    """The front and every count, in any memory and behind any dominating layout."""
    memories = tuple(one._replace(drafts=float(case.scheduler.drafts)) for one in (memory, shallower))
    swept = sweep(case, memories)
    rows, counts = slow_sweep(case, memories)
    assert swept is not None
    assert join_memory(swept.counts) == join_memory(counts)
    check_front(case, swept, rows)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_sweep_across_blocks(scheduler: Scheduler) -> None:
    """Budgets that take several blocks, a last partial one included."""
    case = build_case(workload(24, 9, 3, 260.0, 9.0), scheduler, list(range(1, 601)), 29)
    swept = sweep(case, (ROOMY, NO_ROOM))
    rows, counts = slow_sweep(case, (ROOMY, NO_ROOM))
    assert swept is not None
    assert join_memory(swept.counts) == join_memory(counts)
    check_front(case, swept, rows)


@pytest.mark.jit_sizes
def test_sweep_across_chunks() -> None:
    """More budgets than are priced at once."""
    case = build_case(workload(3000, 400, 0, 2500.0, 3.0), SCHEDULERS[1], list(range(1, 9001)), 4)
    swept = sweep(case, (ROOMY, NO_ROOM))
    rows, counts = slow_sweep(case, (ROOMY, NO_ROOM))
    assert swept is not None
    assert join_memory(swept.counts) == join_memory(counts)
    assert swept.counts[Reason.TTFT] > 0
    assert swept.counts[Reason.TPOT] > 0
    check_front(case, swept, rows)


def slow_nearest(case: Case, prices: Iterable[tuple[float, float, float]]) -> list[float]:
    """Least TTFT, least TPOT, least TTFT within the TPOT target, least TPOT within the TTFT target."""
    ttft_ms, tpot_ms, rows = case.work.ttft_ms, case.work.tpot_ms, list(prices)
    return [
        min((ttft for ttft, _, _ in rows), default=np.inf),
        min((tpot for _, tpot, _ in rows), default=np.inf),
        min((ttft for ttft, tpot, _ in rows if tpot <= tpot_ms), default=np.inf),
        min((tpot for ttft, tpot, _ in rows if ttft <= ttft_ms), default=np.inf),
    ]


def check_nearest(case: Case, nearest: np.ndarray, rows: list[tuple[float, float, float]]) -> None:
    """The four single misses, and a candidate that needs the least relaxation of both targets."""
    np.testing.assert_allclose(nearest[:4], slow_nearest(case, rows), rtol=1e-9)
    if rows:
        least = min(max(ttft / case.work.ttft_ms, tpot / case.work.tpot_ms) for ttft, tpot, _ in rows)
        own = max(nearest[5] / case.work.ttft_ms, nearest[6] / case.work.tpot_ms)
        np.testing.assert_allclose((nearest[4], own), least, rtol=1e-9)


@given(cases())
@BOUNDED
def test_nearest_where_nothing_meets_both(case: Case) -> None:
    """An empty result knows the closest misses."""
    rows, _ = slow_sweep(case, (ROOMY, NO_ROOM))
    if not any(ttft <= case.work.ttft_ms and tpot <= case.work.tpot_ms for ttft, tpot, _ in rows.values()):
        swept = sweep(case, (ROOMY, NO_ROOM))
        assert swept is not None
        check_nearest(case, swept.nearest, list(rows.values()))


@pytest.mark.parametrize("targets", [(1e9, 1e-3), (1e-3, 1e9), (1e-3, 1e-3)])
def test_nearest_across_blocks(targets: tuple[float, float]) -> None:
    """The closest miss may lie in any block of a batch: here short steps are the cheapest way to prefill."""
    case = build_case(workload(600, 9, 0, *targets), SCHEDULERS[0], list(range(1, 601)), 3)
    steep = np.arange(case.steps.context.size) ** 3.0
    case = case._replace(steps=case.steps._replace(context=steep))
    swept = sweep(case, (ROOMY, NO_ROOM))
    rows, _ = slow_sweep(case, (ROOMY, NO_ROOM))
    assert swept is not None
    check_nearest(case, swept.nearest, list(rows.values()))


def test_small_front_asks_for_more_room() -> None:
    """A sweep that outgrows its front says so; the caller doubles it."""
    case = build_case(workload(8, 9, 0, 1e9, 1e9), SCHEDULERS[0], list(range(1, 30)), 9)
    assert sweep(case, (ROOMY, NO_ROOM), capacity=1) is None


@given(cases(), MEMORIES, st.floats(0, 100))
@BOUNDED
def test_more_memory_never_slows(case: Case, memory: Memory, more: float) -> None:
    """A larger GPU prices everything a smaller one does: the front only grows outward."""
    small, large = (sweep(case, (m, NO_ROOM)) for m in (memory, memory._replace(capacity=memory.capacity + more)))
    assert small is not None
    assert large is not None
    for tpot, rate in small.front[:2].T.tolist():
        assert large.front[1, large.front[0] <= tpot].max() >= rate
