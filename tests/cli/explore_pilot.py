"""Driving the interactive view by keys: a problem, its view with an answer, and what stands on the screen."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import cache, wraps
from typing import Any

from textual.pilot import Pilot
from textual.widgets import Static

from serveopt.cli.tui.app import ExploreApp
from serveopt.cli.tui.fields import FieldBar
from serveopt.cli.tui.view import ExploreView
from serveopt.solver.events import OnEvent
from serveopt.solver.problem import Problem
from serveopt.solver.ranking import Ranking
from serveopt.solver.solve import solve
from serveopt.solver.stop import Stop

PROBLEM = Problem(
    model="Qwen/Qwen3-8B", system="h100_sxm", total_gpus=2, isl=240, osl=60, ttft_ms=100.0, tpot_ms=7.6, max_batch=12,
    max_ctx_tokens=480, max_prefill_batch=2,
)  # fmt: skip
Story = Callable[..., Coroutine[Any, Any, None]]


@cache
def solved(problem: Problem) -> Ranking:
    return solve(problem)


def recall(problem: Problem, on_event: OnEvent, stop: Stop) -> Ranking:
    """The answer of the solver, searched once for all tests."""
    return solved(problem)


def story(function: Story) -> Callable[..., None]:
    """A test that pytest can call."""

    @wraps(function)
    def run(*args: Any, **named: Any) -> None:
        asyncio.run(function(*args, **named))

    return run


@asynccontextmanager
async def opened(problem: Problem = PROBLEM, size: tuple[int, int] = (80, 24), **extra: Any) -> AsyncIterator[Pilot]:
    """The view with its first answer."""
    app = ExploreApp(problem, **({"solve": recall} | extra))
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        yield pilot


async def settle(pilot: Pilot) -> None:
    """Until no answer is to come and everything is drawn."""
    while view_of(pilot).busy:
        await pilot.pause(0.01)
    await pilot.pause()


def view_of(pilot: Pilot) -> ExploreView:
    return pilot.app.view


def shown(pilot: Pilot, where: str) -> str:
    """The text of a line of the view."""
    return str(view_of(pilot).query_one(where, Static).render())


def screen_text(pilot: Pilot) -> str:
    """What stands on the screen, without styles and without seconds."""
    lines = ("".join(part.text for part in strip).rstrip() for strip in pilot.app.screen._compositor.render_strips())
    return re.sub(r"in \d+\.\d\d s", "in #.## s", "\n".join(lines)) + "\n"


async def until(pilot: Pilot, words: str) -> None:
    """Until ``words`` stand on the screen; what writes files does so beside the view."""
    for _ in range(3000):
        if words in " ".join(screen_text(pilot).split()):
            return
        await pilot.pause(0.01)
    raise AssertionError(f"{words!r} is not on the screen:\n{screen_text(pilot)}")


async def set_field(pilot: Pilot, name: str, text: str) -> None:
    """Types a value into a field and asks at once."""
    view_of(pilot).query_one(FieldBar).jump(name)
    await pilot.press(*text, "enter")
    await settle(pilot)
