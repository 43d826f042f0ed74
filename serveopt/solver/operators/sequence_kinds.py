"""How each sequence operator is looked up: its table, key columns, axes and kernel lanes, one row per kind.

A new measured operator is a record in descriptions.py, a bound in sequence_bounds.py and a row here.
Source: specs/op_model.md 2.2 to 2.9 and 2.17 to 2.19.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from serveopt.perfdata.store import Table
from serveopt.solver.operators import descriptions as ops
from serveopt.solver.operators.slices import Column

FP8_NAMES = {"fp8_e4m3": "fp8"}  # how some tables spell it
ONE = "one"  # an axis that a table lacks
LENGTH = "length"  # cached tokens of a decode step: isl + step


class Power(NamedTuple):
    """The power of a latency that is linear in the prompt length, by cost model."""

    reference: float
    measured: float


# Measured: the power with the least error where a measured prompt length is left out (bench/leave_one_out.py), the
# same on every system and backend. A kernel is nearly quadratic in the prompt, a module with projections nearly linear.
LINEAR, ROOT = Power(1.0, 1.0), Power(0.5, 0.5)
KERNEL, PROJECTED = Power(0.5, 0.55), Power(0.5, 0.6)
MODULE, BLOCKS = Power(0.5, 0.85), Power(1.0, 0.85)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of sequence operator.

    ``keys``: (column, attribute of the operator); ``lane``: column whose values are alternatives, tried in order;
    ``prefix``: the column of cached tokens in prefill, if measured; ``rule``: how a cached prefix enters;
    ``power``: what power of the latency is linear in the prompt between measurements, by cost model;
    ``by_bound``: between measured prefixes the measured cost model is linear in the roofline;
    ``clamp``: measurements below the roofline are lifted onto it.
    """

    table: Callable[[Any], str]
    keys: tuple[tuple[str, str], ...]
    context_axes: tuple[str, str, str] = ("num_heads", "isl", "batch_size")
    generation_axes: tuple[str, str, str] = ("num_heads", "batch_size", LENGTH)
    lane: str = ""
    prefix: str = ""
    rule: str = "planes"
    power: Power = LINEAR
    by_bound: bool = False
    spread: bool = False
    clamp: bool = False
    derived: Mapping[str, Column] = field(default_factory=lambda: MappingProxyType({}))


def named(context: str, generation: str = "") -> Callable[[Any], str]:
    """The table of a phase."""
    return lambda op: generation if getattr(op, "phase", ops.CONTEXT) != ops.CONTEXT else context


def text(column: str) -> Column:
    """A text column with the spellings of types levelled."""

    def read(table: Table) -> np.ndarray:
        names = np.array([FP8_NAMES.get(name, name) for name in table.categories[column]], object)
        return names[table.columns[column]].astype(str)

    return read


def stored_kv_heads(table: Table) -> np.ndarray:
    """KV heads, 0 where there are as many as query heads."""
    columns = table.columns
    return np.where(columns["num_key_value_heads"] == columns["num_heads"], 0, columns["num_key_value_heads"])


def native_heads(table: Table) -> np.ndarray:
    """Heads of the whole model."""
    return np.asarray(table.columns["num_heads"] * table.columns["tp_size"])


def skips_indexer(table: Table) -> np.ndarray:
    """1 for layers that reuse the choice of another layer's indexer."""
    skips = np.array(["skip_indexer" in name for name in table.categories["op_name"]], np.int64)
    return skips[table.columns["op_name"]]


def cache_bucket(table: Table) -> np.ndarray:
    """Which sparse kernel a row belongs to: trtllm, flashmla_kv, or both."""
    kernels = table.categories["kernel_source"]
    dense = "sglang_dsa_dense_mha_trtllm_ragged"
    bucket = np.array(["both" if k == dense else "trtllm" if "trtllm" in k else "flashmla_kv" for k in kernels])
    unquantised = np.array(table.categories["kv_cache_dtype"])[table.columns["kv_cache_dtype"]] == "bfloat16"
    return np.where(unquantised, "both", bucket[table.columns["kernel_source"]])


TYPES = (("mla_dtype", "fmha"), ("kv_cache_dtype", "kv"), ("gemm_type", "gemm"))
LEVEL = MappingProxyType({"mla_dtype": text("mla_dtype"), "kv_cache_dtype": text("kv_cache_dtype")})
SPARSE = MappingProxyType({**LEVEL, "skips": skips_indexer, "bucket": cache_bucket})
STATE_AXES = (ONE, "seq_len", "batch_size")
GEOMETRY = (
    ("kernel_source", "kernel"), ("phase", "phase"), ("d_model", "d_model"), ("d_conv", "d_conv"),
    ("num_k_heads", "num_k_heads"), ("head_k_dim", "head_k_dim"), ("num_v_heads", "num_v_heads"),
    ("head_v_dim", "head_v_dim"),
)  # fmt: skip

