"""Search axes beside the layout: the same model under other quantisations, kernels or depths of speculation.

``--vary kv,nextn`` tries every combination of the values of the named axes. Both pools of a disaggregated replica run
the same variant: they hand over KV cache and share weights.

Of n drafts of which A are accepted on average, with an equal chance a of each next one, A = a + a^2 + ... + a^n. Of
fewer drafts a + ... + a^k are accepted (Leviathan et al. 2023, arXiv:2211.17192, section 3).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

from serveopt.perfdata.versions import attention_backends
from serveopt.solver.options import MOE_BACKENDS, QUANTS

if TYPE_CHECKING:
    from serveopt.solver.problem import Problem

Values = tuple[tuple[str, Any], ...]  # (field of Problem, value) pairs


@dataclass(frozen=True, slots=True)
class Variant:
    """Values of the fields that vary; none without ``--vary``."""

    values: Values = ()
    label: str = ""

    def apply(self, problem: "Problem") -> "Problem":
        """The problem of this variant alone."""
        return replace(problem, **dict(self.values), vary=()) if self.values else problem


def accepted_drafts(chance: float, drafts: int) -> float:
    """Drafts accepted on average when each next one is accepted with the same chance.

    >>> accepted_drafts(0.5, 2)
    0.75
    """
    return sum(chance**k for k in range(1, drafts + 1))


def chance_of(accepted: float, drafts: int) -> float:
    """The chance of each next draft that yields ``accepted`` of ``drafts`` on average, by bisection.

    >>> round(chance_of(0.75, 2), 9)
    0.5
    """
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if accepted_drafts(middle, drafts) < accepted else (low, middle)
    return high


def quant_axis(field: str) -> "Callable[[Problem], list[Values]]":
    """Values of a quantisation: every mode that there is; which were measured turns out on opening."""

    def values(problem: "Problem") -> list[Values]:
        return [((field, mode),) for mode in QUANTS[field]]

    return values


def depths(problem: "Problem") -> list[Values]:
    """Every depth of speculation up to the problem's own."""
    most = int(problem.nextn)
    chance = chance_of(problem.nextn_accepted or 0.0, most)
    shallower = [(("nextn", k), ("nextn_accepted", accepted_drafts(chance, k))) for k in range(1, most)]
    own = (("nextn", most), ("nextn_accepted", problem.nextn_accepted))
    return [(("nextn", 0), ("nextn_accepted", None)), *shallower, own]


def balancers(problem: "Problem") -> list[Values]:
    """Without and with the expert load balancer."""
    return [(("enable_eplb", False), ("eplb_slots", None)), (("enable_eplb", True), ("eplb_slots", problem.eplb_slots))]


def attention_kernels(problem: "Problem") -> list[Values]:
    """The backend's own choice, and every attention backend that it lets a user choose."""
    return [(("attention_backend", name),) for name in (None, *attention_backends(problem.backend))]


def expert_kernels(problem: "Problem") -> list[Values]:
    """The backend's own choice, and every other expert kernel."""
    return [(("moe_backend", name),) for name in (None, *MOE_BACKENDS)]


AXES: "dict[str, Callable[[Problem], list[Values]]]" = {
    "kv": quant_axis("kv_quant"),
    "gemm": quant_axis("gemm_quant"),
    "moe": quant_axis("moe_quant"),
    "fmha": quant_axis("fmha_quant"),
    "nextn": depths,
    "eplb": balancers,
    "attention-backend": attention_kernels,
    "moe-backend": expert_kernels,
}


def list_variants(problem: "Problem") -> list[Variant]:
    """Every combination of the values of the axes that vary; one empty variant where none does."""
    axes = [AXES[name](problem) for name in problem.vary]
    found = []
    for combination in product(*axes):
        words = [f"{name} {_word(values[0][1])}" for name, values in zip(problem.vary, combination, strict=True)]
        found.append(Variant(tuple(pair for values in combination for pair in values), ", ".join(words)))
    return found


def _word(value: Any) -> str:
    """A value as a label shows it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return "default" if value is None else str(value)
