"""Latency of any operator on one (system, backend, version): the one engine that resolves descriptions to tables.

Curves and slices are cached, since the layouts of a search share most of them.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from serveopt.errors import MissingTable
from serveopt.perfdata.store import Database, Table
from serveopt.perfdata.systems import SystemSpec
from serveopt.perfdata.versions import attention_lanes
from serveopt.solver.operators import attention, collectives, gemm, quantize
from serveopt.solver.operators import descriptions as ops
from serveopt.solver.operators.curve import TokenCurve, line
from serveopt.solver.operators.rooflines import memory_move_ms

BF16_BYTES = 2.0


class Pricing:
    """Prices operators from the tables of one database."""

    def __init__(
        self, database: Database, system: SystemSpec, cost_model: str = "measured", attention_backend: str | None = None
    ) -> None:
        self.database = database
        self.system = system
        self.cost_model = cost_model
        self.attention_backend = attention_backend
        self._gemms: dict[str, gemm.GemmTable] = {}
        self._curves: dict[Any, TokenCurve] = {}
        self._slices: dict[Any, attention.AttentionSlice] = {}
        self._lanes: dict[str, tuple[str, ...]] = {}
        self.decode_memo: dict[Any, np.ndarray] = {}  # decode attention at batches 1 .. n, see Worker

    def token_curve(self, operator: ops.TokenOperator) -> TokenCurve:
        """Latency over tokens of all ``count`` runs of a token-only operator."""
        if operator.count == 0:
            return line(0.0, 0.0, "silicon")
        key = shape_key(operator)
        if key not in self._curves:
            self._curves[key] = TOKEN_PRICES[type(operator)](self, operator)
        return self._curves[key].scaled(operator.count)

    def attention_slice(self, operator: ops.AttentionOperator) -> attention.AttentionSlice:
        """The measured slice that serves an attention operator."""
        key = shape_key(operator)
        if key not in self._slices:
            name = "context_attention" if isinstance(operator, ops.ContextAttention) else "generation_attention"
            table = self.require(name)
            if name not in self._lanes:
                place = (self.database.backend, self.database.version, self.system.sm_version)
                self._lanes[name] = attention_lanes(table, *place, self.attention_backend)
            self._slices[key] = attention.read_slice(table, self.system, operator, self._lanes[name])
        return self._slices[key]

    def require(self, name: str) -> Table:
        """The table of that name; MissingTable where nothing was collected."""
        table = self.database.table(name)
        if table is None:
            where = f"{self.database.system}/{self.database.backend}/{self.database.version}"
            raise MissingTable(name, f"nothing collected for {where}")
        return table

    def gemm_table(self, quant: str) -> gemm.GemmTable:
        """All measured GEMMs of one quantisation."""
        if quant not in self._gemms:
            self._gemms[quant] = gemm.read_gemm(self.require("gemm"), self.system, quant)
        return self._gemms[quant]


def shape_key(operator: ops.Operator) -> tuple[Any, ...]:
    """What the price depends on: everything but the label and the count."""
    values = [getattr(operator, name) for name in operator.__slots__ if name not in ("label", "count")]
    return (type(operator), *values)


def price_gemm(pricing: Pricing, operator: ops.Gemm) -> TokenCurve:
    """Latency over tokens of one GEMM."""
    if operator.quant != "fp8_static":
        return pricing.gemm_table(operator.quant).curve(operator.n, operator.k, pricing.cost_model)
    fp8 = pricing.gemm_table("fp8").curve(operator.n, operator.k, pricing.cost_model)
    database, k = pricing.database, operator.k
    passes = [quantize.pass_curve(database.table("computescale"), "computescale", k, grows=False)]
    if operator.low_precision_input:
        passes.append(quantize.pass_curve(database.table("scale_matrix"), "scale_matrix", k, grows=True))
    return quantize.static_fp8_curve(fp8, passes, pricing.system, operator.n, k)


def price_memory_move(pricing: Pricing, operator: ops.MemoryMove) -> TokenCurve:
    """Latency over tokens of an element-wise kernel."""
    launch = memory_move_ms(pricing.system, 0.0)
    return line(launch, memory_move_ms(pricing.system, operator.bytes_per_token) - launch, "empirical")


def price_embedding(pricing: Pricing, operator: ops.Embedding) -> TokenCurve:
    """Latency over tokens of the embedding look-up."""
    launch = memory_move_ms(pricing.system, 0.0)
    moved = memory_move_ms(pricing.system, operator.hidden * BF16_BYTES)
    return line(launch, moved - launch, "empirical")


def price_all_reduce(pricing: Pricing, operator: ops.AllReduce) -> TokenCurve:
    """Latency over tokens of the backend's all-reduce."""
    table = pricing.database.table("custom_allreduce") if operator.gpus > 1 else None
    return collectives.all_reduce_curve(table, pricing.system, operator)


def price_nccl(pricing: Pricing, operator: ops.Nccl) -> TokenCurve:
    """Latency over tokens of an NCCL collective."""
    tables = (pricing.database.table(name) for name in ("nccl", "oneccl")) if operator.gpus > 1 else ()
    table = next((table for table in tables if table is not None), None)
    return collectives.nccl_curve(table, pricing.system, operator)


def price_hand_over(pricing: Pricing, operator: ops.PointToPoint) -> TokenCurve:
    """Latency over tokens of a pipeline hand-over."""
    return collectives.point_to_point_curve(pricing.system, operator)


TOKEN_PRICES: dict[type, Callable[[Pricing, Any], TokenCurve]] = {
    ops.Gemm: price_gemm,
    ops.MemoryMove: price_memory_move,
    ops.Embedding: price_embedding,
    ops.AllReduce: price_all_reduce,
    ops.Nccl: price_nccl,
    ops.PointToPoint: price_hand_over,
}
