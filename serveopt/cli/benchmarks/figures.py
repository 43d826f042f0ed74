"""The values of a benchmark run, and the documented JSON object made of them (docs/bench.md), version 1.

Every figure is the best of its repeats: what disturbs a measurement only ever makes it slower. ``spread`` is the worst
repeat over the best and says how quiet the machine was. A removed name or a changed meaning raises VERSION.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from serveopt.errors import ConfigError

VERSION = 1
LESS, MORE, FACT = "less", "more", "fact"  # which direction is better; a fact is neither
PYTHON, NUMPY, NOTHING = "python", "numpy", ""  # the calibration loop that a figure is measured by elsewhere


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value.

    >>> Figure("searches", "q32", "wall_s", 1.3, better=LESS).id
    'searches/q32/wall_s'
    """

    part: str
    subject: str
    metric: str  # carries the unit
    value: float
    better: str = FACT
    scaled_by: str = NOTHING
    spread: float = 1.0
    repeats: int = 1

    @property
    def id(self) -> str:
        """The name under which runs are compared."""
        return f"{self.part}/{self.subject}/{self.metric}"


@dataclass(slots=True)
class Report:
    """One run: the machine, its calibration, the figures, and what went wrong."""

    serveopt: str
    started: str  # UTC, ISO 8601
    machine: dict[str, Any]
    load_1min: float | None
    calibration: dict[str, dict[str, float]] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)
    failures: list[dict[str, str]] = field(default_factory=list)
    partial: bool = False
    wall_s: float = 0.0


def least(place: tuple[str, str, str], values: Sequence[float], scaled_by: str) -> Figure:
    """The figure of repeated times; ``place`` is (part, subject, metric)."""
    best = min(values)
    return Figure(*place, best, LESS, scaled_by, max(values) / best if best > 0 else 1.0, len(values))


def most(place: tuple[str, str, str], values: Sequence[float], scaled_by: str) -> Figure:
    """The figure of repeated rates."""
    best, worst = max(values), min(values)
    return Figure(*place, best, MORE, scaled_by, best / worst if worst > 0 else 1.0, len(values))


def better_of(first: Figure, second: Figure) -> Figure:
    """One figure of two measurements of the same thing; of facts the later one."""
    if first.better == FACT:
        return second
    ends = [each for figure in (first, second) for each in (figure.value, worst(figure))]
    best, last = (min(ends), max(ends)) if first.better == LESS else (max(ends), min(ends))
    spread = max(best, last) / min(best, last) if min(ends) > 0 else 1.0
    return replace(second, value=best, spread=spread, repeats=first.repeats + second.repeats)


def worst(figure: Figure) -> float:
    """The worst repeat."""
    return figure.value * figure.spread if figure.better == LESS else figure.value / figure.spread


def document(report: Report) -> dict[str, Any]:
    """The JSON object of a run."""
    return {
        "version": VERSION,
        "serveopt": report.serveopt,
        "started": report.started,
        "machine": report.machine,
        "load_1min": report.load_1min,
        "calibration": report.calibration,
        "partial": report.partial,
        "wall_s": report.wall_s,
        "figures": [{"id": figure.id, **asdict(figure)} for figure in report.figures],
        "failures": report.failures,
    }


def read_report(path: Path) -> Report:
    """The run that ``path`` holds; ConfigError for a file that is none."""
    try:
        found = json.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", field="compare") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}", field="compare") from error
    if not isinstance(found, dict) or "figures" not in found or "version" not in found:
        raise ConfigError(f"{path} is not a run of serveopt bench", field="compare", hint="make one with --save")
    if found["version"] != VERSION:
        message = f"{path} has version {found['version']}, this program reads {VERSION}"
        raise ConfigError(message, field="compare", hint="measure it again with --save")
    try:
        figures = [Figure(**{name: value for name, value in row.items() if name != "id"}) for row in found["figures"]]
        given = {name: found[name] for name in document_names() if name not in ("version", "figures")}
        return Report(figures=figures, **given)
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path} is damaged: {error}", field="compare", hint="measure it again with --save"
        ) from error


def document_names() -> tuple[str, ...]:
    """The keys of the JSON object."""
    return tuple(document(Report("", "", {}, None)))
