"""Kimi-K3: Kimi delta attention with latent attention in every fourth layer, experts in a latent width.

Each attention layer reduces its own sum and is followed by residual mixing; the first feed-forward layer is dense.
Speculation drafts a block of tokens with a small model of five layers (kimi_k3_draft) and verifies them in one step,
so nothing else of a decode step is repeated. Source: specs/search_model.md 1.5 (KIMIK3), 2.3, op_model.md 2.17.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from serveopt.solver.families import blocks
from serveopt.solver.families.expert_layers import ALPHA, dense_count, mega_moe
from serveopt.solver.families.kimi_k3_draft import draft_kv_bytes, draft_step
from serveopt.solver.families.latent import Labels, granular, latent_kv_bytes, latent_of, module
from serveopt.solver.families.table import NARROW, WIDE, Family, Phases, Setting
from serveopt.solver.operators import descriptions as ops

LABELS = Labels("mla_downscale_gemm", "mla_q_b_gemm", "mla_kv_b_gemm", "mla_o_gemm", low_precision=True)
STATES = 5  # states kept per sequence: the running one and snapshots, as the reference counts them
FLOAT, BF16 = 4, 2  # bytes
SCAN = {"vllm": "flashkda_fwd"}
VERIFY = {"vllm": "fused_recurrent_kda"}


def build_phases(setting: Setting) -> Phases:
    """Operators of a prefill and a decode step on one GPU."""
    draft = draft_step(setting) if setting.nextn else []
    return Phases(
        context=(*build_step(setting, ops.CONTEXT),),
        generation=(*build_step(setting, ops.GENERATION), *draft),
    )


def build_step(setting: Setting, phase: str) -> list[ops.Operator]:
    """Operators of one step without the draft, in order of execution."""
    model = setting.model
    plain = replace(setting, nextn=0)  # drafted tokens are more tokens of the same layers
    layers, dense = model.num_layers, dense_count(model)
    return [
        *blocks.embedding(plain, phase, sharded=True),
        *delta_attention(setting, phase, delta_count(setting)),
        *latent_attention(setting, phase, layers - delta_count(setting)),
        ops.MemoryMove(f"{phase}_attn_res", 2 * layers, 6 * model.hidden_size * BF16),
        blocks.norm(f"{phase}_ffn_norm", layers, model.hidden_size),
        *dense_layers(setting, phase, dense),
        *expert_layers(setting, phase, layers - dense),
        *blocks.output(plain, phase),
    ]


def delta_shape(setting: Setting) -> tuple[int, int, int]:
    """Heads of one GPU, their width and the length of the convolution."""
    given = setting.model.extra["linear_attn_config"]
    return given["num_heads"] // setting.layout.tp, given["head_dim"], given["short_conv_kernel_size"]


def delta_count(setting: Setting) -> int:
    """Layers with delta attention."""
    return len(setting.model.extra["linear_attn_config"]["kda_layers"])


def delta_attention(setting: Setting, phase: str, count: int) -> list[ops.Operator]:
    """Projections, convolution and recurrence, gated norm, output projection."""
    model, tp, mode = setting.model, setting.layout.tp, blocks.part_quant(setting, "attention")
    heads, size, _ = delta_shape(setting)
    hidden, inner = model.hidden_size, heads * size
    narrow = model.extra["linear_attn_config"]["num_heads"] + size  # beta and both gates' bottleneck, unsharded
    kernels = delta_kernels(setting, phase, count)
    fused = kernels[0].kernel == "fused_kda_decode"
    return [
        blocks.norm(f"{phase}_kda_norm", count, hidden),
        ops.Gemm(f"{phase}_kda_qkvg_gemm", count, 4 * inner, hidden, mode),
        ops.Gemm(f"{phase}_kda_bfa_gemm", count, narrow, hidden, mode),
        ops.Gemm(f"{phase}_kda_fb_gemm", count, inner, size, mode),
        *kernels,
        *([] if fused else [ops.MemoryMove(f"{phase}_kda_onorm", count, 3 * inner * BF16)]),
        ops.Gemm(f"{phase}_kda_o_gemm", count, hidden, inner, mode, low_precision_input=True),
        ops.AllReduce(f"{phase}_kda_ar", count, hidden, tp),
    ]


def delta_kernels(setting: Setting, phase: str, count: int) -> list[ops.StateKernel]:
    """Convolution and recurrence; one kernel in vLLM's decode, others where drafted tokens are verified."""
    heads, size, conv = delta_shape(setting)
    backend, tokens = setting.backend, setting.nextn + 1 if setting.nextn else 0

    def kernel(name: str, source: str, kind: str, drafted: int = 0) -> ops.StateKernel:
        return ops.StateKernel(
            f"{phase}_{name}", count, "kda", source, kind, setting.model.hidden_size, conv, heads, size, heads, size,
            drafted,
        )  # fmt: skip

    if phase == ops.CONTEXT:
        scan = SCAN.get(backend, "chunk_kda")
        return [kernel("kda_conv1d", "causal_conv1d_fn_qkv3", phase), kernel("kda_scan", scan, phase)]
    if tokens:
        verify = VERIFY.get(backend, "fused_sigmoid_gating_delta_rule_update")
        return [
            kernel("kda_conv1d", "causal_conv1d_update", "verify", tokens),
            kernel("kda_verify", verify, "verify", tokens),
        ]
    if backend == "vllm":
        return [kernel("kda_fused_decode", "fused_kda_decode", phase)]
    return [
        kernel("kda_conv1d", "causal_conv1d_update", phase),
        kernel("kda_recurrent", "fused_recurrent_kda_packed_decode", phase),
    ]


