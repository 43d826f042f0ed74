"""Writes packs: a stored zip with fixed timestamps, the manifest first, then the tables sorted by path."""

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from serveopt.perfdata.archive import FORMAT, MANIFEST, Member

SUMS = "SHA256SUMS"


@dataclass(frozen=True, slots=True)
class PackedTable:
    """One table ready for a pack: its Parquet bytes, its rows, and how many source rows repeated a key."""

    content: bytes
    rows: int
    repeated: int


def write_pack(
    path: Path,
    tables: Mapping[Member, PackedTable],
    reuse: Mapping[tuple[str, str, str], list[str]],
) -> None:
    """Write the pack of the system that ``path`` is named after; an existing file is replaced in one step."""
    partial = path.with_suffix(".zip.part")
    ordered = {member.path: tables[member] for member in sorted(tables)}
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as pack:
        _add(pack, MANIFEST, _manifest(path.stem, ordered, reuse))
        for name, table in ordered.items():
            _add(pack, name, table.content)
    partial.replace(path)


def write_sums(folder: Path) -> None:
    """Write SHA256SUMS (the format of sha256sum) over the packs in ``folder``."""
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in sorted(folder.glob("*.zip"))]
    (folder / SUMS).write_text("".join(lines), encoding="ascii")


def _add(pack: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    entry.create_system = 3  # the host system would be written otherwise
    entry.external_attr = 0o100644 << 16
    pack.writestr(entry, content)


def _manifest(system: str, tables: Mapping[str, PackedTable], reuse: Mapping[tuple[str, str, str], list[str]]) -> bytes:
    lists: dict[str, dict[str, list[str]]] = {}
    for (backend, version, table), donors in sorted(reuse.items()):
        lists.setdefault(f"{backend}/{version}", {})[table] = donors
    content = {
        "format": FORMAT,
        "system": system,
        "reuse": lists,
        "tables": {
            path: {
                "rows": table.rows,
                "repeated": table.repeated,
                "sha256": hashlib.sha256(table.content).hexdigest(),
            }
            for path, table in tables.items()
        },
    }
    return (json.dumps(content, indent=1) + "\n").encode()
