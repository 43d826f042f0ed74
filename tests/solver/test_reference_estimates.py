"""Static steps of every family against the reference, operator by operator, and where we differ with the reason.

The reference's formulas are used (cost model ``reference``); what is corrected in both cost models is listed in
DEVIATIONS with a pattern of the operators that it touches. Everything else agrees within 2 %.
"""

import gzip
import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from serveopt.errors import MissingTable
from serveopt.perfdata.catalogue import load_model
from serveopt.solver.estimate import Estimate, estimate
from serveopt.solver.point import read_point

CHECKPOINTS = Path(__file__).parents[2].parent / "shared" / "data" / "estimate_checkpoints.jsonl.gz"
TOLERANCE = 0.02
DENSE_FIRST = ("DEEPSEEK", "KIMIK25", "DEEPSEEKV32", "MINIMAXM3")
# A block that was not measured as a whole is told in its parts.
BLOCK_PARTS = r"(\w+?)_(downscale_gemm|q_b_proj_gemm|kv_b_proj_gemm|proj_gemm|bmm_pre|bmm_post|attention|mla_module)"


@dataclass(frozen=True)
class Deviation:
    """Operators that are priced differently, for models of some families (and backends)."""

    reason: str
    families: tuple[str, ...]
    labels: str
    backends: tuple[str, ...] = ("trtllm", "sglang", "vllm")
    models: tuple[str, ...] = ("",)


DEVIATIONS = (
    Deviation("the first layers are dense", DENSE_FIRST, r"\w+_(shared_\w+|router_gemm|moe\w*|dense_\w+)"),
    Deviation("shared experts have labels of their own", DENSE_FIRST, r"\w+_(gate_ffn1_gemm|ffn2_gemm|act_gate)"),
    Deviation("and have plain attention", ("MINIMAXM3",), r"\w+_(attention|qkv_gemm|proj_gemm)"),
    Deviation("all-reduces are counted once", ("DEEPSEEK", "KIMIK25"), r"\w+_tp_allreduce", ("vllm",)),
    Deviation("all-reduces are counted once", ("QWEN35",), r"\w+_moe_pre_dispatch", ("trtllm",)),
    Deviation("all-reduces are counted once", ("NEMOTRONH",), r"\w+_moe_(pre_dispatch|ar)"),
    Deviation("the state is read and written, measured kernels are used", ("NEMOTRONH",), r"\w+_mamba_(ssm|conv1d)"),
    Deviation("attention left out of quantisation stays bfloat16", ("NEMOTRONH",), r"\w+_(qkv|proj)_gemm"),
    Deviation(
        "attention keeps its quantisation where only norms are left out",
        ("DEEPSEEKV32",),
        r"\w+_attention",
        models=("GLM",),
    ),
    Deviation("prefill has logits", ("MOE", "QWEN3VL_MOE"), "context_logits_gemm"),
    Deviation("queries and keys are normalised", ("QWEN3VL", "QWEN3VL_MOE"), "context_attention"),
    Deviation(
        "window pattern, shared experts, dense all-reduces",
        ("HYBRIDMOE",),
        r"\w+_(swa|global|shared_expert)_\w+|(context|generation)_attention",
    ),
    Deviation("vLLM decodes on the latent cache", ("DEEPSEEK", "KIMIK25"), r"generation_\w+", ("vllm",), ("NVFP4",)),
    Deviation("dense layers add up over tp", ("STEP3P7", "GEMMA4MIX"), r"\w+_ar"),
)


@cache
def all_checkpoints() -> tuple[dict[str, Any], ...]:
    """Every reference estimate of a static step that succeeded, and those that lack data."""
    with gzip.open(CHECKPOINTS, "rt") as file:
        entries = [json.loads(line) for line in file]
    return tuple(entry for entry in entries if entry["input"]["mode"].startswith("static"))


