"""A small tree of tables in the layout of the measured-data wheel, written for one test."""

from pathlib import Path
from typing import Any

import polars as pl

GEMM_ROWS: tuple[tuple[str, int, float], ...] = (("fp8", 8, 0.4), ("bfloat16", 1, 0.1), ("bfloat16", 8, 0.3))


def gemm(rows: tuple[tuple[str, int, float], ...] = GEMM_ROWS, lane: str = "cublas", **extra: Any) -> pl.DataFrame:
    """A GEMM table with rows of (quantisation, m, latency in ms) at n = k = 128."""
    return pl.DataFrame(
        {
            "framework": ["TRTLLM"] * len(rows),
            "version": ["1.0"] * len(rows),
            "device": ["GPU"] * len(rows),
            "op_name": ["gemm"] * len(rows),
            "kernel_source": [lane] * len(rows),
            "gemm_dtype": [dtype for dtype, _, _ in rows],
            "m": [m for _, m, _ in rows],
            "n": [128] * len(rows),
            "k": [128] * len(rows),
            "latency": [latency for _, _, latency in rows],
        }
        | {name: [value] * len(rows) for name, value in extra.items()}
    )


def attention(lane: str, lengths: tuple[int, ...] = (16, 32), **extra: Any) -> pl.DataFrame:
    """A context-attention table of one lane, one row per length."""
    fixed: dict[str, Any] = {
        "kernel_source": lane,
        "attn_dtype": "bfloat16",
        "kv_cache_dtype": "bfloat16",
        "batch_size": 1,
        "num_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "step": 0,
    } | extra
    columns: dict[str, Any] = {name: [value] * len(lengths) for name, value in fixed.items()}
    return pl.DataFrame(columns | {"isl": list(lengths), "latency": [length / 100 for length in lengths]})


def write(root: Path, place: str, frame: pl.DataFrame) -> Path:
    """The file of ``frame`` at ``data/<place>_perf.parquet`` below ``root``."""
    file = root / "data" / f"{place}_perf.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    frame.write_parquet(file)
    return file


def write_reuse(root: Path, place: str, table: str, donor: str) -> None:
    """A reuse list in directory ``data/<place>``."""
    folder = root / "data" / place
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "reuse.yaml").write_text(f"reuse:\n- table: {table}_perf\n  from_version: {donor}\n  reason: test\n")


def small_tree(root: Path) -> Path:
    """``root`` with two systems, three backends and a repeated row."""
    write(root, "tiny/gemm/trtllm/1.3.0rc20/gemm", gemm((*GEMM_ROWS, ("fp8", 8, 0.9))))
    write(root, "tiny/gemm/trtllm/1.3.0rc9/gemm", gemm((("int8_wo", 1, 0.2),), lane="cutlass"))
    write(root, "tiny/attention/sglang/0.5.14/context_attention", attention("fa3", window_size=0))
    write(root, "small/gemm/vllm/0.24.0/gemm", gemm())
    return root
