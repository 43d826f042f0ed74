"""The peer and serveopt on the same questions, one after the other, as whole processes.

    python bench/side_by_side.py --peer-python /path/to/env/bin/python [--problem q32|q8|llama70|all] [--repeat 3]
                                 [--format table|json]

The environment must hold AIConfigurator 0.12.0. Every round runs each program once, so that all of them see the same
state of a shared machine; of several rounds the least time and the largest memory are kept. Ratios are within the run.

"serveopt first run" starts with an empty kernel cache and is run once. All other rows are warm: the peer and serveopt
have each run before. The peer is timed without --save-dir, as serveopt is; its best configurations are then read from
the best_config_topn.csv of one more run, which is not timed.
"""

import argparse
import csv
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from processes import Run, RunError, clean_env, least, print_table, run

PEER = "aiconfigurator"
PROBLEMS = {
    "q32": "--model-path Qwen/Qwen3-32B-FP8 --system h200_sxm --backend trtllm --total-gpus 32",
    "q8": (
        "--model-path Qwen/Qwen3-8B --system h100_sxm --backend sglang --total-gpus 4"
        " --isl 1000 --osl 200 --ttft 500 --tpot 15"
    ),
    "llama70": "--model-path meta-llama/Meta-Llama-3.1-70B --system h200_sxm --backend vllm --total-gpus 16",
}
EXHAUSTIVE, REFERENCE = "exhaustive", "reference"
HEAD = (
    "program", "wall s", "CPU s", "peak MiB", "candidates", "agg tok/s/GPU", "disagg tok/s/GPU", "faster", "agg",
    "disagg",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Line:
    """One row: a program on a problem. Rates are tokens/s per GPU of the cluster, 0 when nothing was found."""

    program: str
    wall_s: float
    cpu_s: float
    peak_mib: float
    candidates: int | None  # worker configurations priced; None: not said
    agg: float
    disagg: float


def find_peer(python: Path) -> tuple[str, str]:
    """(console script, version) of the peer beside ``python``; RunError when there is none."""
    script = python.parent / PEER
    if not os.access(script, os.X_OK):
        raise RunError(f"no {PEER} beside {python}; install {PEER}==0.12.0 in that environment")
    code = f"from importlib.metadata import version; print(version('{PEER}'))"
    return str(script), run([str(python), "-c", code], clean_env()).output.strip()


def peer_best(script: str, question: Sequence[str]) -> dict[str, float]:
    """Best tokens/s/GPU of both serving modes, from the tables that the peer saves."""
    best = {"agg": 0.0, "disagg": 0.0}
    with tempfile.TemporaryDirectory(prefix="side_by_side-") as directory:
        run([script, "cli", "default", *question, "--save-dir", directory], clean_env())
        for path in Path(directory).rglob("best_config_topn.csv"):
            with path.open(newline="") as file:
                rates = [float(row["tokens/s/gpu_cluster"]) for row in csv.DictReader(file)]
            if path.parent.name in best:
                best[path.parent.name] = max(rates, default=0.0)
    return best


def line_of(program: str, measured: Run, answer: dict[str, Any]) -> Line:
    """The row of serveopt from what it measured and its JSON object."""
    best = {mode: max((row["tokens_s_gpu_cluster"] for row in answer[mode]), default=0.0) for mode in ("agg", "disagg")}
    return Line(program, measured.wall_s, measured.cpu_s, measured.peak_mib, answer["evaluated"], **best)


def compare(script: str, question: Sequence[str], repeat: int, cache: Path) -> list[Line]:
    """The rows of one problem, the peer's first."""
    ours = [sys.executable, "-m", "serveopt", "default", *question]
    commands = {
        PEER: ([script, "cli", "default", *question], clean_env()),
        EXHAUSTIVE: ([*ours, "--format", "json"], clean_env(cache)),
        REFERENCE: ([*ours, "--space", REFERENCE, "--format", "json"], clean_env(cache)),
        "table": (ours, clean_env(cache)),
    }
    tell("the peer's best configurations")
    best = peer_best(script, question)
    tell("serveopt, first run")
    first = run(*commands[EXHAUSTIVE])
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    for turn in range(repeat):
        for name, (command, env) in commands.items():
            tell(f"round {turn + 1} of {repeat}: {name}")
            runs[name].append(run(command, env))
    kept = {name: least(part) for name, part in runs.items()}
    answers = {name: json.loads(kept[name].output) for name in (EXHAUSTIVE, REFERENCE)}
    peer = kept[PEER]
    return [
        Line(PEER, peer.wall_s, peer.cpu_s, peer.peak_mib, None, **best),
        line_of("serveopt, reference space", kept[REFERENCE], answers[REFERENCE]),
        line_of("serveopt, exhaustive", kept[EXHAUSTIVE], answers[EXHAUSTIVE]),
        line_of("serveopt, exhaustive, tables and plot", kept["table"], answers[EXHAUSTIVE]),
        line_of("serveopt, exhaustive, first run", first, answers[EXHAUSTIVE]),
    ]


def tell(what: str) -> None:
    """Nothing; says on a terminal what is running."""
    if sys.stderr.isatty():
        print(f"\r\033[K{what}", end="", file=sys.stderr, flush=True)


def ratio(value: float, base: float, form: str) -> str:
    """``value / base`` in a form; "-" where there is no base."""
    return format(value / base, form) if base > 0 else "-"


def cells(line: Line, peer: Line) -> list[str]:
    """A row as text; the last three columns are ratios to the peer: how much faster, how much more throughput."""
    return [
        line.program,
        f"{line.wall_s:.2f}",
        f"{line.cpu_s:.2f}",
        f"{line.peak_mib:.0f}",
        "-" if line.candidates is None else f"{line.candidates:,}",
        f"{line.agg:.2f}",
        f"{line.disagg:.2f}",
        f"{peer.wall_s / line.wall_s:.1f}x",
        ratio(line.agg, peer.agg, ".4f"),
        ratio(line.disagg, peer.disagg, ".4f"),
    ]


def with_ratios(line: Line, peer: Line) -> dict[str, Any]:
    """A row for JSON."""
    return asdict(line) | {
        "times_faster": peer.wall_s / line.wall_s,
        "agg_ratio": line.agg / peer.agg if peer.agg else None,
        "disagg_ratio": line.disagg / peer.disagg if peer.disagg else None,
    }


def read_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", type=Path, required=True, help="python of the environment that has the peer")
    parser.add_argument("--problem", choices=(*PROBLEMS, "all"), default="q32")
    parser.add_argument("--repeat", type=int, default=3, help="rounds; the least time is kept")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    arguments = parser.parse_args()
    if arguments.repeat < 1:
        parser.error("--repeat must be at least 1")
    return arguments


def measure_all(script: str, chosen: Sequence[str], repeat: int) -> Iterator[tuple[str, list[Line]]]:
    """(problem, rows), each as soon as it is measured."""
    for name in chosen:
        # One cache per problem: each has a first run of its own.
        with tempfile.TemporaryDirectory(prefix="side_by_side-") as cache:
            lines = compare(script, PROBLEMS[name].split(), repeat, Path(cache))
        tell("")
        yield name, lines


def show(arguments: argparse.Namespace) -> None:
    """Nothing; measures and prints one table per problem, or one JSON object."""
    script, version = find_peer(arguments.peer_python.absolute())
    chosen = list(PROBLEMS) if arguments.problem == "all" else [arguments.problem]
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    measured = measure_all(script, chosen, arguments.repeat)
    if arguments.format == "json":
        rows = {name: [with_ratios(line, lines[0]) for line in lines] for name, lines in measured}
        print(json.dumps({"peer": version, "machine": machine, "repeat": arguments.repeat, "problems": rows}, indent=2))
        return
    print(f"{PEER} {version}; {machine}; least time, largest peak of {arguments.repeat} rounds; first run once")
    for name, lines in measured:
        print(f"\n{name}: {PROBLEMS[name]}\n")
        print_table(HEAD, [cells(line, lines[0]) for line in lines])
        sys.stdout.flush()


def main() -> None:
    """Nothing; an error is one line and exit code 1."""
    try:
        show(read_arguments())
    except RunError as error:
        tell("")
        sys.exit(f"side_by_side: {error}")


if __name__ == "__main__":
    main()
