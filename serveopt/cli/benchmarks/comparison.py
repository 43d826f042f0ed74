"""This run against an earlier one, figure by figure, and which of them got worse than is tolerated.

    factor = now / before     of times and memory; before / now of rates: above 1 is worse
    factor / (loop now / loop before)     where the machines differ: the loop is the calibration loop of the figure

On one machine figures are compared directly, and what seems worse is measured a second time before it counts. Runs of
different machines (processor, cores, Python, numba ...) only say something as multiples of work that both have done,
and even that roughly; memory is compared directly.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from serveopt.cli.benchmarks.figures import FACT, LESS, NOTHING, Figure, Report
from serveopt.cli.benchmarks.machine import fingerprint
from serveopt.cli.benchmarks.searches import PART as SEARCHES

LOOP_MOVED = 1.1  # calibration loops further apart are said
SAME = 1e-9  # relative difference below which answers are the same
FACTS_TOLD = ("candidates", "best_tokens_s_gpu")


@dataclass(frozen=True, slots=True)
class Change:
    """One figure in both runs; ``factor`` above 1 is worse."""

    id: str
    before: float
    now: float
    factor: float
    spread: float  # of the repeats, the larger of both runs
    regressed: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both runs, side by side."""

    earlier: str
    differences: dict[str, tuple[Any, Any]]  # of the machines: (before, now)
    tolerance: float
    changes: list[Change]
    notes: list[str]

    @property
    def same_machine(self) -> bool:
        """Whether figures were compared directly."""
        return not self.differences

    @property
    def regressions(self) -> list[Change]:
        """The figures that got worse than is tolerated."""
        return [change for change in self.changes if change.regressed]


def doubts(earlier: Report, tolerance: float) -> Callable[[Sequence[Figure]], bool]:
    """Whether figures look like a regression, which may have been a disturbance; of the same machine only."""
    known = {figure.id: figure for figure in earlier.figures if figure.better != FACT}
    if earlier.machine != fingerprint():
        return lambda found: False
    return lambda found: any(
        change_of(known[figure.id], figure, 1.0, tolerance).regressed for figure in found if figure.id in known
    )


def compare(earlier: Report, now: Report, tolerance: float) -> Comparison:
    """The comparison of the figures that both runs have."""
    names = {**earlier.machine, **now.machine}
    pairs = {name: (earlier.machine.get(name), now.machine.get(name)) for name in names}
    differences = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    known = {figure.id: figure for figure in earlier.figures}
    both = [(known[figure.id], figure) for figure in now.figures if figure.id in known]
    changes, notes = [], list(note_runs(earlier, now, bool(differences)))
    for before, after in both:
        if before.better == FACT:
            notes += note_fact(before, after)
            continue
        scale = loop_ratio(earlier, now, after) if differences else 1.0
        if scale is None:
            notes.append(f"{after.id} was left out: one of the runs has no calibration")
            continue
        changes.append(change_of(before, after, scale, tolerance))
    missing = len(known) - len(both)
    if missing:
        notes.append(f"{missing} figures of the earlier run were not measured now")
    started = f"serveopt {earlier.serveopt}, {earlier.started}"
    return Comparison(started, differences, tolerance, changes, notes)


def change_of(before: Figure, now: Figure, scale: float, tolerance: float) -> Change:
    """One figure in both runs; ``scale`` is how much longer this machine takes for the same work."""
    old, new = (before.value, now.value) if now.better == LESS else (now.value, before.value)
    factor = new / old / scale if old > 0 else 1.0
    return Change(now.id, before.value, now.value, factor, max(before.spread, now.spread), factor > tolerance)


def loop_ratio(earlier: Report, now: Report, figure: Figure) -> float | None:
    """How much longer this machine takes for a figure's calibration loop; None where it was not measured."""
    if figure.scaled_by == NOTHING:
        return 1.0
    loops = [run.calibration.get(figure.scaled_by) for run in (earlier, now)]
    return loops[1]["ms"] / loops[0]["ms"] if loops[0] and loops[1] else None


def note_runs(earlier: Report, now: Report, elsewhere: bool) -> Iterator[str]:
    """What a reader should know of the two runs as a whole."""
    for run, name in ((earlier, "the earlier run"), (now, "this run")):
        if run.partial:
            yield f"{name} was interrupted: only what it measured is compared"
        if run.load_1min is not None and run.load_1min > 0.5 * run.machine.get("cores", 1):
            yield f"{name} began on a busy machine: load average {run.load_1min:.1f}"
    for name in now.calibration if not elsewhere else ():
        before = earlier.calibration.get(name)
        moved = now.calibration[name]["ms"] / before["ms"] if before else 1.0
        if not 1 / LOOP_MOVED < moved < LOOP_MOVED:
            yield f"the {name} calibration loop, which serveopt has no part in, takes {moved:.2f}x as long as before"


def note_fact(before: Figure, now: Figure) -> Iterator[str]:
    """What changed in the answers: other work is not to be compared by its time alone."""
    changed = abs(now.value - before.value) > SAME * abs(before.value)
    if before.part == SEARCHES and before.metric in FACTS_TOLD and changed:
        yield f"{now.id}: {before.value:,.10g} before, {now.value:,.10g} now"


def regression_line(change: Change, tolerance: float) -> str:
    """A regression in one line."""
    values = f"{change.before:,.4g} before, {change.now:,.4g} now"
    noise = f", repeats {change.spread:.2f}x apart" if change.spread > 1.0 else ""
    return f"regression: {change.id}: {values}: {change.factor:.2f}x worse, {tolerance:g}x is tolerated{noise}"


def comparison_document(comparison: Comparison) -> dict[str, Any]:
    """The JSON object of a comparison."""
    return {
        "earlier": comparison.earlier,
        "same_machine": comparison.same_machine,
        "differences": {name: list(pair) for name, pair in comparison.differences.items()},
        "tolerance": comparison.tolerance,
        "changes": [asdict(change) for change in comparison.changes],
        "regressions": [change.id for change in comparison.regressions],
        "notes": comparison.notes,
    }
