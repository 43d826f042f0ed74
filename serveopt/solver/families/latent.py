"""Multi-head latent attention (MLA) of one layer: measured as one block, else projections and kernel one by one.

Queries come from a latent of width q, keys and values from one of width kv beside a rotary part; only the latter two
are cached. Prefill expands keys and values for every head, decode absorbs the expansion into two batched products.
Source: specs/search_model.md 1.5 (DEEPSEEK), op_model.md 2.6 to 2.8.
"""

from typing import NamedTuple

from serveopt.perfdata.model_config import ModelConfig
from serveopt.solver.families.blocks import cp_gather, part_quant, token_share
from serveopt.solver.families.table import Setting, ceil_div
from serveopt.solver.operators import descriptions as ops

BF16_BYTES = 2  # of one communicated element
HEAD = 128  # head size of the plain attention kernel that vLLM runs on expanded keys and values


class Latent(NamedTuple):
    """Widths of the latents and of one head."""

    q: int
    kv: int
    nope: int
    rope: int
    value: int

    @property
    def down(self) -> int:
        """Outputs of the projection to all latents."""
        return self.q + self.kv + self.rope

    @property
    def cached(self) -> int:
        """Values kept per token and layer."""
        return self.kv + self.rope


# Where latent kernels were measured within the block only: projections of several modes take the block of the output
# projection's mode, the largest.
BLOCK_ONLY = frozenset((("vllm", ops.GENERATION),))
DEEPSEEK = Latent(1536, 512, 128, 64, 128)


class Modes(NamedTuple):
    """GEMM modes of the projections."""

    down: str
    q: str
    kv: str
    o: str

    @property
    def bmm(self) -> str:
        """Mode of the absorbed products: they hold the weights of the kv projection."""
        return "bfloat16" if self.kv == "bfloat16" else "fp8"


class Labels(NamedTuple):
    """Names of the GEMMs, after the phase."""

    down: str = "downscale_gemm"
    q: str = "q_b_proj_gemm"
    kv: str = "kv_b_proj_gemm"
    o: str = "proj_gemm"
    low_precision: bool = False  # the output projection's input arrives quantised


DEEPSEEK_LABELS = Labels()


def latent_of(model: ModelConfig) -> Latent:
    """The latent widths of a model; those of DeepSeek-V3 where its config says nothing."""
    given = model.extra
    return Latent(
        given.get("q_lora_rank", 1536), given.get("kv_lora_rank", 512), given.get("qk_nope_head_dim", 128),
        given.get("qk_rope_head_dim", 64), given.get("v_head_dim", 128),
    )  # fmt: skip


def projection_modes(setting: Setting) -> Modes:
    """Modes of the projections; the shared first one is quantised as soon as either of its halves is."""
    q, kv, o = (part_quant(setting, part) for part in ("q", "kv", "o"))
    return Modes(q if q == kv else setting.quant.gemm, q, kv, o)


def mla_block(setting: Setting, phase: str, count: float) -> list[ops.Operator]:
    """Latent attention of ``count`` layers: the measured block where all projections have one mode, else its parts."""
    modes = projection_modes(setting)
    down, *rest = granular(setting, phase, count, DEEPSEEK_LABELS)
    parts = (down, *rest)
    gather = key_gather(setting, phase, count)
    if not is_deepseek(setting.model) or (len(set(modes)) > 1 and (setting.backend, phase) not in BLOCK_ONLY):
        return [*parts, *gather]
    return [ops.Fallback(f"{phase}_mla_block", module(setting, phase, count, modes.o), parts), *gather]


def is_deepseek(model: ModelConfig) -> bool:
    """True if projections have the sizes of DeepSeek-V3, whose block was measured."""
    return (model.hidden_size, latent_of(model)) == (7168, DEEPSEEK)


def kernel_widths(model: ModelConfig) -> tuple[int, ...]:
    """Sizes of the attention kernel; () for those of DeepSeek-V3, which were measured."""
    widths = tuple(latent_of(model)[1:])
    return () if widths == DEEPSEEK[1:] else widths


