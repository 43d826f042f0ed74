"""Tiny tables of sequence operators in the layout of the measured-data wheel, and the prices read from them."""

from collections.abc import Iterable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from serveopt.perfdata.store import open_database
from serveopt.perfdata.systems import load_system
from serveopt.solver.operators.pricing import Pricing
from serveopt.solver.operators.sequence import SequencePrice
from tests.perfdata.trees import write

SYSTEM = "h200_sxm"
VERSIONS = {"trtllm": "1.3.0rc20", "sglang": "0.5.14", "vllm": "0.24.0"}
Row = Mapping[str, Any]


def grid_rows(axes: Mapping[str, Iterable[int]], latency: Any, **fixed: Any) -> list[dict[str, Any]]:
    """One row per combination of the axes; ``latency`` computes the ms from the axes."""
    points = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    return [{**fixed, **point, "latency": float(latency(**point))} for point in points]


def write_table(root: Path, backend: str, table: str, rows: list[dict[str, Any]], version: str = "") -> None:
    """A table of one version of a backend, that of the tests unless said otherwise."""
    place = f"{SYSTEM}/attention/{backend}/{version or VERSIONS[backend]}/{table}"
    write(root, place, pl.DataFrame(rows))


def prices_of(root: Path, backend: str, mode: str = "silicon", cost_model: str = "measured", **more: Any) -> Pricing:
    """Prices of the tables below ``root`` alone."""
    database = open_database(SYSTEM, backend, VERSIONS[backend], [str(root)])
    return Pricing(database, load_system(SYSTEM), cost_model, mode=mode, **more)


def prefill_ms(price: SequencePrice, tokens: int, prompts: int = 1, prefix: int = 0) -> float:
    """ms of one layer for ``prompts`` prompts of ``tokens`` new tokens."""
    out = np.full(prompts + 1, np.nan)
    price.prefill(tokens, prefix, out)
    assert out[0] == 0.0
    return float(out[-1])


def decode_ms(price: SequencePrice, length: int, batch: float = 1) -> float:
    """ms of one layer for a decode step of ``batch`` sequences of ``length`` tokens."""
    out = np.full(1, np.nan)
    price.decode(np.array([length]), np.ones(1, np.int64), np.array([float(batch)]), out)
    return float(out[0])
