"""Where tables lie on disk: packs (one zip per system) and trees in the layout of the measured-data wheel.

A pack ``<system>.zip`` is an uncompressed zip of one Parquet file per table, ``<family>/<backend>/<version>/
<table>.parquet``, and ``manifest.json`` (rows and SHA-256 of each, reuse lists). A tree is a directory with
``data/<system>/<family>/<backend>/<version>/<table>_perf.parquet``, and optional ``reuse.yaml`` beside the tables.
Both are read through the same three calls: members, reuse, read.
"""

import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from serveopt.errors import ConfigError, CorruptPack
from serveopt.perfdata.schema import canonical, table_name

if TYPE_CHECKING:
    import polars as pl

DEFAULT_PACKS = Path(__file__).parent / "packs"
MANIFEST = "manifest.json"
FORMAT = 1


class Member(NamedTuple):
    """One table of one system."""

    family: str
    backend: str
    version: str
    table: str

    @property
    def path(self) -> str:
        """The member's path inside a pack."""
        return "/".join(self[:3]) + f"/{self.table}.parquet"


Reuse = Mapping[tuple[str, str, str], Sequence[str]]
"""(backend, version, table) -> other versions of the backend that may serve it."""


class Shelf(Protocol):
    """The tables of one system in one place."""

    path: Path
    system: str

    def members(self) -> Mapping[Member, str]: ...  # member -> where it lies, for messages and for read
    def reuse(self) -> Reuse: ...
    def read(self, member: Member) -> "pl.DataFrame": ...


class PackShelf:
    """The pack of one system."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.system = path.stem

    @cached_property
    def _zip(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.path)
        except (zipfile.BadZipFile, OSError) as error:
            raise corrupt(self.path, str(error)) from None

    @cached_property
    def _members(self) -> dict[Member, str]:
        found = {}
        for name in self._zip.namelist():
            parts = PurePosixPath(name).parts
            if len(parts) == 4 and name.endswith(".parquet"):
                found[Member(parts[0], parts[1], parts[2], table_name(parts[3]))] = name
        return found

    @cached_property
    def manifest(self) -> Mapping[str, Any]:
        """What the pack says about itself."""
        try:
            content = json.loads(self.bytes_of(MANIFEST))
        except ValueError as error:
            raise corrupt(self.path, f"{MANIFEST}: {error}") from None
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise corrupt(self.path, f"{MANIFEST} is not of format {FORMAT}")
        return content

    def members(self) -> Mapping[Member, str]:
        return self._members

    def reuse(self) -> Reuse:
        return {
            (backend, version, table): versions
            for place, tables in self.manifest["reuse"].items()
            for backend, version in [place.split("/")]
            for table, versions in tables.items()
        }

    def bytes_of(self, name: str) -> bytes:
        """Return the bytes of a member; CorruptPack if its checksum does not match."""
        try:
            return self._zip.read(name)
        except (zipfile.BadZipFile, zlib.error, NotImplementedError, KeyError, OSError, EOFError, RuntimeError):
            raise corrupt(self.path, f"{name} is missing or its checksum does not match") from None

    def read(self, member: Member) -> "pl.DataFrame":
        name = self._members[member]
        return read_parquet(self.bytes_of(name), f"{self.path.name}: {name}")


class TreeShelf:
    """One system of a tree in the wheel's layout; tables become canonical when they are read."""

    def __init__(self, root: Path, system: str) -> None:
        self.path = root / "data" / system
        self.system = system

    @cached_property
    def _members(self) -> dict[Member, str]:
        found = {}
        for file in sorted(self.path.glob("*/*/*/*_perf.parquet")):
            family, backend, version, name = file.relative_to(self.path).parts
            if not (file.parent / "INCOMPLETE.txt").exists():
                found[Member(family, backend, version, table_name(name))] = str(file)
        return found

    def members(self) -> Mapping[Member, str]:
        return self._members

    def reuse(self) -> Reuse:
        found: dict[tuple[str, str, str], list[str]] = {}
        for file in sorted(self.path.glob("*/*/*/reuse.yaml")):
            _, backend, version, _ = file.relative_to(self.path).parts
            for table, donor in read_reuse(file.read_bytes(), str(file)):
                found.setdefault((backend, version, table), []).append(donor)
        return found

    def read(self, member: Member) -> "pl.DataFrame":
        file = Path(self._members[member])
        return canonical(member.table, read_parquet(file.read_bytes(), str(file)), where=str(file)).frame


def read_reuse(text: bytes, where: str) -> Iterator[tuple[str, str]]:
    """Yield (table, version that may serve it) from a reuse.yaml."""
    import yaml

    try:
        content = yaml.load(text, Loader=getattr(yaml, "CBaseLoader", yaml.BaseLoader))
        for entry in content["reuse"]:
            yield table_name(entry["table"]), entry["from_version"]
    except (yaml.YAMLError, KeyError, TypeError):
        expected = "expected reuse: [{table: ..., from_version: ...}]"
        raise CorruptPack(f"{where}: not a reuse list", hint=expected) from None


def read_parquet(content: bytes, where: str) -> "pl.DataFrame":
    """Return the frame of a Parquet file's bytes; ``where`` names it in errors."""
    import polars as pl

    try:
        return pl.read_parquet(content)
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = (str(error).splitlines() or ["unreadable"])[0]
        raise CorruptPack(f"{where}: not a readable Parquet file ({reason})") from None


def corrupt(path: Path, reason: str) -> CorruptPack:
    """Return the error that names a damaged pack's system."""
    return CorruptPack(
        f"data pack of {path.stem} is damaged: {reason}", hint="run `serveopt data verify`, then reinstall the pack"
    )


def find_shelf(path: str, system: str) -> Shelf | None:
    """Return the shelf of ``system`` in one entry of the systems paths, None if it is not there."""
    root = data_root(path)
    pack = root / f"{system}.zip"
    if pack.is_file():
        return PackShelf(pack)
    tree = _tree_root(root)
    return TreeShelf(tree, system) if tree and (tree / "data" / system).is_dir() else None


def shelf_systems(path: str) -> list[str]:
    """Return the systems that one entry of the systems paths has data of."""
    root = data_root(path)
    names = {file.stem for file in root.glob("*.zip")}
    tree = _tree_root(root)
    if tree:
        names |= {folder.name for folder in (tree / "data").iterdir() if any(folder.glob("*/*/*/*_perf.parquet"))}
    return sorted(names)


def data_root(path: str) -> Path:
    """Return the directory that an entry of the systems paths means; "default" is the packs in the package."""
    root = DEFAULT_PACKS if path == "default" else Path(path).expanduser()
    if not root.is_dir():
        raise ConfigError(f"{path} is not a directory", field="systems_paths")
    return root


def _tree_root(root: Path) -> Path | None:
    for candidate in (root, root / "systems"):
        if (candidate / "data").is_dir():
            return candidate
    return None
