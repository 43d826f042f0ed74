"""Lists what is there: systems, backends, versions, families and rows, without reading the tables."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from serveopt.errors import CorruptPack
from serveopt.perfdata.archive import Member, PackShelf, Shelf, find_shelf, shelf_systems
from serveopt.perfdata.versions import slot_version, version_key


@dataclass(frozen=True, slots=True)
class Entry:
    """The tables of one directory: a family of one version of one backend on one system."""

    system: str
    backend: str
    version: str
    family: str
    tables: tuple[str, ...]
    rows: int

    @property
    def is_current(self) -> bool:
        """Whether this is the version that a search takes when none is asked for."""
        return slot_version(self.system, self.backend, "current") == self.version


def inventory(paths: Sequence[str] = ("default",), systems: Iterable[str] = ()) -> list[Entry]:
    """Return the entries of all ``systems`` (default: every one) in ``paths``; the first path wins per table.

    >>> sum(len(entry.tables) for entry in inventory())
    736
    """
    found = sorted({name for path in paths for name in shelf_systems(path)})
    wanted = set(systems)
    entries: list[Entry] = []
    for system in (name for name in found if not wanted or name in wanted):
        rows: dict[Member, int] = {}
        for path in paths:
            shelf = find_shelf(path, system)
            if shelf is not None:
                rows = _rows(shelf) | rows
        entries += _entries(system, rows)
    return entries


def _entries(system: str, rows: dict[Member, int]) -> list[Entry]:
    groups: dict[tuple[str, str, str], list[Member]] = {}
    for member in sorted(rows):
        groups.setdefault((member.backend, member.version, member.family), []).append(member)
    return [
        Entry(system, *key, tuple(m.table for m in groups[key]), sum(rows[m] for m in groups[key]))
        for key in sorted(groups, key=lambda key: (key[0], version_key(key[1]), key[2]))
    ]


def _rows(shelf: Shelf) -> dict[Member, int]:
    if isinstance(shelf, PackShelf):
        tables = shelf.manifest["tables"]
        try:
            return {member: int(tables[place]["rows"]) for member, place in shelf.members().items()}
        except (KeyError, TypeError, ValueError):
            raise CorruptPack(f"{shelf.path.name}: the manifest does not list every table") from None
    return {member: _count(place) for member, place in shelf.members().items()}


def _count(place: str) -> int:
    import polars as pl

    try:
        return int(pl.scan_parquet(place).select(pl.len()).collect().item())
    except (pl.exceptions.PolarsError, OSError):
        raise CorruptPack(f"{place}: not a readable Parquet file") from None
