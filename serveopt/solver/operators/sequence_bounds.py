"""Speed-of-light bounds of sequence operators as the kernels read them: seconds per feature of a query.

Every bound is max(arithmetic / FLOP/s, bytes / bandwidth), each a sum over the features of kernels.grids.bound_ms.
A name with "heads" in front is multiplied by the heads of one GPU.
Source: specs/op_model.md 2.2 to 2.9 and 2.17 to 2.19.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from serveopt.kernels.records import CONTEXT, FEATURES, GENERATION, Roofline
from serveopt.perfdata.quant_modes import FMHA_MODES, GEMM_MODES, KV_BYTES
from serveopt.perfdata.systems import SystemSpec
from serveopt.solver.operators import descriptions as ops

FEATURE_NAMES = ("one", "sequences", "tokens", "pairs", "keys", "seen", "indexed", "scored", "compressed")
Weights = Mapping[str, float]

# Dimensions that DeepSeek's latent attention was measured with.
LATENT, ROPE, NOPE, VALUE, Q_LORA, HIDDEN = 512, 64, 128, 128, 1536, 7168
# hidden, q_lora, kv_lora, nope, rope, value, top-k, indexer heads, indexer head size
DSA_WIDTHS: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "DeepseekV32ForCausalLM": (7168, 1536, 512, 128, 64, 128, 2048, 64, 128),
        "GlmMoeDsaForCausalLM": (6144, 2048, 512, 192, 64, 256, 2048, 32, 128),
    }
)
INDEX_KEY_BYTES = 132  # one indexer key: 128 fp8 values and a float32 scale
FUSED_KDA = ("fused_kda_decode", "kda_fused_decode", "fused_kda_decode_mtp_dspark")  # convolution and recurrence
STATE_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
CHUNK = 64  # tokens whose state a linear attention kernel keeps at a time


def spread(weights: Weights) -> tuple[float, ...]:
    """The weights in the kernels' order, float[2 * FEATURES].

    >>> spread({"tokens": 1.0, "heads pairs": 2.0})[2], spread({"heads pairs": 2.0})[12]
    (1.0, 2.0)
    """
    out = [0.0] * (2 * FEATURES)
    for name, value in weights.items():
        plain = name.removeprefix("heads ")
        out[FEATURE_NAMES.index(plain) + (FEATURES if plain != name else 0)] += float(value)
    return tuple(out)


def roofline(kind: int, system: SystemSpec, math: Weights, moved: Weights, **fields: float) -> Roofline:
    """The roofline of seconds of arithmetic and bytes ``moved`` per feature."""
    given: dict[str, Any] = {"prefix": 0.0, "cap": 0.0, "gate": 0.0, "ratio": 0.0, "limit": 0.0} | fields
    step = int(given.pop("step_window", 0))
    seconds = {name: value / system.mem_bw_b_s for name, value in moved.items()}
    floats = {name: float(value) for name, value in given.items()}
    return Roofline(kind=kind, step_window=step, math=spread(math), memory=spread(seconds), **floats)


def gemm_flops(system: SystemSpec, quant: str) -> float:
    """FLOP/s of a GEMM mode."""
    return float(system.flops(GEMM_MODES[quant].pipeline))


def fmha_flops(system: SystemSpec, fmha: str) -> float:
    """FLOP/s of an attention mode."""
    return float(system.flops(FMHA_MODES[fmha].pipeline))


def decode_arithmetic(system: SystemSpec, kv: str) -> str:
    """Arithmetic of decode attention: fp8 where the cache is fp8 and the GPU has it."""
    return "fp8" if kv == "fp8" and system.sm_version >= 89 else "bfloat16"


def bound_context(system: SystemSpec, op: ops.ContextAttention) -> Roofline:
    """Causal attention of whole prompts."""
    cache = 2.0 * KV_BYTES[op.kv] * op.head_dim
    shared = {"heads keys": cache} if op.kv_heads == op.heads else {"keys": cache * op.kv_heads}
    return roofline(
        CONTEXT, system,
        {"heads pairs": 4.0 * op.head_dim / fmha_flops(system, op.fmha)},
        {"heads tokens": 4.0 * op.head_dim, **shared},
        cap=op.window, step_window=1,
    )  # fmt: skip


def bound_generation(system: SystemSpec, op: ops.GenerationAttention) -> Roofline:
    """Attention of one new token per sequence."""
    cache = 2.0 * KV_BYTES[op.kv] * op.head_dim
    shared = {"heads seen": cache} if op.kv_heads == op.heads else {"seen": cache * op.kv_heads}
    flops = fmha_flops(system, decode_arithmetic(system, op.kv))
    return roofline(
        GENERATION, system,
        {"heads seen": 4.0 * op.head_dim / flops},
        {"heads sequences": 4.0 * op.head_dim, **shared},
        cap=op.window, prefix=1,
    )  # fmt: skip


def bound_encoder(system: SystemSpec, op: ops.EncoderAttention) -> Roofline:
    """Attention without a mask."""
    math = {"heads pairs": 8.0 * op.head_dim / fmha_flops(system, op.fmha)}
    return roofline(CONTEXT, system, math, {"heads tokens": 8.0 * op.head_dim}, step_window=1)


def bound_mla(system: SystemSpec, op: ops.Mla | ops.MlaModule) -> Roofline:
    """Latent attention; a module's decode adds the absorbed up-projections, as it was measured against."""
    kv = KV_BYTES[op.kv]
    latent, nope, rope, value = (op.widths if isinstance(op, ops.Mla) else ()) or (LATENT, NOPE, ROPE, VALUE)
    if op.phase == ops.CONTEXT:
        expanded = float(nope + rope + value)
        math = {"heads pairs": 2.0 * expanded / fmha_flops(system, op.fmha)}
        moved = {"heads keys": expanded * kv, "heads tokens": 2.0 * expanded}
        return roofline(CONTEXT, system, math, moved, step_window=1)
    absorbed, cached = 2.0 * latent + rope, latent + rope
    math = {"heads keys": 2.0 * absorbed / fmha_flops(system, decode_arithmetic(system, op.kv))}
    moved = {"heads sequences": 2.0 * absorbed, "keys": cached * kv, "sequences": -cached * kv}
    if isinstance(op, ops.MlaModule):
        width = GEMM_MODES[op.gemm].bytes_per_element
        math["heads sequences"] = 4.0 * NOPE * LATENT / gemm_flops(system, op.gemm)
        moved["heads sequences"] += 1280.0 * width
        moved["heads one"] = 2.0 * NOPE * LATENT * width
    return roofline(GENERATION, system, math, moved)


