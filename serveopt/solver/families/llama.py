"""Dense decoders with grouped-query attention: Llama, Qwen2, Qwen3, MiMo.

One layer is norm, QKV, attention, projection, all-reduce, norm, gate and up, activation, down, all-reduce.
Source: specs/search_model.md 1.5 (family LLAMA).
"""

from serveopt.perfdata.checkpoint import QuantModes
from serveopt.perfdata.model_config import ModelConfig
from serveopt.solver.families.table import Family, Phases, ceil_div
from serveopt.solver.layout import Layout
from serveopt.solver.operators import descriptions as ops

BF16 = 2


def build_phases(model: ModelConfig, quant: QuantModes, layout: Layout) -> Phases:
    """Operators of a prefill and a decode step on one GPU."""
    return Phases(
        context=(*build_step(model, quant, layout, "context"),),
        generation=(*build_step(model, quant, layout, "generation"),),
    )


def build_step(model: ModelConfig, quant: QuantModes, layout: Layout, phase: str) -> list[ops.Operator]:
    """Operators of one step, in order of execution."""
    layers, hidden, tp = model.num_layers, model.hidden_size, layout.tp
    inner = 2 * model.intermediate_size // tp
    width = model.num_heads * model.head_dim // tp
    kv_heads = ceil_div(model.num_kv_heads, tp)

    def norm(name: str) -> ops.MemoryMove:
        return ops.MemoryMove(f"{phase}_{name}", layers, 2 * hidden * 2 * BF16)

    def gemm(name: str, n: int, k: int, low: bool = False) -> ops.Gemm:
        return ops.Gemm(f"{phase}_{name}", layers, n, k, quant.gemm, low)

    rows = model.vocab_size // tp
    return [
        ops.Embedding(f"{phase}_embedding", 1, rows, hidden),
        norm("add_norm_1"),
        gemm("qkv_gemm", width + 2 * model.head_dim * kv_heads, hidden),
        attention(model, quant, layout, phase),
        gemm("proj_gemm", hidden, width, low=True),
        norm("add_norm_2"),
        gemm("gate_ffn1_gemm", inner, hidden),
        ops.MemoryMove(f"{phase}_act_gate", layers, (inner + inner // 2) * BF16),
        gemm("ffn2_gemm", hidden, model.intermediate_size // tp, low=True),
        ops.Gemm(f"{phase}_logits_gemm", 1, rows, hidden, "bfloat16"),
        ops.AllReduce(f"{phase}_embedding_ar", 1, hidden, tp),
        ops.AllReduce(f"{phase}_ar_1", layers, hidden, tp),
        ops.AllReduce(f"{phase}_ar_2", layers, hidden, tp),
        ops.PointToPoint(f"{phase}_p2p", layout.pp - 1, hidden),
    ]


def attention(model: ModelConfig, quant: QuantModes, layout: Layout, phase: str) -> ops.AttentionOperator:
    """The attention operator of the phase."""
    heads, kv_heads = model.num_heads // layout.tp, ceil_div(model.num_kv_heads, layout.tp)
    if phase == "generation":
        return ops.GenerationAttention(
            "generation_attention", model.num_layers, heads, kv_heads, model.head_dim, quant.kv
        )
    return ops.ContextAttention(
        "context_attention", model.num_layers, heads, kv_heads, model.head_dim, quant.fmha, quant.kv,
        qk_norm=model.has_qk_norm,
    )  # fmt: skip


def kv_bytes(model: ModelConfig, quant: QuantModes, layout: Layout, length: int) -> float:
    """KV cache bytes on one GPU of one sequence of ``length`` tokens, all layers."""
    heads = ceil_div(model.num_kv_heads, layout.tp)
    return length * quant.kv_bytes * heads * model.head_dim * model.num_layers * 2


LLAMA = Family(
    name="LLAMA",
    moe=False,
    build_phases=build_phases,
    kv_bytes=kv_bytes,
    activation_widths={"trtllm": (11, 6.5, 5, 5), "vllm": (11, 6.5, 5, 5), "sglang": (14, 8.5, 6.5, 6.5)},
)
