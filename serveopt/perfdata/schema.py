"""The canonical form of a measured table: which source columns are keys, values or metadata, and the row order.

A source table holds one latency per row. Its canonical form keeps every key, expresses every value in ms (or W),
drops columns that are constant or follow from others, keeps one row per key and sorts the rows so that equal
neighbours compress. Rows that agree in all query keys and differ only in a *lane* column that the operator's query
ignores stay in the order of the file, so that "first row wins" means the same before and after.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from serveopt.errors import DataError

if TYPE_CHECKING:
    import polars as pl

METADATA = frozenset({"framework", "version", "device", "beam_width", "power_limit", "model_name"})
"""Never a key: equal in all rows of a file, or a label of where the row came from."""

DERIVED: Mapping[str, frozenset[str]] = {
    "gdn": frozenset({"num_tokens"}),  # batch_size * seq_len
    "kda": frozenset({"num_tokens"}),
    "mamba2": frozenset({"num_tokens"}),
    "custom_allreduce": frozenset({"backend", "implementation"}),  # follow from kernel_source
    "moe_a2a": frozenset({"transmit_us", "notify_us"}),  # their sum is latency
    "wideep_deepep_ll": frozenset({"dispatch_bandwidth_gbps", "combine_bandwidth_gbps"}),  # bytes / time
}

OP_NAME_TABLES = frozenset(
    {
        "dsa_context_module",
        "dsa_generation_module",
        "mhc_module",
        "mla_bmm",
        "nccl",
        "oneccl",
        "trtllm_alltoall",
        "wideep_moe",
    }
)
"""Tables whose op_name tells rows apart; everywhere else it repeats the table's name."""

VALUES: Mapping[str, tuple[str, float]] = {
    "latency": ("latency_ms", 1.0),
    "avg_ms": ("latency_ms", 1.0),
    "power": ("power_w", 1.0),
    "dispatch_avg_t_us": ("dispatch_ms", 1e-3),
    "combine_avg_t_us": ("combine_ms", 1e-3),
    "dispatch_transmit_us": ("dispatch_transmit_ms", 1e-3),
    "dispatch_notify_us": ("dispatch_notify_ms", 1e-3),
    "combine_transmit_us": ("combine_transmit_ms", 1e-3),
    "combine_notify_us": ("combine_notify_ms", 1e-3),
}
"""Source column -> (canonical column, factor to its unit)."""

VALUE_COLUMNS = frozenset(name for name, _ in VALUES.values())
MICROSECOND_LATENCY = frozenset({"moe_a2a"})
"""Tables whose latency column is in microseconds although its name has no unit."""

LAST_ROW_WINS = frozenset(
    {"dsa_context_module", "dsa_generation_module", "msa_context_module", "msa_generation_module"}
)
"""Tables in which the last of several rows with one key is the valid measurement; in all others the first is."""

LANE_IS_KEY = frozenset(
    {
        "context_attention",
        "custom_allreduce",
        "dsv4_csa_topk_calib",
        "gdn",
        "generation_attention",
        "kda",
        "mamba2",
        "mhc_module",
        "trtllm_alltoall",
        "wideep_context_mla",
        "wideep_generation_mla",
    }
)
"""Tables whose queries name a kernel; elsewhere the kernel only labels a row."""

AXES = (
    *("n", "k", "m", "head_dim", "window_size", "num_key_value_heads", "tp_size", "num_heads"),
    *("batch_size", "isl", "step", "seq_len", "num_tokens", "num_token", "message_size"),
)
"""Grid axes, outermost first; the last one runs fastest so that neighbouring latencies resemble each other."""

IMPLIED: Mapping[str, tuple[str | int, frozenset[str] | None]] = {
    "kernel_source": ("default", None),
    "window_size": (0, frozenset({"context_attention", "generation_attention"})),
}
"""Key column -> what its absence means, and the tables (None: all) that get it."""


@dataclass(frozen=True, slots=True)
class Canonical:
    """A canonical frame (keys, then values in ms as float64) and what was left out of it."""

    frame: "pl.DataFrame"
    repeated: int


