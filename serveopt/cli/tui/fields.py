"""The question as a row of fields: one letter jumps to each, arrows and +- step its value, Enter asks at once.

Number fields take digits and the point only, so that every other key keeps its meaning while one types.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget
from textual.widgets import Input, Static

from serveopt.cli.tui.stepping import read_value, step_count, step_gpus, step_number
from serveopt.solver.problem import BACKENDS, Problem

NUMERALS = "0123456789."
CHOICES = (*BACKENDS, "auto")


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number of the question: its field, the letter that jumps to it, its label and its next value."""

    field: str
    key: str
    label: str
    step: Callable[[Any, int, bool], float]


QUANTITIES = (
    Quantity("ttft_ms", "t", "TTFT ms", step_number),
    Quantity("tpot_ms", "p", "TPOT ms", step_number),
    Quantity("isl", "i", "ISL", step_count),
    Quantity("osl", "o", "OSL", step_count),
    Quantity("total_gpus", "g", "GPUs", step_gpus),
)
LABELS = {quantity.field: quantity.label for quantity in QUANTITIES} | {"backend": "backend"}
KEYS = {quantity.field: quantity.key for quantity in QUANTITIES} | {"backend": "b"}


class Edited(Message):
    """A field has another value; ``now``: the user asks for the answer at once."""

    def __init__(self, now: bool = False) -> None:
        super().__init__()
        self.now = now


class NumberField(Input):
    """A number that is typed or stepped."""

    DEFAULT_CSS = "NumberField { width: 1fr; height: 1; background: $surface; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,plus", "step(1)", "More", show=False),
        Binding("down,minus", "step(-1)", "Less", show=False),
        Binding("pageup", "step(1, True)", "Much more", show=False),
        Binding("pagedown", "step(-1, True)", "Much less", show=False),
        Binding("enter", "submit", "Ask now", key_display="Enter"),
    ]

    def __init__(self, quantity: Quantity, value: float) -> None:
        super().__init__(f"{value:.10g}", compact=True, id=quantity.field, max_length=12)
        self.quantity = quantity

    def check_consume_key(self, key: str, character: str | None) -> bool:
        """Whether the key is typed into the field rather than a command."""
        return character is not None and character in NUMERALS

    async def _on_key(self, event: events.Key) -> None:
        if event.is_printable and not self.check_consume_key(event.key, event.character):
            event.prevent_default()  # Input would type it

    def on_focus(self) -> None:
        self.select_all()

    def action_step(self, direction: int, coarse: bool = False) -> None:
        """The next value; a text that is no number stays as it is."""
        value = read_value(self.value)
        if not isinstance(value, str) and value > 0:
            self.value = f"{self.quantity.step(value, direction, coarse):.10g}"
            self.select_all()

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self.post_message(Edited())

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.select_all()  # what is typed next is another value
        self.post_message(Edited(now=True))


class ChoiceField(Static, can_focus=True):
    """One of a few words, stepped through."""

    DEFAULT_CSS = """
    ChoiceField { width: 1fr; height: 1; background: $surface; }
    ChoiceField:focus { background: $primary; color: $text; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,right,plus,space", "step(1)", "Next", show=False),
        Binding("up,left,minus", "step(-1)", "Previous", show=False),
        Binding("enter", "submit", "Ask now", key_display="Enter"),
    ]
    value: reactive[str] = reactive("")

    def __init__(self, value: str) -> None:
        super().__init__(id="backend")
        self.set_reactive(ChoiceField.value, value)

    def render(self) -> str:
        return f"< {self.value} >"

    def watch_value(self) -> None:
        self.post_message(Edited())

    def action_step(self, direction: int) -> None:
        """The next word, round and round."""
        self.value = CHOICES[(CHOICES.index(self.value) + direction) % len(CHOICES)]

    def action_submit(self) -> None:
        """Ask for the answer at once."""
        self.post_message(Edited(now=True))


class FieldBar(Widget):
    """All fields side by side, each under its label."""

    DEFAULT_CSS = """
    FieldBar { height: 2; padding: 0 1; }
    FieldBar Vertical { width: 1fr; height: 2; padding-right: 1; }
    FieldBar Static.label { height: 1; color: $text-muted; }
    FieldBar .wrong { color: $text-error; background: $error-muted; }
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self._problem = problem

    def compose(self) -> ComposeResult:
        with Horizontal():
            for quantity in QUANTITIES:
                with Vertical():
                    yield Static(label_markup(quantity.field), classes="label", id=f"label-{quantity.field}")
                    yield NumberField(quantity, getattr(self._problem, quantity.field))
            with Vertical():
                yield Static(label_markup("backend"), classes="label", id="label-backend")
                yield ChoiceField(self._problem.backend)

    def values(self) -> dict[str, Any]:
        """What the fields say, by the name of the Problem's field."""
        typed = {quantity.field: self.query_one(f"#{quantity.field}", Input).value for quantity in QUANTITIES}
        numbers = {name: read_value(text) for name, text in typed.items()}
        for name in ("ttft_ms", "tpot_ms"):
            if isinstance(numbers[name], int):
                numbers[name] = float(numbers[name])
        return numbers | {"backend": self.query_one(ChoiceField).value}

    def mark(self, wrong: str) -> None:
        """Nothing; the field ``wrong`` is marked, by colour and by a sign, and no other."""
        for name in LABELS:
            self.query_one(f"#{name}").set_class(name == wrong, "wrong")
            self.query_one(f"#label-{name}", Static).update(label_markup(name, name == wrong))

    def column(self, name: str) -> int:
        """The column in which a field begins; 0 for what is no field."""
        return self.query_one(f"#{name}").region.x if name in LABELS else 0

    def jump(self, name: str) -> None:
        """Nothing; the field takes the keys, and what is typed next replaces its number."""
        field = self.query_one(f"#{name}")
        self.screen.set_focus(field)  # at once: the next key is for the field
        if isinstance(field, NumberField):
            field.select_all()


def label_markup(name: str, wrong: bool = False) -> str:
    """The label of a field with its key in front, as a footer shows keys."""
    sign = " [b $text-error]<![/]" if wrong else ""
    return f"[b $footer-key-foreground]{KEYS[name]}[/] {LABELS[name]}{sign}"


def jump_bindings() -> Iterator[Binding]:
    """A key for every field; first of all keys, so that what is typed right behind it reaches the field."""
    for name, key in KEYS.items():
        yield Binding(key, f"jump('{name}')", f"To {LABELS[name]}", show=False, priority=True)
