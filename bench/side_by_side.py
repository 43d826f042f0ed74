"""The peer and serveopt on the same questions, one after the other, as whole processes.

    python bench/side_by_side.py --peer-python /path/to/env/bin/python [--problem q32,q8 | standard | all] [--repeat 3]
                                 [--peer-repeat 1] [--format table|json]

The environment must hold AIConfigurator 0.12.0. Every round runs each program once, so that all of them see the same
state of a shared machine; of several rounds the least time and the largest memory are kept. Ratios are within the run.
The peer takes 14 s (q32) to 5 minutes (q235, dsv3) a round: --peer-repeat runs it in the first rounds only.

"serveopt first run" starts with an empty kernel cache and is run once. All other rows of serveopt are warm, and the
peer is not when it runs first: its byte code and tables are in the page cache from a run of --help only. Neither saves
files; the peer's best rates are read from the tables that it prints, tokens/s per GPU of the cluster as ours.
"""

import argparse
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tables import machine_line, print_table

from serveopt.cli.benchmarks import searches
from serveopt.cli.benchmarks.processes import Run, RunError, installed_env, run

ROOT = Path(__file__).resolve().parents[1]
PEER = "aiconfigurator"
STANDARD = {name: searches.arguments(name) for name in searches.PROBLEMS}
PROBLEMS = STANDARD | {
    "q8": [
        *("--model", "Qwen/Qwen3-8B", "--system", "h100_sxm", "--total-gpus", "4", "--backend", "sglang"),
        *("--isl", "1000", "--osl", "200", "--ttft", "500", "--tpot", "15"),
    ],
    "llama70": [
        *("--model", "meta-llama/Meta-Llama-3.1-70B", "--system", "h200_sxm", "--total-gpus", "16"),
        *("--backend", "vllm"),
    ],
}
EXHAUSTIVE = "serveopt, exhaustive"
ALIKE = "serveopt, exhaustive, the peer's model of cost"
REFERENCE = "serveopt, reference space"
TABLES = "serveopt, exhaustive, tables and plot"
FIRST = "serveopt, exhaustive, first run (compiles)"
SERVEOPT = {
    REFERENCE: ("--space", "reference", "--format", "json"),
    ALIKE: ("--cost-model", "reference", "--format", "json"),
    EXHAUSTIVE: ("--format", "json"),
    TABLES: (),
}
HEAD = (
    "program", "wall s", "CPU s", "peak MiB", "candidates", "agg tok/s/GPU", "disagg tok/s/GPU", "faster", "agg",
    "disagg", "best",
)  # fmt: skip
MODES = ("agg", "disagg")
LIMIT_S = 1800.0
# "agg Top Configurations: ..." above a table; under --backend auto the name goes on: "agg_trtllm Top ...".
PEER_TABLE = re.compile(r"^(agg|disagg)\w* Top Configurations.*?\n(.*?)(?=\n\S*? Top Configurations|\Z)", re.M | re.S)


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

    @property
    def best(self) -> float:
        """The better of both serving modes."""
        return max(self.agg, self.disagg)


def find_peer(python: Path) -> tuple[str, str]:
    """(console script, version) of the peer beside ``python``; RunError when there is none."""
    script = python.parent / PEER
    if not os.access(script, os.X_OK):
        raise RunError(f"no {PEER} beside {python}; install {PEER}==0.12.0 in that environment")
    run([str(script), "--help"], installed_env())
    code = f"from importlib.metadata import version; print(version('{PEER}'))"
    return str(script), run([str(python), "-c", code], installed_env()).stdout.strip()


def peer_best(text: str) -> dict[str, float]:
    """Best tokens/s per GPU of the cluster of both serving modes, from the tables that the peer prints."""
    best = dict.fromkeys(MODES, 0.0)
    for mode, body in PEER_TABLE.findall(text):
        rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in body.splitlines() if line.startswith("|")]
        column = rows[0].index("tokens/s/gpu") if rows else 0
        rates = [float(row[column]) for row in rows[1:] if len(row) > column]
        best[mode] = max([best[mode], *rates])
    return best


def line_of(program: str, runs: Sequence[Run], best: dict[str, float], candidates: int | None) -> Line:
    """The row of a program: the least times and the largest peak of its runs."""
    return Line(
        program,
        min(each.wall_s for each in runs),
        min(each.cpu_s or 0.0 for each in runs),
        max(each.peak_mib or 0.0 for each in runs),
        candidates,
        **best,
    )


def answer_line(program: str, runs: Sequence[Run], text: str) -> Line:
    """The row of serveopt, whose JSON object is ``text``."""
    answer = json.loads(text)
    best = {mode: max((row["tokens_s_gpu_cluster"] for row in answer[mode]), default=0.0) for mode in MODES}
    return line_of(program, runs, best, answer["evaluated"])


