"""The screen of one row. It is priced again, alone, in a thread: the same numbers, and what they are made of."""

import asyncio
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Footer, Static

from serveopt.cli.tui.ranking_list import Ranked, describe
from serveopt.cli.tui.row_view import row_content
from serveopt.cli.tui.status import error_line
from serveopt.errors import ServeoptError
from serveopt.solver.problem import Problem

if TYPE_CHECKING:
    from serveopt.solver.estimate import Estimate
    from serveopt.solver.point import Point


class Content(VerticalScroll):
    """What does not fit is scrolled to; the keys for it are shown."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("down", "scroll_down", "Scroll", key_display="Up Down PgUp PgDn")]


class RowScreen(ModalScreen[None]):
    """Where the time and the memory of a row go."""

    DEFAULT_CSS = """
    RowScreen { background: $background; }
    RowScreen #row-title { height: 1; padding: 0 1; background: $primary; color: $text; text-style: bold; }
    RowScreen Content { padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,enter", "dismiss", "Back", key_display="Esc"),
    ]

    def __init__(self, problem: Problem, ranked: Ranked) -> None:
        super().__init__()
        self._problem, self._ranked = problem, ranked
        self._priced: tuple[Point, Estimate] | None = None

    def compose(self) -> ComposeResult:
        title = f"{self._ranked.mode} {self._ranked.row['rank']}: {describe(self._ranked)}"
        yield Static(title, id="row-title", markup=False)
        with Content():
            yield Static("pricing ...", id="row-content", markup=False)
        yield Footer()

    def on_mount(self) -> None:
        self.query_one(Content).focus()
        self.run_worker(self._price())

    def on_resize(self, event: events.Resize) -> None:
        self._show()

    async def _price(self) -> None:
        """The estimate of the row, shown as soon as it is there."""
        try:
            self._priced = await asyncio.to_thread(price_row, self._problem, self._ranked)
        except ServeoptError as error:
            self.query_one("#row-content", Static).update(Text(error_line(error)))
        self._show()

    def _show(self) -> None:
        if self._priced is not None:
            content = row_content(*self._priced, width=self.app.size.width)
            self.query_one("#row-content", Static).update(content)


def price_row(problem: Problem, ranked: Ranked) -> "tuple[Point, Estimate]":
    """(point, estimate) of a row."""
    from serveopt.solver.row_point import estimate_row, point_of  # loads the compiler: not before the first row

    return point_of(problem, ranked.row, ranked.mode), estimate_row(problem, ranked.row, ranked.mode)
