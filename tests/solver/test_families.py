"""Operators, weights and KV cache of dense models against built reference models: every number is exact."""

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from serveopt.solver.engine import Engine, EngineQuery, open_engine
from serveopt.solver.layout import Layout
from serveopt.solver.operators import descriptions as ops
from serveopt.solver.worker import Worker, resident_bytes

OP_LISTS = Path(__file__).parents[2].parent / "shared" / "data" / "op_lists.jsonl.gz"


def read_models() -> list[Any]:
    """One parameter per built dense model without speculation; a single skipped one where the data is absent."""
    if not OP_LISTS.is_file():
        return [pytest.param(None, marks=pytest.mark.skip(reason="reference data ../shared is absent"))]
    with gzip.open(OP_LISTS, "rt") as file:
        built = [json.loads(line) for line in file if '"family": "LLAMA"' in line]
    return [
        pytest.param(entry, id=f"{entry['model'].split('/')[-1]}-{entry['backend']}-tp{entry['tp']}pp{entry['pp']}")
        for entry in built
        if entry["family"] == "LLAMA" and entry["nextn"] == 0
    ]


@cache
def engine_with(model: str, backend: str, quant: tuple[tuple[str, str], ...]) -> Engine:
    """The model under a backend, with the quantisation that the reference built it with."""
    return open_engine(EngineQuery(model=model, system="h200_sxm", backend=backend, quant=quant))


def reference_fields(listed: dict[str, dict[str, Any]]) -> tuple[Any, ...]:
    """(kind, name, count, shape ...) of an operator of the reference."""
    ((kind, op),) = listed.items()
    head = (kind, op["name"], op["scale_factor"])
    if kind == "Embedding":
        return (*head, op["vocab_size"], op["hidden_size"])
    if kind == "Elementwise":
        return (*head, op["bytes_per_token"])
    if kind == "Gemm":
        return (*head, op["n"], op["k"], op["quant_mode"], op["low_precision_input"])
    if kind == "CustomAllReduce":
        return (*head, op["hidden_size"], op["tp_size"])
    if kind == "P2P":
        return (*head, op["hidden_size"])
    heads = (op["n"], op["n_kv"], op["head_size"], op["window_size"], op["kv_cache_dtype"])
    return (*head, *heads, *((op["fmha_quant_mode"], op["use_qk_norm"]) if kind == "ContextAttention" else ()))


def own_fields(op: ops.Operator) -> tuple[Any, ...]:
    """The same of one of our operators."""
    head = (op.label, op.count)
    if isinstance(op, ops.Embedding):
        return ("Embedding", *head, op.rows, op.hidden)
    if isinstance(op, ops.MemoryMove):
        return ("Elementwise", *head, op.bytes_per_token)
    if isinstance(op, ops.Gemm):
        return ("Gemm", *head, op.n, op.k, op.quant, op.low_precision_input)
    if isinstance(op, ops.AllReduce):
        return ("CustomAllReduce", *head, op.hidden, op.gpus)
    if isinstance(op, ops.PointToPoint):
        return ("P2P", *head, op.hidden)
    assert isinstance(op, ops.ContextAttention | ops.GenerationAttention)
    heads = (op.heads, op.kv_heads, op.head_dim, op.window, op.kv)
    if isinstance(op, ops.ContextAttention):
        return ("ContextAttention", *head, *heads, op.fmha, op.qk_norm)
    return ("GenerationAttention", *head, *heads)


@pytest.mark.parametrize("entry", read_models())
def test_equals_reference(entry: dict[str, Any]) -> None:
    """Operators of both phases, weight bytes per operator, KV bytes at every listed length."""
    engine = engine_with(entry["model"], entry["backend"], tuple(sorted(entry["quant"].items())))
    worker = Worker(engine, Layout(tp=entry["tp"], pp=entry["pp"]))
    for phase in ("context", "generation"):
        listed = entry[f"{phase}_ops"]
        assert [own_fields(op) for op in getattr(worker.phases, phase)] == [reference_fields(op) for op in listed]
    assert [resident_bytes(engine, op) for op in worker.phases.context] == entry["weights"]
    assert worker.weight_bytes == entry["weights_total"]
    for length, expected in entry["kv_bytes_seq"].items():
        assert engine.family.kv_bytes(engine.model, engine.quant, worker.layout, int(length)) == expected


@pytest.mark.parametrize("entry", read_models())
def test_shapes_are_those_of_the_checkpoint(entry: dict[str, Any]) -> None:
    """The catalogue's facts of a model."""
    model = engine_with(entry["model"], entry["backend"], tuple(sorted(entry["quant"].items()))).model
    own = (model.architecture, model.num_layers, model.hidden_size, model.num_heads, model.num_kv_heads)
    assert own == tuple(entry[name] for name in ("architecture", "layers", "hidden", "heads", "kv_heads"))
    assert (model.head_dim, model.intermediate_size) == (entry["head_size"], entry["inter"])
