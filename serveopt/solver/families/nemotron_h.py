"""Nemotron-H: Mamba2 layers, a few attention layers, dense or expert layers, as the layer pattern says.

Every layer is one mixer behind a norm, and reduces its own sum. An expert layer therefore needs no collective before
its experts while attention is split over tp, and its dispatch is its all-reduce. Where experts work in a latent width
both latent projections are split over tp, so dispatch gathers and sums latents and the layer's sum remains.
Source: specs/search_model.md 1.5 (NEMOTRONH), op_model.md 2.17.
"""

from collections.abc import Callable
from typing import NamedTuple

from serveopt.perfdata.model_config import ModelConfig
from serveopt.solver.families import blocks
from serveopt.solver.families.expert_layers import ALPHA
from serveopt.solver.families.table import Family, Phases, Setting
from serveopt.solver.operators import descriptions as ops

STATE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
KERNELS = {  # convolution, recurrence
    ops.CONTEXT: ("causal_conv1d_fn", "mamba_chunk_scan_combined"),
    ops.GENERATION: ("causal_conv1d_update", "selective_state_update"),
}


class Mixer(NamedTuple):
    """Geometry of a Mamba2 layer; heads and groups of one GPU where split."""

    heads: int
    head_dim: int
    groups: int
    state: int
    conv: int

    @property
    def inner(self) -> int:
        """Width of the layer."""
        return self.heads * self.head_dim

    @property
    def channels(self) -> int:
        """Channels of the convolution: inputs and both state projections."""
        return self.inner + 2 * self.groups * self.state


def mixer_of(model: ModelConfig, tp: int = 1) -> Mixer:
    """The Mamba2 geometry of a model split over ``tp``; a group is never split."""
    given = model.extra
    return Mixer(
        given["mamba_num_heads"] // tp, given["mamba_head_dim"], max(given["n_groups"] // tp, 1),
        given["ssm_state_size"], given["conv_kernel"],
    )  # fmt: skip


def build_phases(setting: Setting) -> Phases:
    """Operators of a prefill and a decode step on one GPU."""
    return Phases(context=(*build_step(setting, ops.CONTEXT),), generation=(*build_step(setting, ops.GENERATION),))


def build_step(setting: Setting, phase: str) -> list[ops.Operator]:
    """Operators of one step, in order of execution."""
    logits, hand_over = blocks.output(setting, phase)
    scale, pattern = blocks.step_scale(setting, phase), setting.model.layer_pattern
    layers = [
        operator
        for letter, build in LAYERS.items()
        if letter in pattern
        for operator in build(setting, phase, pattern.count(letter) * scale)
    ]
    return [*blocks.embedding(setting, phase, sharded=False), *layers, hand_over, logits]


def mamba(setting: Setting, phase: str, count: float) -> list[ops.Operator]:
    """Mamba2 layers; heads and groups are split over tp."""
    model, tp, mode = setting.model, setting.layout.tp, blocks.part_quant(setting, "mamba")
    hidden, local = model.hidden_size, mixer_of(model, tp)

    def kernel(name: str, source: str) -> ops.Mamba2:
        return ops.Mamba2(
            f"{phase}_{name}", count, source, phase, hidden, local.state, local.conv, local.heads, local.head_dim,
            local.groups, model.extra["chunk_size"],
        )  # fmt: skip

    convolution, recurrence = KERNELS[phase]
    width = local.inner + local.channels + local.heads
    return [
        blocks.norm(f"{phase}_mamba_norm", count, hidden),
        ops.Gemm(f"{phase}_mamba_in_proj_gemm", count, width, hidden, mode),
        kernel("mamba_conv1d", convolution),
        kernel("mamba_ssm", recurrence),
        ops.Gemm(f"{phase}_mamba_out_proj_gemm", count, hidden, local.inner, mode),
        ops.AllReduce(f"{phase}_mamba_ar", count, hidden, tp),
    ]