def bound_mla_bmm(system: SystemSpec, op: ops.MlaBmm) -> Roofline:
    """An absorbed up-projection over the batch."""
    width = GEMM_MODES[op.quant].bytes_per_element
    math = {"heads sequences": 2.0 * NOPE * LATENT / gemm_flops(system, op.quant)}
    return roofline(GENERATION, system, math, {"heads sequences": 640.0 * width, "heads one": NOPE * LATENT * width})


def bound_wide_mla(system: SystemSpec, op: ops.WideEpMla) -> Roofline:
    """Latent attention with the projections that follow the first one."""
    bf16 = fmha_flops(system, "bfloat16")
    if op.phase == ops.CONTEXT:
        width = FMHA_MODES[op.fmha].bytes_per_element
        projections = 2.0 * (Q_LORA * 192 + LATENT * 256 + VALUE * HIDDEN) / fmha_flops(system, op.fmha)
        math = {"heads tokens": projections, "heads pairs": 640.0 / bf16}
        moved = {
            "tokens": Q_LORA + LATENT + 2.0 * HIDDEN,
            "heads one": Q_LORA * 192.0 + 256 * LATENT + VALUE * HIDDEN,
            "heads tokens": 2.0 * 192 + 2 * 256 + 2 * 192 + 2 * 128 + 128,
            "heads keys": 2.0 * 192 + 2 * 128,
        }
        return roofline(CONTEXT, system, math, scale(moved, width), step_window=1)
    mode = decode_arithmetic(system, op.kv)
    projections = 2.0 * (Q_LORA * 192 + 2 * NOPE * LATENT + VALUE * HIDDEN) / fmha_flops(system, mode)
    math = {"heads sequences": projections, "heads keys": 2.0 * 1088 / bf16}
    moved = {
        "sequences": Q_LORA + 2.0 * HIDDEN,
        "heads one": Q_LORA * 192.0 + 2 * NOPE * LATENT + VALUE * HIDDEN,
        "heads sequences": 384.0 + 128 + 1024 + 1152 + 1024 + 512 + 256 + 128,
        "keys": 2.0 * 576,
    }
    return roofline(GENERATION, system, math, scale(moved, FMHA_MODES[mode].bytes_per_element))


