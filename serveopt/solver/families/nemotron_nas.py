"""Nemotron from architecture search: blocks that differ in KV heads and feed-forward width, or leave either out.

Source: specs/search_model.md 1.5 (NEMOTRONNAS); the KV cache counts the blocks that have attention.
"""

from serveopt.perfdata.model_config import ModelConfig
from serveopt.solver.families import blocks
from serveopt.solver.families.table import Family, Phases, Setting, ceil_div
from serveopt.solver.operators import descriptions as ops

HEAD = 128
MULTIPLE = 256  # feed-forward widths are rounded up to this


def build_phases(setting: Setting) -> Phases:
    """Operators of a prefill and a decode step on one GPU."""
    return Phases(context=(*build_step(setting, ops.CONTEXT),), generation=(*build_step(setting, ops.GENERATION),))


def build_step(setting: Setting, phase: str) -> list[ops.Operator]:
    """Operators of one step, in order of execution."""
    logits, hand_over = blocks.output(setting, phase)
    steps = blocks.embedding(setting, phase, sharded=False)
    for group, scale, count in setting.model.extra["block_configs"]:
        steps += attention(setting, phase, group, count) if group else []
        steps += feed_forward(setting, phase, scale, count) if scale else []
    return [*steps, hand_over, logits]


def attention(setting: Setting, phase: str, group: int, count: int) -> list[ops.Operator]:
    """Norm, projections, attention and all-reduce of ``count`` blocks with ``group`` query heads per KV head."""
    model, tp, quant = setting.model, setting.layout.tp, setting.quant
    heads, kv_heads = model.num_heads // tp, ceil_div(model.num_heads // group, tp)
    kernels: dict[str, ops.Operator] = {
        ops.CONTEXT: ops.ContextAttention("context_attention", count, heads, kv_heads, HEAD, quant.fmha, quant.kv),
        ops.GENERATION: ops.GenerationAttention("generation_attention", count, heads, kv_heads, HEAD, quant.kv),
    }
    return [
        blocks.norm(f"{phase}_add_norm_1", count, model.hidden_size),
        ops.Gemm(f"{phase}_qkv_gemm", count, (heads + 2 * kv_heads) * HEAD, model.hidden_size, quant.gemm),
        kernels[phase],
        ops.Gemm(f"{phase}_proj_gemm", count, model.hidden_size, heads * HEAD, quant.gemm),
        ops.AllReduce(f"{phase}_ar_1", count, model.hidden_size, tp),
    ]


def feed_forward(setting: Setting, phase: str, scale: float, count: int) -> list[ops.Operator]:
    """Norm, gated feed-forward part and all-reduce of ``count`` blocks."""
    model, tp = setting.model, setting.layout.tp
    width = ffn_width(model, scale) // tp
    names = (f"{phase}_gate_ffn1_gemm", f"{phase}_act_gate", f"{phase}_ffn2_gemm")
    return [
        blocks.norm(f"{phase}_add_norm_2", count, model.hidden_size),
        *blocks.gated_ffn(names, count, (2 * width, model.hidden_size, width), setting.quant.gemm),
        ops.AllReduce(f"{phase}_ar_2", count, model.hidden_size, tp),
    ]


def ffn_width(model: ModelConfig, scale: float) -> int:
    """Width of a feed-forward part that is ``scale`` times as large as usual."""
    return ceil_div(int(2 * scale * model.hidden_size / 3), MULTIPLE) * MULTIPLE


def kv_bytes(setting: Setting, length: int) -> float:
    """KV cache bytes on one GPU of one sequence of ``length`` tokens: the blocks with attention."""
    model, tp = setting.model, setting.layout.tp
    blocks_of = model.extra["block_configs"]
    heads = sum(count * ceil_div(model.num_heads // group, tp) for group, _, count in blocks_of if group)
    return float(length * setting.quant.kv_bytes * 2 * HEAD * heads)


NEMOTRONNAS = Family(name="NEMOTRONNAS", build_phases=build_phases, kv_bytes=kv_bytes, speculative=False)
