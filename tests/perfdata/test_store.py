"""Opening databases: merged sources, codes, first path wins, the shipped packs, damaged packs."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from serveopt.errors import ConfigError, CorruptPack
from serveopt.perfdata.archive import DEFAULT_PACKS, shelf_systems
from serveopt.perfdata.importer import import_tables
from serveopt.perfdata.store import Source, Table, open_database
from serveopt.perfdata.versions import attention_lanes
from tests.perfdata.trees import attention, gemm, small_tree, write, write_reuse


def test_sources_join_in_priority_order(tmp_path: Path) -> None:
    database = open_database("tiny", "trtllm", "1.3.0rc20", [str(small_tree(tmp_path))])
    table = database.table("gemm")
    assert isinstance(table, Table)
    assert table.sources == (
        Source("trtllm", "1.3.0rc20", "requested"),
        Source("trtllm", "1.3.0rc9", "earlier"),
    )
    assert table.source.tolist() == [0, 0, 0, 1]
    assert table.categories["gemm_dtype"] == ("fp8", "bfloat16", "int8_wo")
    assert table.columns["gemm_dtype"].tolist() == [0, 1, 1, 2]
    assert table.categories["kernel_source"] == ("cublas", "cutlass")
    assert table.values["latency_ms"] == pytest.approx([0.4, 0.1, 0.3, 0.2])
    assert (len(table), table.code("gemm_dtype", "fp8"), table.code("gemm_dtype", "nvfp4")) == (4, 0, -1)
    assert database.table("gemm") is table
    assert database.table("moe") is None
    assert database.tables() == ("gemm",)


def test_arrays_are_read_only(tmp_path: Path) -> None:
    table = open_database("tiny", "trtllm", paths=[str(small_tree(tmp_path))]).table("gemm")
    assert table is not None
    for array in (*table.columns.values(), *table.values.values(), table.source):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_reuse_list_may_name_a_newer_version(tmp_path: Path) -> None:
    write(tmp_path, "tiny/gemm/vllm/0.24.0/gemm", gemm())
    write_reuse(tmp_path, "tiny/gemm/vllm/0.22.0", "gemm", "0.24.0")
    write(tmp_path, "tiny/attention/vllm/0.22.0/context_attention", attention("x"))
    import_tables(tmp_path, tmp_path / "packs")
    for path in (tmp_path, tmp_path / "packs"):
        database = open_database("tiny", "vllm", "0.22.0", [str(path)])
        assert database.sources("gemm") == [Source("vllm", "0.24.0", "reuse")]


def test_shared_kernels_lend_only_their_lanes(tmp_path: Path) -> None:
    rows = pl.DataFrame({"kernel_source": ["default", "special"], "num_heads": [8, 8], "latency": [1.0, 2.0]})
    write(tmp_path, "tiny/mla/vllm/0.24.0/mla_context_module", rows)
    write(tmp_path, "tiny/gemm/trtllm/1.3.0rc20/gemm", gemm())
    table = open_database("tiny", "trtllm", paths=[str(tmp_path)]).table("mla_context_module")
    assert table is not None
    assert table.sources == (Source("vllm", "0.24.0", "shared"),)
    assert table.values["latency_ms"].tolist() == [1.0]


def test_columns_that_one_source_lacks(tmp_path: Path) -> None:
    write(tmp_path, "tiny/gemm/trtllm/1.3.0rc20/gemm", gemm(model="m", tp_size=2, power=300.0))
    write(tmp_path, "tiny/gemm/trtllm/1.3.0rc10/gemm", gemm((("fp8", 1, 0.1),)))
    table = open_database("tiny", "trtllm", paths=[str(tmp_path)]).table("gemm")
    assert table is not None
    assert table.categories["model"] == ("m", "")
    assert table.columns["tp_size"].tolist() == [2, 2, 2, -1]
    assert table.values["power_w"].tolist()[:3] == [300.0] * 3
    assert np.isnan(table.values["power_w"][3])


def test_first_path_wins_per_table(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    write(mine, "tiny/gemm/trtllm/1.3.0rc20/gemm", gemm((("fp8", 1, 7.0),)))
    paths = [str(mine), str(small_tree(tmp_path / "base")), "default"]
    table = open_database("tiny", "trtllm", paths=paths).table("gemm")
    assert table is not None
    assert table.values["latency_ms"].tolist() == pytest.approx([7.0, 0.2])
    assert len(open_database("h200_sxm", "trtllm", paths=paths).tables()) > 10


def test_many_words_and_many_runs(tmp_path: Path) -> None:
    lanes = [f"lane{i % 300}" for i in range(5000)]
    frame = pl.DataFrame({"kernel_source": lanes, "m": range(5000), "latency": [1.0] * 5000})
    write(tmp_path, "tiny/gemm/trtllm/1.3.0rc20/gemm", frame)
    table = open_database("tiny", "trtllm", paths=[str(tmp_path)]).table("gemm")
    assert table is not None
    assert table.columns["kernel_source"].dtype == np.uint16
    words = [table.categories["kernel_source"][code] for code in table.columns["kernel_source"]]
    assert words == lanes


def test_wrong_questions(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no measured data of h300") as error:
        open_database("h300", "trtllm")
    assert "h200_sxm" in error.value.hint
    with pytest.raises(ConfigError, match="no measured data of trtllm on b60") as error:
        open_database("b60", "trtllm")
    assert error.value.hint == "backends with data: vllm"
    with pytest.raises(ConfigError, match="is not a directory") as error:
        open_database("h200_sxm", "trtllm", paths=[str(tmp_path / "absent")])
    assert error.value.field == "systems_paths"


@pytest.mark.parametrize("system", shelf_systems("default"))
def test_every_shipped_system_opens(system: str) -> None:
    backends = {folder.split("/")[1] for folder in _members(system)} & {"trtllm", "sglang", "vllm"}
    for backend in sorted(backends):
        database = open_database(system, backend)
        assert {"gemm", "context_attention", "generation_attention", "custom_allreduce"} <= set(database.tables())
        collective = database.table("oneccl" if system == "b60" else "nccl")
        assert collective is not None
        assert "all_reduce" in collective.categories["op_name"]


def _members(system: str) -> list[str]:
    import zipfile

    with zipfile.ZipFile(DEFAULT_PACKS / f"{system}.zip") as pack:
        return [name for name in pack.namelist() if name.endswith(".parquet")]


def test_shipped_packs_stay_small() -> None:
    packs = list(DEFAULT_PACKS.glob("*.zip"))
    assert len(packs) == 10
    assert sum(pack.stat().st_size for pack in packs) <= 25e6


def test_deepep_phases_add_up() -> None:
    table = open_database("h200_sxm", "sglang").table("wideep_deepep_normal")
    assert table is not None
    parts = table.values["dispatch_transmit_ms"] + table.values["dispatch_notify_ms"]
    assert np.array_equal(table.values["dispatch_ms"], parts)
    assert np.array_equal(table.values["latency_ms"], table.values["dispatch_ms"] + table.values["combine_ms"])


@pytest.mark.parametrize(
    ("system", "backend", "name", "sm_version", "lanes"),
    [
        ("h200_sxm", "sglang", "context_attention", 90, "fa3 triton"),
        ("b200_sxm", "sglang", "generation_attention", 100, "triton trtllm_mha flashinfer"),
        ("h200_sxm", "vllm", "context_attention", 90, "vllm_flash_attn_fa3 vllm_flash_attn_fa4"),
        (
            *("b200_sxm", "vllm", "context_attention", 100),
            "vllm_flashinfer_trtllmprefill vllm_flashinfer_trtllmdecode vllm_triton_attn vllm_flashinfer",
        ),
        (
            *("b200_sxm", "vllm", "generation_attention", 100),
            "vllm_flashinfer_trtllmdecode vllm_triton_attn vllm_flashinfer",
        ),
        ("b200_sxm", "trtllm", "context_attention", 100, "torch_flow torch_flow_flashinfer"),
    ],
)
def test_lanes_of_shipped_tables(system: str, backend: str, name: str, sm_version: int, lanes: str) -> None:
    database = open_database(system, backend)
    table = database.table(name)
    assert table is not None
    assert attention_lanes(table, backend, database.version, sm_version) == tuple(lanes.split())


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    import_tables(small_tree(tmp_path), tmp_path / "packs")
    pack = tmp_path / "packs" / "tiny.zip"
    content = bytearray(pack.read_bytes())
    at = content.index(b"PAR1") + 30
    content[at] ^= 1
    pack.write_bytes(content)
    database = open_database("tiny", "sglang", paths=[str(pack.parent)])
    with pytest.raises(CorruptPack, match=r"pack of tiny is damaged: attention/sglang/0\.5\.14/context_attention"):
        database.table("context_attention")


def test_not_a_pack(tmp_path: Path) -> None:
    (tmp_path / "tiny.zip").write_bytes(b"nothing like a zip")
    with pytest.raises(CorruptPack, match="pack of tiny is damaged"):
        open_database("tiny", "trtllm", paths=[str(tmp_path)])