def scale(weights: Weights, factor: float) -> dict[str, float]:
    """The weights times ``factor``."""
    return {name: value * factor for name, value in weights.items()}


def bound_dsa(system: SystemSpec, op: ops.Dsa, skip: bool = False) -> Roofline:
    """Sparse attention with projections; ``skip``: a layer that reuses the choice of another layer's indexer."""
    hidden, q_lora, latent, nope, rope, value, topk, index_heads, index_dim = op.widths or DSA_WIDTHS[op.architecture]
    down, qk, index = q_lora + latent + rope + 128, nope + rope, index_heads * index_dim
    flops, width = gemm_flops(system, op.gemm), GEMM_MODES[op.gemm].bytes_per_element
    per_token = hidden * down + q_lora * index + hidden * index_heads
    per_head = q_lora * qk + value * hidden
    math = {"tokens": 2.0 * per_token / flops, "heads tokens": 2.0 * (per_head + latent * (nope + value)) / flops}
    moved = {"one": per_token * width, "heads one": per_head * width}
    scored = 0.0 if skip else 2.0 * index / float(system.flops("fp8"))
    pairs = 2.0 * (2 * latent + rope)
    if op.phase == ops.CONTEXT:
        math |= {"scored": scored, "heads pairs": pairs / fmha_flops(system, op.fmha)}
        moved |= {"heads seen": (latent + rope) * KV_BYTES[op.kv], "indexed": INDEX_KEY_BYTES}
        moved["heads tokens"] = 2.0 * qk * FMHA_MODES[op.fmha].bytes_per_element
        return roofline(CONTEXT, system, math, moved, cap=topk, gate=topk)
    math |= {"scored": scored, "heads pairs": pairs / fmha_flops(system, "bfloat16")}
    moved |= {"seen": (latent + rope) * KV_BYTES[op.kv], "indexed": INDEX_KEY_BYTES}
    return roofline(GENERATION, system, math, moved, cap=topk)


def bound_msa(system: SystemSpec, op: ops.Msa) -> Roofline:
    """Block-sparse attention with projections and indexer."""
    flops, width = gemm_flops(system, op.gemm), GEMM_MODES[op.gemm].bytes_per_element
    index = op.index_heads * op.index_dim
    per_token = 2.0 * op.hidden * op.kv_heads * op.head_dim + op.hidden * index
    per_head = float(op.hidden * (op.head_dim + op.v_dim))
    math = {
        "tokens": 2.0 * per_token / flops,
        "heads tokens": 2.0 * per_head / flops,
        "heads pairs": 2.0 * (op.head_dim + op.v_dim) / fmha_flops(system, op.fmha),
        "scored": 2.0 * index / op.block / float(system.flops("fp8")),
    }
    moved = {
        "one": per_token * width,
        "heads one": per_head * width,
        "seen": op.kv_heads * (op.head_dim + op.v_dim) * KV_BYTES[op.kv],
        "indexed": index / op.block,
        "heads tokens": 2.0 * op.head_dim * FMHA_MODES[op.fmha].bytes_per_element,
    }
    context = op.phase == ops.CONTEXT
    kind, shift = (CONTEXT, 0) if context else (GENERATION, 1)
    return roofline(kind, system, math, moved, cap=op.topk, gate=op.topk, prefix=shift)


