"""Qwen3.5 and Qwen3.6: three gated delta rule layers to one of full attention, feed-forward dense or with experts.

A linear layer is norm, input projection, gate projection, convolution, delta rule, output projection, all-reduce; its
state takes the place of a KV cache. Full attention has an output gate, fused into its first projection. Projections,
dense feed-forward and shared experts may each have a quantisation of their own.
Source: specs/search_model.md 1.5 and 2.3 (family QWEN35).
"""

from types import MappingProxyType
from typing import NamedTuple

from serveopt.perfdata.model_config import ModelConfig
from serveopt.solver.families import blocks
from serveopt.solver.families.table import Family, Phases, Setting, ceil_div
from serveopt.solver.operators import descriptions as ops

ALPHA = 1.2  # exponent of the expert load
LARGEST_FREE_ROUTER = 128  # fewer experts: choosing them costs nothing worth an operator
STATE_BYTES = MappingProxyType({"float32": 4, "bfloat16": 2, "float16": 2})
# Phase -> (name, kernel) of the convolution and of the delta rule
KERNELS = MappingProxyType(
    {
        ops.CONTEXT: (("conv1d", "causal_conv1d_fn"), ("scan", "chunk_gated_delta_rule")),
        ops.GENERATION: (
            ("conv1d", "causal_conv1d_update"), ("recurrence", "fused_sigmoid_gating_delta_rule_update"),
        ),
    }
)  # fmt: skip


class DeltaRule(NamedTuple):
    """Geometry of the linear layers of a whole model."""

    key_heads: int
    key_dim: int
    value_heads: int
    value_dim: int
    kernel: int  # tokens that the convolution sees

    @property
    def width(self) -> int:
        """Values per token that the convolution works on: queries, keys and values."""
        return 2 * self.key_heads * self.key_dim + self.value_heads * self.value_dim


def delta_rule(model: ModelConfig) -> DeltaRule:
    """The linear layers of a model."""
    facts = model.extra
    return DeltaRule(
        facts["linear_num_key_heads"], facts["linear_key_head_dim"], facts["linear_num_value_heads"],
        facts["linear_value_head_dim"], facts.get("linear_conv_kernel_dim", 4),
    )  # fmt: skip


def layer_counts(model: ModelConfig) -> tuple[int, int]:
    """Layers of linear and of full attention."""
    kinds = model.extra.get("layer_types", ())[: model.num_layers]
    linear = sum(kind == "linear_attention" for kind in kinds)
    return linear, model.num_layers - linear


def build_phases(setting: Setting) -> Phases:
    """Operators of a prefill and a decode step on one GPU."""
    return Phases(
        context=(*build_step(setting, ops.CONTEXT),),
        generation=(*build_step(setting, ops.GENERATION),),
    )


def build_step(setting: Setting, phase: str) -> list[ops.Operator]:
    """Operators of one step: the linear layers, then those of full attention."""
    scale = blocks.step_scale(setting, phase)
    linear, full = (layers * scale for layers in layer_counts(setting.model))
    return [
        *blocks.embedding(setting, phase, sharded=True),
        *linear_attention(setting, phase, linear),
        *feed_forward(f"{phase}_gdn", setting, linear, phase),
        *full_attention(setting, phase, full),
        *feed_forward(f"{phase}_full", setting, full, phase),
        *blocks.output(setting, phase),
    ]


