"""Whole processes, measured: wall time, processor time and peak memory of one command.

Linux counts the memory of the process that starts another one towards the peak of the started one. Whoever measures
memory therefore measures it before loading anything large: this module imports nothing but the standard library.
"""

import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from serveopt.errors import ServeoptError

LIMIT_S = 900.0
LAST_LINES = 3


@dataclass(frozen=True, slots=True)
class Run:
    """One finished process; None: the system does not tell."""

    wall_s: float
    cpu_s: float | None  # user + system, with the children that it waited for
    peak_mib: float | None  # largest resident set of the process or of one of its children
    stdout: str
    stderr: str


class RunError(ServeoptError):
    """A command that could not be started, failed or took too long."""


def run(
    command: Sequence[str], env: Mapping[str, str] | None = None, cwd: Path | None = None, limit_s: float = LIMIT_S
) -> Run:
    """The measured run of a command; RunError unless it leaves with 0 in time. Ctrl-C ends the command too."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = time.perf_counter()
        try:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=env, cwd=cwd)
        except OSError as error:
            raise RunError(f"cannot start {command[0]}: {error.strerror}") from error
        alarm = threading.Timer(limit_s, process.kill)
        alarm.start()
        try:
            cpu_s, peak_mib = wait(process)
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            alarm.cancel()
        wall_s = time.perf_counter() - started
        out.seek(0)
        err.seek(0)
        printed, said = (file.read().decode(errors="replace") for file in (out, err))
        if process.returncode != 0:
            last = " ".join(said.split("\n")[-LAST_LINES - 1 :]).strip()
            raise RunError(f"{' '.join(command)} left with {process.returncode} after {wall_s:.0f} s: {last}")
        return Run(wall_s, cpu_s, peak_mib, printed, said)


def wait(process: "subprocess.Popen[bytes]") -> tuple[float | None, float | None]:
    """(processor seconds, peak MiB) of a process, once it has ended."""
    if not hasattr(os, "wait4"):
        process.wait()
        return None, None
    _, status, usage = os.wait4(process.pid, 0)
    # wait4 has reaped it: tell Popen, which would otherwise ask again.
    process.returncode = os.waitstatus_to_exitcode(status)
    unit = 1 << 20 if os.uname().sysname == "Darwin" else 1 << 10
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / unit


def installed_env(cache: Path | None = None) -> dict[str, str]:
    """The environment without Python's own settings; ``cache`` becomes the home of compiled kernels."""
    # Without byte code on disk every start would compile the sources again, which no installed program does.
    dropped = ("PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "NUMBA_CACHE_DIR")
    env = {name: value for name, value in os.environ.items() if name not in dropped}
    return env if cache is None else env | {"XDG_CACHE_HOME": str(cache)}
