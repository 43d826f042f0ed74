"""Error of every way to price a GEMM whose weight shape was not measured, by leaving measured shapes out.

Each measured shape with neighbours on both sides is taken out in turn, priced from the rest at every measured token
count, and compared with its own measurement. Prints one row per table: median and 90th percentile of the absolute
error and the signed median, in percent.

    python bench/gemm_leave_one_out.py [SYSTEM ...]
"""

import argparse

import numpy as np

from serveopt.perfdata.store import open_database
from serveopt.perfdata.systems import load_system
from serveopt.solver.operators.gemm import GemmTable, read_gemm
from serveopt.solver.operators.shapes import SHAPE_METHODS, Sites

BACKENDS = ("trtllm", "sglang", "vllm")
SMALLEST = 512  # smaller weights are not found in served models


def leave_one_out(table: GemmTable, method: str) -> np.ndarray:
    """Relative errors float64[n] of a method over all inner shapes and token counts."""
    sites = Sites.read(table, table.m)
    inner_n, inner_k = np.log2(table.n[1:-1]), np.log2(table.k[1:-1])
    errors = []
    for i in range(sites.log_n.size):
        log_n, log_k = sites.log_n[i], sites.log_k[i]
        if min(log_n, log_k) < np.log2(SMALLEST) or log_n not in inner_n or log_k not in inner_k:
            continue
        guess = SHAPE_METHODS[method](sites.without(i), float(2**log_n), float(2**log_k))[:-1]
        # latency is roofline over efficiency: the ratio of latencies is the inverse ratio of efficiencies
        error = sites.efficiency[i, :-1] / np.minimum(guess, 1.0) - 1.0
        errors.append(error[~np.isnan(error)])
    return np.concatenate(errors) if errors else np.zeros(0)


def main() -> None:
    """Nothing; prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("systems", nargs="*", default=["h100_sxm", "h200_sxm", "b200_sxm", "gb200"])
    print("| system | backend | GEMM | method | median % | P90 % | signed % |\n|---|---|---|---|---|---|---|")
    for name in parser.parse_args().systems:
        system = load_system(name)
        for backend in BACKENDS:
            table = open_database(name, backend).table("gemm")
            for quant in table.categories["gemm_dtype"] if table else ():
                gemms = read_gemm(table, system, quant)
                for method in SHAPE_METHODS:
                    error = 100.0 * leave_one_out(gemms, method)
                    if error.size:
                        middle, high = np.quantile(np.abs(error), (0.5, 0.9))
                        row = f"{middle:.2f} | {high:.2f} | {np.median(error):+.2f}"
                        print(f"| {name} | {backend} | {quant} | {method} | {row} |", flush=True)


if __name__ == "__main__":
    main()
