"""Quantisation modes by name: bytes per element, compute multiple and tensor-core pipeline.

The compute multiple is relative to bfloat16 and enters rooflines; the pipeline selects the system's flop/s.
4-bit floats with a scale per 16 values take 9/16 byte. Source: op_model.md 0.1.
"""

from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Mode:
    """One way to store and multiply numbers."""

    bytes_per_element: float
    compute_multiple: int
    pipeline: str  # of SystemSpec.flops


_BF16_MATH, _FP8_MATH = (1, "bfloat16"), (2, "fp8")
_NVFP4_BYTES = 9 / 16

GEMM_MODES = MappingProxyType(
    {
        "bfloat16": Mode(2.0, *_BF16_MATH),
        "int8_wo": Mode(1.0, *_BF16_MATH),
        "int4_wo": Mode(0.5, *_BF16_MATH),
        "fp8": Mode(1.0, *_FP8_MATH),
        "fp8_static": Mode(1.0, *_FP8_MATH),
        "sq": Mode(1.0, 2, "int8"),
        "fp8_block": Mode(1.0, *_FP8_MATH),
        "fp8_ootb": Mode(1.0, *_FP8_MATH),
        "nvfp4": Mode(_NVFP4_BYTES, 4, "fp4"),
        "nvfp4_wo": Mode(_NVFP4_BYTES, *_BF16_MATH),
        "w4a16_nvfp4": Mode(_NVFP4_BYTES, *_BF16_MATH),
    }
)
MOE_MODES = MappingProxyType(
    {
        "bfloat16": Mode(2.0, *_BF16_MATH),
        "fp8": Mode(1.0, *_FP8_MATH),
        "int8_wo": Mode(1.0, *_BF16_MATH),
        "int4_wo": Mode(0.5, *_BF16_MATH),
        "fp8_block": Mode(1.0, *_FP8_MATH),
        "w4afp8": Mode(0.5, *_FP8_MATH),
        "nvfp4": Mode(_NVFP4_BYTES, 4, "fp4"),
        "nvfp4_wo": Mode(_NVFP4_BYTES, *_BF16_MATH),
        "w4a16_mxfp4": Mode(0.5, *_BF16_MATH),
        "w4a8_mxfp4_mxfp8": Mode(0.5, *_FP8_MATH),
        "w4a8_mxfp4_mxfp8_trtllm": Mode(0.5, *_FP8_MATH),
        "w4a16_mxfp4_cutlass": Mode(0.5, *_BF16_MATH),
        "w4a16_nvfp4": Mode(_NVFP4_BYTES, *_BF16_MATH),
    }
)
FMHA_MODES = MappingProxyType(
    {
        "bfloat16": Mode(2.0, *_BF16_MATH),
        "float16": Mode(2.0, *_BF16_MATH),
        "fp8": Mode(1.0, *_FP8_MATH),
        "fp8_block": Mode(1.0, *_FP8_MATH),
    }
)
KV_BYTES = MappingProxyType({"bfloat16": 2, "int8": 1, "fp8": 1})
COMM_BYTES = MappingProxyType({"half": 2, "int8": 1, "fp8": 1})
