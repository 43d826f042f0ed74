"""Full estimates of dense models against the reference: latencies, throughput, memory and every operator."""

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from serveopt.errors import ConfigError
from serveopt.perfdata.architectures import ARCHITECTURES
from serveopt.perfdata.catalogue import load_model
from serveopt.solver.estimate import Estimate, estimate
from serveopt.solver.point import Point, read_point

CHECKPOINTS = Path(__file__).parents[2].parent / "shared" / "data" / "estimate_checkpoints.jsonl.gz"
OUR_NAMES = {"weights": "weights", "activations": "activations", "kvcache": "kv_cache"} | {
    "nccl": "communication", "others": "other", "total": "total",
}  # fmt: skip
POOL_KEYS = {"prefill_batch_size": "prefill_batch", "decode_batch_size": "decode_batch"}
OneGpu = {"model": "Qwen/Qwen3-8B", "system": "h100_sxm"}


def read_checkpoints() -> list[Any]:
    """One parameter per reference estimate of a dense model; a single skipped one where the data is absent."""
    if not CHECKPOINTS.is_file():
        return [pytest.param(None, marks=pytest.mark.skip(reason="reference data ../shared is absent"))]
    with gzip.open(CHECKPOINTS, "rt") as file:
        entries = [json.loads(line) for line in file]
    return [
        pytest.param(entry, id=f"{entry['id']}-{entry['input']['mode']}-{entry['input']['backend_name']}")
        for entry in entries
        if ARCHITECTURES.get(load_model(entry["input"]["model_path"]).architecture) == "LLAMA"
    ]


@cache
def estimate_once(given: str) -> Estimate:
    """The estimate of a reference input, as JSON text, by the reference's formulas."""
    return estimate(read_point({**json.loads(given), "cost_model": "reference"}))


def own_estimate(entry: dict[str, Any]) -> Estimate:
    """Our estimate of a checkpoint."""
    return estimate_once(json.dumps(entry["input"]))


def phase_sum(own: Estimate, phase: str) -> dict[str, float]:
    """Latency by operator of one phase."""
    return {part["op"]: part["latency_ms"] for part in own.ops if part["phase"] == phase}


def check_ops(own: dict[str, float], expected: dict[str, float], rel: float = 0.01) -> None:
    """Nothing; the same operators with the same latencies."""
    # The reference also lists what takes no time.
    expected = {name.removesuffix(" (scaled)"): value for name, value in expected.items() if value or name in own}
    assert own.keys() == expected.keys()
    for name, value in expected.items():
        assert own[name] == pytest.approx(value, rel=rel, abs=1e-6), name


@pytest.mark.parametrize("entry", read_checkpoints())
def test_latency_and_throughput(entry: dict[str, Any]) -> None:
    """TTFT, TPOT and tokens/s/GPU within 1 %, under the same quantisation and data version."""
    own = own_estimate(entry)
    assert own.ttft_ms == pytest.approx(entry["ttft"], rel=0.01)
    assert own.tpot_ms == pytest.approx(entry["tpot"], rel=0.01)
    assert own.tokens_s_gpu == pytest.approx(entry["tokens_s_gpu"], rel=0.01)
    assert own.concurrency == entry["raw"]["concurrency"]
    assert own.n_gpus == entry["raw"]["num_total_gpus"]
    assert own.backend_version == entry["backend_version"]
    pool = "(d)" if entry["input"]["mode"] == "disagg" else ""
    for component, name in (("gemm", "gemm"), ("kv", "kvcache"), ("fmha", "fmha")):
        assert own.quant[component] == entry["raw"][pool + name]


