"""The draft model of Kimi-K3: five layers that propose a block of tokens, run once per decode step.

A step of b sequences and n drafted tokens counts b (n + 1) tokens; the draft sees n of them, its keys are projected
for one, and one set of logits is read. Each is booked as that share of the operator's cost at the step's tokens, as
the reference does. vLLM drafts with latent attention, the others with grouped queries.
Source: specs/search_model.md 1.5, 2.3 (KIMIK3).
"""

from typing import NamedTuple

from serveopt.solver.families import blocks
from serveopt.solver.families.latent import latent_of
from serveopt.solver.families.table import Setting, ceil_div
from serveopt.solver.operators import descriptions as ops

LAYERS, INNER = 5, 14336
LATENT_HEADS, LATENT_HEAD = 64, 128
QUERY_HEADS, KV_HEADS, HEAD = 64, 16, 64
MODE = "bfloat16"


class Shares(NamedTuple):
    """Parts of a step's tokens: those drafted and the one that was accepted."""

    drafted: float
    last: float


def shares(setting: Setting) -> Shares:
    """The parts for the number of tokens drafted."""
    tokens = setting.nextn + 1
    return Shares(setting.nextn / tokens, 1 / tokens)


def draft_step(setting: Setting) -> list[ops.Operator]:
    """Operators of the draft in one decode step."""
    model, tp = setting.model, setting.layout.tp
    drafted, last = shares(setting)
    hidden, layers, inner = model.hidden_size, LAYERS * drafted, INNER // tp
    names = ("draft_gate_up_gemm", "draft_act_gate", "draft_down_gemm")
    return [
        ops.Embedding("draft_embedding", drafted, model.vocab_size // tp, hidden),
        blocks.norm("draft_norm", 2 * layers, hidden),
        *(latent_layers if setting.backend == "vllm" else grouped_layers)(setting, layers, LAYERS * last),
        *blocks.gated_ffn(names, layers, (2 * inner, hidden, inner), MODE, low_precision=True),
        ops.AllReduce("draft_ar", 2 * layers, hidden, tp),
        ops.Gemm("draft_logits_gemm", last, model.vocab_size // tp, hidden, MODE),
    ]


def grouped_layers(setting: Setting, count: float, keys: float) -> list[ops.Operator]:
    """Grouped-query attention of the draft."""
    tp, hidden = setting.layout.tp, setting.model.hidden_size
    heads, kv_heads = QUERY_HEADS // tp, ceil_div(KV_HEADS, tp)
    return [
        ops.Gemm("draft_qkv_gemm", count, (heads + 2 * kv_heads) * HEAD, hidden, MODE),
        ops.GenerationAttention("draft_attention", count, heads, kv_heads, HEAD, setting.quant.kv),
        ops.Gemm("draft_proj_gemm", count, hidden, heads * HEAD, MODE, low_precision_input=True),
        ops.Gemm("draft_kv_proj_gemm", keys, 2 * kv_heads * HEAD, hidden, MODE),
    ]


def latent_layers(setting: Setting, count: float, keys: float) -> list[ops.Operator]:
    """Latent attention of the draft, expanded."""
    tp, hidden, latent = setting.layout.tp, setting.model.hidden_size, latent_of(setting.model)
    heads = LATENT_HEADS // tp
    return [
        ops.Gemm("draft_downscale_gemm", count, latent.down, hidden, MODE),
        ops.Gemm("draft_q_b_gemm", count, heads * (latent.nope + latent.rope), latent.q, MODE),
        ops.GenerationAttention("draft_attention", count, heads, heads, LATENT_HEAD, setting.quant.kv),
        ops.Gemm("draft_proj_gemm", count, hidden, heads * latent.value, MODE, low_precision_input=True),
        ops.Gemm("draft_kv_proj_gemm", keys, latent.cached, hidden, MODE),
    ]


def draft_kv_bytes(setting: Setting, length: int) -> float:
    """KV cache bytes on one GPU of the draft's layers for one sequence."""
    values = 2 * ceil_div(KV_HEADS, setting.layout.tp) * HEAD
    if setting.backend == "vllm":
        values = latent_of(setting.model).cached
    return float(length * setting.quant.kv_bytes * LAYERS * values)
