"""What starting costs: imports, loading compiled kernels, compiling them for the first time, and memory.

    python bench/startup.py [--repeat 5]

Every figure is of a fresh process: the least of several, files in the page cache. "inside" is the time of the step
itself, "process" that of the whole process from start to exit. Compilation starts from an empty XDG_CACHE_HOME.
"""

import argparse
import os
import platform
import sys
import tempfile
from pathlib import Path

from processes import Run, RunError, clean_env, least, print_table, run

CLOCK = "import time; started = time.perf_counter(); {step}; print(time.perf_counter() - started)"
WARM = "from serveopt.solver.warm import compile_kernels; from serveopt.solver.events import ignore"
SEARCH_PATH = "import polars, serveopt.solver.solve"
KERNELS = f"import numpy, polars; {WARM}; started = time.perf_counter(); compile_kernels(ignore)"
STEPS = {
    "python alone": "pass",
    "import serveopt": "import serveopt",
    "import the command line": "import serveopt.cli.app",
    "import numba": "import numba",
    "import polars": "import polars",
    "import the search path": SEARCH_PATH,
    "load the compiled kernels": KERNELS,
}
FIRST = "compile the kernels (first run)"


def inside_ms(runs: list[Run]) -> float:
    """The least time of the step itself."""
    return 1e3 * min(float(each.output.split()[-1]) for each in runs)


def row(name: str, runs: list[Run]) -> list[str]:
    """A row of the table."""
    kept = least(runs)
    return [name, f"{inside_ms(runs):.1f}", f"{1e3 * kept.wall_s:.1f}", f"{kept.peak_mib:.0f}", str(len(runs))]


def cache_mib(cache: Path) -> float:
    """Size of the files below a directory."""
    return sum(path.stat().st_size for path in cache.rglob("*") if path.is_file()) / (1 << 20)


def measure(repeat: int, cache: Path) -> list[list[str]]:
    """All rows; the kernels are compiled once and loaded afterwards."""
    env = clean_env(cache)
    commands = {name: [sys.executable, "-c", CLOCK.format(step=step)] for name, step in STEPS.items()}
    run([sys.executable, "-c", SEARCH_PATH], clean_env(cache))  # byte code and page cache
    first = run([sys.executable, "-c", CLOCK.format(step=KERNELS)], env)
    rounds = [{name: run(command, env) for name, command in commands.items()} for _ in range(repeat)]
    rows = [row(name, [each[name] for each in rounds]) for name in commands]
    return [*rows, row(FIRST, [first])]


def main() -> None:
    """Nothing; prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5, help="processes per row; the least time is kept")
    repeat = max(1, parser.parse_args().repeat)
    with tempfile.TemporaryDirectory(prefix="startup-") as cache:
        try:
            rows = measure(repeat, Path(cache))
        except RunError as error:
            sys.exit(f"startup: {error}")
        size = cache_mib(Path(cache))
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    print(f"{machine}; compiled code {size:.1f} MiB\n")
    print_table(("step", "inside ms", "process ms", "peak MiB", "runs"), rows)


if __name__ == "__main__":
    main()
