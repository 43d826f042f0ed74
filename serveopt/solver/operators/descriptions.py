"""What a step is made of: one small frozen record per operator, shapes per GPU.

A family file lists these; pricing turns each into a latency curve or an attention slice. ``count`` is how often the
operator runs in one step (layers), ``label`` the name it is reported under.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gemm:
    """C[m, n] = A[m, k] x W[n, k], m = tokens of the step."""

    label: str
    count: float
    n: int
    k: int
    quant: str
    low_precision_input: bool = False  # the input arrives quantised (fp8_static saves a scale pass)


@dataclass(frozen=True, slots=True)
class MemoryMove:
    """An element-wise kernel that moves ``bytes_per_token`` bytes for every token."""

    label: str
    count: float
    bytes_per_token: float


@dataclass(frozen=True, slots=True)
class Embedding:
    """A table look-up of ``hidden`` bf16 values per token; ``rows`` are resident on this GPU."""

    label: str
    count: float
    rows: int
    hidden: int


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
class AllReduce:
    """The backend's own all-reduce of tokens x hidden bf16 values over ``gpus``."""

    label: str
    count: float
    hidden: int
    gpus: int


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


TokenOperator = Gemm | MemoryMove | Embedding | AllReduce | Nccl | PointToPoint
AttentionOperator = ContextAttention | GenerationAttention
Operator = TokenOperator | AttentionOperator