def linear_attention(setting: Setting, phase: str, count: float) -> list[ops.Operator]:
    """Norm, projections, convolution, delta rule, output projection, all-reduce."""
    model, tp, rule = setting.model, setting.layout.tp, delta_rule(setting.model)
    prefix, hidden, quant = f"{phase}_gdn", model.hidden_size, blocks.part_quant(setting, "linear_attention")
    values = rule.value_heads * rule.value_dim
    state = str(model.extra.get("mamba_ssm_dtype", "float32"))
    geometry = (rule.kernel, rule.key_heads // tp, rule.key_dim, rule.value_heads // tp, rule.value_dim)
    kernels = [
        ops.StateKernel(f"{prefix}_{name}", count, "gdn", kernel, phase, hidden, *geometry, state_dtype=state)
        for name, kernel in KERNELS[phase]
    ]
    return [
        blocks.norm(f"{prefix}_norm", count, hidden),
        ops.Gemm(f"{prefix}_in_proj_gemm", count, (rule.width + values) // tp, hidden, quant),
        ops.Gemm(f"{prefix}_in_proj_ba_gemm", count, 2 * rule.value_heads // tp, hidden, quant),
        *kernels,
        ops.Gemm(f"{prefix}_out_proj_gemm", count, hidden, values // tp, quant, low_precision_input=True),
        *attention_sum(f"{prefix}_ar", setting, count),
    ]


def full_attention(setting: Setting, phase: str, count: float) -> list[ops.Operator]:
    """Norm, gated queries, keys and values, attention, output projection, all-reduce."""
    model, tp = setting.model, setting.layout.tp
    query, kv_heads = model.num_heads * model.head_dim // tp, ceil_div(model.num_kv_heads, tp)
    gate = query if model.extra.get("attn_output_gate", True) else 0
    quant = blocks.part_quant(setting, "attention")
    return [
        blocks.norm(f"{phase}_full_attn_norm", count, model.hidden_size),
        ops.Gemm(f"{phase}_qkv_gemm", count, query + gate + 2 * kv_heads * model.head_dim, model.hidden_size, quant),
        blocks.attention(setting, phase, count, blocks.model_heads(setting)),
        ops.Gemm(f"{phase}_proj_gemm", count, model.hidden_size, query, quant, low_precision_input=True),
        *attention_sum(f"{phase}_full_ar", setting, count),
    ]


def attention_sum(label: str, setting: Setting, count: float) -> list[ops.Operator]:
    """The all-reduce behind attention, unless the exchange before the experts holds it."""
    if not reduces_attention(setting):
        return []
    return [ops.AllReduce(label, count, setting.model.hidden_size, setting.layout.tp)]


def reduces_attention(setting: Setting) -> bool:
    """True if attention has an all-reduce of its own: sglang leaves it to the exchange of replicated attention."""
    return not (setting.backend == "sglang" and setting.layout.attn_dp > 1 and setting.model.num_experts)


def feed_forward(prefix: str, setting: Setting, count: float, phase: str) -> list[ops.Operator]:
    """Norm, then a dense or an expert part."""
    hidden = setting.model.hidden_size
    part = expert_part if setting.model.num_experts else dense_part
    return [blocks.norm(f"{prefix}_ffn_norm", count, hidden), *part(prefix, setting, count, phase)]


def dense_part(prefix: str, setting: Setting, count: float, phase: str) -> list[ops.Operator]:
    """Gate and up, activation, down, all-reduce."""
    model, tp = setting.model, setting.layout.tp
    names = (f"{prefix}_gate_ffn1_gemm", f"{prefix}_act_gate", f"{prefix}_ffn2_gemm")
    sizes = (2 * model.intermediate_size // tp, model.hidden_size, model.intermediate_size // tp)
    quant = blocks.part_quant(setting, "dense_mlp")
    return [
        *blocks.gated_ffn(names, count, sizes, quant, low_precision=True),
        ops.AllReduce(f"{prefix}_ffn_ar", count, model.hidden_size, tp),
    ]


# Backends that run routed and shared experts side by side -> what of the first exchange comes before, what within
OVERLAPS = {"vllm": lambda pre: ([], pre), "sglang": lambda pre: (pre, [])}
# Backends that gate the shared expert in a kernel of its own -> they merge two values per element, the others three
FUSED_GATE = frozenset(("sglang",))


def expert_part(prefix: str, setting: Setting, count: float, phase: str) -> list[ops.Operator]:
    """Routed and shared experts; in decode side by side where the backend runs two streams."""
    model, reduced = setting.model, reduces_attention(setting)
    router = [blocks.router(prefix, setting, count, phase)] if model.num_experts >= LARGEST_FREE_ROUTER else []
    pre = blocks.dispatch(f"{prefix}_moe_pre_dispatch", setting, count, phase, pre=True, reduced=reduced)
    routed = [blocks.experts(f"{prefix}_moe", setting, count, ALPHA)]
    shared = shared_part(prefix, setting, count)
    post = blocks.dispatch(f"{prefix}_moe_post_dispatch", setting, count, phase, pre=False)
    merge = merge_part(prefix, setting, count)
    if phase == ops.CONTEXT or setting.backend not in OVERLAPS:
        return [*router, *pre, *routed, *shared, *merge, *post]
    before, inside = OVERLAPS[setting.backend](pre)
    chain = (*router, *inside, *routed)
    return [*before, ops.Overlap(f"{prefix}_moe_overlap", chain, tuple(shared)), *merge, *post]  # type: ignore[arg-type]


def shared_part(prefix: str, setting: Setting, count: float) -> list[ops.Operator]:
    """The shared expert, split over tp, and its gate."""
    model, tp = setting.model, setting.layout.tp
    width = model.extra.get("shared_expert_intermediate_size", 0)
    names = (f"{prefix}_shared_gate_up_gemm", f"{prefix}_shared_act_gate", f"{prefix}_shared_down_gemm")
    sizes = (2 * width // tp, model.hidden_size, width // tp)
    expert = blocks.gated_ffn(names, count, sizes, blocks.part_quant(setting, "shared_experts"), low_precision=True)
    if setting.backend in FUSED_GATE:
        return expert
    gate = ops.Gemm(f"{prefix}_shared_expert_gate_gemm", count, 1, model.hidden_size, "bfloat16")
    product = ops.MemoryMove(f"{prefix}_shared_expert_gate_mul", count, 2 * model.hidden_size * blocks.BF16)
    return [gate, *expert, product]


def merge_part(prefix: str, setting: Setting, count: float) -> list[ops.Operator]:
    """The sum of routed and shared experts."""
    read = 3 if setting.backend in FUSED_GATE else 2
    return [ops.MemoryMove(f"{prefix}_shared_merge", count, (read + 1) * setting.model.hidden_size * blocks.BF16)]


def kv_bytes(setting: Setting, length: int) -> float:
    """Bytes on one GPU of keys and values of the full layers, and of the states of the linear ones."""
    model, tp, rule = setting.model, setting.layout.tp, delta_rule(setting.model)
    linear, full = layer_counts(model)
    element = STATE_BYTES.get(str(model.extra.get("mamba_ssm_dtype", "float32")), 4)
    state = rule.value_heads // tp * rule.key_dim * rule.value_dim * element
    convolution = rule.width // tp * (rule.kernel - 1) * blocks.BF16
    return blocks.grouped_kv_bytes(setting, length, full) + linear * (state + convolution)


def fault(setting: Setting) -> tuple[str, str] | None:
    """Heads of the linear layers are not split."""
    rule, tp = delta_rule(setting.model), setting.layout.tp
    if rule.key_heads % tp == 0 and rule.value_heads % tp == 0:
        return None
    heads = f"{rule.key_heads} key and {rule.value_heads} value heads"
    return "tp", f"{heads} of linear attention are not divisible by {tp}"


QWEN35 = Family(name="QWEN35", build_phases=build_phases, kv_bytes=kv_bytes, fault=fault)