@pytest.mark.parametrize("entry", read_checkpoints())
def test_memory(entry: dict[str, Any]) -> None:
    """Every component and the total within 1 %, and the same verdict."""
    own = own_estimate(entry)
    if entry["input"]["mode"] == "disagg":
        for pool, role in (("prefill", "(p)"), ("decode", "(d)")):
            assert own.memory_gib[pool]["total"] == pytest.approx(entry["raw"][f"{role}memory"], rel=0.01)
        return
    for theirs, ours in OUR_NAMES.items():
        assert own.memory_gib[ours] == pytest.approx(entry["memory"][theirs], rel=0.01), ours
    assert str(own.oom) == str(entry["oom"])
    assert str(own.kv_oom) == str(entry["kv_oom"])


@pytest.mark.parametrize("entry", read_checkpoints())
def test_operators(entry: dict[str, Any]) -> None:
    """Every operator of every phase within 1 %."""
    own = own_estimate(entry)
    mode = entry["input"]["mode"]
    if mode.startswith("static"):
        for phase in ("context", "generation"):
            if entry[f"{phase}_ops"]:
                check_ops(phase_sum(own, phase), entry[f"{phase}_ops"])
    elif mode == "disagg":
        for phase in ("prefill", "decode"):
            check_ops(phase_sum(own, phase), entry["per_ops"][phase])
    else:
        check_ops(phase_sum(own, "mixed_step"), entry["per_ops"]["mix_step"])
        if entry["per_ops"].get("genonly_step"):
            check_ops(phase_sum(own, "decode_step"), entry["per_ops"]["genonly_step"])


def test_static_is_its_parts() -> None:
    """The breakdown adds up to the latencies, and the phases to the whole."""
    point = Point(**OneGpu, mode="static", isl=600, osl=40, batch=3)
    whole = estimate(point)
    assert sum(phase_sum(whole, "context").values()) == pytest.approx(whole.ttft_ms, rel=1e-9)
    assert sum(phase_sum(whole, "generation").values()) == pytest.approx(whole.tpot_ms * 39, rel=1e-9)
    assert whole.e2e_ms == pytest.approx(whole.ttft_ms + 39 * whole.tpot_ms, rel=1e-9)


@pytest.mark.parametrize("backend", ["trtllm", "sglang", "vllm"])
def test_prefix_saves_time(backend: str) -> None:
    """Tokens in the cache are not computed again."""
    cold, warm = (
        estimate(Point(**OneGpu, backend=backend, mode="static_ctx", isl=2000, osl=10, batch=1, prefix_len=prefix))
        for prefix in (0, 1000)
    )
    assert warm.ttft_ms < cold.ttft_ms


def test_one_token_answers() -> None:
    """An answer of one token has no time per output token and no rate to divide by."""
    for mode in ("static", "agg"):
        own = estimate(Point(**OneGpu, mode=mode, isl=100, osl=1, batch=2))
        assert own.tokens_s_user == pytest.approx(1e3 / own.tpot_ms if own.tpot_ms else 0.0)
        assert own.ttft_ms > 0


@pytest.mark.parametrize("mode", ["agg", "static_ctx"])
def test_more_memory_for_more_tokens(mode: str) -> None:
    """Longer prompts never take less memory."""
    short, long = (estimate(Point(**OneGpu, mode=mode, isl=isl, osl=10, batch=4)) for isl in (500, 5000))
    assert long.memory_gib["total"] > short.memory_gib["total"]


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"tp": 3}, "tp"),
        ({"pp": 37}, "pp"),
        ({"cp": 2}, "cp"),
        ({"attn_dp": 2}, "attn_dp"),
        ({"moe_ep": 2}, "moe_ep"),
        ({"isl": 2_000_000}, "isl"),
        ({"batch": 2, "ctx_tokens": 3000, "isl": 1000}, "ctx_tokens"),
        ({"nextn": 1}, "nextn_accepted"),
        ({"system": "h300"}, "system"),
    ],
)
def test_impossible_points_name_the_field(given: dict[str, Any], field: str) -> None:
    """What cannot run is a ConfigError at the field to change."""
    with pytest.raises(ConfigError) as caught:
        estimate(Point(**{**OneGpu, **given}))
    assert caught.value.field == field
    assert "\n" not in caught.value.message
