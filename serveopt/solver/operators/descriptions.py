"""What a step is made of: one small frozen record per operator, shapes per GPU.

A family file lists these; pricing turns each into a token curve or a sequence price. ``count`` is how often the
operator runs in one step (layers), ``label`` the name it is reported under. Token operators cost what the number of
tokens in the step says; ``share`` is how many tokens each sees per token of its rank (attention data parallel: more,
context parallel: fewer). Sequence operators cost what the prompts (context) or the cached lengths (generation) say.
"""

from dataclasses import dataclass

CONTEXT, GENERATION = "context", "generation"


@dataclass(frozen=True, slots=True)
class Gemm:
    """C[m, n] = A[m, k] x W[n, k], m = tokens of the step."""

    label: str
    count: float
    n: int
    k: int
    quant: str
    low_precision_input: bool = False  # the input arrives quantised (fp8_static saves a scale pass)
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class MemoryMove:
    """An element-wise kernel that moves ``bytes_per_token`` bytes for every token."""

    label: str
    count: float
    bytes_per_token: float
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Embedding:
    """A table look-up of ``hidden`` bf16 values per token; ``rows`` are resident on this GPU."""

    label: str
    count: float
    rows: int
    hidden: int
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class AllReduce:
    """The backend's own all-reduce of tokens x hidden bf16 values over ``gpus``."""

    label: str
    count: float
    hidden: int
    gpus: int
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Nccl:
    """An NCCL collective of tokens x ``elements_per_token`` values over ``gpus``."""

    label: str
    count: float
    operation: str  # all_gather | reduce_scatter | alltoall | all_reduce
    elements_per_token: float
    gpus: int
    comm: str = "half"


@dataclass(frozen=True, slots=True)
class PointToPoint:
    """Hand-over of tokens x hidden bf16 values to the next pipeline stage."""

    label: str
    count: float
    hidden: int
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Moe:
    """Routed experts of one layer, fused: sizes are those of the whole model, the degrees split them."""

    label: str
    count: float
    hidden: int
    inter: int
    topk: int
    experts: int
    moe_tp: int
    moe_ep: int
    quant: str
    distribution: str  # balanced | power_law_<alpha>
    gated: bool = True
    share: float = 1.0  # attention data parallel degree: all ranks' tokens enter the shared experts


@dataclass(frozen=True, slots=True)
class MegaMoe:
    """Dispatch, experts and combine in one kernel (sglang on Blackwell)."""

    label: str
    count: float
    phase: str
    hidden: int
    inter: int
    topk: int
    experts: int
    moe_ep: int
    quant: str
    distribution: str
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class ExpertCompute:
    """Routed experts under wide expert parallelism: dispatch and combine are operators of their own."""

    label: str
    count: float
    phase: str
    hidden: int
    inter: int
    topk: int
    experts: int
    slots: int  # experts plus the redundant copies of a load balancer
    moe_ep: int
    quant: str
    distribution: str
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class AllToAll:
    """One half of the exchange of tokens between expert ranks."""

    label: str
    count: float
    library: str  # deepep_ht | deepep_ll | deepep_v2_context | trtllm_deepep_ht | nvlink_two_sided | ...
    step: str  # prepare | dispatch | combine
    dtype: str
    hidden: int
    topk: int
    experts: int
    moe_ep: int
    nodes: int
    share: float = 1.0
    sms: int = 0  # multiprocessors given to the exchange; 0: the library's default


