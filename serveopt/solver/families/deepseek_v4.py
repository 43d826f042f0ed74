"""DeepSeek-V4: hyper-connections around compressed sparse attention, routed and shared experts.

Layers differ in how strongly they compress the past: ratio 4 with an indexer, ratio 128 without, or a window alone,
which is priced as ratio 128. Source: specs/search_model.md 1.4, 1.5 (DEEPSEEKV4), 2.3, op_model.md 2.19.
"""

from collections import Counter

from serveopt.perfdata.model_config import ModelConfig
from serveopt.perfdata.quant_modes import GEMM_MODES
from serveopt.solver.families import blocks
from serveopt.solver.families.deepseek import shared_width
from serveopt.solver.families.expert_layers import expert_layers
from serveopt.solver.families.table import WIDE, Family, Phases, Setting
from serveopt.solver.operators import descriptions as ops

SPARSE, WINDOW_ONLY = 4, 0
KINDS = {4: "csa", 128: "hca", WINDOW_ONLY: "hca"}
FLOAT, BF16 = 4, 2  # bytes


def build_phases(setting: Setting) -> Phases:
    """Operators of a prefill and a decode step on one GPU."""
    return Phases(context=(*build_step(setting, ops.CONTEXT),), generation=(*build_step(setting, ops.GENERATION),))


def build_step(setting: Setting, phase: str) -> list[ops.Operator]:
    """Operators of one step, in order of execution."""
    model = setting.model
    scale, share = blocks.step_scale(setting, phase), blocks.token_share(setting, phase)
    layers, hidden = model.num_layers * scale, model.hidden_size

    def connections(step: str) -> ops.Mhc:
        return ops.Mhc(f"{phase}_mhc_{step}", layers, step, model.extra.get("hc_mult", 4), hidden, share)

    def norm(name: str) -> ops.MemoryMove:
        return ops.MemoryMove(f"{phase}_{name}", layers, 2 * hidden * BF16, share)

    return [
        *blocks.embedding(setting, phase, sharded=False),
        connections("pre"),
        norm("attn_norm"),
        *attention(setting, phase, scale),
        connections("post"),
        norm("ffn_norm"),
        *expert_layers(setting, phase, layers, shared_width(setting), setting.quant.gemm),
        *blocks.output(setting, phase),
    ]


def layer_ratios(model: ModelConfig) -> Counter[int]:
    """Layers of each compression ratio, in order of first appearance; the draft layers at the end are left out."""
    return Counter(model.extra["compress_ratios"][: model.num_layers])


def attention(setting: Setting, phase: str, scale: float) -> list[ops.Operator]:
    """One measured block per kind of layer, and the weights of each ratio."""
    ratios = layer_ratios(setting.model)
    kinds: Counter[str] = Counter()
    for ratio, layers in sorted(ratios.items(), key=lambda item: item[0] == WINDOW_ONLY):
        kinds[KINDS[ratio]] += layers
    weights = [
        ops.Resident(f"{phase}_attention_weights", weight_bytes(setting, ratio), layers)
        for ratio, layers in ratios.items()
    ]
    return [*(block(setting, phase, kind, layers * scale) for kind, layers in kinds.items()), *weights]


def block(setting: Setting, phase: str, kind: str, count: float) -> ops.Dsv4:
    """The measured attention block of ``count`` layers."""
    model, layout, quant, given = setting.model, setting.layout, setting.quant, setting.model.extra
    return ops.Dsv4(
        f"{phase}_attention", count, phase, kind, model.num_heads // layout.tp, model.num_heads, quant.fmha, quant.kv,
        quant.gemm, model.hidden_size, given["q_lora_rank"], given["o_lora_rank"], model.head_dim,
        given["qk_rope_head_dim"], given["index_n_heads"], given["index_head_dim"], given["index_topk"],
        local_groups(setting), given["sliding_window"], layout.cp if phase == ops.CONTEXT else 1,
    )  # fmt: skip


def local_groups(setting: Setting) -> int:
    """Groups of the output projection on one GPU."""
    return max(1, int(setting.model.extra["o_groups"]) // setting.layout.tp)


def weight_bytes(setting: Setting, ratio: int) -> float:
    """Bytes of weights of one layer's attention on one GPU."""
    model, given = setting.model, setting.model.extra
    hidden, q_rank, o_rank, width = model.hidden_size, given["q_lora_rank"], given["o_lora_rank"], model.head_dim
    heads = model.num_heads // setting.layout.tp
    index_heads, index_dim = given["index_n_heads"], given["index_head_dim"]
    quantised = hidden * q_rank + q_rank * heads * width + hidden * width + local_groups(setting) * o_rank * hidden
    plain, scales = heads * width * o_rank, heads
    if ratio != WINDOW_ONLY:  # the compressor
        quantised += 2 * hidden * tails(ratio) * width
        scales += ratio * tails(ratio) * width
    if ratio == SPARSE:  # the indexer
        quantised += q_rank * index_heads * index_dim + 4 * hidden * index_dim
        plain += hidden * index_heads
        scales += 2 * ratio * index_dim
    return quantised * GEMM_MODES[setting.quant.gemm].bytes_per_element + plain * BF16 + scales * FLOAT


def tails(ratio: int) -> int:
    """Overlapping windows that the compressor keeps open."""
    return 2 if ratio == SPARSE else 1


def kv_bytes(setting: Setting, length: int) -> float:
    """KV cache bytes on one GPU of one sequence: windows, compressed past, index keys and open compressor windows."""
    model, given = setting.model, setting.model.extra
    size, index_dim = model.head_dim * setting.quant.kv_bytes, given["index_head_dim"]
    total = 0.0
    for ratio, layers in layer_ratios(model).items():
        layer = float(min(length, given["sliding_window"]) * size)
        if ratio != WINDOW_ONLY:
            layer += (length // ratio) * size + 2 * ratio * tails(ratio) * model.head_dim * FLOAT
        if ratio == SPARSE:
            layer += (length // ratio) * index_dim * 0.5 + ratio * 2 * 2 * index_dim * FLOAT
        total += layers * layer
    return total


DEEPSEEKV4 = Family(
    name="DEEPSEEKV4",
    build_phases=build_phases,
    kv_bytes=kv_bytes,
    activation_widths=WIDE,
    dispatch_workspace="attention",
    context_parallel=True,
)
