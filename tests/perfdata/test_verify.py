"""A defect anywhere in a pack is found, and the system and the table are named."""

import shutil
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from serveopt.errors import CorruptPack
from serveopt.perfdata.archive import DEFAULT_PACKS, MANIFEST
from serveopt.perfdata.importer import import_tables
from serveopt.perfdata.pack_writer import SUMS
from serveopt.perfdata.schema import canonical
from serveopt.perfdata.verify import check_frame, verify
from tests.perfdata.trees import gemm, small_tree, write


@pytest.fixture
def packs(tmp_path: Path) -> Path:
    import_tables(small_tree(tmp_path / "tree"), tmp_path / "packs")
    return tmp_path / "packs"


def flip(file: Path, at: int) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 0x10
    file.write_bytes(content)


def test_sound_packs(packs: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    result = verify(str(packs), lambda *call: calls.append(call))
    result.raise_if_damaged()
    assert (result.packs, result.tables, result.rows) == (2, 4, 9)
    assert calls == [("small", 0, 2), ("tiny", 1, 2), ("done", 2, 2)]


def test_every_flipped_byte_is_found(packs: Path) -> None:
    pack = packs / "small.zip"
    sound = pack.read_bytes()
    rng = np.random.default_rng(7)
    for at in rng.choice(len(sound), 60, replace=False):
        flip(pack, int(at))
        result = verify(str(packs))
        assert result.findings, f"byte {at}"
        assert all(finding.system == "small" for finding in result.findings)
        pack.write_bytes(sound)


def test_a_flipped_byte_names_system_and_table(packs: Path) -> None:
    with zipfile.ZipFile(packs / "tiny.zip") as pack:
        entry = pack.getinfo("gemm/trtllm/1.3.0rc9/gemm.parquet")
    flip(packs / "tiny.zip", entry.header_offset + 30 + len(entry.filename) + entry.file_size // 2)
    with pytest.raises(CorruptPack) as error:
        verify(str(packs)).raise_if_damaged()
    assert error.value.message == (
        "tiny: gemm/trtllm/1.3.0rc9/gemm.parquet: checksum does not match or the file is unreadable"
    )


def test_a_flipped_byte_in_a_committed_pack(tmp_path: Path) -> None:
    for name in ("b60.zip", SUMS):
        shutil.copy(DEFAULT_PACKS / name, tmp_path / name)
    sums = [line for line in (tmp_path / SUMS).read_text().splitlines() if "b60" in line]
    (tmp_path / SUMS).write_text(sums[0] + "\n")
    assert verify(str(tmp_path)).findings == ()
    flip(tmp_path / "b60.zip", 100_000)
    (finding,) = verify(str(tmp_path)).findings
    assert finding.system == "b60"
    assert finding.table.endswith(".parquet")


def test_exchanged_and_missing_tables(packs: Path) -> None:
    with zipfile.ZipFile(packs / "tiny.zip") as pack:
        content = {name: pack.read(name) for name in pack.namelist()}
    rc20, rc9 = "gemm/trtllm/1.3.0rc20/gemm.parquet", "gemm/trtllm/1.3.0rc9/gemm.parquet"
    content[rc20] = content[rc9]
    del content[rc9]
    content["gemm/trtllm/2/gemm.parquet"] = content[rc20]
    (packs / SUMS).unlink()
    with zipfile.ZipFile(packs / "tiny.zip", "w") as pack:
        for name, data in content.items():
            pack.writestr(name, data)
    found = {finding.table: finding.what for finding in verify(str(packs)).findings}
    assert found == {
        rc20: f"digest differs from {MANIFEST}",
        rc9: "is missing",
        "gemm/trtllm/2/gemm.parquet": f"is not in {MANIFEST}",
    }


def test_missing_and_foreign_packs(packs: Path) -> None:
    shutil.copy(packs / "small.zip", packs / "other.zip")
    (packs / "tiny.zip").unlink()
    found = [str(finding) for finding in verify(str(packs)).findings]
    assert found == ["tiny: tiny.zip is missing", f"other: other.zip is not in {SUMS}"]


def test_a_tree_is_checked_too(tmp_path: Path) -> None:
    tree = small_tree(tmp_path)
    assert verify(str(tree)).findings == ()
    write(tree, "tiny/moe/trtllm/1/moe", gemm((("fp8", 1, 1e9),)))
    write(tree, "tiny/moe/trtllm/2/moe", gemm((("fp8", 1, float("nan")),)))
    found = {finding.table: finding.what for finding in verify(str(tree)).findings}
    assert found["moe/trtllm/1/moe.parquet"] == "latency_ms leaves its range 0 to 1e+07"
    assert "latency_ms holds a missing or non-finite value" in found["moe/trtllm/2/moe.parquet"]


def test_frame_checks() -> None:
    frame = canonical("gemm", gemm()).frame
    assert check_frame("gemm", frame) == ""
    assert check_frame("gemm", frame.drop("latency_ms")) == "no latency column"
    zero = frame.with_columns(pl.lit(0.0).alias("latency_ms"))
    assert check_frame("gemm", zero) == "latency_ms holds a zero"
    assert check_frame("computescale", zero) == ""
    assert check_frame("gemm", frame.with_columns(pl.lit(0).alias("m"))) == "m leaves its range 1 to 1073741824"
    assert check_frame("gemm", frame.with_columns(pl.lit(None, pl.Int32).alias("m"))) == "m holds a missing value"
    assert "unknown type" in check_frame("gemm", frame.with_columns(pl.lit(True).alias("flag")))