def latent_attention(setting: Setting, phase: str, count: int) -> list[ops.Operator]:
    """Latent attention with an output gate; vLLM's block was measured behind its first projection."""
    model, tp, mode = setting.model, setting.layout.tp, blocks.part_quant(setting, "attention")
    down, *parts = granular(setting, phase, count, LABELS)
    if setting.backend == "vllm":
        measured = module(setting, phase, count, mode)
        parts = [ops.Fallback(f"{phase}_mla_block", measured, tuple(parts))]
    width = model.num_heads // tp * latent_of(model).value
    return [
        blocks.norm(f"{phase}_mla_norm", count, model.hidden_size),
        down,
        *parts,
        ops.Gemm(f"{phase}_mla_gate_gemm", count, width, model.hidden_size, mode),
        ops.MemoryMove(f"{phase}_mla_gate_mul", count, 3 * width * BF16),
        ops.AllReduce(f"{phase}_mla_ar", count, model.hidden_size, tp),
    ]


def dense_layers(setting: Setting, phase: str, count: int) -> list[ops.Operator]:
    """The dense layers at the bottom."""
    model, tp, mode = setting.model, setting.layout.tp, blocks.part_quant(setting, "dense_mlp")
    width = model.intermediate_size // tp
    names = (f"{phase}_dense_gate_up_gemm", f"{phase}_dense_act_gate", f"{phase}_dense_down_gemm")
    sizes = (2 * width, model.hidden_size, width)
    return [
        *blocks.gated_ffn(names, count, sizes, mode, low_precision=True),
        ops.AllReduce(f"{phase}_dense_ffn_ar", count, model.hidden_size, tp),
    ]


def expert_layers(setting: Setting, phase: str, count: int) -> list[ops.Operator]:
    """Router, experts in the latent width between two projections, shared experts."""
    model, tp = setting.model, setting.layout.tp
    hidden, latent = model.hidden_size, model.extra["routed_expert_hidden_size"]
    width = model.extra["num_shared_experts"] * model.moe_intermediate_size // tp
    names = (f"{phase}_shared_gate_up_gemm", f"{phase}_shared_act_gate", f"{phase}_shared_down_gemm")
    return [
        ops.Gemm(f"{phase}_router_gemm", count, model.num_experts, hidden, "bfloat16"),
        ops.Gemm(f"{phase}_latent_down_gemm", count, latent, hidden, "bfloat16"),
        blocks.norm(f"{phase}_latent_norm", count, latent),
        *routed(setting, phase, count, latent),
        ops.Gemm(f"{phase}_latent_up_gemm", count, hidden, latent, "bfloat16"),
        *blocks.gated_ffn(names, count, (2 * width, hidden, width), "bfloat16"),
    ]


def routed(setting: Setting, phase: str, count: int, latent: int) -> list[ops.Operator]:
    """Dispatch, experts, combine."""
    if setting.moe_backend == "megamoe":
        return [replace(mega_moe(setting, phase, count), hidden=latent)]
    return [
        *blocks.dispatch(f"{phase}_moe_pre_dispatch", setting, count, phase, True, latent),
        blocks.experts(f"{phase}_moe", setting, count, ALPHA, width=latent),
        *blocks.dispatch(f"{phase}_moe_post_dispatch", setting, count, phase, False, latent),
    ]


def kv_bytes(setting: Setting, length: int) -> float:
    """Bytes on one GPU of one sequence: latents, states of delta attention and the draft's keys."""
    heads, size, conv = delta_shape(setting)
    state = heads * size * size * FLOAT + (conv - 1) * 3 * heads * size * BF16
    delta = delta_count(setting)
    cache = latent_kv_bytes(setting, length, setting.model.num_layers - delta)
    drafted = draft_kv_bytes(setting, length) if setting.nextn else 0.0
    return cache + drafted + float(delta * state * STATES)


def fault(setting: Setting) -> tuple[str, str] | None:
    """Heads of delta attention that do not divide."""
    heads, tp = setting.model.extra["linear_attn_config"]["num_heads"], setting.layout.tp
    return ("tp", f"{heads} delta attention heads do not divide by tp {tp}") if heads % tp else None


WIDTHS: Mapping[str, tuple[float, float, float, float]] = MappingProxyType({**NARROW, "sglang": WIDE["sglang"]})
KIMIK3 = Family(
    name="KIMIK3",
    build_phases=build_phases,
    kv_bytes=kv_bytes,
    activation_widths=WIDTHS,
    lists_drafts=True,
    fault=fault,
)