def read_checkpoints(succeeded: bool) -> list[Any]:
    """One parameter per reference estimate; a single skipped one where the data is absent."""
    if not CHECKPOINTS.is_file():
        return [pytest.param(None, marks=pytest.mark.skip(reason="reference data ../shared is absent"))]
    return [
        pytest.param(entry, id=f"{entry['id']}-{entry['input']['model_path'].split('/')[-1]}")
        for entry in all_checkpoints()
        if ("ttft" in entry) == succeeded and (succeeded or lacks_data(entry))
    ]


def own_estimate(entry: dict[str, Any]) -> Estimate:
    """Our estimate by the reference's formulas."""
    return estimate(read_point({**entry["input"], "cost_model": "reference"}))


def touched(entry: dict[str, Any]) -> str:
    """A pattern of the operators that deviations touch."""
    name, backend = entry["input"]["model_path"], entry["input"]["backend_name"]
    family = load_model(name).family
    found = [
        d.labels
        for d in DEVIATIONS
        if family in d.families and backend in d.backends and any(part in name for part in d.models)
    ]
    return "|".join(f"(?:{labels})" for labels in found) or "(?!)"


def folded(own: dict[str, float], reference: dict[str, float]) -> dict[str, float]:
    """Our operators, with the parts of a block as the block where the reference tells it so."""
    result: dict[str, float] = {}
    for label, value in own.items():
        part = re.fullmatch(BLOCK_PARTS, label)
        block = f"{part[1]}_mla_block" if part else ""
        name = block if block in reference else label
        result[name] = result.get(name, 0.0) + value
    return result


def by_label(own: Estimate, phase: str) -> dict[str, float]:
    """Latency by operator of one phase."""
    found: dict[str, float] = {}
    for part in own.ops:
        if part["phase"] == phase:
            found[part["op"]] = found.get(part["op"], 0.0) + part["latency_ms"]
    return found


def lacks_data(entry: dict[str, Any]) -> bool:
    """True where the reference lacks a table, but for its prefill attention in fp8 that nothing measured."""
    return "PerfDataNotAvailable" in entry["error"] and "context MLA data missing" not in entry["error"]


@pytest.mark.parametrize("entry", read_checkpoints(succeeded=True))
def test_operators(entry: dict[str, Any]) -> None:
    """Every operator that no deviation touches takes as long as the reference says, and none is missing."""
    own, pattern = own_estimate(entry), touched(entry)
    steps = 1.0 + entry["input"].get("nextn_accepted", 0.0)  # the reference tells steps, we tell tokens
    for phase in ("context", "generation"):
        reference = entry.get(f"{phase}_ops") or {}
        mine = folded(by_label(own, phase), reference) if reference else {}
        for label in {*mine, *reference}:
            if not re.fullmatch(pattern, label):
                expected = reference.get(label, 0.0) / (steps if phase == "generation" else 1.0)
                assert mine.get(label, 0.0) == pytest.approx(expected, rel=TOLERANCE, abs=1e-3), label


@pytest.mark.parametrize("entry", read_checkpoints(succeeded=True))
def test_steps(entry: dict[str, Any]) -> None:
    """TTFT and TPOT of families that no deviation of weight touches, within 2 %."""
    family = load_model(entry["input"]["model_path"]).family
    light = {"MOE", "QWEN3VL", "QWEN3VL_MOE", "GEMMA4MIX", "STEP3P7"}
    if any(family in d.families for d in DEVIATIONS) and family not in light:
        pytest.skip(f"{family} is corrected, see DEVIATIONS")
    own = own_estimate(entry)
    assert own.ttft_ms == pytest.approx(entry["ttft"], rel=TOLERANCE)
    assert own.tpot_ms == pytest.approx(entry["tpot"], rel=TOLERANCE)


@pytest.mark.parametrize("entry", read_checkpoints(succeeded=False))
def test_what_was_not_measured_is_an_error_here_too(entry: dict[str, Any]) -> None:
    """One line that names the table, where the reference has no data either."""
    with pytest.raises(MissingTable) as caught:
        own_estimate(entry)
    assert "\n" not in str(caught.value)
