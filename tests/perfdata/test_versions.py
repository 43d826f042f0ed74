"""Version order, slots, source priority and attention lanes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serveopt.errors import ConfigError
from serveopt.perfdata.store import Table
from serveopt.perfdata.versions import (
    Source,
    attention_lanes,
    newest_first,
    next_version,
    resolve_version,
    slot_version,
    source_order,
    version_key,
)

ORDERED = (
    *("0.1.dev19262", "0.1", "0.5.6", "0.5.6.post2", "0.5.10", "0.20.1.dev3+g20dc1caee", "1.0.0", "1.2.0rc5"),
    *(
        "1.3.0.dev1",
        "1.3.0a1",
        "1.3.0b2",
        "1.3.0rc9",
        "1.3.0rc20.dev1",
        "1.3.0rc20",
        "1.3.0",
        "1.3.0.post1",
        "2021.15.9",
    ),
)


@given(st.permutations(ORDERED))
def test_version_order(shuffled: list[str]) -> None:
    assert sorted(shuffled, key=version_key) == list(ORDERED)
    assert newest_first(shuffled)[0] == "2021.15.9"


def test_slots() -> None:
    assert slot_version("h200_sxm", "trtllm", "current") == "1.3.0rc20"
    assert slot_version("a100_sxm", "sglang", "current") == "0.5.10"
    assert slot_version("b60", "vllm", "previous") == "0.20.0"
    assert slot_version("h200_sxm", "vllm", "previous") is None


def test_next_ignores_systems_with_slots_of_their_own() -> None:
    available = {"h200_sxm": {"1.3.0rc20", "1.3.0rc10"}, "b200_sxm": {"1.3.0rc23"}, "a100_sxm": {"9.0"}}
    assert next_version("trtllm", available) == "1.3.0rc23"
    assert next_version("trtllm", {"h200_sxm": {"1.3.0rc20"}}) is None


def test_resolve() -> None:
    available = {"h200_sxm": {"1.3.0rc20", "1.3.0rc10"}}
    assert resolve_version("h200_sxm", "trtllm", "latest", available) == "1.3.0rc20"
    assert resolve_version("h200_sxm", "trtllm", "1.3.0rc10", available) == "1.3.0rc10"
    assert resolve_version("mine", "custom", "current", {"mine": {"1.0", "1.0.1"}}) == "1.0.1"
    with pytest.raises(ConfigError, match=r"no data of trtllm 7 on h200_sxm") as error:
        resolve_version("h200_sxm", "trtllm", "7", available)
    assert error.value.field == "backend_version"
    assert error.value.hint == "versions with data: 1.3.0rc20, 1.3.0rc10"
    with pytest.raises(ConfigError, match="trtllm has no previous version"):
        resolve_version("h200_sxm", "trtllm", "previous", available)


def test_source_order() -> None:
    holders = {("trtllm", v) for v in ("1.3.0rc10", "1.3.0rc20", "1.3.0rc23", "2.0")} | {("vllm", "0.24.0")}
    request = ("trtllm", "1.3.0rc23")
    found = source_order("mla_context_module", "mla", request, holders, reuse=["2.0"])
    assert found == [
        Source("trtllm", "1.3.0rc23", "requested"),
        Source("trtllm", "2.0", "reuse"),
        Source("trtllm", "1.3.0rc20", "earlier"),
        Source("trtllm", "1.3.0rc10", "earlier"),
        Source("vllm", "0.24.0", "shared"),
    ]
    assert all(s.origin != "shared" for s in source_order("mla_context_module", "comm", request, holders))
    assert source_order("dsv4_megamoe_module", "moe", request, holders) == [Source(*request, "requested")]
    assert source_order("gemm", "gemm", ("sglang", "0.5.14"), holders) == []


def lanes_table(lanes: dict[str, tuple[int, int]], donor: tuple[str, ...] = ()) -> Table:
    """A table whose lanes own (slices, rows per slice); ``donor`` lanes come from an earlier version."""
    rows = [(lane, head, row) for lane, (slices, n) in lanes.items() for head in range(slices) for row in range(n)]
    names = tuple(lanes)
    columns = {
        "kernel_source": np.array([names.index(lane) for lane, _, _ in rows], np.uint8),
        "head_dim": np.array([64 * (head + 1) for _, head, _ in rows], np.int32),
        "num_heads": np.array([32 for _ in rows], np.int32),
        "num_key_value_heads": np.array([8 for _ in rows], np.int32),
        "isl": np.array([row for _, _, row in rows], np.int32),
    }
    source = np.array([lane in donor for lane, _, _ in rows], np.uint8)
    sources = (Source("b", "2", "requested"), Source("b", "1", "earlier"))
    values = {"latency_ms": np.ones(len(rows), np.float32)}
    return Table("context_attention", columns, {"kernel_source": names}, values, source, sources)


def test_lanes_without_a_default_are_sorted_by_name() -> None:
    table = lanes_table({"z": (5, 5), "default": (1, 1), "a": (1, 1)})
    assert attention_lanes(table, "trtllm", "1.3.0rc20", 90) == ("default", "a", "z")


def test_framework_default_then_known_lanes_by_coverage() -> None:
    table = lanes_table({"other": (9, 9), "triton": (1, 9), "flashinfer": (2, 1), "trtllm_mha": (2, 3), "fa3": (1, 1)})
    assert attention_lanes(table, "sglang", "0.5.14", 90) == ("fa3", "trtllm_mha", "flashinfer", "triton", "other")
    assert attention_lanes(table, "sglang", "0.6", 100)[0] == "triton"
    assert attention_lanes(table, "sglang", "0.5.13", 90) == ("fa3", "flashinfer", "other", "triton", "trtllm_mha")


def test_override_comes_first_and_donor_lanes_last() -> None:
    table = lanes_table({"trtllm_mha": (9, 9), "fa3": (1, 1), "triton": (1, 1)}, donor=("trtllm_mha",))
    assert attention_lanes(table, "sglang", "0.5.14", 90, "triton") == ("triton", "fa3", "trtllm_mha")
    with pytest.raises(ConfigError, match="'fast' is not an attention backend of sglang"):
        attention_lanes(table, "sglang", "0.5.14", 90, "fast")
