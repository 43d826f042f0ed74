"""Token operators against single-operator reference latencies."""

import csv
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serveopt.perfdata.store import open_database
from serveopt.perfdata.systems import load_system
from serveopt.solver.operators import descriptions as ops
from serveopt.solver.operators.exchange import exchange_shape, exchanges
from serveopt.solver.operators.pricing import Pricing

CHECKPOINTS = Path(__file__).parents[3].parent / "shared" / "data" / "op_checkpoints.csv"
# Lines that differ on purpose: the reference prices 16 nodes like one.
DIFFERENT = {97: "the reference copies one node's exchange to sixteen nodes"}
TOLERANCE = {"SILICON": 2e-3, "HYBRID": 2e-3, "SOL": 2e-3, "EMPIRICAL": 2e-2}


def words(given: dict[str, Any]) -> dict[str, str]:
    """Arguments as text without the prefix of their family."""
    return {
        name: str(value).split(".", 1)[-1] if str(value)[1:2] == "." else str(value) for name, value in given.items()
    }


def moe(given: dict[str, Any]) -> ops.Moe:
    """Fused experts of a reference point."""
    sizes = [given[name] for name in ("hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size", "moe_ep_size")]
    share = float(given["attention_dp_size"])
    return ops.Moe("op", 1, *sizes, words(given)["quant_mode"], given["workload_distribution"], share=share)


def expert_compute(given: dict[str, Any]) -> ops.ExpertCompute:
    """Expert compute of a reference point; its load balancer takes a fifth of the tokens in prefill."""
    balanced = given["enable_eplb"] and given["inference_phase"] == "context"
    sizes = [given[name] for name in ("hidden_size", "inter_size", "topk", "num_experts", "num_experts", "moe_ep_size")]
    share = given["attention_dp_size"] * (0.8 if balanced else 1.0)
    quant, load = words(given)["quant_mode"], given["workload_distribution"]
    return ops.ExpertCompute("op", 1, given["inference_phase"], *sizes, quant, load, share)


def exchange(given: dict[str, Any]) -> ops.AllToAll:
    """Exchange of a reference point."""
    sizes = [given[name] for name in ("hidden_size", "topk", "num_experts", "moe_ep_size", "node_num")]
    return ops.AllToAll("op", 1, given["comm_backend"], given["phase"], "default", *sizes)


DESCRIBE = {
    "GEMM": lambda g: ops.Gemm("op", 1, g["n"], g["k"], words(g)["quant_mode"], g.get("low_precision_input", False)),
    "ElementWise": lambda g: ops.MemoryMove("op", 1, 2.0 * (g["dim_in"] + g["dim_out"])),
    "Embedding": lambda g: ops.Embedding("op", 1, g["row_size"], g["column_size"]),
    "P2P": lambda g: ops.PointToPoint("op", 1, g["h"]),
    "CustomAllReduce": lambda g: ops.AllReduce("op", 1, g["h"], g["tp_size"]),
    "NCCL": lambda g: ops.Nccl(
        "op", 1, g["nccl_op"], g["num_elements_per_token"], g["num_gpus"], words(g)["comm_quant_mode"]
    ),
    "MoE": moe,
    "MoEExpertCompute": expert_compute,
    "MoEAllToAll": exchange,
    "DeepSeekV4MHCModule": lambda g: ops.Mhc("op", 1, g["op"], g["hc_mult"], g["hidden_size"]),
}


def read_checkpoints() -> list[Any]:
    """One parameter per reference point of a token operator; a single skipped one where the data is absent."""
    if not CHECKPOINTS.is_file():
        return [pytest.param(None, marks=pytest.mark.skip(reason="reference data ../shared is absent"))]
    chosen = []
    with CHECKPOINTS.open(newline="") as file:
        for number, row in enumerate(csv.DictReader(file), 2):
            arguments = json.loads(row["args_json"])
            if arguments["op"] in DESCRIBE and number not in DIFFERENT:
                name = f"line{number}-{arguments['op']}-{arguments['mode']}-{row['system']}-{row['backend']}"
                chosen.append(pytest.param({**row, **arguments}, id=name))
    return chosen


@cache
def pricing(system: str, backend: str, version: str, mode: str = "silicon") -> Pricing:
    """The reference's prices of one database, opened once."""
    return Pricing(open_database(system, backend, version), load_system(system), "reference", mode=mode)


@pytest.mark.parametrize("point", read_checkpoints())
def test_equals_reference(point: dict[str, Any]) -> None:
    """Within 0.2 % (2 % where an efficiency is interpolated) and from the same kind of source."""
    prices = pricing(point["system"], point["backend"], point["version"], point["mode"].lower())
    operator, tokens = DESCRIBE[point["op"]](point["ctor"]), np.array([float(point["query"]["x"])])
    curve = prices.token_curve(operator)
    if point["ctor"].get("sms", 20) not in (0, 20):
        table = prices.built("exchange", exchanges)
        found = table.curve(exchange_shape(table, operator), point["ctor"]["sms"])
        assert found is not None
        curve = found
    assert curve.at(tokens)[0] == pytest.approx(float(point["latency_ms"]), rel=TOLERANCE[point["mode"]])
    across = isinstance(operator, ops.AllReduce | ops.Nccl) and operator.gpus > prices.system.gpus_per_node
    assert curve.source == ("estimated" if across and point["mode"] == "SILICON" else point["source"])
