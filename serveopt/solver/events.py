"""What a running search tells its reader: small frozen values, no callbacks out of a kernel.

A view, a log file and a test are three readers of the same events. Their order:

    Started   Compiling*   (Progress* with Found and Front in between, stage after stage)   Finished

Whoever reads must be quick: the search waits for it. Nothing is computed for ``ignore``.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from serveopt.solver.problem import Problem


@dataclass(frozen=True, slots=True)
class Started:
    """The search begins; ``stages`` are the stages to come, in order."""

    problem: Problem
    threads: int
    stages: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Compiling:
    """A kernel is being compiled; happens once per machine and version."""

    kernel: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Progress:
    """``done`` of ``total`` units of a stage are decided; the other figures are those of the search so far.

    ``layout`` is the worker layout at hand, "" where there are several; ``rejected`` counts by reason.
    """

    stage: str
    done: int
    total: int
    evaluated: int = 0
    layout: str = ""
    rejected: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Found:
    """The best row of one worker layout within the targets, as soon as it is known; it may be told again, better.

    ``row`` has the columns of design.md section 4 that both serving modes share, ``parallel`` and ``xpyd`` ("" when
    aggregated) among them.
    """

    serving_mode: str
    row: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Front:
    """The front of one serving mode so far, fastest user last; both tuples are equally long."""

    serving_mode: str
    tokens_s_user: tuple[float, ...]
    tokens_s_gpu_cluster: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Finished:
    """The search is over; ``stopped_by`` says what cut it short: interrupt, time, candidates, or "" for nothing."""

    evaluated: int
    matched: int
    search_ms: float
    stopped_by: str = ""


Event = Started | Compiling | Progress | Found | Front | Finished
OnEvent = Callable[[Event], None]


def ignore(event: Event) -> None:
    """None; the reader of a caller that wants no events."""
