"""What a family must say of itself, and the table of families."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType

from serveopt.errors import ConfigError
from serveopt.perfdata.architectures import ARCHITECTURES
from serveopt.perfdata.checkpoint import QuantModes
from serveopt.perfdata.model_config import ModelConfig
from serveopt.perfdata.systems import SystemSpec
from serveopt.solver.layout import Layout
from serveopt.solver.operators import descriptions as ops


@dataclass(frozen=True, slots=True, kw_only=True)
class WideEp:
    """The exchange libraries of a wide expert parallel graph and how its experts are placed."""

    context: str  # deepep_ht | deepep_v2_context | trtllm_deepep_ht | nvlink_two_sided | nvlink_one_sided
    generation: str
    nodes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Everything a family needs to list its operators."""

    model: ModelConfig
    quant: QuantModes
    layout: Layout
    backend: str
    system: SystemSpec
    nextn: int = 0  # speculative tokens per step
    alpha: float | None = None  # exponent of the expert load; None: the family's own
    eplb: bool = False  # expert load balancer
    slots: int | None = None  # expert slots of the load balancer
    moe_backend: str | None = None  # megamoe | None
    user_quant: frozenset[str] = frozenset()  # components whose quantisation the user set
    wide_ep: WideEp | None = None
    image: tuple[int, int, int] = (0, 0, 0)  # height, width, images per request
    encoder_dp: bool = True
    encodes: bool = True  # False: images come encoded by other workers


@dataclass(frozen=True, slots=True)
class Phases:
    """Operators of one prefill step, one decode step and the encoder of one request, per GPU.

    ``encoder`` operators see the image tokens that ``solver/images.py`` counts.
    """

    context: tuple[ops.Operator, ...]
    generation: tuple[ops.Operator, ...]
    encoder: tuple[ops.Operator, ...] = ()


WIDE = {"trtllm": (22, 13, 10, 10), "vllm": (22, 13, 10, 10), "sglang": (28, 17, 13, 13)}
NARROW = {"trtllm": (10, 6, 5, 5), "vllm": (10, 6, 5, 5), "sglang": (13, 8, 6.5, 6.5)}


def allow(_: Setting) -> tuple[str, str] | None:
    """None: nothing beyond the general rules of layouts."""
    return None


@dataclass(frozen=True, slots=True)
class Family:
    """One family of architectures.

    ``activation_widths`` gives, per backend, activation bytes per token and attention width at tp 1, 2, 4 and 8
    (in units of 2 bytes). Source: specs/search_model.md 2.1. ``dispatch_workspace``: "" none, "attention" or "hidden"
    the width of the expert dispatch workspace (sglang always uses the hidden size). ``fault`` returns (field, reason)
    of a layout that the family cannot run.
    """

    name: str
    build_phases: Callable[[Setting], Phases]
    kv_bytes: Callable[[Setting, int], float]  # bytes on one GPU of one sequence of n tokens, states included
    activation_widths: Mapping[str, tuple[float, float, float, float]] = field(
        default_factory=lambda: MappingProxyType(NARROW)
    )
    dispatch_workspace: str = ""
    context_parallel: bool = False
    wide_ep: bool = False  # has a wide expert parallel graph
    speculative: bool = True  # takes nextn
    lists_drafts: bool = False  # its operators and cache hold the draft model; else one draft layer is added
    fault: Callable[[Setting], tuple[str, str] | None] = allow


def ceil_div(a: int, b: int) -> int:
    """The quotient rounded up.

    >>> ceil_div(8, 3)
    3
    """
    return -(-a // b)


@cache
def families() -> Mapping[str, Family]:
    """Every family by name; one file each."""
    from serveopt.solver.families import (
        deepseek,
        deepseek_v4,
        deepseek_v32,
        gemma4,
        hybrid_moe,
        kimi_k3,
        llama,
        minimax_m3,
        moe,
        nemotron_h,
        nemotron_nas,
        qwen3_vl,
        qwen35,
        step3p7,
    )  # fmt: skip

    rows = (
        llama.LLAMA,
        moe.MOE,
        qwen3_vl.QWEN3VL,
        qwen3_vl.QWEN3VL_MOE,
        hybrid_moe.HYBRIDMOE,
        step3p7.STEP3P7,
        gemma4.GEMMA4MIX,
        qwen35.QWEN35,
        deepseek.DEEPSEEK,
        deepseek.KIMIK25,
        deepseek_v32.DEEPSEEKV32,
        deepseek_v4.DEEPSEEKV4,
        minimax_m3.MINIMAXM3,
        kimi_k3.KIMIK3,
        nemotron_nas.NEMOTRONNAS,
        nemotron_h.NEMOTRONH,
    )
    return MappingProxyType({family.name: family for family in rows})


def find_family(model: ModelConfig) -> Family:
    """The family of a model; ConfigError names the known architectures."""
    name = ARCHITECTURES.get(model.architecture, "")
    if name:
        return families()[name]
    raise ConfigError(
        f"{model.name} has the unknown architecture {model.architecture!r}",
        field="model",
        hint=f"known: {', '.join(sorted(ARCHITECTURES))}",
    )
