"""What to relax, and by how much, when nothing meets the target."""

from typing import Any

import numpy as np

from serveopt.kernels.records import Reason
from serveopt.solver.problem import Problem
from serveopt.solver.sweep import Tally


def relaxation(problem: Problem, tallies: dict[str, Tally]) -> tuple[str, dict[str, Any], str]:
    """(message, nearest metrics in ms, hint) of an empty result."""
    lowest_ttft, lowest_tpot, ttft_within, tpot_within = (
        float(value) if np.isfinite(value) else None
        for value in np.minimum(tallies["agg"].nearest, tallies["disagg"].nearest)
    )
    nearest = {
        "ttft_ms": lowest_ttft,
        "tpot_ms": lowest_tpot,
        "ttft_ms_within_tpot": ttft_within,
        "tpot_ms_within_ttft": tpot_within,
    }
    if lowest_ttft is None and lowest_tpot is None:
        full = sum(int(tally.counts[[Reason.MEMORY, Reason.KV_CACHE]].sum()) for tally in tallies.values())
        lacking = "memory" if full else "GPUs"
        message = f"{problem.model} does not fit: no worker layout on {problem.total_gpus} x {problem.system} has room"
        return message, nearest, f"needs more {lacking}: raise total_gpus, lower isl + osl, or quantise further"
    hints = []
    if tpot_within is not None and tpot_within > problem.tpot_ms:
        hints.append(f"raise tpot to {round_up(tpot_within)} ms")
    if ttft_within is not None and ttft_within > problem.ttft_ms:
        hints.append(f"raise ttft to {round_up(ttft_within)} ms")
    if not hints:
        both = [f"{name} to {round_up(value)} ms" for name, value in low_pair(lowest_ttft, lowest_tpot, problem)]
        hints.append("raise " + " and ".join(both))
    message = f"nothing meets TTFT {problem.ttft_ms:g} ms and TPOT {problem.tpot_ms:g} ms"
    return message, nearest, " or ".join(hints)


def low_pair(ttft: float | None, tpot: float | None, problem: Problem) -> list[tuple[str, float]]:
    """The targets that no configuration reaches even alone, with the lowest reachable value."""
    pairs = (("ttft", ttft, problem.ttft_ms), ("tpot", tpot, problem.tpot_ms))
    return [(name, value) for name, value, target in pairs if value is not None and value > target]


def round_up(value: float) -> str:
    """The value with three significant digits, never below it.

    >>> round_up(12.341)
    '12.4'
    """
    digits = 2 - int(np.floor(np.log10(value)))
    return f"{np.ceil(value * 10.0**digits) / 10.0**digits:g}"
