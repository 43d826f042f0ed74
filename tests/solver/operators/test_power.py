"""Watts of operators where they were collected: at measured points, between them, beyond them, and nowhere else."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from serveopt.cli.app import app
from serveopt.perfdata.store import open_database
from serveopt.perfdata.systems import load_system
from serveopt.solver.estimate import estimate
from serveopt.solver.operators import descriptions as ops
from serveopt.solver.operators.power import decode_power, interpolate, prompt_power, token_power
from serveopt.solver.operators.pricing import Pricing
from serveopt.solver.point import Point

PREFILL = ops.ContextAttention("op", 1, 32, 8, 128, "bfloat16", "bfloat16")
DECODE = ops.GenerationAttention("op", 1, 32, 8, 128, "bfloat16")
EXPERTS = ops.Moe("op", 1, 2048, 768, 8, 128, 1, 1, "bfloat16", "power_law_1.2")
PLACE = {"system": "b200_sxm", "backend": "vllm", "version": "0.22.0"}


@pytest.fixture(scope="module")
def pricing() -> Pricing:
    return Pricing(open_database(*PLACE.values()), load_system("b200_sxm"))


def watts_of_row(pricing: Pricing, name: str, **wanted: int | str) -> float:
    """The watts that a table holds at a key."""
    table = pricing.database.table(name)
    rows = np.isfinite(table.values["power_w"])
    for column, value in wanted.items():
        value = table.code(column, value) if isinstance(value, str) else value
        rows &= table.columns[column] == value
    (found,) = set(table.values["power_w"][rows].tolist())
    return found


def prefill_watts(pricing: Pricing, batch: int, isl: int) -> float:
    return watts_of_row(
        pricing, "context_attention", num_heads=32, num_key_value_heads=8, head_dim=128, window_size=0, isl=isl,
        kv_cache_dtype="bfloat16", batch_size=batch,
    )  # fmt: skip


def test_measured_points_are_kept_and_points_between_are_linear(pricing: Pricing) -> None:
    low, high = prefill_watts(pricing, 1, 1024), prefill_watts(pricing, 1, 2048)
    assert prompt_power(pricing, PREFILL, 1, 1024) == pytest.approx(low)
    between = prompt_power(pricing, PREFILL, 1, 1280)
    ends = sorted((low, prefill_watts(pricing, 1, 1536)))
    assert ends[0] <= between <= ends[1]
    assert between == pytest.approx((low + prefill_watts(pricing, 1, 1536)) / 2)
    assert low != high


def test_beyond_the_measurements_the_nearest_counts(pricing: Pricing) -> None:
    one = watts_of_row(
        pricing, "generation_attention", num_heads=32, num_key_value_heads=8, head_dim=128, window_size=0,
        kv_cache_dtype="bfloat16", batch_size=1, step=1,
    )  # fmt: skip
    assert decode_power(pricing, DECODE, 1, 1) == pytest.approx(one)
    assert decode_power(pricing, DECODE, 1e9, 1e9) == decode_power(pricing, DECODE, 1e10, 1e10) > 0
    assert token_power(pricing, EXPERTS, 1e9) == token_power(pricing, EXPERTS, 1e10) > 0


def test_interpolation_is_linear_in_ragged_grids() -> None:
    rng = np.random.default_rng(3)
    axes = [np.repeat([1.0, 2.0, 5.0], 4), np.tile([1.0, 3.0, 4.0, 9.0], 3)]
    values = 3 * axes[0] - 2 * axes[1] + 7
    for point in rng.uniform((1, 1), (5, 9), (50, 2)):
        assert interpolate(axes, values, point) == pytest.approx(3 * point[0] - 2 * point[1] + 7)
    assert interpolate(axes[:1], values[[0, 4, 8]].repeat(4), (99.0,)) == values[8]


@pytest.mark.parametrize("operator", [ops.Gemm("op", 1, 4096, 4096, "bfloat16"), ops.AllReduce("op", 1, 4096, 2)])
def test_other_operators_have_none(pricing: Pricing, operator: ops.TokenOperator) -> None:
    assert token_power(pricing, operator, 64.0) is None


def test_other_systems_have_none() -> None:
    elsewhere = Pricing(open_database("h200_sxm", "vllm"), load_system("h200_sxm"))
    assert prompt_power(elsewhere, PREFILL, 1, 1024) is None
    assert token_power(elsewhere, EXPERTS, 64.0) is None
    own = estimate(Point(model="Qwen/Qwen3-8B", system="h200_sxm", mode="static", isl=500, osl=50))
    assert (own.energy_j, own.energy_share) == (None, 0.0)
    assert {part["power_w"] for part in own.ops} == {None}


def test_the_roofline_draws_nothing() -> None:
    bare = Pricing(open_database("b200_sxm", "vllm"), load_system("b200_sxm"), mode="sol")
    assert prompt_power(bare, PREFILL, 1, 1024) is None
    assert token_power(bare, EXPERTS, 64.0) is None


@pytest.mark.parametrize("mode", ["static", "agg"])
def test_energy_is_that_of_the_operators_with_watts(mode: str) -> None:
    point = Point(model="Qwen/Qwen3-30B-A3B", system="b200_sxm", backend="vllm", mode=mode, isl=1500, osl=100, batch=8)
    own = estimate(point)
    known = [part for part in own.ops if part["power_w"] is not None]
    assert {part["op"] for part in known} >= {"context_moe", "generation_attention"}
    assert own.energy_j == pytest.approx(sum(part["latency_ms"] * part["power_w"] for part in known) / 1e3)
    whole = sum(part["latency_ms"] for part in own.ops)
    assert own.energy_share == pytest.approx(sum(part["latency_ms"] for part in known) / whole)
    assert all(100 < part["power_w"] < 1300 for part in known)


def test_data_query_tells_watts(pricing: Pricing) -> None:
    heads = {"heads": 32, "kv_heads": 8, "head_dim": 128, "kv": "bfloat16"}
    lines = [
        {**PLACE, "op": "ContextAttention", **heads, "fmha": "bfloat16", "batch": 1, "new_tokens": 1024},
        {**PLACE, "op": "GenerationAttention", **heads, "batch": 8, "length": 2048},
        {"system": "h200_sxm", "backend": "trtllm", "op": "Gemm", "n": 4096, "k": 4096, "quant": "fp8", "tokens": 512},
    ]
    text = "\n".join(map(json.dumps, lines))
    result = CliRunner().invoke(app, ["data", "query", "--points", "-"], input=text)
    first, second, third = map(json.loads, result.stdout.splitlines())
    assert first["power_w"] == pytest.approx(prefill_watts(pricing, 1, 1024))
    assert second["power_w"] == pytest.approx(decode_power(pricing, DECODE, 8, 2048))
    assert "power_w" not in third
