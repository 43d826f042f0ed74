"""Framework versions: their order, the slots current / previous / next, and which versions serve a table.

The sources of a table, in priority order (rows of an earlier source win):
1. the requested version; 2. the versions its reuse list names; 3. strictly earlier versions of the same backend,
newest first; 4. rows of shared kernels measured under another backend, newest version first.
Collective tables (family comm) stop after 3. Source: specs/op_model.md section 4 and, for lanes, section 2.4.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serveopt.errors import ConfigError

if TYPE_CHECKING:
    from serveopt.perfdata.store import Table

SLOTS = ("current", "previous", "next")
# What tells the slices of an attention table apart, kernel first.
SLICE_COLUMNS = (
    "kernel_source", "attn_dtype", "kv_cache_dtype", "head_dim", "window_size", "num_heads", "num_key_value_heads",
)  # fmt: skip
_VERSION = re.compile(r"v?(\d+(?:\.\d+)*)(?:\.?(a|b|rc)(\d+))?(?:\.post(\d+))?(?:\.dev(\d+))?")
_PHASE = {"dev": 0, "a": 1, "b": 2, "rc": 3, "final": 4, "post": 5}


@dataclass(frozen=True, slots=True)
class Source:
    """Where rows come from: ``origin`` is requested, reuse, earlier or shared."""

    backend: str
    version: str
    origin: str


@cache
def facts() -> Mapping[str, Any]:
    """Return the content of versions.yaml."""
    import yaml

    with Path(__file__).with_name("versions.yaml").open(encoding="utf-8") as file:
        return yaml.load(file, Loader=getattr(yaml, "CBaseLoader", yaml.BaseLoader))


def version_key(version: str) -> tuple[tuple[int, ...], int, int, int]:
    """Return the sort key of a version string (PEP 440 order: dev < rc < final < post).

    >>> sorted(["1.3.0", "1.3.0rc9", "1.3.0rc20", "1.3.0.post1", "1.3.0.dev4", "1.2"], key=version_key)
    ['1.2', '1.3.0.dev4', '1.3.0rc9', '1.3.0rc20', '1.3.0', '1.3.0.post1']
    """
    match = _VERSION.match(version)
    if match is None:
        return ((), 0, 0, 0)
    release, pre, pre_n, post, dev = match.groups()
    numbers = [int(part) for part in release.split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    if pre:
        phase, number = _PHASE[pre], int(pre_n)
    elif post is not None:
        phase, number = _PHASE["post"], int(post)
    elif dev is not None:
        phase, number = _PHASE["dev"], int(dev)
    else:
        phase, number = _PHASE["final"], 0
    return (tuple(numbers), phase, number, int(dev) if dev is not None else 1 << 62)


def newest_first(versions: Iterable[str]) -> list[str]:
    """Return ``versions`` sorted, newest first.

    >>> newest_first(["0.5.9", "0.5.14", "0.5.10"])
    ['0.5.14', '0.5.10', '0.5.9']
    """
    return sorted(versions, key=version_key, reverse=True)


def slot_version(system: str, backend: str, slot: str) -> str | None:
    """Return the version in slot current or previous of a backend on a system, None if the slot is empty.

    >>> slot_version("h200_sxm", "trtllm", "current")
    '1.3.0rc20'
    """
    slots = facts()["slots"]
    entry = slots.get(system, {}).get(backend) or slots["default"].get(backend, {})
    return entry.get(slot)


def next_version(backend: str, available: Mapping[str, Collection[str]]) -> str | None:
    """Return the highest version newer than current that any system without its own slots has.

    ``available`` maps systems to their versions of ``backend``.
    """
    slots = facts()["slots"]
    current = slot_version("default", backend, "current")
    if current is None:
        return None
    found = {v for system, versions in available.items() if system not in slots for v in versions}
    newer = [v for v in newest_first(found) if version_key(v) > version_key(current)]
    return newer[0] if newer else None


def resolve_version(system: str, backend: str, requested: str, available: Mapping[str, Collection[str]]) -> str:
    """Return the version that ``requested`` (a slot, "latest" or a version) means on ``system``.

    ``available`` maps systems to the versions of ``backend`` they have; only "next" looks beyond ``system``.

    >>> resolve_version("b60", "vllm", "previous", {"b60": ["0.20.0", "0.26.0"]})
    '0.20.0'
    """
    own = available.get(system, ())
    slot = "current" if requested == "latest" else requested
    if slot in SLOTS:
        version = next_version(backend, available) if slot == "next" else slot_version(system, backend, slot)
        if version is None and slot == "current" and own:
            return newest_first(own)[0]
        if version is None:
            raise ConfigError(f"{backend} has no {slot} version on {system}", field="backend_version")
        return version
    if requested not in own:
        raise ConfigError(
            f"no data of {backend} {requested} on {system}",
            field="backend_version",
            hint="versions with data: " + (", ".join(newest_first(own)) or "none"),
        )
    return requested


def source_order(
    table: str,
    family: str,
    request: tuple[str, str],
    holders: Collection[tuple[str, str]],
    reuse: Sequence[str] = (),
) -> list[Source]:
    """Return the sources of ``table`` in priority order.

    ``request`` is the (backend, version) asked for, ``holders`` all (backend, version) that have the table,
    ``reuse`` the versions that the reuse list of the requested version names for it.

    >>> [s.version for s in source_order("moe", "moe", ("vllm", "0.9"), {("vllm", "0.9"), ("vllm", "0.8.1")})]
    ['0.9', '0.8.1']
    """
    backend, version = request
    order = [Source(backend, version, "requested")]
    if table not in facts()["exact_version_tables"]:
        order += [Source(backend, v, "reuse") for v in reuse]
        own = [v for b, v in holders if b == backend and version_key(v) < version_key(version)]
        order += [Source(backend, v, "earlier") for v in newest_first(own)]
        if family != "comm":
            order += _shared_sources(table, backend, holders)
    seen: set[tuple[str, str]] = set()
    kept = []
    for source in order:
        place = (source.backend, source.version)
        if place in holders and place not in seen:
            seen.add(place)
            kept.append(source)
    return kept


def shared_lanes(table: str, backend: str, other: str) -> tuple[str, ...]:
    """Return the kernels of ``table`` whose rows measured under ``other`` also serve ``backend``.

    >>> shared_lanes("mla_bmm", "trtllm", "sglang")
    ('default',)
    """
    groups = facts()["shared"].get(table, {})
    return tuple(lane for lane, backends in groups.items() if backend in backends and other in backends)


def _shared_sources(table: str, backend: str, holders: Collection[tuple[str, str]]) -> list[Source]:
    others = sorted({b for b, _ in holders if b != backend and shared_lanes(table, backend, b)})
    return [Source(b, v, "shared") for b in others for v in newest_first(v for h, v in holders if h == b)]


@lru_cache(maxsize=16)  # counting what each lane covers takes a tenth of a second, and every attention shape asks
def attention_lanes(
    table: "Table", backend: str, version: str, sm_version: int, override: str | None = None
) -> tuple[str, ...]:
    """Return the kernel lanes of an attention table in the order in which a query tries them.

    The first lane that owns the query's categorical slice answers alone. ``override`` is an attention backend that
    the user asked for (keys of attention_backends in versions.yaml).
    """
    asked = _override_lanes(backend, override)
    default = _default_lane(backend, version, sm_version)
    present = table.categories.get("kernel_source", ())
    if not asked and default is None:
        first = ["default"]
    else:
        first = [*asked, *([default] if default else []), *_ranked_lanes(table, backend)]
    order = [*first, *sorted(present)]
    return tuple(lane for lane in dict.fromkeys(order) if lane in present)


def attention_backends(backend: str) -> tuple[str, ...]:
    """Return the attention backends that a user of ``backend`` may choose."""
    return tuple(facts()["attention_backends"].get(backend, {}))


def check_attention_backend(backend: str, name: str | None) -> None:
    """Nothing; ConfigError unless ``name`` is None or an attention backend of ``backend``."""
    _override_lanes(backend, name)


def _override_lanes(backend: str, override: str | None) -> list[str]:
    if override is None:
        return []
    choices = facts()["attention_backends"].get(backend, {})
    if override not in choices:
        raise ConfigError(
            f"{override!r} is not an attention backend of {backend}",
            field="attention_backend",
            hint="choose from " + (", ".join(choices) or "none"),
        )
    return list(choices[override])


def _default_lane(backend: str, version: str, sm_version: int) -> str | None:
    listed = facts()["attention_lanes"].get(backend, {})
    older = [v for v in newest_first(listed) if version_key(v) <= version_key(version)]
    return listed[older[0]].get(str(sm_version)) if older else None


def _ranked_lanes(table: "Table", backend: str) -> list[str]:
    """Return the lanes by coverage: the requested version's known lanes, "default", others; then other sources'."""
    known = {lane for lanes in facts()["attention_backends"].get(backend, {}).values() for lane in lanes}
    own = [i for i, source in enumerate(table.sources) if source.origin == "requested"]
    ranked: list[str] = []
    for sources in (own, [i for i in range(len(table.sources)) if i not in own]):
        coverage = _coverage(table, sources)

        def rank(lane: str, coverage: Mapping[str, tuple[int, int]] = coverage) -> tuple[int, int, int, str]:
            slices, rows = coverage[lane]
            group = 0 if lane in known else 1 if lane == "default" else 2
            return (group, -slices, -rows, lane)

        ranked += sorted(coverage, key=rank)
    return ranked


def _coverage(table: "Table", sources: Sequence[int]) -> dict[str, tuple[int, int]]:
    """Return for each lane the number of categorical slices and of rows that ``sources`` measured."""
    import numpy as np

    from serveopt.perfdata.store import run_starts

    rows = np.flatnonzero(np.isin(table.source, np.array(sources, dtype=np.uint8)))
    columns = {name: table.columns[name][rows] for name in SLICE_COLUMNS if name in table.columns}
    kv_heads = columns.pop("num_key_value_heads")
    keys = [*columns.values(), np.where(kv_heads == columns.pop("num_heads"), 0, kv_heads)]
    starts = run_starts(keys, rows.size)
    sizes = np.diff(starts, append=rows.size)
    slices: dict[int, set[tuple[int, ...]]] = {}
    held: dict[int, int] = {}
    for size, lane, *rest in zip(sizes.tolist(), *(key[starts].tolist() for key in keys), strict=True):
        slices.setdefault(lane, set()).add(tuple(rest))
        held[lane] = held.get(lane, 0) + size
    words = table.categories["kernel_source"]
    return {words[lane]: (len(slices[lane]), held[lane]) for lane in slices}