def bound_dsv4(system: SystemSpec, op: ops.Dsv4) -> Roofline:
    """Window plus compressed attention with projections; heads are part of the constants."""
    sparse = op.kind == "csa"
    ratio, copies = (4, 2) if sparse else (128, 1)
    width, query = GEMM_MODES[op.gemm].bytes_per_element, op.heads * op.head_dim
    out = op.o_groups * op.o_lora
    index = op.index_heads * op.index_dim if sparse else 0
    narrow = op.hidden * op.index_heads if sparse else 0
    gemm = op.hidden * op.q_lora + op.q_lora * query + op.hidden * op.head_dim + out * op.hidden
    compress = 4.0 * op.hidden * copies * op.head_dim + 2.0 * copies * op.head_dim
    compress += (8.0 * op.hidden + 4.0) * op.index_dim if sparse else 0.0
    fp8, attention = float(system.flops("fp8")), 4.0 * query
    mode = op.fmha if op.phase == ops.CONTEXT else decode_arithmetic(system, op.kv)
    per_pair = attention / fmha_flops(system, mode)
    math = {
        "tokens": (2.0 * gemm + compress) / gemm_flops(system, op.gemm)
        + 2.0 * (query * op.o_lora + narrow) / fmha_flops(system, "bfloat16")
        + 2.0 * op.q_lora * index / fp8,
        "scored": 2.0 * index / ratio / fp8,
        "pairs": per_pair,
        "compressed": per_pair,
    }
    kv = op.head_dim * KV_BYTES[op.kv]
    weights = gemm + 2.0 * op.hidden * copies * op.head_dim + op.q_lora * index
    moved = {
        "one": weights * width + 2.0 * (query * op.o_lora + narrow),
        "tokens": (op.hidden + op.q_lora + query + op.head_dim + out) * width
        + op.heads * op.rope_dim * FMHA_MODES[mode].bytes_per_element,
        "pairs": kv,
        "compressed": kv,
        "indexed": op.index_dim / 2.0 / ratio if sparse else 0.0,
    }
    kind, shift = (CONTEXT, 0) if op.phase == ops.CONTEXT else (GENERATION, 1)
    limit = op.topk if sparse else 0
    return roofline(kind, system, math, moved, cap=op.window, ratio=ratio, limit=limit, prefix=shift)


def bound_state(system: SystemSpec, op: ops.StateKernel) -> Roofline:
    """A kernel of linear attention: bytes alone."""
    moved = kda_bytes(op) if op.table == "kda" else gdn_bytes(op)
    return roofline(CONTEXT if op.phase == ops.CONTEXT else GENERATION, system, {}, moved)


def gdn_bytes(op: ops.StateKernel) -> dict[str, float]:
    """Bytes per feature of a gated delta rule kernel."""
    wide = 2.0 * op.num_k_heads * op.head_k_dim + op.num_v_heads * op.head_v_dim
    value = float(op.num_v_heads * op.head_v_dim)
    state = value * op.head_k_dim
    if "conv1d" in op.kernel:
        return {"tokens": wide * (op.d_conv + 1) * 2 + wide * 2}
    if "delta_rule" not in op.kernel:
        return {"tokens": 4.0 * op.d_model}
    chunks = 4.0 * state / CHUNK if op.phase == ops.CONTEXT else 0.0
    return {"tokens": wide * 2 + value * 2 + chunks, "sequences": 2.0 * STATE_BYTES.get(op.state_dtype, 4) * state}


