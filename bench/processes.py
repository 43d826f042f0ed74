"""Whole processes, measured: wall time, processor time and peak memory of one command.

The parent must stay small: Linux counts the memory of the process that starts another one towards the peak of the
started one. Scripts that measure memory therefore import nothing beyond the standard library.
"""

import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIMIT_S = 900.0
LAST_LINES = 3


@dataclass(frozen=True, slots=True)
class Run:
    """One finished process."""

    wall_s: float
    cpu_s: float  # user + system, with the children that it waited for
    peak_mib: float  # largest resident set of the process or of one of its children
    output: str  # stdout


class RunError(Exception):
    """A command that could not be started, failed or took too long; the message is one line."""


def run(command: Sequence[str], env: Mapping[str, str], limit_s: float = LIMIT_S) -> Run:
    """The measured run of a command in the repository root; RunError unless it leaves with 0 in time."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = time.perf_counter()
        try:
            process = subprocess.Popen(command, stdout=out, stderr=err, env=dict(env), cwd=ROOT)
        except OSError as error:
            raise RunError(f"cannot start {command[0]}: {error.strerror}") from error
        alarm = threading.Timer(limit_s, process.kill)
        alarm.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
        finally:
            alarm.cancel()
        wall_s = time.perf_counter() - started
        # wait4 has reaped it: tell Popen, which would otherwise ask again.
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if process.returncode != 0:
            said = " ".join(err.read().decode(errors="replace").split("\n")[-LAST_LINES - 1 :]).strip()
            raise RunError(f"{' '.join(command)} left with {process.returncode} after {wall_s:.0f} s: {said}")
        return Run(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, out.read().decode(errors="replace"))


def clean_env(cache: Path | None = None) -> dict[str, str]:
    """The environment without Python's own settings; ``cache`` becomes the home of compiled kernels."""
    # Without byte code on disk every start would compile the sources again, which no installed program does.
    dropped = ("PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "NUMBA_CACHE_DIR")
    env = {name: value for name, value in os.environ.items() if name not in dropped}
    return env if cache is None else env | {"XDG_CACHE_HOME": str(cache)}


def least(runs: Sequence[Run]) -> Run:
    """The least wall time, the least processor time and the largest peak of several runs of one command."""
    return Run(
        min(run.wall_s for run in runs),
        min(run.cpu_s for run in runs),
        max(run.peak_mib for run in runs),
        runs[-1].output,
    )


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Nothing; prints an aligned Markdown table, words to the left and numbers to the right."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    for number, line in enumerate(lines):
        cells = [cell.rjust(width) for cell, width in zip(line, widths, strict=True)]
        cells[0] = line[0].ljust(widths[0])
        print(f"| {' | '.join(cells)} |")
        if number == 0:
            marks = ["-" * (width + 1) + ":" for width in widths]
            print(f"|{'|'.join(['-' * (widths[0] + 2), *marks[1:]])}|")
