"""Small screens over the view: a path to write to, and the help."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Footer, Input, Static

from serveopt.errors import ServeoptError

KEYS = """\
t p i o g b    to a field: TTFT, TPOT, ISL, OSL, GPUs, backend
up, down + -   in a field: next value; page up and down: a larger step
Enter          in a field: ask at once, without the short wait
Tab            to the next field, to the ranking
Esc            cancel the running search; out of a field to the ranking
up, down       in the ranking: choose a row, marked @ in the plot
left, right    in the ranking: see the rest of a long row
Enter          in the ranking: where the row's time and memory go
s              save everything to a new directory, as --save-dir does
e              export: NAME.json the chosen row, NAME.csv all rows
q              leave

Other targets (TTFT, TPOT) rank what was searched already. Another ISL, OSL,
GPUs or backend is searched while the former answer stays, dimmed."""


class PathDialog(ModalScreen[str]):
    """Asks for a path until ``write`` has written it; gives what ``write`` says, None where the user gave up."""

    DEFAULT_CSS = """
    PathDialog { align: center middle; }
    PathDialog > Vertical {
        width: 76; max-width: 96%; height: auto; border: round $primary; padding: 0 1; background: $surface;
    }
    PathDialog #path-error { color: $text-error; height: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "give_up", "Cancel", key_display="Esc")]

    def __init__(self, title: str, hint: str, write: Callable[[Path], str]) -> None:
        super().__init__()
        self._title, self._hint, self._write = title, hint, write

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = self._title
            yield Static(self._hint, markup=False)
            yield Input(id="path", compact=True)
            yield Static("", id="path-error", markup=False)
        yield Footer()

    def action_give_up(self) -> None:
        """Nothing is written."""
        self.dismiss(None)

    async def on_input_submitted(self, event: Input.Submitted) -> None:
        if not event.value.strip():
            return
        said = self.query_one("#path-error", Static)
        said.update("writing ...")
        try:
            self.dismiss(await asyncio.to_thread(self._write, Path(event.value.strip()).expanduser()))
        except ServeoptError as error:
            said.update(f"{error.message}{'; ' + error.hint if error.hint else ''}")


class HelpScreen(ModalScreen[None]):
    """All keys, and the notes of the search."""

    DEFAULT_CSS = """
    HelpScreen { align: center middle; }
    HelpScreen > VerticalScroll {
        width: 80; max-width: 100%; height: auto; max-height: 96%;
        border: round $primary; padding: 0 1; background: $surface;
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,question_mark,enter", "dismiss", "Back", key_display="Esc")
    ]

    def __init__(self, notes: tuple[str, ...]) -> None:
        super().__init__()
        self._notes = notes

    def compose(self) -> ComposeResult:
        with VerticalScroll() as box:
            box.border_title = "keys"
            yield Static(Text("\n".join([KEYS, *(f"\nnote: {note}" for note in self._notes)])))
        yield Footer()
