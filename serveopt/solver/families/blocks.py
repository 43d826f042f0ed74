"""Parts that most families share: embedding, norms, attention projections, dense and expert feed-forward blocks.

Each function returns the operators of one part of a step, in order of execution, shapes per GPU; ``prefix`` starts
the label of each ("context", "generation_gdn"). Source: specs/search_model.md 1.4 to 1.6, op_model.md 2.13.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from serveopt.solver.families.table import Setting, ceil_div
from serveopt.solver.operators import descriptions as ops

BF16 = 2  # bytes
BALANCED_ALPHA = 0.6  # of prefill under a load balancer
BALANCED_TOKENS = 0.8  # share of the tokens of prefill that is left on the fullest rank
# Algorithm of a part of a mixed-precision checkpoint -> GEMM mode
PART_MODES = MappingProxyType(
    {"nvfp4": "nvfp4", "w4a16_nvfp4": "w4a16_nvfp4", "mxfp8": "fp8_block", "fp8_pb_wo": "fp8_block"}
)


def part_quant(setting: Setting, part: str) -> str:
    """GEMM mode of one part of the model (attention, dense_mlp, shared_experts); what the user set holds for all.

    A checkpoint may leave the part out, which keeps it in bfloat16, or name an algorithm for it alone.
    """
    facts, common = setting.model.quantisation, setting.quant.gemm
    if "gemm" in setting.user_quant:
        return common
    if facts.leaves_out(part):
        return "bfloat16"
    algo = next(iter(facts.target_algos.get(part, ())), "")
    if algo == "fp8":
        return "fp8" if facts.dynamic else "fp8_static"
    if algo == "nvfp4" and not setting.system.is_blackwell:
        return "nvfp4_wo"
    return PART_MODES.get(algo, common)


def token_share(setting: Setting, phase: str) -> float:
    """Tokens of one GPU per token of the step: prefill splits them over context parallel ranks."""
    return 1.0 / setting.layout.cp if phase == ops.CONTEXT else 1.0


def step_scale(setting: Setting, phase: str) -> float:
    """How often a decode step runs its layers: draft layers of speculation run beside the model's own."""
    layers = setting.model.num_layers
    return (layers + setting.nextn) / layers if phase == ops.GENERATION and setting.nextn else 1.0