def attention(setting: Setting, phase: str, count: float) -> list[ops.Operator]:
    """Grouped-query attention layers."""
    hidden, quant = setting.model.hidden_size, blocks.part_quant(setting, "attention")
    return [
        blocks.norm(f"{phase}_attn_norm", count, hidden),
        *blocks.attention_core(phase, setting, phase, quant, (count, blocks.model_heads(setting))),
        ops.AllReduce(f"{phase}_attn_ar", count, hidden, setting.layout.tp),
    ]


def expert_layers(setting: Setting, phase: str, count: float) -> list[ops.Operator]:
    """Shared experts, router and routed experts without a gate, in the latent width where there is one."""
    model, tp, mode = setting.model, setting.layout.tp, setting.quant.gemm
    hidden, latent = model.hidden_size, int(model.extra.get("moe_latent_size", 0))
    width = model.extra["moe_shared_expert_intermediate_size"] // tp
    down = [ops.Gemm(f"{phase}_fc1_latent_proj_gemm", count, latent // tp, hidden, mode)]
    up: list[ops.Operator] = [
        ops.Gemm(f"{phase}_fc2_latent_proj_gemm", count, hidden, latent // tp, mode, low_precision_input=True),
        ops.AllReduce(f"{phase}_moe_ar", count, hidden, tp),
    ]
    return [
        blocks.norm(f"{phase}_moe_norm", count, hidden),
        *squared_ffn(setting, f"{phase}_shared", count, width),
        ops.Gemm(f"{phase}_router_gemm", count, model.num_experts, hidden, "bfloat16"),
        *(down if latent else []),
        *blocks.dispatch(f"{phase}_moe_pre_dispatch", setting, count, phase, True, latent, reduced=not latent),
        blocks.experts(f"{phase}_moe", setting, count, ALPHA, gated=False, width=latent),
        *blocks.dispatch(f"{phase}_moe_post_dispatch", setting, count, phase, False, latent),
        *(up if latent else []),
    ]


def squared_ffn(setting: Setting, prefix: str, count: float, width: int) -> list[ops.Operator]:
    """Up, squared ReLU, down; ``width`` is that of one GPU."""
    hidden, mode = setting.model.hidden_size, setting.quant.gemm
    low = prefix.endswith("shared")  # its input arrives quantised
    return [
        ops.Gemm(f"{prefix}_up_gemm", count, width, hidden, mode),
        ops.MemoryMove(f"{prefix}_relu2", count, 2 * width * blocks.BF16),
        ops.Gemm(f"{prefix}_down_gemm", count, hidden, width, mode, low),
    ]


def dense_layers(setting: Setting, phase: str, count: float) -> list[ops.Operator]:
    """Dense feed-forward layers."""
    model, tp = setting.model, setting.layout.tp
    return [
        blocks.norm(f"{phase}_mlp_norm", count, model.hidden_size),
        *squared_ffn(setting, f"{phase}_mlp", count, model.intermediate_size // tp),
        ops.AllReduce(f"{phase}_mlp_ar", count, model.hidden_size, tp),
    ]


LAYERS: dict[str, Callable[[Setting, str, float], list[ops.Operator]]] = {
    "M": mamba,
    "*": attention,
    "E": expert_layers,
    "-": dense_layers,
}


def kv_bytes(setting: Setting, length: int) -> float:
    """Bytes on one GPU of one sequence: keys and values of attention layers, states of Mamba2 layers."""
    pattern = setting.model.layer_pattern
    attended, mixers = pattern.count("*"), pattern.count("M")
    cache = blocks.grouped_kv_bytes(setting, length, attended) if attended else 0.0
    return cache + mixers * state_bytes(setting)


def state_bytes(setting: Setting) -> float:
    """Bytes on one GPU of the states of one sequence in one Mamba2 layer."""
    local = mixer_of(setting.model, setting.layout.tp)
    size = STATE_BYTES[setting.model.extra.get("mamba_ssm_cache_dtype", "float32")]
    return float((local.conv - 1) * local.channels * blocks.BF16 + local.inner * local.state * size)


NEMOTRONH = Family(name="NEMOTRONH", build_phases=build_phases, kv_bytes=kv_bytes)
