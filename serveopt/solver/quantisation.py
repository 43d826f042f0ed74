"""Adapts the modes that a checkpoint asks for to what a backend runs on a GPU.

Each rule is one small function and one row; rules only touch modes that were inferred, never those that a
user set. The numbers are those of search_model.md 1.3, step C. Rules 1, 2 and 4 rename kernels, 5 and 6
choose the arithmetic of prefill attention; 3 (searches only) and 7 (large expert parallelism) are called on
their own.
"""

from collections.abc import Callable, Collection, Set
from dataclasses import dataclass, replace
from types import MappingProxyType

from serveopt.perfdata.checkpoint import QuantModes, native_fp4_experts
from serveopt.perfdata.model_config import ModelConfig

BLACKWELL, HOPPER = 100, 90  # lowest sm_version


@dataclass(frozen=True, slots=True)
class _Situation:
    model: ModelConfig
    backend: str
    sm_version: int
    context_fmha_slices: Collection[tuple[str, str]]
    runs_prefill: bool

    @property
    def is_blackwell(self) -> bool:
        return self.sm_version >= BLACKWELL

    @property
    def is_hopper(self) -> bool:
        return HOPPER <= self.sm_version < BLACKWELL


Rule = Callable[[QuantModes, _Situation], QuantModes]


def _native_fp4_on_sglang(modes: QuantModes, at: _Situation) -> QuantModes:
    """Rule 1: sglang has its own kernels for checkpoints whose experts are 4-bit floats."""
    if at.backend != "sglang":
        return modes
    if native_fp4_experts(at.model):
        if at.is_blackwell:
            return replace(modes, moe="w4a8_mxfp4_mxfp8_trtllm")
        return replace(modes, moe="w4a16_mxfp4_cutlass") if at.is_hopper else modes
    if at.model.family == "KIMIK3" and at.is_blackwell and modes.moe == "w4a16_mxfp4":
        return replace(modes, moe="w4a8_mxfp4_mxfp8")
    return modes


def _nemotron_on_vllm(modes: QuantModes, at: _Situation) -> QuantModes:
    """Rule 2: vllm runs weight-only NVFP4 layers of NemotronH with its NVFP4 kernels."""
    if at.backend != "vllm" or at.model.family != "NEMOTRONH":
        return modes
    renamed = {"w4a16_nvfp4": "nvfp4"}
    return replace(modes, gemm=renamed.get(modes.gemm, modes.gemm), moe=renamed.get(modes.moe, modes.moe))


def _nvfp4_before_blackwell(modes: QuantModes, at: _Situation) -> QuantModes:
    """Rule 4: without FP4 tensor cores NVFP4 weights are unpacked before the product."""
    if at.is_blackwell:
        return modes
    renamed = {"nvfp4": "nvfp4_wo"}
    return replace(modes, gemm=renamed.get(modes.gemm, modes.gemm), moe=renamed.get(modes.moe, modes.moe))


def _measured_prefill_attention(modes: QuantModes, at: _Situation) -> QuantModes:
    """Rule 5: prefill attention falls back to bfloat16 where FP8 was not measured and bfloat16 was."""
    have = at.context_fmha_slices
    missing = ("fp8", modes.kv) not in have and ("bfloat16", modes.kv) in have
    return replace(modes, fmha="bfloat16") if at.runs_prefill and modes.fmha == "fp8" and missing else modes


def _backends_without_fp8_attention(modes: QuantModes, at: _Situation) -> QuantModes:
    """Rule 6: sparse attention and every model on vllm multiply in bfloat16."""
    without = (
        at.backend == "vllm"
        or at.model.family == "DEEPSEEKV4"
        or (at.model.family == "DEEPSEEKV32" and at.backend in ("trtllm", "sglang"))
    )
    return replace(modes, fmha="bfloat16") if without and modes.fmha == "fp8" else modes


# Prefill attention tables whose (fmha, kv) pairs rule 5 looks at; every other family reads the plain table.
_CONTEXT_TABLES = MappingProxyType(
    {
        "DEEPSEEKV4": ("dsv4_csa_context_module", "dsv4_hca_context_module"),
        "DEEPSEEKV32": ("dsa_context_module",),
        "DEEPSEEK": ("context_mla", "mla_context_module"),
        "KIMIK25": ("context_mla", "mla_context_module"),
        "KIMIK3": ("context_mla", "mla_context_module"),
    }
)


def context_attention_tables(family: str, backend: str) -> tuple[str, ...]:
    """Names of the tables whose (fmha, kv) pairs are ``context_fmha_slices`` of adapt_quant.

    >>> context_attention_tables("DEEPSEEK", "vllm")
    ('context_attention',)
    """
    plain = backend == "vllm" and family in ("DEEPSEEK", "KIMIK25", "KIMIK3")
    return ("context_attention",) if plain else _CONTEXT_TABLES.get(family, ("context_attention",))


RULES: tuple[Rule, ...] = (
    _native_fp4_on_sglang,
    _nemotron_on_vllm,
    _nvfp4_before_blackwell,
    _measured_prefill_attention,
    _backends_without_fp8_attention,
)


def adapt_quant(
    modes: QuantModes,
    model: ModelConfig,
    *,
    backend: str,
    sm_version: int,
    context_fmha_slices: Collection[tuple[str, str]],
    user_set: Set[str],
    runs_prefill: bool,
) -> QuantModes:
    """The modes that ``backend`` runs on a GPU of ``sm_version``.

    ``context_fmha_slices``: (fmha, kv) pairs measured in the family's prefill attention table;
    ``user_set``: components (gemm, moe, fmha, kv, comm) that stay as they are.
    """
    at = _Situation(model, backend, sm_version, context_fmha_slices, runs_prefill)
    adapted = modes
    for rule in RULES:
        adapted = rule(adapted, at)
    return _keep(user_set, modes, adapted)


def adapt_for_search(
    modes: QuantModes, model: ModelConfig, *, backend: str, sm_version: int, user_set: Set[str]
) -> QuantModes:
    """Rule 3, searches only: gpt-oss on trtllm and Blackwell multiplies its experts in FP8."""
    applies = model.architecture == "GptOssForCausalLM" and backend == "trtllm" and sm_version >= BLACKWELL
    adapted = replace(modes, moe="w4a8_mxfp4_mxfp8") if applies and modes.moe == "w4a16_mxfp4" else modes
    return _keep(user_set, modes, adapted)


def adapt_for_large_ep(modes: QuantModes, model: ModelConfig, *, backend: str, user_set: Set[str]) -> QuantModes:
    """Rule 7: the expert-parallel graph of sglang runs DeepSeek-V3 attention in block FP8."""
    applies = model.architecture == "DeepseekV3ForCausalLM" and backend == "sglang"
    return _keep(user_set, modes, replace(modes, fmha="fp8_block", kv="fp8") if applies else modes)


def runs_in_search(model: ModelConfig, sm_version: int) -> bool:
    """False for checkpoints with 4-bit float experts on Hopper: no search prices them."""
    return not (native_fp4_experts(model) and HOPPER <= sm_version < BLACKWELL)


def _keep(user_set: Set[str], given: QuantModes, adapted: QuantModes) -> QuantModes:
    """``adapted`` with the components of ``user_set`` as given."""
    return replace(adapted, **{name: value for name, value in given.as_dict().items() if name in user_set})