CONTEXT_KINDS: Mapping[type, Kind] = MappingProxyType(
    {
        ops.ContextAttention: Kind(
            named("context_attention"),
            (("attn_dtype", "fmha"), ("kv_cache_dtype", "kv"), ("num_key_value_heads", "stored_kv_heads"),
             ("head_dim", "head_dim"), ("window_size", "window")),
            lane="kernel_source", rule="square", power=KERNEL,
            derived=MappingProxyType({"num_key_value_heads": stored_kv_heads}),
        ),
        ops.EncoderAttention: Kind(
            named("encoder_attention"), (("attn_dtype", "fmha"), ("head_dim", "head_dim")), rule="square", power=ROOT
        ),
        ops.Mla: Kind(
            named("context_mla", "generation_mla"), TYPES[:2], rule="square", power=KERNEL, derived=LEVEL
        ),
        ops.MlaModule: Kind(
            named("mla_context_module", "mla_generation_module"), TYPES, rule="square", power=MODULE, derived=LEVEL
        ),
        ops.WideEpMla: Kind(
            named("wideep_context_mla", "wideep_generation_mla"), TYPES[:2], lane="kernel_source", rule="square",
            power=PROJECTED, derived=LEVEL,
        ),
        ops.Dsa: Kind(
            named("dsa_context_module", "dsa_generation_module"),
            (("skips", "skips"), ("architecture", "architecture"), *TYPES), lane="bucket", prefix="step",
            by_bound=True, derived=SPARSE,
        ),
        ops.Msa: Kind(
            named("msa_context_module", "msa_generation_module"), TYPES, lane="bucket", prefix="step", power=BLOCKS,
            derived=MappingProxyType({**LEVEL, "bucket": cache_bucket}),
        ),
        ops.Dsv4: Kind(
            lambda op: f"dsv4_{op.kind}_{op.phase}_module",
            (*TYPES, ("native", "native_heads"), ("num_heads", "heads")), context_axes=(ONE, "isl", "batch_size"),
            generation_axes=(ONE, "batch_size", LENGTH), prefix="step",
            derived=MappingProxyType({**LEVEL, "native": native_heads}),
        ),
        ops.StateKernel: Kind(lambda op: op.table, GEOMETRY, context_axes=STATE_AXES),
        ops.Mamba2: Kind(
            lambda op: "mamba2",
            (("kernel_source", "kernel"), ("phase", "phase"), ("d_model", "d_model"), ("d_state", "d_state"),
             ("d_conv", "d_conv"), ("nheads", "heads"), ("head_dim", "head_dim"), ("n_groups", "groups"),
             ("chunk_size", "chunk")),
            context_axes=STATE_AXES,
        ),
    }
)  # fmt: skip

# What differs in decode: no arithmetic type in the key (the cache decides it), five lengths for plain attention.
GENERATION_KINDS: Mapping[type, Kind] = MappingProxyType(
    {
        ops.GenerationAttention: Kind(
            lambda op: "generation_attention",
            (("kv_cache_dtype", "kv"), ("num_key_value_heads", "stored_kv_heads"), ("head_dim", "head_dim"),
             ("window_size", "window")),
            lane="kernel_source", spread=True, clamp=True,
            derived=MappingProxyType({"num_key_value_heads": stored_kv_heads}),
        ),
        ops.Mla: Kind(named("context_mla", "generation_mla"), TYPES[1:2], derived=LEVEL),
        ops.MlaModule: Kind(named("mla_context_module", "mla_generation_module"), TYPES[1:], derived=LEVEL),
        ops.WideEpMla: Kind(
            named("wideep_context_mla", "wideep_generation_mla"), TYPES[1:2], lane="kernel_source", derived=LEVEL
        ),
        ops.Dsv4: Kind(
            lambda op: f"dsv4_{op.kind}_{op.phase}_module",
            (*TYPES[1:], ("native", "native_heads"), ("num_heads", "heads")),
            generation_axes=(ONE, "batch_size", LENGTH),
            derived=MappingProxyType({**LEVEL, "native": native_heads}),
        ),
        ops.Dsa: Kind(
            named("dsa_context_module", "dsa_generation_module"),
            (("skips", "skips"), ("architecture", "architecture"), *TYPES[1:]), lane="bucket", derived=SPARSE,
        ),
        ops.Msa: Kind(
            named("msa_context_module", "msa_generation_module"), TYPES[1:], lane="bucket",
            derived=MappingProxyType({**LEVEL, "bucket": cache_bucket}),
        ),
        ops.StateKernel: Kind(lambda op: op.table, GEOMETRY, generation_axes=(ONE, "batch_size", "seq_len")),
        ops.Mamba2: Kind(
            lambda op: "mamba2",
            (("kernel_source", "kernel"), ("phase", "phase"), ("d_model", "d_model"), ("d_state", "d_state"),
             ("d_conv", "d_conv"), ("nheads", "heads"), ("head_dim", "head_dim"), ("n_groups", "groups"),
             ("chunk_size", "chunk")),
            generation_axes=(ONE, "batch_size", "seq_len"),
        ),
        ops.MlaBmm: Kind(
            lambda op: "mla_bmm", (("bmm_dtype", "quant"), ("op_name", "name"), ("num_heads", "heads")),
            generation_axes=(ONE, "num_tokens", ONE),
        ),
    }
)  # fmt: skip


def kind_of(operator: ops.SequenceOperator) -> Kind:
    """The row of an operator."""
    phase = getattr(operator, "phase", ops.CONTEXT)
    if type(operator) in GENERATION_KINDS and (phase != ops.CONTEXT or type(operator) not in CONTEXT_KINDS):
        return GENERATION_KINDS[type(operator)]
    return CONTEXT_KINDS[type(operator)]
