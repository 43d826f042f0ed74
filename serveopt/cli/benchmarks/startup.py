"""What starting costs: imports, the smallest command, loading compiled kernels, and compiling them once.

``inside_ms`` is the time of the step itself, ``process_ms`` that of a fresh process from start to exit.
"""

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from serveopt.cli.benchmarks.figures import FACT, LESS, NOTHING, PYTHON, Figure, least
from serveopt.cli.benchmarks.processes import Run, run

PART, COMPILE_PART = "startup", "compile"
CLOCK = "import time; started = time.perf_counter(); {step}; print(time.perf_counter() - started)"
LOAD = (
    "import numpy, polars; from serveopt.solver.warm import compile_kernels; "
    "from serveopt.solver.events import ignore; started = time.perf_counter(); compile_kernels(ignore)"
)
IMPORTS = {
    "python alone": "pass",
    "import serveopt": "import serveopt",
    "import the command line": "import serveopt.cli.app",
    "import the search": "import polars, serveopt.solver.solve",
    "load compiled kernels": LOAD,
}
VERSION_COMMAND = "serveopt --version"
MEMORY_OF = ("import serveopt", "import the search", "load compiled kernels")


def prepare() -> None:
    """Nothing; compiles kernels and byte code that this machine does not have yet, so that all else is warm."""
    run([sys.executable, "-c", CLOCK.format(step=LOAD)])


def measure_step(name: str, repeat: int) -> list[Figure]:
    """The figures of one step, ``serveopt --version`` among them."""
    if name == VERSION_COMMAND:
        runs = [run([sys.executable, "-m", "serveopt", "--version"]) for _ in range(repeat)]
        return [least((PART, name, "process_ms"), [1e3 * each.wall_s for each in runs], PYTHON)]
    runs = [time_step(IMPORTS[name]) for _ in range(repeat)]
    process = least((PART, name, "process_ms"), [1e3 * each.wall_s for each in runs], PYTHON)
    if name == "python alone":
        return [process]
    found = [least((PART, name, "inside_ms"), [inside_ms(each) for each in runs], PYTHON), process]
    return found + (peak(PART, name, runs) if name in MEMORY_OF else [])


def measure_compile() -> list[Figure]:
    """The figures of one compilation of every kernel, from an empty cache that is removed afterwards."""
    subject = "all kernels"
    with tempfile.TemporaryDirectory(prefix="serveopt-bench-") as folder:
        cold = time_step(LOAD, os.environ | {"NUMBA_CACHE_DIR": folder})
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()) / (1 << 20)
    times = [
        least((COMPILE_PART, subject, "inside_s"), [inside_ms(cold) / 1e3], PYTHON),
        least((COMPILE_PART, subject, "process_s"), [cold.wall_s], PYTHON),
    ]
    return [*times, *peak(COMPILE_PART, subject, [cold]), Figure(COMPILE_PART, subject, "cache_mib", size, FACT)]


def time_step(step: str, env: Mapping[str, str] | None = None) -> Run:
    """The run of a process that takes one step and prints how long it took."""
    return run([sys.executable, "-c", CLOCK.format(step=step)], env)


def inside_ms(done: Run) -> float:
    """The time of the step itself."""
    return 1e3 * float(done.stdout.split()[-1])


def peak(part: str, subject: str, runs: list[Run]) -> list[Figure]:
    """The figure of the peak memory, where the system tells it."""
    peaks = [each.peak_mib for each in runs if each.peak_mib is not None]
    if not peaks:
        return []
    return [Figure(part, subject, "peak_mib", max(peaks), LESS, NOTHING, max(peaks) / min(peaks), len(peaks))]