def table_name(file_name: str) -> str:
    """Return the table's name of a source file.

    >>> table_name("gemm_perf.parquet")
    'gemm'
    """
    return file_name.removesuffix(".parquet").removesuffix("_perf")


def canonical(table: str, raw: "pl.DataFrame", *, where: str = "") -> Canonical:
    """Return the canonical form of source table ``raw``; ``where`` names it in errors."""
    frame = _select(table, raw, where or table)
    values = [c for c in frame.columns if c in VALUE_COLUMNS]
    keys = [c for c in frame.columns if c not in VALUE_COLUMNS]
    check_values(frame, values, where or table)
    order, ranked = _sort_columns(table, frame, keys)
    if table in LAST_ROW_WINS:
        frame = frame.reverse()
        ranked = ranked.reverse()
    first = frame.with_columns(ranked).unique(keys, keep="first", maintain_order=True)
    ordered = first.sort(order, maintain_order=True).select([*keys, *values])
    return Canonical(ordered, len(raw) - len(ordered))


def check_values(frame: "pl.DataFrame", values: list[str], where: str) -> None:
    """Raise DataError unless every value is finite and not negative."""
    if not values:
        raise DataError(f"{where}: no latency column", hint="expected one of " + ", ".join(sorted(VALUES)))
    for name in values:
        column = frame[name]
        if column.null_count() or not column.is_finite().all():
            raise DataError(f"{where}: column {name} holds a missing or non-finite value")
        if (column < 0).any():
            raise DataError(f"{where}: column {name} holds a negative value")


def _select(table: str, raw: "pl.DataFrame", where: str) -> "pl.DataFrame":
    import polars as pl

    skip = METADATA | DERIVED.get(table, frozenset())
    if table not in OP_NAME_TABLES:
        skip = skip | {"op_name"}
    keys, values = [], []
    for name, dtype in raw.schema.items():
        if name in skip:
            continue
        if name in VALUES:
            target, factor = VALUES[name]
            if name == "latency" and table in MICROSECOND_LATENCY:
                factor = 1e-3
            if not dtype.is_numeric():
                raise DataError(f"{where}: column {name} is not numeric")
            values.append((pl.col(name).cast(pl.Float64) * factor).alias(target))
        else:
            keys.append(_key_column(raw[name], where))
    for name, (word, tables) in IMPLIED.items():
        if name not in raw.columns and (tables is None or table in tables):
            keys.append(pl.Series(name, [word] * len(raw), pl.Int32 if isinstance(word, int) else pl.String))
    return pl.DataFrame(keys).hstack(raw.select(values)) if keys else raw.select(values)


def _key_column(column: "pl.Series", where: str) -> "pl.Series":
    import polars as pl

    if column.null_count():
        raise DataError(f"{where}: key column {column.name} holds a missing value")
    integer = column.dtype.is_integer() or column.dtype == pl.Boolean
    target = pl.Int32 if integer else pl.Float64 if column.dtype.is_float() else pl.String
    try:
        return column.cast(target)
    except pl.exceptions.PolarsError:
        raise DataError(f"{where}: column {column.name} ({column.dtype}) cannot be a key") from None


def _sort_columns(table: str, frame: "pl.DataFrame", keys: list[str]) -> tuple[list[str], "pl.DataFrame"]:
    """Return the columns to sort by and a frame of those that sort by first appearance instead of spelling.

    First appearance keeps what a reader of the source sees first (its first quantisation, its first lane) first here.
    """
    import polars as pl

    ignored = {"model"} if table in LANE_IS_KEY else {"model", "kernel_source"}
    words = [c for c in keys if frame.schema[c] == pl.String and c not in ignored]
    numbers = [c for c in keys if frame.schema[c] != pl.String and c not in AXES]
    ranked = frame.select(
        pl.col(c).cast(pl.Enum(frame[c].unique(maintain_order=True))).to_physical().alias(f"rank {c}") for c in words
    )
    return [*ranked.columns, *numbers, *(c for c in AXES if c in keys)], ranked
