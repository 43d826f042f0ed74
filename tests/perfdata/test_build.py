"""Building packs: the same bytes each time, from a directory or a wheel; precision; provenance."""

import hashlib
import json
import os
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serveopt.errors import ConfigError, CorruptPack, DataError
from serveopt.perfdata.archive import DEFAULT_PACKS, PackShelf, read_parquet
from serveopt.perfdata.build import SourceFiles, build_packs, round_mantissa
from serveopt.perfdata.schema import VALUE_COLUMNS, canonical
from serveopt.perfdata.verify import verify
from tests.perfdata.trees import gemm, small_tree, write, write_reuse


@given(st.floats(min_value=1e-9, max_value=1e9))
def test_rounding_stays_within_its_bound(value: float) -> None:
    rounded = float(round_mantissa(np.array([value]))[0])
    assert abs(rounded / value - 1) <= 2.0**-11 * 1.001


def test_rounding_keeps_zero_and_order() -> None:
    values = np.concatenate([[0.0], np.geomspace(1e-6, 1e6, 10_000)])
    rounded = round_mantissa(values)
    assert rounded[0] == 0
    assert (np.diff(rounded) >= 0).all()


def test_packs_are_equal_byte_for_byte(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    tree = small_tree(tmp_path / "tree")
    write_reuse(tree, "tiny/gemm/trtllm/1.3.0rc20", "moe", "1.3.0rc9")
    wheel = tmp_path / "data.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for file in sorted(tree.rglob("*"), reverse=True):
            if file.is_file():
                archive.write(file, f"package/systems/{file.relative_to(tree)}")
    calls: list[tuple[str, int, int]] = []
    for out, source in (("a", tree), ("b", tree), ("c", wheel)):
        build_packs(source, tmp_path / out, lambda *call: calls.append(call))
    for name in ("tiny.zip", "small.zip", "SHA256SUMS"):
        first = (tmp_path / "a" / name).read_bytes()
        assert first == (tmp_path / "b" / name).read_bytes() == (tmp_path / "c" / name).read_bytes()
    assert hashlib.sha256(wheel.read_bytes()).hexdigest() in (tmp_path / "c" / "PROVENANCE.md").read_text()
    assert calls[-1] == ("done", 4, 4)
    assert verify(str(tmp_path / "a")).findings == ()


def test_what_a_pack_says(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    reports = build_packs(small_tree(tmp_path), tmp_path / "packs")
    assert sum(report.repeated for report in reports) == 1
    shelf = PackShelf(tmp_path / "packs" / "tiny.zip")
    entry = shelf.manifest["tables"]["gemm/trtllm/1.3.0rc20/gemm.parquet"]
    assert (entry["rows"], entry["repeated"]) == (3, 1)
    frame = pl.read_parquet(BytesIO(shelf.bytes_of("gemm/trtllm/1.3.0rc20/gemm.parquet")))
    assert frame["latency_ms"].to_list() == pytest.approx([0.4, 0.1, 0.3], rel=5e-4)
    assert frame.schema["latency_ms"] == pl.Float32
    text = (tmp_path / "packs" / "PROVENANCE.md").read_text()
    assert "4 tables, 10 rows" in text.replace(",", ",")
    assert "| gemm | 1 | tiny 1 |" in text


def test_wrong_sources(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no directory data"):
        SourceFiles(tmp_path)
    with pytest.raises(ConfigError, match="neither a wheel nor a directory"):
        SourceFiles(tmp_path / "absent.whl")
    pytest.importorskip("pyarrow")
    (tmp_path / "data").mkdir()
    with pytest.raises(ConfigError, match="holds no tables"):
        build_packs(tmp_path, tmp_path / "out")
    file = write(tmp_path, "tiny/gemm/trtllm/1/gemm", gemm((("fp8", 1, -1.0),)))
    with pytest.raises(DataError, match=r"gemm_perf\.parquet: column latency_ms holds a negative value"):
        build_packs(tmp_path, tmp_path / "out")
    file.write_bytes(b"PAR1")
    with pytest.raises(CorruptPack, match=r"gemm_perf\.parquet: not a readable Parquet file"):
        build_packs(tmp_path, tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write to"):
        build_packs(small_tree(tmp_path / "good"), tmp_path / "file" / "out")


def test_committed_manifests_match_their_tables() -> None:
    with zipfile.ZipFile(DEFAULT_PACKS / "b60.zip") as pack:
        manifest = json.loads(pack.read("manifest.json"))
        assert set(pack.namelist()) == {"manifest.json", *manifest["tables"]}
        assert {info.date_time for info in pack.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.parametrize("system", ["b60", "h200_sxm"])
def test_committed_pack_equals_the_wheel(system: str) -> None:
    source = os.environ.get("SERVEOPT_WHEEL")
    if not source:
        pytest.skip("SERVEOPT_WHEEL does not point to the measured-data wheel")
    files = SourceFiles(Path(source))
    shelf = PackShelf(DEFAULT_PACKS / f"{system}.zip")
    tables = files.systems()[system].tables
    assert set(tables) == set(shelf.members())
    for member, place in tables.items():
        wanted = canonical(member.table, read_parquet(files.read(place), place)).frame
        packed = shelf.read(member)
        keys = [name for name in wanted.columns if name not in VALUE_COLUMNS]
        assert packed.select(keys).equals(wanted.select(keys)), member
        for name in set(wanted.columns) - set(keys):
            exact, stored = wanted[name].to_numpy(), packed[name].to_numpy().astype(float)
            assert np.array_equal(exact == 0, stored == 0), member
            assert (np.abs(stored - exact) <= 5e-4 * exact).all(), member
