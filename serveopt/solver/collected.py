"""Quantisation modes for which something was measured: what a user's own choice is checked against.

The error names what there is instead. Modes of a checkpoint are not checked: pricing says what it misses.
"""

from collections.abc import Iterable

from serveopt.errors import ConfigError
from serveopt.perfdata.model_config import ModelConfig
from serveopt.perfdata.store import Database, Table, run_starts
from serveopt.solver.quantisation import context_attention_tables

# The arithmetic of attention has another column name in each kind of table.
ARITHMETIC_COLUMNS = ("attn_dtype", "mla_dtype", "fmha_dtype")
SPELLINGS = {"fp8_e4m3": "fp8"}  # words of single tables -> modes
# Kernels that multiply experts in a layout of their own, as a mode of its own.
EXPERT_KERNELS = {
    ("w4a8_mxfp4_mxfp8", "sglang_mxfp4_flashinfer_trtllm_moe"): "w4a8_mxfp4_mxfp8_trtllm",
    ("w4a16_mxfp4", "sglang_flashinfer_cutlass_moe"): "w4a16_mxfp4_cutlass",
}
EXPERT_TABLES = ("moe", "wideep_context_moe", "wideep_generation_moe", "wideep_moe")
COLLECTIVE_TABLES = ("nccl", "oneccl")


def words(table: Table | None, column: str) -> frozenset[str]:
    """The words of a text column."""
    if table is None:
        return frozenset()
    return frozenset(word for word in table.categories.get(column, ()) if word)


def pairs(table: Table | None, first: str, second: str) -> frozenset[tuple[str, str]]:
    """Pairs of words that occur together in two text columns."""
    if table is None or first not in table.categories or second not in table.categories:
        return frozenset()
    left, right = table.categories[first], table.categories[second]
    columns = [table.columns[first], table.columns[second]]
    starts = run_starts(columns, len(table))
    ones, others = (column[starts].tolist() for column in columns)
    found = ((left[one], right[other]) for one, other in zip(ones, others, strict=True))
    return frozenset((SPELLINGS.get(one, one), SPELLINGS.get(other, other)) for one, other in found)


def prefill_arithmetic(database: Database, model: ModelConfig) -> frozenset[tuple[str, str]]:
    """(fmha, kv) pairs for which the family's prefill attention was measured."""
    found: set[tuple[str, str]] = set()
    for name in context_attention_tables(model.family, database.backend):
        table = database.table(name)
        for column in ARITHMETIC_COLUMNS:
            found |= pairs(table, column, "kv_cache_dtype")
    return frozenset(found)


def gemm_modes(database: Database) -> frozenset[str]:
    """Measured GEMM modes; FP8 with static scales is the FP8 GEMM less its scale passes."""
    modes = words(database.table("gemm"), "gemm_dtype")
    derived = {"fp8_static"} if "fp8" in modes and database.table("computescale") is not None else set()
    return modes | derived


def expert_modes(database: Database) -> frozenset[str]:
    """Measured expert modes."""
    modes: set[str] = set()
    for name in EXPERT_TABLES:
        modes |= words(database.table(name), "moe_dtype")
    lanes = pairs(database.table("moe"), "moe_dtype", "kernel_source")
    return frozenset(modes | {EXPERT_KERNELS[lane] for lane in lanes if lane in EXPERT_KERNELS})


def measured_modes(database: Database, model: ModelConfig, component: str) -> frozenset[str]:
    """Modes of a component (gemm, moe, fmha, kv, comm) that the tables of a database hold for a model."""
    if component == "gemm":
        return gemm_modes(database)
    if component == "moe":
        return expert_modes(database)
    if component == "comm":
        tables = (database.table(name) for name in COLLECTIVE_TABLES)
        return frozenset().union(*(words(table, "nccl_dtype") for table in tables))
    return frozenset(pair[component == "kv"] for pair in prefill_arithmetic(database, model))


def check_measured(database: Database, model: ModelConfig, chosen: Iterable[tuple[str, str]]) -> None:
    """Nothing; ConfigError for a (component, mode) that a user chose and nobody measured."""
    for component, mode in chosen:
        have = measured_modes(database, model, component)
        if not have or mode in have or (component == "moe" and not model.is_moe):
            continue
        where = f"{database.backend} {database.version} on {database.system}"
        raise ConfigError(
            f"{mode!r} was not measured with {where}",
            field=f"{component}_quant",
            hint=f"measured: {', '.join(sorted(have))}; or take another data mode (hybrid, empirical, sol)",
        )
