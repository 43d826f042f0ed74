"""What a candidate costs, and how much memory a search takes, from 10^6 to 10^9 candidates.

    python bench/scaling.py [--largest 1e9] [--along batch|tokens] [--threads 1] [--repeat 1] [--format table|json]

One question, gpt-oss-120b on four B200 under sglang, aggregated. Along "batch" every context budget up to 50,000
tokens is taken and the batches are limited; along "tokens" every batch is taken and the budgets are limited to some 50,
500, 5,000 and 50,000 tokens. Small budgets are dearer: prefill outlasts the answers there, and what decodes beside it
has to be worked out for each candidate. Each search is a fresh process.

"search ns" is the search (open, plan, sweep, rank) over its candidates; "more ns" what each further candidate cost over
the row above, which is the cost of pricing without what a search costs anyway. Constant cost: "more ns" stays level.
10^9 candidates take some 10 s on two cores.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tables import machine_line, print_table

from serveopt.cli.benchmarks.processes import RunError, run

ROOT = Path(__file__).resolve().parents[1]
QUESTION = (
    *("--model", "openai/gpt-oss-120b", "--system", "b200_sxm", "--total-gpus", "4", "--backend", "sglang"),
    *("--serving-mode", "agg", "--ttft", "100000"),  # loose: the smallest budgets take long over a prompt
)
WIDEST = 50_000  # context tokens
# wanted candidates -> limit of the axis
AXES = {
    "tokens": {10**6: 46, 10**7: 460, 10**8: 4_600, 10**9: 46_000},
    "batch": {10**6: 5, 10**7: 21, 10**8: 150, 10**9: 100_000},
}
WARM_UP = ("--max-ctx-tokens", "1", "--max-batch", "2")


@dataclass(frozen=True, slots=True)
class Size:
    """One search."""

    candidates: int
    search_s: float
    wall_s: float
    cpu_s: float
    peak_mib: float
    search_ns: float  # per candidate
    more_ns: float | None  # per further candidate since the size before


def limits(axis: str, limit: int) -> list[str]:
    """The options that limit the search along an axis."""
    if axis == "tokens":
        return ["--max-ctx-tokens", str(limit)]
    return ["--max-ctx-tokens", str(WIDEST), "--max-batch", str(limit)]


def measure(options: Sequence[str], repeat: int, before: Size | None) -> Size:
    """The least of several runs of a search."""
    command = [sys.executable, "-m", "serveopt", "default", *QUESTION, "--format", "json", "--quiet", *options]
    runs = [run(command, cwd=ROOT) for _ in range(repeat)]
    answers = [json.loads(each.stdout) for each in runs]
    count, search_s = answers[0]["evaluated"], min(answer["search_ms"] for answer in answers) / 1e3
    more = (search_s - before.search_s) / (count - before.candidates) if before else None
    return Size(
        candidates=count,
        search_s=search_s,
        wall_s=min(each.wall_s for each in runs),
        cpu_s=min(each.cpu_s or 0.0 for each in runs),
        peak_mib=max(each.peak_mib or 0.0 for each in runs),
        search_ns=1e9 * search_s / count,
        more_ns=None if more is None else 1e9 * more,
    )


def cells(size: Size) -> list[str]:
    """A row as text."""
    more = "-" if size.more_ns is None else f"{size.more_ns:.2f}"
    times = (f"{value:.2f}" for value in (size.search_s, size.wall_s, size.cpu_s))
    return [f"{size.candidates:,}", *times, f"{size.peak_mib:.0f}", f"{size.search_ns:.2f}", more]


def read_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--largest", type=float, default=1e9, help="most candidates: 1e6, 1e7, 1e8 or 1e9")
    parser.add_argument("--along", choices=AXES, default="batch", help="what the number of candidates grows with")
    parser.add_argument("--threads", type=int, help="threads of the search; default: all cores")
    parser.add_argument("--repeat", type=int, default=1, help="runs per size; the least time is kept")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    return parser.parse_args()


def main() -> None:
    """Nothing; prints one row per size."""
    arguments = read_arguments()
    threads = [] if arguments.threads is None else ["--threads", str(arguments.threads)]
    sizes: list[Size] = []
    try:
        measure(WARM_UP, 1, None)  # compiles what this machine does not have yet
        for wanted, limit in AXES[arguments.along].items():
            if wanted <= arguments.largest:
                options = [*limits(arguments.along, limit), *threads]
                sizes.append(measure(options, max(1, arguments.repeat), sizes[-1] if sizes else None))
    except RunError as error:
        sys.exit(f"scaling: {error.message}")
    if arguments.format == "json":
        print(json.dumps({"machine": machine_line(), "sizes": [asdict(size) for size in sizes]}, indent=2))
        return
    print(f"{machine_line()}; {' '.join(QUESTION)}; along {arguments.along}\n")
    head = ("candidates", "search s", "wall s", "CPU s", "peak MiB", "search ns", "more ns")
    print_table(head, [cells(size) for size in sizes])


if __name__ == "__main__":
    main()
