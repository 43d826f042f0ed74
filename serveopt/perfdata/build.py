"""Builds the packs from the measured-data wheel or from a directory that holds its ``systems`` tree.

Every table becomes one Parquet file with dictionary-coded keys and float32 values rounded to 10 mantissa bits, so
that any reader sees milliseconds, at most 2^-11 = 0.049 % off, and the low bytes of the byte-stream-split values
compress to nothing. Zeros stay zero. Nothing in the output depends on time, locale or the order of a directory
listing: the same source and the same pyarrow (extra ``build``) give the same bytes.
"""

import hashlib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from serveopt.errors import ConfigError, CorruptPack, ServeoptError
from serveopt.perfdata.archive import Member, read_parquet, read_reuse
from serveopt.perfdata.pack_writer import SUMS, PackedTable, write_pack, write_sums
from serveopt.perfdata.schema import VALUE_COLUMNS, canonical, table_name

if TYPE_CHECKING:
    import polars as pl

MANTISSA_BITS = 10
EXPECTED = "expected data/<system>/<family>/<backend>/<version>/<table>_perf.parquet"
Progress = Callable[[str, int, int], None]  # what, done, total


@dataclass
class SystemSource:
    """The files of one system in the source: tables, and reuse lists with the (backend, version) they belong to."""

    tables: dict[Member, str] = field(default_factory=dict)
    reuse: dict[str, tuple[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TableReport:
    """What became of one source table; ``labels`` are row versions that differ from the directory's."""

    system: str
    member: Member
    source_rows: int
    repeated: int
    labels: tuple[str, ...]


class SourceFiles:
    """The source's files by their path below ``systems``, in a wheel or a directory."""

    def __init__(self, source: Path) -> None:
        self.path = source
        if source.is_dir():
            roots = (source, source / "systems", source / "aiconfigurator_core" / "systems")
            root = next((r for r in roots if (r / "data").is_dir()), None)
            if root is None:
                raise ConfigError(f"{source} has no directory data")
            self._zip: zipfile.ZipFile | None = None
            self._prefix = f"{root}/"
            self.names = sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())
        elif source.is_file() and zipfile.is_zipfile(source):
            self._zip = zipfile.ZipFile(source)
            inside = [n for n in self._zip.namelist() if "/systems/data/" in n and not n.endswith("/")]
            self._prefix = inside[0].partition("data/")[0] if inside else ""
            self.names = sorted(n.removeprefix(self._prefix) for n in inside)
        else:
            raise ConfigError(f"{source} is neither a wheel nor a directory")

    @property
    def sha256(self) -> str:
        """The wheel's digest, empty for a directory."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest() if self._zip else ""

    def read(self, name: str) -> bytes:
        """Return a file's bytes."""
        try:
            return self._zip.read(self._prefix + name) if self._zip else Path(self._prefix + name).read_bytes()
        except (OSError, zipfile.BadZipFile) as error:
            raise CorruptPack(f"{self.path}: {name} cannot be read ({error})") from None

    def systems(self) -> dict[str, SystemSource]:
        """Return what each system holds, sorted by name; systems without tables are left out."""
        found: dict[str, SystemSource] = {}
        for name in self.names:
            parts = name.split("/")
            if len(parts) != 6 or parts[0] != "data":
                continue
            _, system, family, backend, version, file = parts
            if file.endswith("_perf.parquet"):
                member = Member(family, backend, version, table_name(file))
                found.setdefault(system, SystemSource()).tables[member] = name
            elif file == "reuse.yaml":
                found.setdefault(system, SystemSource()).reuse[name] = (backend, version)
        return {system: found[system] for system in sorted(found) if found[system].tables}


def build_packs(source: Path, out: Path, progress: Progress | None = None) -> list[TableReport]:
    """Write one pack per system of ``source``, SHA256SUMS and PROVENANCE.md to ``out``; return what went in."""
    from serveopt.perfdata.provenance import write_provenance

    _require_pyarrow()
    files = SourceFiles(source)
    systems = files.systems()
    if not systems:
        raise ConfigError(f"{source} holds no tables", hint=EXPECTED)
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / SUMS).unlink(missing_ok=True)  # a stop half-way must not leave sums that no longer hold
    except OSError as error:
        raise ConfigError(f"cannot write to {out}: {error.strerror or error}", field="out") from None
    total = sum(len(content.tables) for content in systems.values())
    reports: list[TableReport] = []
    for system, content in systems.items():
        packed: dict[Member, PackedTable] = {}
        for member, place in content.tables.items():
            if progress:
                progress(f"{system} {member.table}", len(reports), total)
            packed[member], report = _pack_table(system, member, files.read(place), place)
            reports.append(report)
        write_pack(out / f"{system}.zip", packed, read_reuse_lists(content, files))
    write_sums(out)
    write_provenance(out, reports, files.sha256)
    if progress:
        progress("done", total, total)
    return reports


