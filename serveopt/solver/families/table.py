"""What a family must say of itself, and the table of families."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from serveopt.errors import ConfigError
from serveopt.perfdata.architectures import ARCHITECTURES
from serveopt.perfdata.checkpoint import QuantModes
from serveopt.perfdata.model_config import ModelConfig
from serveopt.solver.layout import Layout
from serveopt.solver.operators import descriptions as ops


@dataclass(frozen=True, slots=True)
class Phases:
    """Operators of one prefill step and one decode step, per GPU."""

    context: tuple[ops.Operator, ...]
    generation: tuple[ops.Operator, ...]


@dataclass(frozen=True, slots=True)
class Family:
    """One family of architectures.

    ``activation_widths`` gives, per backend, activation bytes per token and attention width at tp 1, 2, 4 and 8
    (in units of 2 bytes). Source: specs/search_model.md 2.1.
    """

    name: str
    moe: bool
    build_phases: Callable[[ModelConfig, QuantModes, Layout], Phases]
    kv_bytes: Callable[[ModelConfig, QuantModes, Layout, int], float]
    activation_widths: Mapping[str, tuple[float, float, float, float]]


def ceil_div(a: int, b: int) -> int:
    """The quotient rounded up.

    >>> ceil_div(8, 3)
    3
    """
    return -(-a // b)


def find_family(model: ModelConfig) -> Family:
    """The family of a model; ConfigError names the known architectures."""
    from serveopt.solver.families.llama import LLAMA

    families = {family.name: family for family in (LLAMA,)}
    name = ARCHITECTURES.get(model.architecture, "")
    if name in families:
        return families[name]
    known = sorted(arch for arch, family in ARCHITECTURES.items() if family in families)
    if name:
        message = f"{model.name} is a {model.architecture} (family {name}), which this release cannot price yet"
    else:
        message = f"{model.name} has the unknown architecture {model.architecture!r}"
    raise ConfigError(message, field="model", hint=f"architectures that can be priced: {', '.join(known)}")
