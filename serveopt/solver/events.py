"""What a running search tells its reader: small values, no callbacks out of a kernel.

A view, a log file and a test are three readers of the same events.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Compiling:
    """A kernel is being compiled; happens once per machine and version."""

    kernel: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Progress:
    """``done`` of ``total`` units of a stage are finished; ``evaluated`` counts candidates priced so far."""

    stage: str
    done: int
    total: int
    evaluated: int = 0


Event = Compiling | Progress
OnEvent = Callable[[Event], None]


def ignore(event: Event) -> None:
    """None; the reader of a caller that wants no events."""
