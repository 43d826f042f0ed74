"""GEMMs as operators: from their own table, from another quantisation's, and statically scaled fp8.

Source: specs/op_model.md 2.1, 2.16 and 3.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from serveopt.perfdata.quant_modes import GEMM_MODES
from serveopt.solver.operators import quantize
from serveopt.solver.operators.curve import TokenCurve, line
from serveopt.solver.operators.data_modes import GEMM_EFFICIENCY, Relative, TokenPrice, other_modes
from serveopt.solver.operators.descriptions import Embedding, Gemm, MemoryMove
from serveopt.solver.operators.rooflines import (
    BF16_BYTES,
    embedding_bound,
    gemm_bound,
    memory_move_bound,
    memory_move_ms,
)  # fmt: skip

if TYPE_CHECKING:
    from serveopt.solver.operators.pricing import Pricing


def price_gemm(pricing: "Pricing", operator: Gemm) -> TokenCurve:
    """Latency over tokens of one GEMM."""
    if operator.quant != "fp8_static":
        return pricing.gemm_table(operator.quant).curve(operator.n, operator.k, pricing.cost_model)
    fp8 = pricing.gemm_table("fp8").curve(operator.n, operator.k, pricing.cost_model)
    database, k = pricing.database, operator.k
    passes = [quantize.pass_curve(database.table("computescale"), "computescale", k, grows=False)]
    if operator.low_precision_input:
        passes.append(quantize.pass_curve(database.table("scale_matrix"), "scale_matrix", k, grows=True))
    return quantize.static_fp8_curve(fp8, passes, pricing.system, operator.n, k)


def other_quants(pricing: "Pricing", operator: Gemm) -> Iterable[Relative]:
    """The same shape in the other measured quantisations, the most alike arithmetic first."""
    table = pricing.database.table("gemm")
    measured = table.categories["gemm_dtype"] if table is not None else ()
    for quant, scale in other_modes(operator.quant, measured, GEMM_MODES, GEMM_EFFICIENCY):
        yield Relative(replace(operator, quant=quant, low_precision_input=False), scale)


def price_memory_move(pricing: "Pricing", operator: MemoryMove) -> TokenCurve:
    """Latency over tokens of an element-wise kernel."""
    launch = memory_move_ms(pricing.system, 0.0)
    return line(launch, memory_move_ms(pricing.system, operator.bytes_per_token) - launch, "empirical")


def price_embedding(pricing: "Pricing", operator: Embedding) -> TokenCurve:
    """Latency over tokens of the embedding look-up."""
    launch = memory_move_ms(pricing.system, 0.0)
    return line(launch, memory_move_ms(pricing.system, operator.hidden * BF16_BYTES) - launch, "empirical")


GEMM = TokenPrice(price_gemm, gemm_bound, other_quants, typical=0.5)
MEMORY_MOVE = TokenPrice(price_memory_move, memory_move_bound, formula=True)
EMBEDDING = TokenPrice(price_embedding, embedding_bound, formula=True)