def module(setting: Setting, phase: str, count: float, gemm: str) -> ops.MlaModule:
    """The block as measured."""
    model, layout, quant = setting.model, setting.layout, setting.quant
    return ops.MlaModule(
        f"{phase}_mla_module", count, phase, model.num_heads // layout.tp, model.num_heads, quant.fmha, quant.kv, gemm,
        layout.cp if phase == ops.CONTEXT else 1,
    )  # fmt: skip


def granular(setting: Setting, phase: str, count: float, labels: Labels) -> list[ops.Operator]:
    """Projections and kernels of ``count`` layers, in order."""
    latent, modes = latent_of(setting.model), projection_modes(setting)
    hidden, heads = setting.model.hidden_size, setting.model.num_heads // setting.layout.tp
    share = token_share(setting, phase)

    def gemm(name: str, n: int, k: int, mode: str, low: bool = False) -> ops.Gemm:
        return ops.Gemm(f"{phase}_{name}", count, n, k, mode, low, share)

    expand = [gemm(labels.kv, heads * (latent.nope + latent.value), latent.kv, modes.kv)]
    kernels = PLAIN if setting.backend == "vllm" else ABSORBED
    return [
        gemm(labels.down, latent.down, hidden, modes.down),
        gemm(labels.q, heads * (latent.nope + latent.rope), latent.q, modes.q),
        *(expand if phase == ops.CONTEXT else []),
        *kernels[phase](setting, count, modes.bmm),
        gemm(labels.o, hidden, heads * latent.value, modes.o, labels.low_precision),
    ]


def _context_kernel(setting: Setting, count: float, _: str) -> list[ops.Operator]:
    heads, quant = setting.model.num_heads // setting.layout.tp, setting.quant
    widths = kernel_widths(setting.model)
    return [ops.Mla("context_attention", count, ops.CONTEXT, heads, quant.fmha, quant.kv, setting.layout.cp, widths)]


def _generation_kernel(setting: Setting, count: float, bmm: str) -> list[ops.Operator]:
    heads, quant = setting.model.num_heads // setting.layout.tp, setting.quant
    return [
        ops.MlaBmm("generation_bmm_pre", count, "pre", heads, bmm),
        ops.Mla(
            "generation_attention",
            count,
            ops.GENERATION,
            heads,
            quant.fmha,
            quant.kv,
            widths=kernel_widths(setting.model),
        ),
        ops.MlaBmm("generation_bmm_post", count, "post", heads, bmm),
    ]


def _plain_heads(setting: Setting) -> tuple[int, int]:
    """Query and KV heads of one GPU once keys and values are expanded."""
    model, tp = setting.model, setting.layout.tp
    return model.num_heads // tp, ceil_div(model.num_kv_heads or model.num_heads, tp)


def _plain_context(setting: Setting, count: float, _: str) -> list[ops.Operator]:
    heads, kv_heads = _plain_heads(setting)
    quant, cp = setting.quant, setting.layout.cp
    return [ops.ContextAttention("context_attention", count, heads, kv_heads, HEAD, quant.fmha, quant.kv, cp=cp)]


ABSORBED = {ops.CONTEXT: _context_kernel, ops.GENERATION: _generation_kernel}
PLAIN = {ops.CONTEXT: _plain_context, ops.GENERATION: _generation_kernel}  # vLLM expands keys in prefill only


def key_gather(setting: Setting, phase: str, count: float) -> list[ops.Operator]:
    """The all-gather of new latents between context parallel ranks."""
    if phase != ops.CONTEXT:
        return []
    elements = latent_of(setting.model).cached * setting.quant.kv_bytes / BF16_BYTES
    return cp_gather("context_cp_all_gather", count, elements, setting.layout.cp)


def latent_kv_bytes(setting: Setting, length: int, layers: int) -> float:
    """Bytes on one GPU of the latents of one sequence; every GPU holds them all."""
    return float(length * setting.quant.kv_bytes * layers * latent_of(setting.model).cached)
