"""The program around the view: it holds the terminal, and its result is an error that no field of the view can mend."""

from typing import ClassVar

from textual.app import App
from textual.binding import Binding, BindingType

from serveopt.cli.tui.searcher import Solve
from serveopt.cli.tui.view import ExploreView
from serveopt.errors import ServeoptError
from serveopt.solver.problem import Problem


class ExploreApp(App[ServeoptError]):
    """The interactive view of a problem; ``solve`` answers it, the search of the solver unless given."""

    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+c", "quit", "Quit", show=False, priority=True)]

    def __init__(self, problem: Problem, solve: Solve | None = None) -> None:
        super().__init__()
        self.view = ExploreView(problem, solve)

    def on_mount(self) -> None:
        self.push_screen(self.view)
