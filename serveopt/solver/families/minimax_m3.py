"""MiniMax-M3: block-sparse grouped-query attention with an indexer, routed experts beside a shared one.

The first layers have full attention and a dense feed-forward part, as the config lists them; their two all-reduces are
explicit. The sparse block is priced with its projections, whose weights are listed beside it.
Source: specs/search_model.md 1.5 (MINIMAXM3), op_model.md 2.18.
"""

from dataclasses import replace
from typing import NamedTuple

from serveopt.perfdata.model_config import ModelConfig
from serveopt.perfdata.quant_modes import GEMM_MODES
from serveopt.solver.families import blocks
from serveopt.solver.families.expert_layers import dense_layers, expert_layers, layer_count
from serveopt.solver.families.table import Family, Phases, Setting, ceil_div
from serveopt.solver.operators import descriptions as ops


class Index(NamedTuple):
    """The indexer: heads and their width, tokens chosen and the block they are chosen in."""

    heads: int
    width: int
    tokens: int
    block: int


def build_phases(setting: Setting) -> Phases:
    """Operators of a prefill and a decode step on one GPU."""
    return Phases(context=(*build_step(setting, ops.CONTEXT),), generation=(*build_step(setting, ops.GENERATION),))


def build_step(setting: Setting, phase: str) -> list[ops.Operator]:
    """Operators of one step, in order of execution."""
    model = setting.model
    layers, dense, full = layer_count(setting, phase), dense_count(model), full_count(model)
    shared = model.extra.get("shared_intermediate_size", model.moe_intermediate_size) // setting.layout.tp
    wide = int(model.extra.get("dense_intermediate_size", model.intermediate_size))
    return [
        *blocks.embedding(setting, phase, sharded=False),
        blocks.norm(f"{phase}_add_norm_1", layers, model.hidden_size),
        *full_attention(setting, phase, full),
        *sparse_attention(setting, phase, layers - full),
        blocks.norm(f"{phase}_add_norm_2", layers, model.hidden_size),
        *dense_layers(setting, phase, dense, wide),
        *expert_layers(setting, phase, layers - dense, shared, setting.quant.gemm),
        *blocks.output(setting, phase),
    ]


def dense_count(model: ModelConfig) -> int:
    """Layers without experts."""
    frequency = model.extra.get("moe_layer_freq", ())
    return sum(not one for one in frequency[: model.num_layers]) if isinstance(frequency, tuple) else 0


def full_count(model: ModelConfig) -> int:
    """Layers that attend to every token."""
    frequency = model.extra.get("sparse_attention_config", {}).get("sparse_attention_freq", ())
    return sum(not one for one in frequency[: model.num_layers])


def index_of(model: ModelConfig) -> Index:
    """The indexer of a model."""
    given = model.extra.get("sparse_attention_config", {})
    block = given.get("sparse_block_size", 128)
    return Index(
        given.get("sparse_num_index_heads", 4), given.get("sparse_index_dim", 128),
        given.get("sparse_topk_blocks", 16) * block, block,
    )  # fmt: skip


def kv_heads(setting: Setting) -> int:
    """KV heads of one GPU."""
    return ceil_div(setting.model.num_kv_heads, setting.layout.tp)


def full_attention(setting: Setting, phase: str, count: int) -> list[ops.Operator]:
    """Projections and plain attention of ``count`` layers; queries and keys are normalised."""
    if not count:
        return []
    core = blocks.attention_core(phase, setting, phase, setting.quant.gemm, (count, blocks.model_heads(setting)))
    return [replace(one, qk_norm=True) if isinstance(one, ops.ContextAttention) else one for one in core]


def sparse_attention(setting: Setting, phase: str, count: float) -> list[ops.Operator]:
    """The block-sparse block of ``count`` layers and its weights."""
    model, quant, index = setting.model, setting.quant, index_of(setting.model)
    heads = model.num_heads // setting.layout.tp
    block = ops.Msa(
        f"{phase}_attention", count, phase, heads, kv_heads(setting), model.hidden_size, model.head_dim, model.head_dim,
        index.heads, index.width, index.tokens, index.block, quant.fmha, quant.kv, quant.gemm,
    )  # fmt: skip
    return [block, ops.Resident(f"{phase}_attention_weights", weight_bytes(setting), count)]


def weight_bytes(setting: Setting) -> float:
    """Bytes of the projections of one sparse layer on one GPU: q, k, v, o, index queries and the one index key."""
    model, index = setting.model, index_of(setting.model)
    heads = model.num_heads // setting.layout.tp
    attention = 2 * (heads + kv_heads(setting)) * model.head_dim
    elements = model.hidden_size * (attention + (index.heads + 1) * index.width)
    return elements * GEMM_MODES[setting.quant.gemm].bytes_per_element


def kv_bytes(setting: Setting, length: int) -> float:
    """KV cache bytes on one GPU of one sequence: keys and values of all layers, index keys of the sparse ones."""
    sparse = setting.model.num_layers - full_count(setting.model)
    index = sparse * index_of(setting.model).width * setting.quant.kv_bytes
    return blocks.grouped_kv_bytes(setting, length) + float(length * index)


MINIMAXM3 = Family(name="MINIMAXM3", build_phases=build_phases, kv_bytes=kv_bytes)
