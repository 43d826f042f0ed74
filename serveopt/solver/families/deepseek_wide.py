"""DeepSeek under wide expert parallelism: every GPU runs its own tokens through attention, experts are exchanged.

sglang measured latent attention as one kernel behind the first projection; trtllm overlaps launches in decode, which
takes a tenth off every operator of a layer. Norms, router, logits and the hand-over are those of the ordinary graph:
the reference leaves some of them out on sglang and prices the first projection twice. Where attention is split over
tp its sum is reduced explicitly, since no dispatch does it. Source: specs/search_model.md 1.6.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from serveopt.solver.families import blocks
from serveopt.solver.families.expert_layers import (
    ALPHA,
    beside,
    dense_count,
    dense_layers,
    layer_count,
    scaled,
)  # fmt: skip
from serveopt.solver.families.latent import (
    DEEPSEEK_LABELS,
    granular,
    key_gather,
    latent_of,
    mla_block,
    projection_modes,
)  # fmt: skip
from serveopt.solver.families.table import Setting
from serveopt.solver.families.wide_ep import wide_routed, wide_shared
from serveopt.solver.operators import descriptions as ops
from serveopt.solver.operators.weights import resident_bytes

BLACKWELL = 100  # lowest sm_version
OVERLAPPING = frozenset(("trtllm",))  # backends that exchange tokens while shared experts run
EARLY_LAUNCH = 0.9  # trtllm decode layers start before their predecessors have ended


def sglang_attention(setting: Setting, phase: str, count: float) -> list[ops.Operator]:
    """The first projection and the measured kernel; prefill gathers and scatters tokens where tp splits heads."""
    model, layout, quant = setting.model, setting.layout, setting.quant
    hidden, latent = model.hidden_size, latent_of(model)
    # On Blackwell only this kernel was measured; on Hopper flashinfer is sglang's default.
    kernel = "trtllm_mla" if setting.system.sm_version >= BLACKWELL else "flashinfer"
    heads, cp = model.num_heads // layout.tp, layout.cp if phase == ops.CONTEXT else 1
    return [
        ops.Gemm(f"{phase}_qkv_a_proj_gemm", count, latent.down, hidden, projection_modes(setting).down,
                 share=blocks.token_share(setting, phase)),
        *_before(setting, phase, count),
        ops.WideEpMla(f"{phase}_attention", count, phase, kernel, heads, quant.fmha, quant.kv, cp),
        ops.Resident(f"{phase}_attention_weights", _measured_weights(setting, phase), count),
        *_after(setting, phase, count),
        *key_gather(setting, phase, count),
    ]  # fmt: skip


def _measured_weights(setting: Setting, phase: str) -> float:
    """Bytes of the projections of one layer that were measured within the kernel."""
    _, *rest = granular(setting, ops.CONTEXT, 1.0, DEEPSEEK_LABELS)
    return sum(resident_bytes(operator) for operator in rest) if phase == ops.CONTEXT else 0.0


def _before(setting: Setting, phase: str, count: float) -> list[ops.Operator]:
    """The gathering of tokens for split heads; decode ranks of a group hold the same tokens."""
    hidden, tp = setting.model.hidden_size, setting.layout.tp
    gathers = tp > 1 and phase == ops.CONTEXT
    return [ops.Nccl(f"{phase}_tp_all_gather", count, "all_gather", hidden, tp)] if gathers else []


def _after(setting: Setting, phase: str, count: float) -> list[ops.Operator]:
    """The sum over split heads."""
    hidden, tp = setting.model.hidden_size, setting.layout.tp
    if tp == 1:
        return []
    if phase == ops.CONTEXT:
        return [ops.Nccl(f"{phase}_tp_reduce_scatter", count, "reduce_scatter", hidden, tp)]
    return reduce_attention(setting, phase, count)


def reduce_attention(setting: Setting, phase: str, count: float) -> list[ops.Operator]:
    """The all-reduce behind attention; nothing where heads are not split."""
    tp, share = setting.layout.tp, blocks.token_share(setting, phase)
    return [ops.AllReduce(f"{phase}_attention_ar", count, setting.model.hidden_size, tp, share)] if tp > 1 else []


def trtllm_attention(setting: Setting, phase: str, count: float) -> list[ops.Operator]:
    """Projections and kernels one by one, with the norm of the query latent."""
    down, *rest = granular(setting, phase, count, DEEPSEEK_LABELS)
    width = latent_of(setting.model).q
    normed = ops.MemoryMove(f"{phase}_q_a_norm", count, 2 * width * blocks.BF16, blocks.token_share(setting, phase))
    return [down, normed, *rest, *reduce_attention(setting, phase, count)]


def vllm_attention(setting: Setting, phase: str, count: float) -> list[ops.Operator]:
    """As in the ordinary graph."""
    return [*mla_block(setting, phase, count), *reduce_attention(setting, phase, count)]


Attention = Callable[[Setting, str, float], list[ops.Operator]]


def build_layers(setting: Setting, phase: str, attention: Attention) -> list[ops.Operator]:
    """All layers of one step, in order of execution."""
    model = setting.model
    layers, dense, share = layer_count(setting, phase), dense_count(model), blocks.token_share(setting, phase)
    return [
        blocks.norm(f"{phase}_add_norm_1", layers, model.hidden_size, share),
        *attention(setting, phase, layers),
        blocks.norm(f"{phase}_add_norm_2", layers, model.hidden_size, share),
        *dense_layers(setting, phase, dense, model.intermediate_size, reduces=1),
        *wide_layers(setting, phase, layers - dense),
    ]


def wide_layers(setting: Setting, phase: str, count: float) -> list[ops.Operator]:
    """Shared and routed experts of ``count`` layers, side by side in decode where the backend runs them so."""
    width = int(setting.model.extra.get("n_shared_experts", 1)) * setting.model.moe_intermediate_size
    routed = wide_routed(phase, setting, count, phase, ALPHA)
    shared = wide_shared(phase, setting, count, phase, width)
    return beside(phase, routed, shared) if setting.backend in OVERLAPPING else [*shared, *routed]


def sglang_step(setting: Setting, phase: str) -> list[ops.Operator]:
    """Operators of one step under sglang."""
    return _framed(setting, phase, build_layers(setting, phase, sglang_attention))


def vllm_step(setting: Setting, phase: str) -> list[ops.Operator]:
    """Operators of one step under vLLM."""
    return _framed(setting, phase, build_layers(setting, phase, vllm_attention))


def trtllm_step(setting: Setting, phase: str) -> list[ops.Operator]:
    """Operators of one step under TensorRT-LLM."""
    hidden, share = setting.model.hidden_size, blocks.token_share(setting, phase)
    count = layer_count(setting, phase) - dense_count(setting.model)
    merge = ops.MemoryMove(f"{phase}_moe_reduce_add", count, 3 * hidden * blocks.BF16, share)
    layers = [*build_layers(setting, phase, trtllm_attention), merge]
    if phase == ops.GENERATION:
        layers = [scaled(operator, EARLY_LAUNCH) for operator in layers]
    return _framed(setting, phase, layers)


def _framed(setting: Setting, phase: str, layers: list[ops.Operator]) -> list[ops.Operator]:
    """The layers between the look-up and the logits."""
    return [*blocks.embedding(setting, phase, sharded=False), *layers, *blocks.output(setting, phase)]


WIDE_GRAPHS: Mapping[str, Callable[[Setting, str], list[ops.Operator]]] = MappingProxyType(
    {"sglang": sglang_step, "trtllm": trtllm_step, "vllm": vllm_step}
)
