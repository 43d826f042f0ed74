"""Estimates against real aggregated serving runs: signed and absolute median error of TPOT and TTFT by group.

    python bench/measured_runs.py RUNS.csv [reference|measured]

RUNS.csv has one run per row with the columns of aiconfigurator-core's sample of real runs (Apache-2.0), labels
repaired: backend, system, model, mode, isl, osl, batch, tp, pp, attn_dp, moe_tp, moe_ep, ttft_ms, tpot_ms. Every run is
priced under the catalogue checkpoint's own quantisation on the current tables, so a group whose runs used another one
is off by that.
"""

import csv
import math
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from serveopt.errors import ServeoptError
from serveopt.perfdata.catalogue import load_model
from serveopt.solver.estimate import estimate
from serveopt.solver.point import read_point

# Runs name some models as their publishers do, the catalogue as it found them.
NAMES = {
    "meta-llama/Llama-3.1-8B-Instruct": "meta-llama/Meta-Llama-3.1-8B",
    "meta-llama/Llama-3.1-70B": "meta-llama/Meta-Llama-3.1-70B",
    "zhipuai/GLM-5": "zai-org/GLM-5-FP8",
}
DEGREES = ("tp", "pp")
EXPERT_DEGREES = ("attn_dp", "moe_tp", "moe_ep")


def ratios(run: dict[str, str], cost_model: str) -> tuple[float, float]:
    """log(estimate / run) of TPOT and TTFT."""
    name = NAMES.get(run["model"], run["model"])
    degrees = DEGREES + (EXPERT_DEGREES if load_model(name).is_moe else ())
    sizes = {key: max(1, int(float(run[key] or 1))) for key in ("isl", "osl", "batch", *degrees)}
    place = {"model": name, "system": run["system"], "backend": run["backend"]}
    own = estimate(read_point({**place, **sizes, "mode": "agg", "cost_model": cost_model}))
    ttft = math.log(own.ttft_ms / float(run["ttft_ms"])) if run["ttft_ms"] else math.nan
    return math.log(own.tpot_ms / float(run["tpot_ms"])), ttft


def report(title: str, errors: list[tuple[float, float]]) -> None:
    """Nothing; prints one line of a table."""
    percent = 100.0 * np.expm1(np.array(errors))
    signed, size = np.nanmedian(percent, axis=0), np.nanmedian(np.abs(percent), axis=0)
    print(f"| {title} | {len(errors)} | {signed[0]:+.1f} / {size[0]:.1f} | {signed[1]:+.1f} / {size[1]:.1f} |")


def main(file: str, cost_model: str = "measured") -> None:
    """Nothing; prints the table."""
    groups: dict[str, list[tuple[float, float]]] = defaultdict(list)
    left_out: Counter[str] = Counter()
    with Path(file).open(newline="", encoding="utf-8") as rows:
        for run in csv.DictReader(rows):
            if run["mode"] != "agg":
                continue
            try:
                found = ratios(run, cost_model)
            except ServeoptError as error:
                left_out[error.message[:80]] += 1
                continue
            groups[" ".join((run["backend"], run["model"], run["system"], run["gemm_quant"]))].append(found)
    print(f"| {cost_model} | runs | TPOT signed / absolute median error, % | TTFT |\n|---|---|---|---|")
    for title in sorted(groups):
        report(title, groups[title])
    report("all", [error for errors in groups.values() for error in errors])
    print(f"left out: {dict(left_out)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
