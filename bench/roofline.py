"""How close the kernels come to what this machine can do, one thread.

    python bench/roofline.py [--repeat 5] [--format table|json]

First the machine, measured with small compiled loops: memory operations (loads and stores of float64) per second from
the first- and second-level cache, arithmetic operations and divisions per second over whole vectors, and the time of
one load whose address is the result of the load before. Then what each kernel has to do per item, counted in its
source (``LOOPS``, ``LOOKUPS``: the counts must follow the source), and the least time that this takes:

    bound = max(memory operations / rate, arithmetic / rate, divisions / rate, dependent loads x latency)

"reached" is bound / measured: 100 % would be a kernel limited by nothing but its scarcest unit. The bound is
optimistic: it lets all units work at once and counts no address arithmetic, comparison of keys or mispredicted branch.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from tables import machine_line, print_table

from serveopt.cli.benchmarks import lookups, stages
from serveopt.kernels.jit import kernel

L1_FLOATS, L2_FLOATS = 1024, 8192  # per array: three of 8 KiB, three of 64 KiB
ROUND_S = 0.05
TERMS = 16


@dataclass(frozen=True, slots=True)
class Work:
    """Operations on float64 per item."""

    loads: float = 0.0
    stores: float = 0.0
    arithmetic: float = 0.0  # additions, multiplications, comparisons, choices
    divisions: float = 0.0
    dependent: float = 0.0  # loads that wait for the one before

    def __add__(self, other: "Work") -> "Work":
        return Work(
            *(mine + theirs for mine, theirs in zip(asdict(self).values(), asdict(other).values(), strict=True))
        )


# The loops of kernels/aggregate.py and kernels/sweeping.py, per candidate.
LOOPS = {
    "price_block: waves": Work(loads=1, stores=1, arithmetic=1, divisions=1),
    "gather_mixed: a stretch": Work(loads=2, stores=1, arithmetic=2),
    "price_wave: TTFT": Work(loads=3, stores=1, arithmetic=15),
    "price_wave: TPOT": Work(loads=2, stores=1, arithmetic=10, divisions=1),
    "price_wave: tokens/s": Work(loads=2, stores=1, arithmetic=6, divisions=1),
    "tally_block": Work(loads=3, arithmetic=6),
    "bound_spans: three folds into lanes": Work(loads=6, stores=3, arithmetic=6),
}
# A bracket among n keys takes log2(n) dependent loads and both its keys; in a grid of 8 x 11 x 18 keys there are one,
# two and four of them, and eight corners. Level after level waits for the one before.
GRID = Work(loads=3 + 2 * 4 + 4 * 4 + 14 + 6 + 8, stores=1, arithmetic=7 * 3 + 7 * 3, divisions=7, dependent=11)
LOOKUPS = {
    "grid lookup": GRID,
    "decode attention fill": GRID,
    "curve lookup": Work(loads=6 + 4, stores=1, arithmetic=6, divisions=1, dependent=6),
    "curve tabulation": Work(loads=5, stores=1, arithmetic=6, divisions=1),
}


@dataclass(frozen=True, slots=True)
class Machine:
    """What one thread can do per second, and ns of a dependent load."""

    l1_operations: float
    l2_operations: float
    arithmetic: float
    divisions: float
    l1_ns: float
    l2_ns: float


@kernel
def add(a, b, out, turns):  # type: ignore[no-untyped-def]
    """Nothing; two loads, an addition and a store per element and turn."""
    for turn in range(turns):
        for i in range(out.size):
            out[i] = a[i] + b[i]
        a[turn & 7] = out[turn & 7]


@kernel
def divide(a, b, out, turns):  # type: ignore[no-untyped-def]
    """Nothing; a division per element and turn."""
    for turn in range(turns):
        for i in range(out.size):
            out[i] = a[i] / b[i]
        a[turn & 7] = out[turn & 7]


@kernel
def evaluate(a, b, out, turns):  # type: ignore[no-untyped-def]
    """Nothing; a polynomial per element and turn, 2 * TERMS operations that the element alone waits for."""
    for turn in range(turns):
        for i in range(out.size):
            x, y = a[i], b[i]
            for _ in range(TERMS):
                x = x * y + 0.25
            out[i] = x
        a[turn & 7] = out[turn & 7]


@kernel
def chase(following, turns):  # type: ignore[no-untyped-def]
    """The place after following ``turns`` links."""
    at = 0
    for _ in range(turns):
        at = following[at]
    return at


def rate(loop: Callable[..., Any], floats: int, per_element: int, repeat: int) -> float:
    """Operations per second of a loop over arrays of ``floats`` elements."""
    a, b, out = np.full(floats, 0.5), np.full(floats, 0.75), np.zeros(floats)
    seconds = least_seconds(lambda turns: loop(a, b, out, turns), repeat)
    return per_element * floats / seconds


def latency_ns(places: int, repeat: int) -> float:
    """ns of a load that waits for the one before, in a ring of ``places`` links in random order."""
    order = np.random.default_rng(4).permutation(places)
    following = np.zeros(places, np.int64)
    following[order] = np.roll(order, -1)
    return 1e9 * least_seconds(lambda turns: chase(following, turns), repeat)


def least_seconds(call: Callable[[int], object], repeat: int) -> float:
    """Least seconds of one turn, over rounds of as many turns as fill ``ROUND_S``."""
    call(1)
    turns, taken = 1, 0.0
    while taken < ROUND_S:
        turns *= 4
        taken = seconds_of(call, turns)
    return min(taken, *(seconds_of(call, turns) for _ in range(repeat))) / turns


def seconds_of(call: Callable[[int], object], turns: int) -> float:
    """Seconds of a call."""
    started = time.perf_counter()
    call(turns)
    return time.perf_counter() - started


def measure_machine(repeat: int) -> Machine:
    """The rates of one thread."""
    return Machine(
        l1_operations=rate(add, L1_FLOATS, 3, repeat),
        l2_operations=rate(add, L2_FLOATS, 3, repeat),
        arithmetic=rate(evaluate, L1_FLOATS, 2 * TERMS, repeat),
        divisions=rate(divide, L1_FLOATS, 1, repeat),
        l1_ns=latency_ns(2 * L1_FLOATS, repeat),
        l2_ns=latency_ns(4 * L2_FLOATS, repeat),
    )


def bounds_ns(work: Work, machine: Machine, level: int) -> dict[str, float]:
    """Least ns per item by unit; ``level`` of the cache that the tables lie in."""
    operations, wait = (machine.l1_operations, machine.l1_ns) if level == 1 else (machine.l2_operations, machine.l2_ns)
    return {
        "memory": 1e9 * (work.loads + work.stores) / operations,
        "arithmetic": 1e9 * work.arithmetic / machine.arithmetic,
        "divisions": 1e9 * work.divisions / machine.divisions,
        "dependent loads": work.dependent * wait,
    }


def measure_kernels(repeat: int) -> dict[str, tuple[Work, int, float]]:
    """(work, cache level, measured ns) by kernel."""
    total = sum(LOOPS.values(), Work())
    swept = stages.measure_sweep(1, repeat)[0]
    found = {"sweep, per candidate": (total, 2, 1e9 / swept.value)}
    for figure in lookups.measure_lookups(repeat):
        if figure.subject in LOOKUPS:
            found[figure.subject] = (LOOKUPS[figure.subject], 1, figure.value)
    return found


def facts(name: str, work: Work, level: int, measured_ns: float, machine: Machine) -> dict[str, Any]:
    """One kernel against its bounds."""
    bounds = bounds_ns(work, machine, level)
    limit = max(bounds, key=lambda unit: bounds[unit])
    reached = bounds[limit] / measured_ns
    return {"kernel": name, "measured_ns": measured_ns, "bounds_ns": bounds, "limit": limit, "reached": reached,
            "work": asdict(work)}  # fmt: skip


def main() -> None:
    """Nothing; prints the machine and one row per kernel."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5, help="rounds; the least time is kept")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    arguments = parser.parse_args()
    repeat = max(1, arguments.repeat)
    machine = measure_machine(repeat)
    rows = [facts(name, *measured, machine) for name, measured in measure_kernels(repeat).items()]
    if arguments.format == "json":
        print(json.dumps({"machine": machine_line(), "rates": asdict(machine), "kernels": rows}, indent=2))
        return
    print(f"{machine_line()}; one thread\n")
    rates = {"memory operations, L1": machine.l1_operations, "memory operations, L2": machine.l2_operations,
             "arithmetic": machine.arithmetic, "divisions": machine.divisions}  # fmt: skip
    print_table(("rate", "10^9 / s"), [[name, f"{value / 1e9:.2f}"] for name, value in rates.items()])
    print(f"\na dependent load takes {machine.l1_ns:.2f} ns from L1, {machine.l2_ns:.2f} ns from L2\n")
    units = list(rows[0]["bounds_ns"])
    cells = [
        [row["kernel"], *(f"{row['bounds_ns'][unit]:.2f}" for unit in units), row["limit"],
         f"{row['measured_ns']:.2f}", f"{row['reached']:.0%}"]
        for row in rows
    ]  # fmt: skip
    print_table(("ns per item", *units, "limit", "measured", "reached"), cells)


if __name__ == "__main__":
    main()
