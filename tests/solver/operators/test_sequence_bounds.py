"""Speed-of-light bounds against the formulas of op_model.md 2, written out per operator and counted pair by pair."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serveopt.kernels.grids import bound_ms
from serveopt.perfdata.systems import load_system
from serveopt.solver.operators import descriptions as ops
from serveopt.solver.operators.sequence_bounds import BOUNDS
from tests.oracle import count_compressed, count_pairs

SYSTEM = load_system("h200_sxm")
BF16, FP8 = SYSTEM.flops("bfloat16"), SYSTEM.flops("fp8")
Cost = tuple[float, float]  # seconds of arithmetic, bytes
BLOCK = {"fmha": "bfloat16", "kv": "fp8", "gemm": "fp8_block"}


def context_attention(op: ops.ContextAttention, s: int, p: int, b: int) -> Cost:
    """2.2, at the prefix of the query; keys of one token per KV head."""
    full, w = s + p, op.window
    pairs = s * w if 0 < w < full else (full**2 - p**2) / 2
    moved = 4 * b * op.heads * s * op.head_dim + 2 * b * op.kv_heads * full * op.head_dim * 2
    return 4 * b * pairs * op.heads * op.head_dim / BF16, moved


def generation_attention(op: ops.GenerationAttention, s: int, p: int, b: int) -> Cost:
    """2.3; fp8 arithmetic on an fp8 cache."""
    seen = min(s - 1, op.window) if op.window else s - 1
    moved = b * (4 * op.heads * op.head_dim + 2 * op.kv_heads * seen * op.head_dim)
    return 4 * b * op.heads * op.head_dim * seen / FP8, moved


def encoder_attention(op: ops.EncoderAttention, s: int, p: int, b: int) -> Cost:
    """2.5; no mask."""
    full = s + p
    pairs = full**2 - p**2
    return 4 * b * pairs * op.heads * op.head_dim / BF16, 8 * b * op.heads * s * op.head_dim


def latent_context(op: ops.Mla, s: int, p: int, b: int) -> Cost:
    """2.6."""
    full, n = s + p, op.heads
    return 320 * b * n * (full**2 - p**2) / BF16, b * n * (320 * full + 640 * s)


def latent_generation(op: ops.Mla, s: int, p: int, b: int) -> Cost:
    """2.6."""
    return 2 * b * op.heads * 1088 * s / FP8, b * (2176 * op.heads + (s - 1) * 576)


def module_generation(op: ops.MlaModule, s: int, p: int, b: int) -> Cost:
    """2.7: the kernel and both up-projections."""
    math, moved = latent_generation(op, s, p, b)  # type: ignore[arg-type]
    return math + 4 * b * op.heads * 128 * 512 / FP8, moved + 2 * op.heads * (640 * b + 65536)


def projection(op: ops.MlaBmm, s: int, p: int, b: int) -> Cost:
    """2.8, over b tokens."""
    return 2 * b * op.heads * 128 * 512 / FP8, op.heads * (640 * b + 65536)


def wide_context(op: ops.WideEpMla, s: int, p: int, b: int) -> Cost:
    """2.9."""
    n, full = op.heads, s + p
    proj = 2 * b * s * (1536 * n * 192 + 512 * n * 256 + n * 128 * 7168) / BF16
    width = 2 * (
        (1536 * b * s + 1536 * n * 192 + 2 * b * n * 192 * s) + (512 * b * s + n * 256 * 512 + 2 * b * n * 256 * s)
        + 2 * (b * s * n * 192 + b * full * n * 192 + b * full * n * 128 + b * s * n * 128)
        + (b * n * 128 * s + n * 128 * 7168 + 2 * b * 7168 * s)
    )  # fmt: skip
    return proj + n * 320 * b * (full**2 - p**2) / BF16, width


def sparse_context(op: ops.Dsa, s: int, p: int, b: int) -> Cost:
    """2.18, DeepSeek-V3.2."""
    h, ql, kl, nope, rope, v, topk, index = 7168, 1536, 512, 128, 64, 128, 2048, 64 * 128
    n, full, t, down = op.heads, s + p, b * s, 1536 + 512 + 64 + 128
    gemm = 2 * t * (h * down + ql * n * (nope + rope) + ql * index + h * 64 + n * v * h + n * nope * kl + n * kl * v)
    indexer = 2 * t * index * full if full > topk else 0
    pairs = b * count_pairs(range(p + 1, full + 1), topk)
    weights = h * down + ql * n * (nope + rope) + ql * index + h * 64 + n * v * h
    moved = weights + b * n * min(full, topk) * (kl + rope) + (132 * b * full if full > topk else 0)
    moved += 2 * t * n * (nope + rope) * 2
    return gemm / FP8 + indexer / FP8 + 2 * n * (2 * kl + rope) * pairs / BF16, moved


def compressed_context(op: ops.Dsv4, s: int, p: int, b: int) -> Cost:
    """2.19."""
    sparse, t, n, full = op.kind == "csa", b * s, op.heads, s + p
    ratio, copies = (4, 2) if sparse else (128, 1)
    wide, out = n * op.head_dim, op.o_groups * op.o_lora
    index = op.index_heads * op.index_dim
    base = op.hidden * op.q_lora + op.q_lora * wide + op.hidden * op.head_dim + out * op.hidden
    gemm = 2 * t * base + 4 * t * op.hidden * copies * op.head_dim + 2 * t * copies * op.head_dim
    plain, scored, weights = 2 * t * wide * op.o_lora, 0.0, base + 2 * op.hidden * copies * op.head_dim
    moved = 2 * wide * op.o_lora
    if sparse:
        gemm += 8 * t * op.hidden * op.index_dim + 4 * t * op.index_dim
        plain += 2 * t * op.hidden * op.index_heads
        scored = 2 * t * op.q_lora * index + 2 * t * (full / ratio) * index
        weights += op.q_lora * index
        moved += 2 * op.hidden * op.index_heads + b * full / 4 * op.index_dim / 2
    positions = range(p + 1, full + 1)
    pairs = b * (count_pairs(positions, op.window) + count_compressed(positions, ratio, op.topk if sparse else 0))
    moved += weights + t * (op.hidden + op.q_lora + wide + op.head_dim + out) + pairs * op.head_dim
    moved += t * n * op.rope_dim * 2
    return gemm / FP8 + plain / BF16 + scored / FP8 + 4 * wide * pairs / BF16, moved


def block_sparse_context(op: ops.Msa, s: int, p: int, b: int) -> Cost:
    """2.18; the blocks that an indexer scores are counted by tokens here."""
    h, n, nk, hd, vd, t, full = op.hidden, op.heads, op.kv_heads, op.head_dim, op.v_dim, b * s, s + p
    index = op.index_heads * op.index_dim
    per_token = h * n * hd + 2 * h * nk * hd + n * vd * h + h * index
    pairs, blocks = b * count_pairs(range(p + 1, full + 1), op.topk), full / op.block if full > op.topk else 0
    moved = per_token + b * nk * min(full, op.topk) * (hd + vd) + b * blocks * index + 4 * t * n * hd
    return 2 * t * per_token / FP8 + 2 * n * (hd + vd) * pairs / BF16 + 2 * t * index * blocks / FP8, moved


def delta_rule_context(op: ops.StateKernel, s: int, p: int, b: int) -> Cost:
    """2.17: bytes alone; a state every 64 tokens, here not rounded down."""
    wide = 2 * op.num_k_heads * op.head_k_dim + op.num_v_heads * op.head_v_dim
    value = op.num_v_heads * op.head_v_dim
    state, x = value * op.head_k_dim, b * s
    chunks = s / 64 * state * 2 * b
    return 0.0, x * wide * 2 + 4 * state * b + chunks + x * value * 2 + 4 * state * b + chunks


DSV4 = ops.Dsv4(
    "op", 1, "context", "csa", heads=8, native_heads=64, **BLOCK, hidden=4096, q_lora=1024, o_lora=1024, head_dim=512,
    rope_dim=64, index_heads=64, index_dim=128, topk=512, o_groups=2, window=128,
)  # fmt: skip
CASES: dict[str, tuple[Any, Callable[[Any, int, int, int], Cost]]] = {
    "context": (ops.ContextAttention("op", 1, 32, 8, 128, "bfloat16", "bfloat16"), context_attention),
    "window": (ops.ContextAttention("op", 1, 32, 8, 128, "bfloat16", "bfloat16", 128), context_attention),
    "all heads": (ops.ContextAttention("op", 1, 32, 32, 128, "bfloat16", "bfloat16"), context_attention),
    "encoder": (ops.EncoderAttention("op", 1, 16, 72), encoder_attention),
    "latent": (ops.Mla("op", 1, "context", 16, "bfloat16", "fp8"), latent_context),
    "wide latent": (ops.WideEpMla("op", 1, "context", "fa3", 16, "bfloat16", "fp8"), wide_context),
    "sparse": (ops.Dsa("op", 1, "context", "DeepseekV32ForCausalLM", 16, **BLOCK), sparse_context),
    "compressed": (DSV4, compressed_context),
    "heavily compressed": (replace(DSV4, kind="hca"), compressed_context),
    "block sparse": (
        ops.Msa("op", 1, "context", 8, 1, 6144, 128, 128, 16, 128, 2048, 128, **BLOCK), block_sparse_context
    ),
    "delta rule": (
        ops.StateKernel("op", 1, "gdn", "chunk_gated_delta_rule", "context", 2048, 4, 16, 128, 32, 128),
        delta_rule_context,
    ),
    "decode": (ops.GenerationAttention("op", 1, 32, 8, 128, "fp8"), generation_attention),
    "decode window": (ops.GenerationAttention("op", 1, 32, 8, 128, "fp8", 128), generation_attention),
    "latent decode": (ops.Mla("op", 1, "generation", 16, "bfloat16", "fp8"), latent_generation),
    "module decode": (
        ops.MlaModule("op", 1, "generation", 16, 128, "bfloat16", "fp8", "fp8_block"), module_generation
    ),
    "projection": (ops.MlaBmm("op", 1, "pre", 16, "fp8"), projection),
}  # fmt: skip
HEADLESS = (ops.Dsv4, ops.StateKernel)  # their heads are part of the constants


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=25, deadline=None)
@given(tokens=st.integers(1, 3000), prefix=st.integers(0, 3000), batch=st.integers(1, 300))
def test_bound_equals_its_formula(name: str, tokens: int, prefix: int, batch: int) -> None:
    """Short and long prompts, behind a cache or not, few and many sequences."""
    operator, formula = CASES[name]
    roof = BOUNDS[type(operator)](SYSTEM, operator)
    heads = 1.0 if isinstance(operator, HEADLESS) else float(operator.heads)
    if roof.kind:
        got = bound_ms(roof, heads, float(batch), float(tokens))
    else:
        got = bound_ms(roof._replace(prefix=float(prefix)), heads, float(tokens), float(batch))
    math, moved = formula(operator, tokens, prefix, batch)
    assert got == pytest.approx(1e3 * max(math, moved / SYSTEM.mem_bw_b_s), rel=1e-9)