def compare(script: str, question: Sequence[str], rounds: tuple[int, int], cache: Path) -> list[Line]:
    """The rows of one problem, the peer's first; ``rounds`` of serveopt and of the peer."""
    env = installed_env(cache)
    commands = {
        name: [sys.executable, "-m", "serveopt", "default", *question, *words] for name, words in SERVEOPT.items()
    }
    tell("serveopt, first run")
    first = run(commands[EXHAUSTIVE], env, ROOT)
    # The peer spells the model's option differently.
    asked = ["--model-path" if word == "--model" else word for word in question]
    runs: dict[str, list[Run]] = {name: [] for name in (PEER, *commands)}
    for turn in range(max(rounds)):
        if turn < rounds[1]:
            tell(f"round {turn + 1} of {rounds[1]}: {PEER}")
            runs[PEER].append(run([script, "cli", "default", *asked], installed_env(), limit_s=LIMIT_S))
        for name, command in commands.items() if turn < rounds[0] else ():
            tell(f"round {turn + 1} of {rounds[0]}: {name}")
            runs[name].append(run(command, env, ROOT))
    said = runs[PEER][-1]
    lines = [line_of(PEER, runs[PEER], peer_best(said.stdout + "\n" + said.stderr), None)]
    for name in commands:
        lines.append(answer_line(name, runs[name], runs[EXHAUSTIVE if name == TABLES else name][-1].stdout))
    return [*lines, answer_line(FIRST, [first], first.stdout)]


def tell(what: str) -> None:
    """Nothing; says on a terminal what is running."""
    if sys.stderr.isatty():
        print(f"\r\033[K{what}", end="", file=sys.stderr, flush=True)


def ratio(value: float, base: float, form: str) -> str:
    """``value / base`` in a form; "-" where there is no base."""
    return format(value / base, form) if base > 0 else "-"


def cells(line: Line, peer: Line) -> list[str]:
    """A row as text; the last four columns are ratios to the peer: how much faster, how much more throughput."""
    return [
        line.program,
        f"{line.wall_s:.2f}",
        f"{line.cpu_s:.2f}",
        f"{line.peak_mib:.0f}",
        "-" if line.candidates is None else f"{line.candidates:,}",
        f"{line.agg:.2f}",
        f"{line.disagg:.2f}",
        f"{peer.wall_s / line.wall_s:.1f}x",
        *(ratio(getattr(line, name), getattr(peer, name), ".4f") for name in (*MODES, "best")),
    ]


def with_ratios(line: Line, peer: Line) -> dict[str, Any]:
    """A row for JSON."""
    ratios = {f"{name}_ratio": getattr(line, name) / getattr(peer, name) if getattr(peer, name) else None
              for name in (*MODES, "best")}  # fmt: skip
    return asdict(line) | {"times_faster": peer.wall_s / line.wall_s} | ratios


def read_problems(text: str) -> list[str]:
    """The problems that a comma list names; "standard" is the five of ``serveopt bench``, "all" every one."""
    sets = {"standard": list(STANDARD), "all": list(PROBLEMS)}
    names = [name for word in text.split(",") for name in sets.get(word.strip(), [word.strip()])]
    for name in names:
        if name not in PROBLEMS:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join((*PROBLEMS, *sets))}")
    return list(dict.fromkeys(names))


def read_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", type=Path, required=True, help="python of the environment that has the peer")
    parser.add_argument("--problem", type=read_problems, default=["q32"], help=f"comma list: {', '.join(PROBLEMS)}")
    parser.add_argument("--repeat", type=int, default=3, help="rounds; the least time is kept")
    parser.add_argument("--peer-repeat", type=int, help="rounds of the peer; default: as many")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    arguments = parser.parse_args()
    if arguments.peer_repeat is None:
        arguments.peer_repeat = arguments.repeat
    if min(arguments.repeat, arguments.peer_repeat) < 1:
        parser.error("--repeat and --peer-repeat must be at least 1")
    return arguments


def measure_all(script: str, arguments: argparse.Namespace) -> Iterator[tuple[str, list[Line]]]:
    """(problem, rows), each as soon as it is measured."""
    for name in arguments.problem:
        # One cache per problem: each has a first run of its own.
        with tempfile.TemporaryDirectory(prefix="side_by_side-") as cache:
            lines = compare(script, PROBLEMS[name], (arguments.repeat, arguments.peer_repeat), Path(cache))
        tell("")
        yield name, lines


def show(arguments: argparse.Namespace) -> None:
    """Nothing; measures and prints one table per problem, or one JSON object."""
    script, version = find_peer(arguments.peer_python.absolute())
    measured = measure_all(script, arguments)
    if arguments.format == "json":
        rows = {name: [with_ratios(line, lines[0]) for line in lines] for name, lines in measured}
        rounds = {"repeat": arguments.repeat, "peer_repeat": arguments.peer_repeat}
        print(json.dumps({"peer": version, "machine": machine_line(), **rounds, "problems": rows}, indent=2))
        return
    rounds = f"least time, largest peak of {arguments.repeat} rounds (peer: {arguments.peer_repeat}); first run once"
    print(f"{PEER} {version}; {machine_line()}; {rounds}")
    for name, lines in measured:
        print(f"\n{name}: {' '.join(PROBLEMS[name])}\n")
        print_table(HEAD, [cells(line, lines[0]) for line in lines])
        sys.stdout.flush()


def main() -> None:
    """Nothing; an error is one line and exit code 1."""
    try:
        show(read_arguments())
    except RunError as error:
        tell("")
        sys.exit(f"side_by_side: {error.message}")


if __name__ == "__main__":
    main()
