"""Source tables -> canonical tables: units, kept columns, repeated rows, row order."""

import polars as pl
import pytest

from serveopt.errors import DataError
from serveopt.perfdata.schema import canonical
from tests.perfdata.trees import GEMM_ROWS, attention, gemm


def dsa(latencies: list[float], kernels: list[str]) -> pl.DataFrame:
    same = {"op_name": "dsa_context_module", "num_heads": 8, "batch_size": 1, "isl": 16, "step": 0}
    columns = {name: [value] * len(latencies) for name, value in same.items()}
    return pl.DataFrame(columns | {"kernel_source": kernels, "latency": latencies})


def test_metadata_is_dropped_and_words_sort_by_first_appearance() -> None:
    frame = canonical("gemm", gemm()).frame
    assert frame.columns == ["kernel_source", "gemm_dtype", "m", "n", "k", "latency_ms"]
    assert frame["gemm_dtype"].to_list() == ["fp8", "bfloat16", "bfloat16"]
    assert frame["latency_ms"].to_list() == [0.4, 0.1, 0.3]


def test_first_repeated_row_wins() -> None:
    clean = canonical("gemm", gemm((*GEMM_ROWS, ("fp8", 8, 0.9))))
    assert clean.repeated == 1
    assert clean.frame["latency_ms"].to_list() == [0.4, 0.1, 0.3]


def test_last_repeated_row_wins_in_sparse_attention_modules() -> None:
    clean = canonical("dsa_context_module", dsa([1.0, 2.0, 3.0], ["a", "a", "b"]))
    assert clean.repeated == 1
    assert clean.frame["latency_ms"].to_list() == [3.0, 2.0]  # the best candidate first, whatever its lane


def test_rows_that_differ_in_an_ignored_lane_keep_the_order_of_the_file() -> None:
    raw = pl.concat([gemm((("fp8", 8, 0.5),), "z"), gemm((("fp8", 8, 0.4),), "a"), gemm((("fp8", 1, 0.1),), "z")])
    frame = canonical("gemm", raw).frame
    assert frame["kernel_source"].to_list() == ["z", "z", "a"]
    assert frame["latency_ms"].to_list() == [0.1, 0.5, 0.4]


def test_lanes_of_attention_are_blocks() -> None:
    raw = pl.concat([attention("triton", (32,)), attention("fa3", (16,)), attention("triton", (16,))])
    frame = canonical("context_attention", raw).frame
    assert frame["kernel_source"].to_list() == ["triton", "triton", "fa3"]
    assert frame["isl"].to_list() == [16, 32, 16]
    assert frame["window_size"].to_list() == [0, 0, 0]  # implied, as old tables have no such column


def test_microseconds_become_milliseconds() -> None:
    a2a = pl.DataFrame({"phase": ["dispatch"], "num_tokens": [1], "transmit_us": [1500.0], "latency": [1500.0]})
    assert canonical("moe_a2a", a2a).frame["latency_ms"].to_list() == [1.5]
    deepep = pl.DataFrame({"num_token": [1], "dispatch_avg_t_us": [10.0], "combine_avg_t_us": [20.0]})
    assert canonical("wideep_deepep_ll", deepep).frame.row(0)[-2:] == (0.01, 0.02)


@pytest.mark.parametrize("latency", [float("nan"), float("inf"), -0.1, None])
def test_impossible_latency_is_refused(latency: float | None) -> None:
    raw = gemm().with_columns(pl.lit(latency, pl.Float64).alias("latency"))
    with pytest.raises(DataError, match=r"file\.parquet: column latency_ms"):
        canonical("gemm", raw, where="file.parquet")


def test_missing_and_odd_columns_are_refused() -> None:
    with pytest.raises(DataError, match="no latency column"):
        canonical("gemm", gemm().drop("latency"))
    with pytest.raises(DataError, match=r"key column m holds a missing value"):
        canonical("gemm", gemm().with_columns(pl.lit(None, pl.Int64).alias("m")))
    with pytest.raises(DataError, match=r"column m .* cannot be a key"):
        canonical("gemm", gemm().with_columns(pl.lit(1 << 40).alias("m")))
    with pytest.raises(DataError, match="latency is not numeric"):
        canonical("gemm", gemm().with_columns(pl.lit("fast").alias("latency")))