def embedding(setting: Setting, phase: str, sharded: bool) -> list[ops.Operator]:
    """The look-up, with its all-reduce where rows are split over tp."""
    model, tp = setting.model, setting.layout.tp
    scale, share = step_scale(setting, phase), token_share(setting, phase)
    if not sharded:
        return [ops.Embedding(f"{phase}_embedding", scale, model.vocab_size, model.hidden_size, share)]
    return [
        ops.Embedding(f"{phase}_embedding", scale, model.vocab_size // tp, model.hidden_size, share),
        ops.AllReduce(f"{phase}_embedding_ar", scale, model.hidden_size, tp, share),
    ]


def output(setting: Setting, phase: str) -> list[ops.Operator]:
    """The logits of the last tokens, once, and the hand-over between pipeline stages."""
    model, layout = setting.model, setting.layout
    scale, share = step_scale(setting, phase), token_share(setting, phase)
    rows = model.vocab_size // layout.tp
    return [
        ops.Gemm(f"{phase}_logits_gemm", scale, rows, model.hidden_size, "bfloat16"),
        ops.PointToPoint(f"{phase}_p2p", (layout.pp - 1) * scale, model.hidden_size, share),
    ]


def norm(label: str, count: float, width: int, share: float = 1.0) -> ops.MemoryMove:
    """A norm with its residual addition: two values read, two written per element."""
    return ops.MemoryMove(label, count, 2 * width * 2 * BF16, share)


def activation(label: str, count: float, inner: int, share: float = 1.0) -> ops.MemoryMove:
    """A gated activation: ``inner`` values (gate and up) in, half as many out."""
    return ops.MemoryMove(label, count, (inner + inner // 2) * BF16, share)


def gated_ffn(
    names: tuple[str, str, str], count: float, sizes: tuple[int, int, int], quant: str, share: float = 1.0,
    low_precision: bool = False,
) -> list[ops.Operator]:  # fmt: skip
    """Gate and up, activation, down; ``sizes`` are (gate+up width, hidden, down width), ``names`` their labels."""
    up, act, down = names
    inner, hidden, width = sizes
    return [
        ops.Gemm(up, count, inner, hidden, quant, share=share),
        activation(act, count, inner, share),
        ops.Gemm(down, count, hidden, width, quant, low_precision, share),
    ]


@dataclass(frozen=True, slots=True)
class Heads:
    """The geometry of one kind of attention layer, of the whole model."""

    heads: int
    kv_heads: int
    head_dim: int
    v_dim: int  # of a value head
    window: int = 0  # tokens; 0: full attention
    shared_kv: bool = False  # keys serve as values: one projection for both

    def kv_width(self, tp: int) -> int:
        """Values of keys and values that one GPU caches per token."""
        return ceil_div(self.kv_heads, tp) * (self.head_dim + self.v_dim)

    def kv_bytes(self, setting: Setting, length: int, layers: float) -> float:
        """Bytes on one GPU that ``layers`` cache of a sequence, no more than the window of each."""
        kept = min(length, self.window) if self.window else length
        return kept * setting.quant.kv_bytes * self.kv_width(setting.layout.tp) * layers


def model_heads(setting: Setting, window: int = 0) -> Heads:
    """Heads as the top of the config has them."""
    model = setting.model
    return Heads(model.num_heads, model.num_kv_heads, model.head_dim, model.head_dim, window)


def attention(setting: Setting, phase: str, count: float, heads: Heads) -> ops.Operator:
    """Attention of ``count`` layers, on the heads of one GPU."""
    layout, quant = setting.layout, setting.quant
    own, own_kv = heads.heads // layout.tp, ceil_div(heads.kv_heads, layout.tp)
    if phase == ops.GENERATION:
        return ops.GenerationAttention(
            "generation_attention", count, own, own_kv, heads.head_dim, quant.kv, heads.window
        )
    return ops.ContextAttention(
        "context_attention", count, own, own_kv, heads.head_dim, quant.fmha, quant.kv, heads.window,
        setting.model.has_qk_norm, layout.cp,
    )  # fmt: skip


def attention_core(
    prefix: str, setting: Setting, phase: str, quant: str, *kinds: tuple[float, Heads]
) -> list[ops.Operator]:
    """Query, key and value projection, attention, output projection; under cp the keys and values are gathered.

    ``kinds`` are (layers, heads); their projections are alike and count as one operator.
    """
    hidden, layout, share = setting.model.hidden_size, setting.layout, token_share(setting, phase)
    count, heads = sum(layers for layers, _ in kinds), kinds[0][1]
    cached = heads.kv_width(layout.tp)
    projected = ceil_div(heads.kv_heads, layout.tp) * heads.head_dim if heads.shared_kv else cached
    query = heads.heads * heads.head_dim // layout.tp
    elements = cached * setting.quant.kv_bytes / setting.quant.comm_bytes
    return [
        ops.Gemm(f"{prefix}_qkv_gemm", count, query + projected, hidden, quant, share=share),
        *(attention(setting, phase, layers, one) for layers, one in kinds),
        *cp_gather(f"{phase}_cp_all_gather", count, elements, layout.cp if phase == ops.CONTEXT else 1),
        ops.Gemm(f"{prefix}_proj_gemm", count, hidden, heads.heads * heads.v_dim // layout.tp, quant, True, share),
    ]


def cp_gather(label: str, count: float, elements_per_token: float, cp: int) -> list[ops.Operator]:
    """The all-gather of new keys and values that context parallel ranks need; nothing for one rank."""
    return [ops.Nccl(label, count, "all_gather", elements_per_token, cp)] if cp > 1 else []


def load_distribution(setting: Setting, alpha: float) -> str:
    """Name of the expert load: a power law, of the user's exponent or the family's."""
    return f"power_law_{setting.alpha if setting.alpha is not None else alpha:g}"


@dataclass(frozen=True, slots=True)
class Exchange:
    """One half of the exchange around the experts, without an exchange library."""

    label: str
    count: float
    width: int  # values per token
    wide: int  # expert ranks
    attention_tp: int  # ranks that share a sequence's attention
    dp: int
    pre: bool
    reduced: bool  # the attention block has its own all-reduce
    setting: Setting
    phase: str

    def reduce(self) -> list[ops.Operator]:
        """The all-reduce over all expert ranks."""
        return [ops.AllReduce(self.label, self.count, self.width, self.wide)]

    def spread(self, factor: float = 1.0) -> list[ops.Operator]:
        """Tokens of all attention ranks to every rank (pre), or their sums back (post)."""
        step = "all_gather" if self.pre else "reduce_scatter"
        return [ops.Nccl(self.label, self.count, step, self.width * self.dp * factor, self.wide)]

    def split(self) -> list[ops.Operator]:
        """The sum over the ranks of one attention group, split (pre) or joined (post)."""
        step = "reduce_scatter" if self.pre else "all_gather"
        return [ops.Nccl(self.label, self.count, step, self.width, self.attention_tp)]


def vllm_exchange(half: Exchange) -> list[ops.Operator]:
    """All-reduce where attention is split, all-gather and reduce-scatter where it is not."""
    reduce = half.attention_tp > 1 and not (half.pre and half.reduced)
    return (half.reduce() if reduce else []) + (half.spread() if half.dp > 1 else [])


def trtllm_exchange(half: Exchange) -> list[ops.Operator]:
    """As vllm, but one of the two; on Blackwell the tokens are gathered quantised."""
    if half.dp > 1 and (half.attention_tp == 1 or half.setting.system.is_blackwell):
        packs = half.pre and half.setting.system.is_blackwell
        return half.spread(PACKED.get(half.setting.quant.moe, 1.0) if packs else 1.0)
    reduce = half.attention_tp > 1 and not (half.pre and half.reduced)
    return half.reduce() if reduce else []


def sglang_exchange(half: Exchange) -> list[ops.Operator]:
    """Two-level where attention is split and replicated, gather and scatter of the split prompt under cp."""
    if half.setting.layout.cp > 1:
        if half.phase == ops.CONTEXT:
            return half.spread()
        return [] if half.pre else half.reduce()
    if half.attention_tp > 1 and half.dp > 1:
        return half.split() + half.spread() if half.pre else half.spread() + half.split()
    if half.attention_tp > 1:
        return [] if half.pre and half.reduced else half.reduce()
    return half.spread() if half.dp > 1 else []


PACKED = MappingProxyType({"nvfp4": 0.28125, "fp8": 0.5, "fp8_block": 0.5})  # size beside bf16
EXCHANGES: Mapping[str, Callable[[Exchange], list[ops.Operator]]] = MappingProxyType(
    {"vllm": vllm_exchange, "trtllm": trtllm_exchange, "sglang": sglang_exchange}
)


def dispatch(
    label: str, setting: Setting, count: float, phase: str, pre: bool, width: int = 0, reduced: bool = False
) -> list[ops.Operator]:
    """What brings tokens to their experts (pre) and back (post) without an exchange library.

    The collectives over attention ranks that the backend runs there; with attention split over tp this is the
    layer's all-reduce, unless the attention block has its own (``reduced``). ``width`` is the hidden size unless
    experts work in another one. Source: op_model.md 2.13.
    """
    layout = setting.layout
    wide = layout.moe_tp * layout.moe_ep
    attention_tp = max(1, wide // layout.attn_dp)
    width = width or setting.model.hidden_size
    half = Exchange(label, count, width, wide, attention_tp, layout.attn_dp, pre, reduced, setting, phase)
    return EXCHANGES[setting.backend](half)


def experts(label: str, setting: Setting, count: float, alpha: float, gated: bool = True, width: int = 0) -> ops.Moe:
    """The routed experts of one layer, under a load balancer in prefill with the flatter load it makes."""
    model, layout = setting.model, setting.layout
    load, share = load_distribution(setting, alpha), float(layout.attn_dp)
    if setting.eplb and layout.moe_ep > 1 and label.startswith(ops.CONTEXT):
        load, share = load_distribution(setting, BALANCED_ALPHA), share * BALANCED_TOKENS
    return ops.Moe(
        label, count, width or model.hidden_size, model.moe_intermediate_size, model.experts_per_token,
        model.num_experts, layout.moe_tp, layout.moe_ep, setting.quant.moe, load, gated, share,
    )  # fmt: skip


def router(prefix: str, setting: Setting, count: float, phase: str) -> ops.Gemm:
    """The choice of experts for each token."""
    model, share = setting.model, token_share(setting, phase)
    return ops.Gemm(f"{prefix}_router_gemm", count, model.num_experts, model.hidden_size, "bfloat16", share=share)


def routed_experts(prefix: str, setting: Setting, count: float, phase: str, alpha: float) -> list[ops.Operator]:
    """Router, dispatch, experts, combine."""
    return [
        router(prefix, setting, count, phase),
        *dispatch(f"{prefix}_moe_pre_dispatch", setting, count, phase, pre=True),
        experts(f"{prefix}_moe", setting, count, alpha),
        *dispatch(f"{prefix}_moe_post_dispatch", setting, count, phase, pre=False),
    ]


def block_fault(setting: Setting) -> tuple[str, str] | None:
    """Why the experts' scale blocks do not fit a rank's share of their width, or None."""
    width = setting.model.moe_intermediate_size // setting.layout.moe_tp
    block = (setting.model.quantisation.block or (128,))[0]
    if setting.quant.moe != "fp8_block" or width % block == 0:
        return None
    return "moe_tp", f"an expert's width of {width} on one rank is no multiple of the scale block of {block}"


def grouped_kv_bytes(setting: Setting, length: int, layers: float | None = None) -> float:
    """Bytes on one GPU of keys and values of one sequence: every layer, the model's own KV heads."""
    model = setting.model
    heads = ceil_div(model.num_kv_heads, setting.layout.tp)
    count = model.num_layers if layers is None else layers
    return length * setting.quant.kv_bytes * heads * model.head_dim * count * 2
