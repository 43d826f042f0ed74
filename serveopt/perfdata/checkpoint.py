"""Quantisation modes that a checkpoint asks for, before the backend and the GPU have their say.

    algorithm of the checkpoint -> (gemm mode, moe mode)
    FP8 or FP4 weights, or an FP8 KV cache -> FP8 KV cache and FP8 attention

Source: search_model.md 1.3, steps A and B; weight-only formats of other tools are our addition.
solver/quantisation.py adapts the result to a backend and a GPU.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType

from serveopt.errors import ConfigError
from serveopt.perfdata.model_config import ModelConfig
from serveopt.perfdata.quant_metadata import Quantisation, WeightGroup
from serveopt.perfdata.quant_modes import COMM_BYTES, FMHA_MODES, GEMM_MODES, KV_BYTES, MOE_MODES, Mode

__all__ = [
    "CHOICES",
    "COMM_BYTES", "FMHA_MODES", "GEMM_MODES", "KV_BYTES", "MOE_MODES", "Mode", "QuantModes", "infer_quant",
    "native_fp4_experts",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class QuantModes:
    """One mode per component; names as in quant_modes.

    >>> QuantModes(gemm="fp8_block").gemm_mode.bytes_per_element
    1.0
    """

    gemm: str = "bfloat16"
    moe: str = "bfloat16"
    fmha: str = "bfloat16"
    kv: str = "bfloat16"
    comm: str = "half"

    @property
    def gemm_mode(self) -> Mode:
        """Sizes and pipeline of dense layers."""
        return GEMM_MODES[self.gemm]

    @property
    def moe_mode(self) -> Mode:
        """Sizes and pipeline of routed experts."""
        return MOE_MODES[self.moe]

    @property
    def fmha_mode(self) -> Mode:
        """Sizes and pipeline of attention arithmetic."""
        return FMHA_MODES[self.fmha]

    @property
    def kv_bytes(self) -> int:
        """Bytes of one KV cache element."""
        return KV_BYTES[self.kv]

    @property
    def comm_bytes(self) -> int:
        """Bytes of one communicated element."""
        return COMM_BYTES[self.comm]

    def as_dict(self) -> dict[str, str]:
        """Modes by component."""
        return asdict(self)


CHOICES = MappingProxyType(
    {"gemm": GEMM_MODES, "moe": MOE_MODES, "fmha": FMHA_MODES, "kv": KV_BYTES, "comm": COMM_BYTES}
)

# Algorithm -> (gemm, moe). FP8 is resolved by how activations are scaled: see _scaled.
_FP8 = "fp8 by scale"
_ALGORITHMS = MappingProxyType(
    {
        "": ("bfloat16", "bfloat16"),
        "fp8": (_FP8, "fp8"),
        "fp8_block": ("fp8_block", "fp8_block"),
        "fp8_pb_wo": ("fp8_block", "fp8_block"),
        "fp8_per_channel_per_token": ("fp8", "fp8"),
        "fbgemm_fp8": ("fp8", "fp8"),
        "mxfp8": ("fp8_block", "fp8_block"),
        "nvfp4": ("nvfp4", "nvfp4"),
        "nvfp4_awq": ("nvfp4", "nvfp4"),
        "w4a16_nvfp4": ("w4a16_nvfp4", "w4a16_nvfp4"),
        "mxfp4": ("bfloat16", "w4a16_mxfp4"),
        "awq": ("int4_wo", "int4_wo"),
        "gptq": ("int4_wo", "int4_wo"),
        "w4a16_awq": ("int4_wo", "int4_wo"),
        "w4a8_awq": ("int4_wo", "w4afp8"),
        "w8a16": ("int8_wo", "int8_wo"),
    }
)
# Mixed precision: the first algorithm that is present decides.
_MIXED_GEMM = (
    ("mxfp8", "fp8_block"), ("fp8", _FP8), ("w4a16_nvfp4", "w4a16_nvfp4"), ("nvfp4", "nvfp4"),
)  # fmt: skip
_MIXED_MOE = (
    ("w4a16_nvfp4", "w4a16_nvfp4"), ("nvfp4", "nvfp4"), ("mxfp8", "fp8_block"), ("fp8", "fp8"),
)  # fmt: skip
# (weight type, bits) of a compressed-tensors group
_GROUP_ALGORITHMS = MappingProxyType(
    {
        ("int", 4): ("int4_wo", "int4_wo"),
        ("int", 8): ("int8_wo", "int8_wo"),
        ("float", 8): (_FP8, "fp8"),
        ("float", 4): _ALGORITHMS["mxfp4"],
    }
)
_FP8_ATTENTION = ("fp8", "fp8_block", "nvfp4")


def infer_quant(model: ModelConfig, given: Mapping[str, str] = MappingProxyType({})) -> QuantModes:
    """The modes of a checkpoint on any backend and GPU, with those of ``given`` (component -> mode) put in.

    ConfigError if the checkpoint's algorithm is unknown and ``given`` does not make up for it.

    >>> from serveopt.perfdata.catalogue import load_model
    >>> infer_quant(load_model("Qwen/Qwen3-32B-FP8"))
    QuantModes(gemm='fp8_block', moe='fp8_block', fmha='fp8', kv='fp8', comm='half')
    """
    _check(given)
    facts = model.quantisation
    weights = _weight_modes(facts)
    if weights is None and not ("gemm" in given and ("moe" in given or not model.is_moe)):
        raise ConfigError(
            f"{model.name}: unknown quantisation {facts.algo!r:.40}",
            field="model",
            hint="say what it stands for with gemm_quant (and moe_quant for experts)",
        )
    gemm, moe = weights or _ALGORITHMS[""]
    fmha, kv = "bfloat16", facts.kv or "bfloat16"
    if facts.algo in _FP8_ATTENTION or facts.kv == "fp8":
        fmha, kv = "fp8", "fp8"
    if model.family == "DEEPSEEKV4":
        kv = "fp8"
        moe = "w4a8_mxfp4_mxfp8" if native_fp4_experts(model) else moe
    return replace(QuantModes(gemm=_scaled(gemm, facts), moe=moe, fmha=fmha, kv=kv), **given)


def native_fp4_experts(model: ModelConfig) -> bool:
    """True for a DeepSeek-V4 checkpoint with its own 4-bit float experts, not requantised to NVFP4."""
    facts = model.quantisation
    requantised = facts.algo == "nvfp4" or "nvfp4" in facts.moe_algos
    return model.family == "DEEPSEEKV4" and facts.expert_dtype == "fp4" and not requantised


def _check(given: Mapping[str, str]) -> None:
    """Nothing; ConfigError names the component whose mode does not exist."""
    for component, mode in given.items():
        if mode not in CHOICES[component]:
            known = ", ".join(CHOICES[component])
            raise ConfigError(f"{mode!r} is not allowed; choose one of {known}", field=f"{component}_quant")


def _weight_modes(facts: Quantisation) -> tuple[str, str] | None:
    """Gemm and moe modes of the checkpoint's algorithm; None when it is unknown."""
    if facts.algo == "mixed_precision":
        return _mixed_modes(facts)
    if facts.algo != "compressed-tensors":
        return _ALGORITHMS.get(facts.algo)
    modes = _group_modes(facts.group) if facts.group else None
    if modes is None:
        return None
    gemm, moe = modes
    return (
        "bfloat16" if facts.leaves_out("attention") else gemm,
        "bfloat16" if facts.leaves_out("routed_experts") else moe,
    )


def _mixed_modes(facts: Quantisation) -> tuple[str, str]:
    """Modes of a checkpoint with several algorithms."""
    gemm = next((mode for algo, mode in _MIXED_GEMM if algo in facts.gemm_algos), "bfloat16")
    if facts.method == "fp8":  # what is not listed keeps the FP8 of the original checkpoint
        gemm = "fp8_block" if facts.block else _FP8
    return gemm, next((mode for algo, mode in _MIXED_MOE if algo in facts.moe_algos), "bfloat16")


def _group_modes(group: WeightGroup) -> tuple[str, str] | None:
    """Modes of a compressed-tensors group; None when it is unknown."""
    if group.nvfp4:
        return _ALGORITHMS["nvfp4" if group.activations else "w4a16_nvfp4"]
    if group.block and (group.type, group.num_bits) == ("float", 8):
        return _ALGORITHMS["fp8_block"]
    return _GROUP_ALGORITHMS.get((group.type, group.num_bits))


def _scaled(gemm: str, facts: Quantisation) -> str:
    """FP8 by how activations are scaled: at run time, else as stored (also when nothing is said)."""
    if gemm != _FP8:
        return gemm
    return "fp8" if facts.dynamic else "fp8_static"
