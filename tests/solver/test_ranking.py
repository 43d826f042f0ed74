"""A ranking answers other targets as a new search would, and a search that is stopped says so."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from typing import Any

import polars as pl
import pytest

from serveopt.errors import ConfigError, NoFeasible
from serveopt.solver.events import Event, Finished, Found, Front, Progress, Started
from serveopt.solver.problem import Problem
from serveopt.solver.ranking import MODES, Ranking
from serveopt.solver.solve import solve
from serveopt.solver.stop import Stop

SMALL = Problem(
    model="Qwen/Qwen3-8B", system="h100_sxm", total_gpus=3, isl=60, osl=12, ttft_ms=90.0, tpot_ms=12.0, max_batch=24,
    max_ctx_tokens=130, max_prefill_batch=4, top_n=50, backend="sglang",
)  # fmt: skip
SPACES = [
    SMALL,
    replace(SMALL, backend="trtllm", prefix_len=20, total_gpus=2),
    replace(SMALL, backend="vllm", cost_model="reference", serving_mode="agg"),
    replace(
        SMALL, model="Qwen/Qwen3-VL-8B-Instruct", system="h200_sxm", image_height=128, image_width=128, enable_epd=True,
        max_ctx_tokens=200,
    ),
]  # fmt: skip
TARGETS = [(90.0, 12.0), (60.0, 12.0), (40.0, 9.0), (90.0, 20.0), (300.0, 24.0), (300.0, 90.0), (35.0, 200.0)]
# More tasks than one; the sizes of tasks and spans leave remainders.
LARGE = Problem(
    model="Qwen/Qwen3-8B", system="h100_sxm", total_gpus=2, isl=700, osl=200, ttft_ms=1500.0, tpot_ms=15.0,
    max_ctx_tokens=5000,
)  # fmt: skip


@cache
def solved(problem: Problem) -> Ranking:
    """The ranking of a problem, searched once."""
    return solve(problem)


def answer(ask: Any) -> Ranking | None:
    """The ranking, or None where nothing is feasible."""
    try:
        return ask()
    except NoFeasible:
        return None


def check_equal(asked: Ranking | None, searched: Ranking | None) -> None:
    """Nothing; both hold the same rows, and the same front within the target."""
    assert (asked is None) == (searched is None)
    if asked is None or searched is None:
        return
    assert asked.problem == searched.problem
    assert asked.chosen == searched.chosen
    for mode in MODES:
        assert getattr(asked, mode).equals(getattr(searched, mode))
    within = pl.col("tpot_ms") <= asked.problem.tpot_ms
    assert asked.pareto.filter(within).equals(searched.pareto.filter(within))


@pytest.mark.parametrize(("ttft_ms", "tpot_ms"), TARGETS)
@pytest.mark.parametrize("problem", SPACES, ids=lambda p: f"{p.backend}-{p.model}-{p.pricing}")
def test_other_targets_rank_as_another_search(problem: Problem, ttft_ms: float, tpot_ms: float) -> None:
    """Stricter and looser targets, far beyond those of the search too."""
    first = answer(lambda: solved(replace(problem, ttft_ms=1e4, tpot_ms=1e3)) and solve(problem))
    if first is None:
        pytest.fail("the base question must be feasible")
    asked = answer(lambda: first.rank(ttft_ms=ttft_ms, tpot_ms=tpot_ms))
    check_equal(asked, answer(lambda: solved(replace(problem, ttft_ms=ttft_ms, tpot_ms=tpot_ms))))


@pytest.mark.jit_sizes
@pytest.mark.parametrize(
    ("ttft_ms", "tpot_ms"), [(1500.0, 15.0), (400.0, 15.0), (900.0, 10.0), (4e3, 29.0), (4e3, 99.0)]
)
def test_a_large_space_answers_other_targets(ttft_ms: float, tpot_ms: float) -> None:
    """The same where a sweep has several tasks per layout, asked one after the other."""
    asked = solved(LARGE).rank(ttft_ms=ttft_ms, tpot_ms=tpot_ms)
    check_equal(asked, solved(replace(LARGE, ttft_ms=ttft_ms, tpot_ms=tpot_ms)))


def test_rank_keeps_what_does_not_depend_on_targets() -> None:
    """Without arguments it is the same ranking; counts of missed targets are left out under other ones."""
    first = solved(SMALL)
    again = first.rank()
    check_equal(again, first)
    assert (again.evaluated, again.matched, again.rejected) == (first.evaluated, first.matched, first.rejected)
    other = first.rank(tpot_ms=11.0, top_n=1, strict_sla=True)
    assert other.agg.height == 1
    assert other.pareto["tpot_ms"].max() <= 11.0  # type: ignore[operator]
    assert not {"ttft", "tpot"} & set(other.rejected["agg"])


def test_rank_says_what_to_relax() -> None:
    """As a search does, and wrong targets name their field."""
    with pytest.raises(NoFeasible) as caught:
        solved(SMALL).rank(tpot_ms=0.5)
    with pytest.raises(NoFeasible) as searched:
        solve(replace(SMALL, tpot_ms=0.5))
    assert caught.value.hint == searched.value.hint
    assert caught.value.nearest == searched.value.nearest
    with pytest.raises(ConfigError) as wrong:
        solved(SMALL).rank(ttft_ms=-1.0)
    assert wrong.value.field == "ttft_ms"


def test_whole_numbers_are_targets_too() -> None:
    """An integer target is the same question."""
    assert replace(SMALL, ttft_ms=90, tpot_ms=12) == SMALL
    assert isinstance(replace(SMALL, ttft_ms=90).ttft_ms, float)


@pytest.mark.jit_sizes
@pytest.mark.parametrize("threads", [1, 3])
def test_a_limit_of_candidates_cuts_at_the_same_place(threads: int) -> None:
    """Whatever the number of threads, the same candidates were priced."""
    limits = Stop(candidates=2_500_000)
    partial = solve(replace(LARGE, threads=threads), stop=limits)
    whole = solved(LARGE)
    assert partial.partial
    assert partial.stopped_by == "candidates"
    assert 2_500_000 <= partial.evaluated < whole.evaluated
    assert any("partial" in note for note in partial.notes)
    assert partial.evaluated == solve(replace(LARGE, threads=2), stop=Stop(candidates=2_500_000)).evaluated
    best = partial.agg["tokens_s_gpu_cluster"][0]
    assert best <= whole.agg["tokens_s_gpu_cluster"][0] * (1 + 1e-12)


def test_a_cancelled_search_is_partial_or_interrupted() -> None:
    """Another thread may end a search; where nothing was found yet, that is an interrupt."""
    stop = Stop()
    stop.cancel()
    try:
        ranking = solve(SMALL, stop=stop)
    except KeyboardInterrupt:
        return
    assert ranking.stopped_by == "interrupt"
    assert ranking.disagg.is_empty()


def test_time_is_a_limit() -> None:
    """A limit that is over at once leaves what the first task found."""
    ranking = answer(lambda: solve(SMALL, stop=Stop(seconds=1e-9)))
    assert ranking is None or ranking.stopped_by == "time"


@pytest.mark.parametrize(("given", "field"), [({"seconds": 0}, "max_seconds"), ({"candidates": 0}, "max_candidates")])
def test_limits_are_checked(given: dict[str, Any], field: str) -> None:
    """A limit of nothing is a mistake."""
    with pytest.raises(ConfigError) as caught:
        Stop(**given)
    assert caught.value.field == field


def test_events_tell_the_search() -> None:
    """In order: the start, stages that only grow, the best rows and fronts as ranked in the end, the finish."""
    events: list[Event] = []
    ranking = solve(SMALL, on_event=events.append)
    assert isinstance(events[0], Started)
    assert events[0].stages == ("sglang aggregated", "sglang disaggregated")
    assert isinstance(events[-1], Finished)
    assert (events[-1].evaluated, events[-1].matched) == (ranking.evaluated, ranking.matched)
    told = [event for event in events if isinstance(event, Progress)]
    assert {event.stage for event in told} == set(events[0].stages)
    for stage in events[0].stages:
        done = [event.done for event in told if event.stage == stage]
        assert done == sorted(done)
        assert done[-1] == next(event.total for event in told if event.stage == stage)
    assert [event.evaluated for event in told] == sorted(event.evaluated for event in told)
    for mode in MODES:
        rows = [event.row for event in events if isinstance(event, Found) and event.serving_mode == mode]
        best = max(row["tokens_s_gpu_cluster"] for row in rows)
        assert best == pytest.approx(getattr(ranking, mode)["tokens_s_gpu_cluster"][0], rel=1e-12)
        fronts = [event for event in events if isinstance(event, Front) and event.serving_mode == mode]
        own = ranking.pareto.filter(pl.col("serving_mode") == mode)
        assert list(fronts[-1].tokens_s_user) == pytest.approx(own["tokens_s_user"].to_list(), rel=1e-12)


def test_kinds_of_encode_workers_come_back_with_time() -> None:
    """What was too slow an encoder for the first TTFT target is tried under a longer one."""
    tight = replace(SPACES[3], ttft_ms=35.0, total_gpus=4, tpot_ms=60.0)
    loose = replace(tight, ttft_ms=400.0)
    check_equal(solve(tight).rank(ttft_ms=400.0), solve(loose))


# Targets cut the batches of this one.
WIDE = replace(SMALL, ttft_ms=1e4, tpot_ms=6.0, max_batch=20_000, max_ctx_tokens=40)


@pytest.mark.jit_sizes
def test_threads_may_ask_for_more_batches_at_once() -> None:
    """One of them prices what is missing, all get the same answer."""
    ranking = solve(WIDE)
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda tpot_ms: ranking.rank(tpot_ms=tpot_ms), [90.0, 90.0, 90.0]))
    for asked in answers:
        check_equal(asked, solved(replace(WIDE, tpot_ms=90.0)))
        assert asked.evaluated == answers[0].evaluated > ranking.evaluated
    assert ranking.rank().rejected["agg"] == ranking.rejected["agg"]


@pytest.mark.jit_sizes
def test_an_interrupted_extension_changes_nothing() -> None:
    """A plan that is not carried out to its end is not kept."""
    ranking = solve(WIDE)
    (search,) = ranking._searches
    before = (list(search.sweep.tops), len(search.sweep.segments))
    plan = search.sweep.plan(replace(search.problem, tpot_ms=500.0))
    assert plan.candidates > 0
    next(plan.segments)
    assert (list(search.sweep.tops), len(search.sweep.segments)) == before


@pytest.mark.parametrize("name", ["vllm aggregated", "sglang disaggregated"])
def test_an_interrupt_keeps_the_backends_before(name: str) -> None:
    """Ctrl-C at the first word of a stage: what was finished is ranked, the rest is named."""

    def interrupt(event: Event) -> None:
        if isinstance(event, Progress) and event.stage == name:
            raise KeyboardInterrupt

    ranking = solve(replace(SMALL, backend="auto", ttft_ms=1e3, tpot_ms=50.0), on_event=interrupt)
    assert ranking.stopped_by == "interrupt"
    assert set(ranking.agg["backend"]) <= {"trtllm", "sglang"}
    assert name in ranking.unfinished
    assert "vllm disaggregated" in ranking.unfinished
    with pytest.raises(NoFeasible):
        ranking.rank(tpot_ms=1e-3)


def test_a_limit_that_is_just_met_ends_nothing() -> None:
    """A search that priced everything is whole, whatever the limit."""
    whole = solved(SMALL)
    ranking = solve(SMALL, stop=Stop(candidates=whole.evaluated))
    assert not ranking.partial
    check_equal(ranking, whole)


@pytest.mark.jit_sizes
def test_a_quick_mixed_step_may_serve_a_batch_whose_decode_step_is_slow() -> None:
    """The batches of a search are cut where neither step is quick enough, not where decoding alone is slow."""
    problem = replace(
        SMALL, total_gpus=1, backend="vllm", isl=1, osl=2, nextn=5, nextn_accepted=3.5, max_ctx_tokens=300,
        max_batch=900, ttft_ms=1e6, tpot_ms=6.0, serving_mode="agg", prefix_len=0,
    )  # fmt: skip
    best = solve(problem).agg["tokens_s_gpu_cluster"][0]
    wide = solve(replace(problem, tpot_ms=120.0)).rank(tpot_ms=6.0)
    assert best == pytest.approx(wide.agg["tokens_s_gpu_cluster"][0], rel=1e-12)
