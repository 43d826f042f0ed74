"""Time to open every table that one search needs, page cache warm; the limit is 60 ms.

`pytest bench/bench_open_tables.py` times repeated opens beside a numpy baseline (reading the same pack's bytes);
`python bench/bench_open_tables.py` times the first open of fresh processes, imports excluded.
"""

import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest

from serveopt.perfdata.archive import DEFAULT_PACKS
from serveopt.perfdata.store import open_database

DENSE = (
    *("gemm", "context_attention", "generation_attention", "computescale", "scale_matrix"),
    *("custom_allreduce", "nccl"),
)
DEEPSEEK = (
    *DENSE,
    *("moe", "context_mla", "generation_mla", "mla_bmm", "wideep_context_mla", "wideep_generation_mla"),
    *("wideep_context_moe", "wideep_generation_moe", "wideep_deepep_normal", "wideep_deepep_ll", "moe_a2a"),
)
SEARCHES = {"dense": ("h200_sxm", "trtllm", DENSE), "deepseek": ("b200_sxm", "sglang", DEEPSEEK)}


def open_all(search: str) -> int:
    """Rows of all tables that ``search`` needs."""
    system, backend, names = SEARCHES[search]
    database = open_database(system, backend)
    return sum(len(table) for name in names if (table := database.table(name)) is not None)


@pytest.mark.parametrize("search", SEARCHES)
def test_open(benchmark: Any, search: str) -> None:
    assert benchmark(open_all, search) > 200_000


@pytest.mark.parametrize("search", SEARCHES)
def test_read_bytes(benchmark: Any, search: str) -> None:
    path = DEFAULT_PACKS / f"{SEARCHES[search][0]}.zip"
    assert benchmark(lambda: np.fromfile(path, np.uint8).sum()) > 0


def first_open_ms(search: str) -> float:
    """Milliseconds of the first open in this process, after the imports."""
    import polars  # noqa: F401

    import serveopt.perfdata.systems  # noqa: F401

    start = time.perf_counter()
    open_all(search)
    return (time.perf_counter() - start) * 1e3


def main() -> None:
    """Print the first open of ten fresh processes per search: least and median."""
    if len(sys.argv) == 2:
        print(first_open_ms(sys.argv[1]))
        return
    for search in SEARCHES:
        runs = [float(subprocess.check_output([sys.executable, __file__, search], text=True)) for _ in range(10)]
        print(f"{search}: first open {min(runs):.1f} ms least, {np.median(runs):.1f} ms median of {len(runs)}")


if __name__ == "__main__":
    main()
