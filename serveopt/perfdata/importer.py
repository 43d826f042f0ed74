"""Turns a user's own tables, in the layout of the measured-data wheel, into packs that --systems-paths takes.

The tables become canonical exactly as in the shipped packs, but keep full float32 precision. System descriptions
(``<system>.yaml``) are copied along, so that the destination is complete on its own.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from serveopt.errors import ConfigError, DataError
from serveopt.perfdata.archive import Member, read_parquet
from serveopt.perfdata.build import EXPECTED, SourceFiles, SystemSource, read_reuse_lists
from serveopt.perfdata.pack_writer import PackedTable, write_pack, write_sums
from serveopt.perfdata.schema import VALUE_COLUMNS, canonical
from serveopt.perfdata.verify import check_frame

if TYPE_CHECKING:
    import polars as pl

Progress = Callable[[str, int, int], None]  # what, done, total


@dataclass(frozen=True, slots=True)
class Imported:
    """One system that was imported."""

    system: str
    pack: Path
    tables: int
    rows: int
    repeated: int


def import_tables(
    source: Path, dest: Path, progress: Progress | None = None, *, replace: bool = False
) -> list[Imported]:
    """Write a pack per system found in ``source`` to ``dest`` and return what was imported.

    Nothing is written unless every table is sound. An existing pack is kept unless ``replace``.
    """
    files = SourceFiles(source)
    systems = files.systems()
    if not systems:
        raise ConfigError(f"{source} holds no tables", hint=EXPECTED)
    taken = [system for system in systems if (dest / f"{system}.zip").exists()]
    if taken and not replace:
        raise ConfigError(f"{dest} already has {', '.join(taken)}", field="to", hint="pass --replace to overwrite")
    packs = {system: _pack_system(content, files, progress) for system, content in systems.items()}
    try:
        dest.mkdir(parents=True, exist_ok=True)
        imported = [_write(dest, system, packs[system], systems[system], files) for system in systems]
        write_sums(dest)
        _copy_descriptions(source, dest, set(systems))
    except OSError as error:
        raise ConfigError(f"cannot write to {dest}: {error.strerror or error}", field="to") from None
    return imported


def _pack_system(content: SystemSource, files: SourceFiles, progress: Progress | None) -> dict[Member, PackedTable]:
    packed = {}
    for done, (member, place) in enumerate(sorted(content.tables.items())):
        if progress:
            progress(place, done, len(content.tables))
        clean = canonical(member.table, read_parquet(files.read(place), place), where=place)
        fault = check_frame(member.table, clean.frame)
        if fault:
            raise DataError(f"{place}: {fault}")
        packed[member] = PackedTable(_to_parquet(clean.frame), len(clean.frame), clean.repeated)
    return packed


def _to_parquet(frame: "pl.DataFrame") -> bytes:
    import polars as pl

    sink = BytesIO()
    values = [pl.col(name).cast(pl.Float32) for name in frame.columns if name in VALUE_COLUMNS]
    frame.with_columns(values).write_parquet(sink, compression="zstd", statistics=False)
    return sink.getvalue()


def _write(
    dest: Path, system: str, packed: dict[Member, PackedTable], content: SystemSource, files: SourceFiles
) -> Imported:
    pack = dest / f"{system}.zip"
    write_pack(pack, packed, read_reuse_lists(content, files))
    tables = packed.values()
    return Imported(system, pack, len(packed), sum(t.rows for t in tables), sum(t.repeated for t in tables))


def _copy_descriptions(source: Path, dest: Path, systems: set[str]) -> None:
    if not source.is_dir():
        return
    for folder in (source, source / "systems", source / "aiconfigurator_core" / "systems"):
        for file in sorted(folder.glob("*.yaml")):
            if file.stem in systems:
                shutil.copyfile(file, dest / file.name)
