"""Answers the newest question in a thread of its own, so that the view never waits for a search.

A newer question cancels the search of the older one (``Stop.cancel``), and what that search still says is not heard:
every question has a number, and the view listens to the last one. Other targets alone need no search: the last full
ranking is asked again (``Ranking.rank``).
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from serveopt.errors import ServeoptError
from serveopt.solver.events import Compiling, Event, Found, OnEvent, Progress
from serveopt.solver.problem import Problem
from serveopt.solver.stop import Stop

if TYPE_CHECKING:
    from serveopt.solver.ranking import Ranking

Solve = Callable[[Problem, OnEvent, Stop], "Ranking"]


@dataclass(slots=True)
class Told:
    """What the running search has told last; its thread writes, the view reads. ``best`` is a row by serving mode."""

    progress: Progress | None = None
    compiling: Compiling | None = None
    best: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __call__(self, event: Event) -> None:
        if isinstance(event, Compiling):
            self.compiling = event
        elif isinstance(event, Progress):
            self.compiling, self.progress = None, event
        elif isinstance(event, Found):
            self.keep_best(event)

    def keep_best(self, found: Found) -> None:
        """Nothing; remembers the row if it is the best of its serving mode."""
        key = "tokens_s_gpu_cluster"
        known = self.best.get(found.serving_mode)
        if known is None or found.row[key] > known[key]:
            self.best[found.serving_mode] = found.row


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a question: a ranking or an error, or neither where it was cancelled before there was any."""

    problem: Problem
    ranking: "Ranking | None" = None
    error: ServeoptError | None = None


class Searcher:
    """One search at a time; ``tell`` is called with the number of a question and its answer, from another thread."""

    def __init__(self, tell: Callable[[int, "Future[Answer]"], object], solve: Solve | None = None) -> None:
        self.number = 0
        self.told = Told()
        self._tell = tell
        self._solve = solve or run_solve
        self._stop = Stop()
        self._future: Future[Answer] | None = None
        self._full: Ranking | None = None
        self._pool = ThreadPoolExecutor(1, "search")

    def ask(self, problem: Problem) -> int:
        """The number of the question, which becomes the only one that matters."""
        self.cancel()
        self.number += 1
        self.told, self._stop = Told(), Stop()
        self._future = self._pool.submit(self._answer, problem, self.told, self._stop)
        number = self.number
        self._future.add_done_callback(lambda future: self._tell(number, future))
        return number

    def cancel(self) -> None:
        """Nothing; the running search ends as soon as it can, one that has not begun never does."""
        self._stop.cancel()
        if self._future is not None:
            self._future.cancel()

    def close(self) -> None:
        """Nothing; no question can be asked afterwards."""
        self.cancel()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def ranks_at_once(self, problem: Problem) -> bool:
        """Whether the question differs from the last full search in its targets alone."""
        full = self._full
        if full is None or full.partial:
            return False
        return replace(problem, ttft_ms=full.problem.ttft_ms, tpot_ms=full.problem.tpot_ms) == full.problem

    def _answer(self, problem: Problem, told: Told, stop: Stop) -> Answer:
        try:
            if self.ranks_at_once(problem) and self._full is not None:
                ranking = self._full.rank(ttft_ms=problem.ttft_ms, tpot_ms=problem.tpot_ms)
            else:
                ranking = self._full = self._solve(problem, told, stop)
        except ServeoptError as error:
            return Answer(problem, error=None if stop.reached(0) else error)
        except KeyboardInterrupt:  # how a search says that it was cancelled before it found anything
            return Answer(problem)
        return Answer(problem, ranking)


def run_solve(problem: Problem, on_event: OnEvent, stop: Stop) -> "Ranking":
    """The answer to a problem; KeyboardInterrupt where it was cancelled before anything was found."""
    from serveopt.solver.solve import solve

    return solve(problem, on_event, stop)
