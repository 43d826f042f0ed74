"""What the reader of a running search sees on stderr: a moving bar on a terminal, else one line about compiling."""

import sys
from types import TracebackType
from typing import TYPE_CHECKING

from serveopt.solver.events import Compiling, Event, Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

COMPILING = "compiling kernels once for this machine"


class ProgressView:
    """Shows events until its ``with`` block ends; shows nothing where ``quiet``."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self._bar: Bar | None = None
        self._tasks: dict[str, TaskID] = {}
        self._told = False

    def __enter__(self) -> "ProgressView":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, event: Event) -> None:
        if self.quiet or not isinstance(event, Compiling | Progress):
            return
        if sys.stderr.isatty():
            self._move(event)
        elif isinstance(event, Compiling) and not self._told:
            self._told = True
            print(f"{COMPILING} ...", file=sys.stderr, flush=True)

    def _move(self, event: Compiling | Progress) -> None:
        """Advance the bar of the event's stage."""
        label = COMPILING if isinstance(event, Compiling) else event.stage
        bar = self._bar or self._start()
        if label not in self._tasks:
            self._tasks[label] = bar.add_task(label, total=event.total)
        bar.update(self._tasks[label], completed=event.done, total=event.total)

    def _start(self) -> "Bar":
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._bar.start()
        return self._bar
