"""A benchmark run for people: one table per part, the comparison beside its figures."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from serveopt.cli.benchmarks.figures import Figure, Report
from serveopt.cli.benchmarks.searches import PART as SEARCHES
from serveopt.cli.benchmarks.searches import PROBLEMS, title

if TYPE_CHECKING:
    from serveopt.cli.benchmarks.comparison import Comparison

UNITS = {
    "ns": "ns", "ms": "ms", "s": "s", "mib": "MiB", "candidates_s": "candidates/s", "pairs_s": "pairs/s",
    "layouts_s": "layouts/s",
}  # fmt: skip
WORK = ("candidates", "pairs")  # what a rate was measured on: in the JSON object only
SEARCH_COLUMNS = {
    "wall_s": "wall s", "cpu_s": "CPU s", "peak_mib": "peak MiB", "candidates": "candidates",
    "best_tokens_s_gpu": "tokens/s/GPU",
}  # fmt: skip
LARGE = 1e5
MANY = 1000.0


def print_report(report: Report, console: Console, comparison: "Comparison | None" = None) -> None:
    """Nothing; prints the tables, then notes and failures."""
    factors = {change.id: change.factor for change in comparison.changes} if comparison else {}
    console.print(machine_line(report), soft_wrap=True)
    parts = dict.fromkeys(figure.part for figure in report.figures)
    for part in parts:
        figures = [figure for figure in report.figures if figure.part == part]
        console.print(f"\n[bold]{part}[/bold]")
        console.print(search_table(figures, factors) if part == SEARCHES else figure_table(figures, factors))
        if part == SEARCHES:
            for name in dict.fromkeys(figure.subject for figure in figures):
                console.print(f"  {name}: {title(name) if name in PROBLEMS else name}", soft_wrap=True)
    for failure in report.failures:
        console.print(f"failed: {failure['part']}: {failure['subject']}: {failure['message']}", soft_wrap=True)
    if comparison is not None:
        print_comparison(comparison, console)
    console.print(f"\nmeasured in {report.wall_s:.0f} s{' until it was interrupted' if report.partial else ''}")


def machine_line(report: Report) -> str:
    """The machine in a line."""
    facts = report.machine
    loops = [f"{name} {loop['ms']:.1f} ms (x{loop['spread']:.2f})" for name, loop in report.calibration.items()]
    load = "" if report.load_1min is None else f", load average {report.load_1min:.1f}"
    versions = ", ".join(f"{name} {facts.get(name)}" for name in ("python", "numba", "numpy", "polars"))
    place = f"serveopt {report.serveopt} on {facts.get('cpu')}, {facts.get('cores')} cores{load}; {versions}"
    return f"{place}\ncalibration loops: {', '.join(loops) or 'none'}"


def figure_table(figures: Sequence[Figure], factors: dict[str, float]) -> Table:
    """One row per figure."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("what", overflow="fold")
    for name in ("best", "", "spread", *(("was x",) if factors else ())):
        table.add_column(name, justify="left" if name == "" else "right")
    for figure in figures:
        if figure.metric in WORK:
            continue
        name, _, unit = figure.metric.rpartition("_")
        if figure.metric in UNITS:
            name, unit = "", figure.metric
        label = figure.subject + {"inside": ", the step", "process": ", the process"}.get(name, f" {name}".rstrip())
        spread = f"x{figure.spread:.2f}" if figure.repeats > 1 else ""
        cells = [label, number(figure.value), UNITS.get(unit, unit), spread]
        table.add_row(*cells, *([factor_cell(factors, figure.id)] if factors else []))
    return table


def search_table(figures: Sequence[Figure], factors: dict[str, float]) -> Table:
    """One row per problem."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("problem")
    for heading in (*SEARCH_COLUMNS.values(), "spread", *(("was x",) if factors else ())):
        table.add_column(heading, justify="right")
    for name in dict.fromkeys(figure.subject for figure in figures):
        own = {figure.metric: figure for figure in figures if figure.subject == name}
        cells = [number(own[metric].value) if metric in own else "-" for metric in SEARCH_COLUMNS]
        extra = [factor_cell(factors, own["wall_s"].id)] if factors else []
        table.add_row(name, *cells, f"x{own['wall_s'].spread:.2f}", *extra)
    return table


def print_comparison(comparison: "Comparison", console: Console) -> None:
    """Nothing; prints what the comparison rests on."""
    console.print(f"\ncompared with {comparison.earlier}; factors above 1 are worse", soft_wrap=True)
    if not comparison.same_machine:
        pairs = (f"{name} {before} -> {now}" for name, (before, now) in comparison.differences.items())
        console.print(f"another machine: {'; '.join(pairs)}", soft_wrap=True)
        console.print("times are compared as multiples of the calibration loops, roughly", soft_wrap=True)
    for note in comparison.notes:
        console.print(f"note: {note}", soft_wrap=True)
    told = len(comparison.regressions)
    console.print(f"{len(comparison.changes)} figures, {told or 'none'} worse than {comparison.tolerance:g}x")


def factor_cell(factors: dict[str, float], name: str) -> str:
    """How much worse a figure got."""
    return f"{factors[name]:.2f}" if name in factors else "-"


def number(value: float) -> str:
    """A value with as many digits as are of use.

    >>> number(1.23456), number(123456.7), number(2e9)
    ('1.23', '123,457', '2,000,000,000')
    """
    if value >= LARGE or value == int(value):
        return f"{value:,.0f}"
    return f"{value:,.1f}" if value >= MANY / 10 else f"{value:.2f}"
