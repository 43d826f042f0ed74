"""One run of ``serveopt bench``: the measurements in order, what is said while they run, and Ctrl-C.

Processes are measured first, while this one is small; kernels and stages, which load the compiler, last.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import serveopt
from serveopt.cli.benchmarks import machine, searches, startup
from serveopt.cli.benchmarks.figures import Figure, Report, better_of
from serveopt.errors import ServeoptError

KERNELS, STAGES = "kernels", "stages"
PARTS = (startup.PART, searches.PART, startup.COMPILE_PART, KERNELS, STAGES)


Doubts = Callable[[Sequence[Figure]], bool]


@dataclass(frozen=True, slots=True)
class Choice:
    """What to measure, and how often; a kernel is compiled from scratch once whatever ``repeat`` says."""

    parts: Sequence[str] = PARTS
    problems: Sequence[str] = tuple(searches.PROBLEMS)
    repeat: int = 3
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """One measurement."""

    part: str
    label: str
    measure: Callable[[], list[Figure]]


def trust(found: Sequence[Figure]) -> bool:
    """False: nothing is in doubt."""
    return False


def measure(choice: Choice, doubts: Doubts = trust) -> Report:
    """The run; Ctrl-C ends it early and keeps what was measured. What ``doubts`` says of is measured once more."""
    started = time.perf_counter()
    now = datetime.now(UTC).isoformat(timespec="seconds")
    report = Report(serveopt.__version__, now, machine.fingerprint(), machine.load_1min())
    loops: list[dict[str, float]] = []
    steps = list(plan(choice))
    try:
        tell(choice, "preparing: kernels that this machine does not have yet are compiled")
        startup.prepare()
        for number, step in enumerate(steps, 1):
            if number == 1 or step.part != steps[number - 2].part:
                loops.append(machine.calibrate())
            found = take(report, step, doubts)
            tell(choice, f"[{number}/{len(steps)}] {step.part}: {step.label}{told(found)}")
        loops.append(machine.calibrate())
    except KeyboardInterrupt:
        report.partial = True
        tell(choice, "interrupted: partial, only what was measured until then is shown")
    report.calibration = spread_loops(loops)
    report.wall_s = time.perf_counter() - started
    return report


def plan(choice: Choice) -> Iterator[Step]:
    """The measurements of a choice, in order."""
    repeat = choice.repeat
    if startup.PART in choice.parts:
        for name in (*startup.IMPORTS, startup.VERSION_COMMAND):
            yield Step(startup.PART, name, partial(startup.measure_step, name, repeat))
    if searches.PART in choice.parts:
        for name in choice.problems:
            yield Step(searches.PART, searches.title(name), partial(searches.measure_search, name, repeat))
    if startup.COMPILE_PART in choice.parts:
        yield Step(startup.COMPILE_PART, "every kernel, once, from an empty cache", startup.measure_compile)
    if KERNELS in choice.parts:
        yield Step(KERNELS, "lookups", partial(measure_kernels, repeat))
    if STAGES in choice.parts:
        yield from plan_stages(repeat)


def plan_stages(repeat: int) -> Iterator[Step]:
    """The stages of a search, by thread count where they use threads."""
    yield Step(STAGES, "planning", partial(measure_stage, "planning", 1, repeat))
    for threads in machine.thread_counts():
        for name in ("sweep", "matching"):
            label = f"{name}, {machine.count_threads(threads)}"
            yield Step(STAGES, label, partial(measure_stage, name, threads, repeat))


def measure_kernels(repeat: int) -> list[Figure]:
    """The figures of the kernels, imported here: what was measured before had to be measured without them."""
    from serveopt.cli.benchmarks.lookups import measure_lookups

    return measure_lookups(repeat)


def measure_stage(name: str, threads: int, repeat: int) -> list[Figure]:
    """The figures of one stage of a search, imported here for the same reason."""
    from serveopt.cli.benchmarks import stages

    if name == "planning":
        return stages.measure_planning(repeat)
    return (stages.measure_sweep if name == "sweep" else stages.measure_matching)(threads, repeat)


def take(report: Report, step: Step, doubts: Doubts) -> list[Figure]:
    """The figures of one measurement, taken into the report; a failure is noted there and the run goes on."""
    try:
        found = step.measure()
        if doubts(found):
            found = [better_of(*pair) for pair in zip(found, step.measure(), strict=True)]
    except ServeoptError as error:
        report.failures.append({"part": step.part, "subject": step.label, "message": error.message})
        return []
    report.figures += found
    return found


def spread_loops(loops: Sequence[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Per calibration loop the least ms, and its largest over the least: how evenly the machine ran."""
    names = loops[0] if loops else {}
    times = {name: [each[name] for each in loops] for name in names}
    return {name: {"ms": min(each), "spread": max(each) / min(each)} for name, each in times.items()}


def told(found: Sequence[Figure]) -> str:
    """The first figure of a measurement in words."""
    if not found:
        return ": failed"
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return f": {found[0].metric} {found[0].value:,.4g}{more}"


def tell(choice: Choice, line: str) -> None:
    """Nothing; one line of progress on stderr."""
    if not choice.quiet:
        print(line, file=sys.stderr, flush=True)