@dataclass(frozen=True, slots=True)
class Mhc:
    """Manifold-constrained hyper-connections of DeepSeek-V4, before (pre) or behind (post) a block."""

    label: str
    count: float
    step: str  # pre | post
    hc_mult: int
    hidden: int
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two chains of token operators that run side by side: the longer one counts."""

    label: str
    first: tuple["TokenOperator", ...]
    second: tuple["TokenOperator", ...]
    count: float = 1.0  # the members carry their own counts


@dataclass(frozen=True, slots=True)
class ContextAttention:
    """Causal prefill attention with fused rotary embedding and KV write."""

    label: str
    count: float
    heads: int
    kv_heads: int
    head_dim: int
    fmha: str
    kv: str
    window: int = 0  # tokens; 0: full attention
    qk_norm: bool = False
    cp: int = 1


@dataclass(frozen=True, slots=True)
class GenerationAttention:
    """Attention of one new token per sequence over its KV cache."""

    label: str
    count: float
    heads: int
    kv_heads: int
    head_dim: int
    kv: str
    window: int = 0


@dataclass(frozen=True, slots=True)
class EncoderAttention:
    """Attention without a mask inside each image of a vision encoder."""

    label: str
    count: float
    heads: int
    head_dim: int
    fmha: str = "bfloat16"


@dataclass(frozen=True, slots=True)
class Mla:
    """Multi-head latent attention alone, the projections being operators of their own."""

    label: str
    count: float
    phase: str
    heads: int
    fmha: str
    kv: str
    cp: int = 1
    widths: tuple[int, ...] = ()  # kv latent, nope, rope, value; (): DeepSeek's, as measured


@dataclass(frozen=True, slots=True)
class MlaBmm:
    """Absorbed up-projection of latent attention in decode: pre (query) or post (value)."""

    label: str
    count: float
    step: str  # pre | post
    heads: int
    quant: str


@dataclass(frozen=True, slots=True)
class MlaModule:
    """Latent attention with its projections, measured as one block."""

    label: str
    count: float
    phase: str
    heads: int
    native_heads: int
    fmha: str
    kv: str
    gemm: str
    cp: int = 1


@dataclass(frozen=True, slots=True)
class WideEpMla:
    """Latent attention of sglang's wide expert parallel graph, projections but the first included."""

    label: str
    count: float
    phase: str
    kernel: str  # flashinfer | fa3
    heads: int
    fmha: str
    kv: str
    cp: int = 1


@dataclass(frozen=True, slots=True)
class Dsa:
    """DeepSeek sparse attention with its indexer and projections."""

    label: str
    count: float
    phase: str
    architecture: str
    heads: int
    fmha: str
    kv: str
    gemm: str
    full_share: float = 1.0  # share of layers that compute the indexer; the others reuse its choice
    cp: int = 1
    widths: tuple[int, ...] = ()  # see sequence_bounds.DSA_WIDTHS; (): the architecture's own, as measured


@dataclass(frozen=True, slots=True)
class Dsv4:
    """Compressed sparse (csa, ratio 4) or heavily compressed (hca, ratio 128) attention of DeepSeek-V4."""

    label: str
    count: float
    phase: str
    kind: str  # csa | hca
    heads: int
    native_heads: int
    fmha: str
    kv: str
    gemm: str
    hidden: int
    q_lora: int
    o_lora: int
    head_dim: int
    rope_dim: int
    index_heads: int
    index_dim: int
    topk: int
    o_groups: int
    window: int
    cp: int = 1


@dataclass(frozen=True, slots=True)
class Msa:
    """Block-sparse attention of MiniMax-M3 with its indexer and projections."""

    label: str
    count: float
    phase: str
    heads: int
    kv_heads: int
    hidden: int
    head_dim: int
    v_dim: int
    index_heads: int
    index_dim: int
    topk: int  # tokens: blocks chosen times the block size
    block: int
    fmha: str
    kv: str
    gemm: str


@dataclass(frozen=True, slots=True)
class StateKernel:
    """One kernel of a linear attention layer (gated delta rule, Kimi delta attention): heads of one GPU."""

    label: str
    count: float
    table: str  # gdn | kda
    kernel: str
    phase: str  # context | generation | verify
    d_model: int
    d_conv: int
    num_k_heads: int
    head_k_dim: int
    num_v_heads: int
    head_v_dim: int
    draft_tokens: int = 0
    state_dtype: str = "float32"


@dataclass(frozen=True, slots=True)
class Mamba2:
    """One kernel of a Mamba2 layer, heads and groups of one GPU."""

    label: str
    count: float
    kernel: str
    phase: str
    d_model: int
    d_state: int
    d_conv: int
    heads: int
    head_dim: int
    groups: int
    chunk: int


@dataclass(frozen=True, slots=True)
class Fallback:
    """A block measured as a whole, else the operators it is made of."""

    label: str
    primary: "SequenceOperator"
    parts: tuple["Operator", ...]
    count: float = 1.0  # the members carry their own counts


@dataclass(frozen=True, slots=True)
class Resident:
    """Weights that no priced operator of its own carries (those inside a measured module). Costs no time."""

    label: str
    size_bytes: float
    count: float = 1.0


TokenOperator = (
    Gemm | MemoryMove | Embedding | AllReduce | Nccl | PointToPoint
    | Moe | MegaMoe | ExpertCompute | AllToAll | Mhc | Overlap
)  # fmt: skip
SequenceOperator = (
    ContextAttention | GenerationAttention | EncoderAttention | Mla | MlaBmm | MlaModule | WideEpMla
    | Dsa | Dsv4 | Msa | StateKernel | Mamba2
)  # fmt: skip
Operator = TokenOperator | SequenceOperator | Fallback | Resident