def kda_bytes(op: ops.StateKernel) -> dict[str, float]:
    """Bytes per feature of a Kimi delta attention kernel."""
    value = float(op.num_v_heads * op.head_v_dim)
    state = value * op.head_k_dim * 4
    conv = {"tokens": 3.0 * (value * (op.d_conv + 1) * 2 + 2 * value)}
    if op.phase == "verify":
        recurrence = {"tokens": 10.0 * value + state, "sequences": state}
    else:
        chunks = 2.0 * state / CHUNK if op.phase == ops.CONTEXT else 0.0
        recurrence = {"tokens": 10.0 * value + chunks, "sequences": 2.0 * state}
    if "conv1d" in op.kernel:
        return conv
    if op.kernel in FUSED_KDA:
        return {"tokens": conv["tokens"] + recurrence["tokens"], "sequences": recurrence["sequences"]}
    return recurrence


def bound_mamba(system: SystemSpec, op: ops.Mamba2) -> Roofline:
    """A kernel of a Mamba2 layer: bytes alone."""
    inner = op.heads * op.head_dim
    wide = inner + 2 * op.groups * op.d_state
    if "conv1d" in op.kernel:
        moved = {"tokens": wide * (op.d_conv + 1) * 2.0 + wide * 2}
    else:
        moved = {"tokens": (wide + op.heads) * 2.0 + inner * 2, "sequences": 8.0 * inner * op.d_state}
    return roofline(CONTEXT if op.phase == ops.CONTEXT else GENERATION, system, {}, moved)


BOUNDS: Mapping[type, Callable[[SystemSpec, Any], Roofline]] = MappingProxyType(
    {
        ops.ContextAttention: bound_context,
        ops.GenerationAttention: bound_generation,
        ops.EncoderAttention: bound_encoder,
        ops.Mla: bound_mla,
        ops.MlaModule: bound_mla,
        ops.MlaBmm: bound_mla_bmm,
        ops.WideEpMla: bound_wide_mla,
        ops.Dsa: bound_dsa,
        ops.Msa: bound_msa,
        ops.Dsv4: bound_dsv4,
        ops.StateKernel: bound_state,
        ops.Mamba2: bound_mamba,
    }
)

# Sizes of the models whose sparse blocks were measured: a block of other sizes is not the block of the table.
DSV4_SIZES: Mapping[int, Mapping[str, int]] = MappingProxyType(
    {
        64: MappingProxyType({"hidden": 4096, "q_lora": 1024, "topk": 512}),
        128: MappingProxyType({"hidden": 7168, "q_lora": 1536, "topk": 1024}),
    }
)
DSV4_COMMON = MappingProxyType(
    {"o_lora": 1024, "head_dim": 512, "rope_dim": 64, "index_heads": 64, "index_dim": 128, "window": 128}
)
MSA_SIZES = MappingProxyType(
    {"hidden": 6144, "head_dim": 128, "v_dim": 128, "index_dim": 128, "topk": 2048, "block": 128}
)


def as_collected(operator: Any) -> Any:
    """The operator with the sizes that its table was measured with; the same one where sizes are part of the key.

    >>> as_collected(ops.Mla("a", 1, "context", 16, "bfloat16", "fp8", widths=(512, 128, 64, 128))).widths
    ()
    """
    if isinstance(operator, ops.Mla):
        return replace(operator, widths=())
    if isinstance(operator, ops.Dsa):
        return replace(operator, widths=())
    if isinstance(operator, ops.Msa):
        own: dict[str, Any] = dict(MSA_SIZES)
        return replace(operator, **own)
    if isinstance(operator, ops.Dsv4):
        native = min(DSV4_SIZES, key=lambda heads: abs(heads - operator.native_heads))
        sizes: dict[str, Any] = {**DSV4_SIZES[native], **DSV4_COMMON}
        return replace(operator, **sizes)
    return operator


def is_collected(operator: Any) -> bool:
    """True if the operator's sizes are those that its table was measured with."""
    if isinstance(operator, ops.Mla):
        return operator.widths in ((), (LATENT, NOPE, ROPE, VALUE))
    if isinstance(operator, ops.Dsa):
        return operator.widths in ((), DSA_WIDTHS[operator.architecture])
    return bool(as_collected(operator) == operator)
