"""What tells machines apart, and two loops of fixed work by which figures of different machines are compared.

The loops know nothing of serveopt: one is plain Python (start-up, imports, planning), one numpy (kernels). They run in
processes of their own, since a process that has loaded numpy lends its size to the peak memory of its children.
"""

import json
import os
import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from serveopt.cli.benchmarks.figures import NUMPY, PYTHON
from serveopt.cli.benchmarks.processes import run

PACKAGES = ("numba", "numpy", "polars")
ROUNDS = 5
CPU_INFO = Path("/proc/cpuinfo")
LOOPS = "from serveopt.cli.benchmarks.machine import print_loops; print_loops()"


def fingerprint() -> dict[str, Any]:
    """What must be equal for two runs to be compared directly."""
    return {
        "cpu": cpu_model(),
        "cores": cores(),
        "arch": platform.machine(),
        "os": platform.system(),
        "python": platform.python_version(),
        **{name: package_version(name) for name in PACKAGES},
        "compiled": os.environ.get("NUMBA_DISABLE_JIT", "0") in ("", "0"),
    }


def cpu_model() -> str:
    """The name of the processor, as far as the system tells."""
    try:
        lines = CPU_INFO.read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Hardware")))
    return next(names, "") or platform.processor() or platform.machine()


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def thread_counts(most: int | None = None) -> list[int]:
    """1, 2, 4 ... and all cores.

    >>> thread_counts(6)
    [1, 2, 4, 6]
    """
    most = most or cores()
    return sorted({1 << i for i in range(most.bit_length()) if 1 << i <= most} | {most})


def count_threads(threads: int) -> str:
    """The number of threads in words."""
    return f"{threads} thread{'s' if threads > 1 else ''}"


def package_version(name: str) -> str:
    """The version of an installed package, "" where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def load_1min() -> float | None:
    """The load average over the last minute; None where the system has none."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def calibrate() -> dict[str, float]:
    """ms of both loops, measured in a fresh process."""
    return {name: float(value) for name, value in json.loads(run([sys.executable, "-c", LOOPS]).stdout).items()}


def print_loops() -> None:
    """Nothing; prints the least ms of both loops as JSON."""
    print(json.dumps({PYTHON: least_ms(python_loop), NUMPY: least_ms(numpy_loop)}))


def least_ms(loop: Any) -> float:
    """The least ms of several rounds."""
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        loop()
        times.append(1e3 * (time.perf_counter() - started))
    return min(times)


def python_loop() -> int:
    """A number that takes 10^5 steps of the interpreter."""
    total, seen = 0, {}
    for i in range(100_000):
        total += i * i % 7
        seen[total & 1023] = i
    return total + len(seen)


def numpy_loop() -> float:
    """A number that takes some 10^7 divisions and look-ups inside the second-level cache."""
    import numpy as np

    tokens = np.arange(1, 32_769, dtype=np.float64)
    steps, total = 1.0 + 1e-3 * tokens, 0.0
    at = (np.arange(32_768) * 7919) % 32_768
    for turn in range(1, 101):
        total += float((steps[at] * turn / (tokens + turn)).max())
    return total