def read_reuse_lists(content: SystemSource, files: SourceFiles) -> dict[tuple[str, str, str], list[str]]:
    """Return (backend, version, table) -> versions that may serve it, from the reuse lists of a system."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for place, (backend, version) in sorted(content.reuse.items()):
        for table, donor in read_reuse(files.read(place), place):
            found.setdefault((backend, version, table), []).append(donor)
    return found


def _require_pyarrow() -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise ServeoptError("building packs needs pyarrow", hint="python -m pip install 'serveopt[build]'") from None


def _pack_table(system: str, member: Member, content: bytes, place: str) -> tuple[PackedTable, TableReport]:
    raw = read_parquet(content, place)
    clean = canonical(member.table, raw, where=place)
    labels = raw["version"].unique().to_list() if "version" in raw.columns else []
    others = tuple(sorted(str(label) for label in labels if str(label) != member.version))
    report = TableReport(system, member, len(raw), clean.repeated, others)
    return PackedTable(write_parquet(clean.frame), len(clean.frame), clean.repeated), report


def write_parquet(frame: "pl.DataFrame") -> bytes:
    """Return the bytes of a canonical frame as one Parquet file with one row group."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays: dict[str, Any] = {}
    for column in frame.get_columns():
        if column.name in VALUE_COLUMNS:
            arrays[column.name] = pa.array(round_mantissa(column.to_numpy()))
        elif column.dtype.is_numeric():
            arrays[column.name] = pa.array(column.to_numpy())
        else:
            arrays[column.name] = pa.array(column.to_list(), pa.string())
    fields = [pa.field(name, array.type, nullable=False) for name, array in arrays.items()]
    values = [name for name in arrays if name in VALUE_COLUMNS]
    sink = BytesIO()
    pq.write_table(
        pa.Table.from_arrays(list(arrays.values()), schema=pa.schema(fields)),
        sink,
        compression="zstd",
        compression_level=19,
        use_dictionary=[name for name in arrays if name not in values],
        column_encoding=dict.fromkeys(values, "BYTE_STREAM_SPLIT"),
        row_group_size=max(1, len(frame)),
        data_page_size=1 << 26,
        dictionary_pagesize_limit=1 << 22,
        write_statistics=False,
        store_schema=False,
        version="2.6",
    )
    return sink.getvalue()


def round_mantissa(values: np.ndarray[Any, Any], bits: int = MANTISSA_BITS) -> np.ndarray[Any, Any]:
    """Return ``values`` as float32 rounded to ``bits`` mantissa bits; relative error at most 2^-(bits+1).

    >>> round_mantissa(np.array([0.0, 1.0, 3.14159])).tolist()
    [0.0, 1.0, 3.140625]
    """
    shift = 23 - bits
    word = values.astype(np.float32).view(np.uint32)
    rounded = ((word + np.uint32(1 << (shift - 1))) >> np.uint32(shift)) << np.uint32(shift)
    return rounded.view(np.float32)
