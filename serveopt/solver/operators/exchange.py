"""Exchange of tokens between expert ranks (dispatch and combine), one measured curve per library, step and shape.

DeepEP was measured on one node, and over 2, 4 and 8 nodes only for hidden 7168, 8 of 256 experts on Hopper. Groups
without rows of their own take the curve of one node times what nodes cost there:

    t(nodes, tokens) = t(1, tokens) * (1 + (r(nodes, tokens) - 1) * g(system) / g(Hopper))

r is the measured ratio at equal bytes, its logarithm linear in log2(nodes); beyond 8 nodes its excess grows with the
number of other nodes that a token reaches; g = bandwidth inside a node over bandwidth between its ranks. Measured r of
the dispatch of 16384 tokens on H200: 1.66, 3.63 and 12.6 at 2, 4 and 8 nodes; of its combine 2.2, 3.8 and 13.6; of the
low-latency dispatch of 128 tokens 2.9, 4.1 and 4.7. (The H100's rows over several nodes are the same numbers.)

Checks on those rows, median error of the dispatch: four nodes from two and eight 7 % (low latency 9 %), linear in r
20 % (7 %); eight nodes from four by the rule for more nodes -17 % (+30 %); the other shape measured over nodes, 288
experts, costs what 256 experts cost within 9 %. The reference takes the curve of one node as it is. A part of a node
takes the launch of the whole node and the rest in proportion to the peers that a token reaches.
Source: specs/op_model.md 2.12, 6.2.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from serveopt.errors import MissingTable
from serveopt.perfdata.store import Database
from serveopt.perfdata.systems import load_system
from serveopt.solver.operators.curve import TokenCurve, blended, held_ends
from serveopt.solver.operators.curve_tables import CurveTable, Key, list_values, nearest_keys
from serveopt.solver.operators.data_modes import Relative, TokenPrice
from serveopt.solver.operators.descriptions import AllToAll
from serveopt.solver.operators.rooflines import exchange_bound, remote_peers

if TYPE_CHECKING:
    from serveopt.solver.operators.pricing import Pricing

SMS = 20  # streaming multiprocessors that the high-throughput kernels are given by default
LEGACY_RANKS = 8  # GPUs per node where a table counts nodes only
EVIDENCE = ("h200_sxm", "sglang")  # where several nodes were measured
EVIDENCE_SHAPE = (7168, 8, 256)  # hidden, topk, experts
NVLINK = MappingProxyType({"NVLinkTwoSided": "nvlink_two_sided", "NVLinkOneSided": "nvlink_one_sided"})
NVLINK_STEPS = MappingProxyType(
    {
        "alltoall_prepare": ("prepare", ""),
        "alltoall_dispatch": ("dispatch", ""),
        "alltoall_combine": ("combine", ""),
        "alltoall_combine_low_precision": ("combine", "fp4"),
    }
)
# Libraries that share DeepEP's kernels -> the library whose rows over several nodes tell what nodes cost.
NODE_EVIDENCE = MappingProxyType(
    {
        "deepep_ht": "deepep_ht",
        "deepep_v2_context": "deepep_ht",
        "trtllm_deepep_ht": "deepep_ht",
        "deepep_ll": "deepep_ll",
        "deepep_v2_generation": "deepep_ll",
        "trtllm_deepep_ll": "deepep_ll",
    }
)
Shape = tuple[str, str, str, int, int, int, int, int]  # library, step, dtype, ranks, nodes, hidden, topk, experts


@dataclass
class ExchangeTable:
    """Every measured exchange: shape -> {streaming multiprocessors: (table, key)}."""

    shapes: dict[Shape, dict[int, tuple[CurveTable, Key]]] = field(default_factory=dict)

    def put(self, shape: Shape, sms: int, table: CurveTable, key: Key) -> None:
        """Nothing; notes a curve unless a better source has it."""
        self.shapes.setdefault(shape, {}).setdefault(sms, (table, key))

    def curve(self, shape: Shape, sms: int) -> TokenCurve | None:
        """The measured points with ``sms`` multiprocessors, linear between the measured numbers of them."""
        held = self.shapes.get(shape)
        if held is None:
            return None
        if sms in held:
            return held[sms][0].curve(held[sms][1])
        below, above = [n for n in held if n < sms], [n for n in held if n > sms]
        if not below or not above:
            return self.curve(shape, max(below) if below else min(above))
        low, high = max(below), min(above)
        few, many = self.curve(shape, low), self.curve(shape, high)
        return blended(few, many, (sms - low) / (high - low)) if few and many else None


def read_exchange(database: Database) -> ExchangeTable:
    """All exchanges of a database, the newest kind of table first."""
    out = ExchangeTable()
    for reader in (read_libraries, read_throughput, read_low_latency, read_nvlink):
        for shape, sms, table, key in reader(database):
            out.put(shape, sms, table, key)
    return out


Entry = tuple[Shape, int, CurveTable, Key]


def read_libraries(database: Database) -> Iterator[Entry]:
    """Rows of the table that names its library."""
    names = (
        "comm_backend", "phase", "comm_dtype", "ep_size", "node_num", "hidden_size", "topk", "num_experts", "sms",
    )  # fmt: skip
    table = database.table("moe_a2a")
    if table is not None:
        curves = CurveTable.read(table, names, "num_tokens")
        for key in curves:
            yield key[:-1], max(int(key[-1]), 0), curves, key  # type: ignore[misc]


def read_throughput(database: Database) -> Iterator[Entry]:
    """Rows of DeepEP's high-throughput kernels."""
    table = database.table("wideep_deepep_normal")
    if table is None:
        return
    for step in ("dispatch", "combine"):
        names = ("node_num", "hidden_size", "num_topk", "num_experts", "dispatch_sms")
        curves = CurveTable.read(table, names, "num_token", f"{step}_ms")
        for key in curves:
            yield deepep_shape("deepep_ht", step, key[:4]), int(key[4]), curves, key


def read_low_latency(database: Database) -> Iterator[Entry]:
    """Rows of DeepEP's low-latency kernels."""
    table = database.table("wideep_deepep_ll")
    if table is None:
        return
    for step in ("dispatch", "combine"):
        names = ("node_num", "hidden_size", "num_topk", "num_experts")
        curves = CurveTable.read(table, names, "num_token", f"{step}_ms")
        for key in curves:
            yield deepep_shape("deepep_ll", step, key), 0, curves, key


def deepep_shape(library: str, step: str, key: Key) -> Shape:
    """The shape of a row that counts nodes of eight GPUs."""
    nodes, hidden, topk, experts = (int(value) for value in key)
    return library, step, "default", nodes * LEGACY_RANKS, nodes, hidden, topk, experts


def read_nvlink(database: Database) -> Iterator[Entry]:
    """Rows of trtllm's exchange over NVLink; it has four GPUs per node."""
    table = database.table("trtllm_alltoall")
    if table is None:
        return
    names = ("kernel_source", "op_name", "moe_dtype", "moe_ep_size", "hidden_size", "topk", "num_experts")
    curves = CurveTable.read(table, names, "num_tokens")
    for key in curves:
        kernel, name, dtype, ranks, hidden, topk, experts = key
        step, low = NVLINK_STEPS[str(name)]
        place = (int(ranks), max(1, int(ranks) // 4), int(hidden), int(topk), int(experts))
        yield (NVLINK[str(kernel)], step, low or str(dtype), *place), 0, curves, key


def exchange_shape(table: ExchangeTable, operator: AllToAll) -> Shape:
    """The operator's place in the table, its type replaced by the one that serves it."""
    rest = (operator.moe_ep, operator.nodes, operator.hidden, operator.topk, operator.experts)
    types = {shape[2] for shape in table.shapes if shape[:2] == (operator.library, operator.step)}
    dtype = operator.dtype
    if dtype not in types and dtype == "fp8_block":
        dtype = "fp8"
    if dtype not in types and types == {"default"}:
        dtype = "default"
    return (operator.library, operator.step, dtype, *rest)


def default_sms(library: str) -> int:
    """Multiprocessors that a library's kernels are given."""
    return SMS if library == "deepep_ht" else 0


def price_exchange(pricing: "Pricing", operator: AllToAll) -> TokenCurve:
    """Latency of one half of the exchange over a rank's own tokens."""
    table = pricing.built("exchange", exchanges)
    shape = exchange_shape(table, operator)
    sms = operator.sms or default_sms(operator.library)
    points = table.curve(shape, sms)
    if points is None:
        points = from_one_node(pricing, table, operator, shape)
    if points is None:
        raise missing_exchange(table, shape)
    return held_ends(points, lambda tokens: tokens, flat_head=pricing.cost_model == "measured")


def exchanges(pricing: "Pricing") -> ExchangeTable:
    """The exchanges of the pricing's own database."""
    return read_exchange(pricing.database)


def missing_exchange(table: ExchangeTable, shape: Shape) -> MissingTable:
    """The error of an exchange: what was asked for and what was measured of that library."""
    library, step, dtype, ranks, nodes, hidden, topk, experts = shape
    held: list[Shape] = [key for key in table.shapes if key[:2] == (library, step)]
    text = f"{library} {step}, {dtype}, ep={ranks}, nodes={nodes}, hidden={hidden}, topk={topk}, experts={experts}"
    sizes = sorted({"/".join(map(str, key[5:])) for key in held})
    found = f"ep: {list_values(held, 3)}; hidden/topk/experts: {', '.join(sizes[:8])}" if held else "nothing"
    return MissingTable("exchange", f"{text} (measured: {found})")


def from_one_node(pricing: "Pricing", table: ExchangeTable, operator: AllToAll, shape: Shape) -> TokenCurve | None:
    """The curve of one whole node, stretched to several or cut to a part of it; None where that was not measured."""
    library = NODE_EVIDENCE.get(operator.library)
    ranks = [key[3] for key in table.shapes if key[:3] == shape[:3] and key[4:] == (1, *shape[5:])]
    if library is None or not ranks:
        return None
    one = table.curve((*shape[:3], max(ranks), 1, *shape[5:]), operator.sms or default_sms(operator.library))
    if one is None:
        return None
    if operator.nodes < 2:
        return part_of_node(one, operator, min(max(ranks), pricing.system.gpus_per_node))
    hidden, topk, _ = EVIDENCE_SHAPE
    same_bytes = one.tokens * operator.hidden * operator.topk / (hidden * topk)
    cost = pricing.built("node cost", node_costs)
    excess = (cost.ratio(library, operator.step, operator.nodes, same_bytes) - 1.0) * cost.slowness(pricing, operator)
    return TokenCurve(one.tokens, one.latency_ms * (1.0 + np.maximum(excess, 0.0)), "estimated")


def part_of_node(one: TokenCurve, operator: AllToAll, ranks: int) -> TokenCurve:
    """The curve of ``ranks`` GPUs cut to fewer: what grows with the tokens shrinks with the peers a token reaches."""
    peers = min(1.0, remote_peers(operator.moe_ep, operator.topk) / remote_peers(ranks, operator.topk))
    launch = float(one.latency_ms.min())
    return TokenCurve(one.tokens, launch + (one.latency_ms - launch) * peers, "estimated")


@dataclass(frozen=True)
class NodeCosts:
    """What several nodes cost relative to one, measured on one system."""

    table: ExchangeTable
    gap: float  # bandwidth inside a node over bandwidth between nodes

    def ratio(self, library: str, step: str, nodes: int, tokens: np.ndarray) -> np.ndarray:
        """float64[n]: latency over ``nodes`` nodes relative to one at ``tokens``."""
        known = sorted(
            key[4] for key in self.table.shapes
            if key[:3] == (library, step, "default") and key[5:] == EVIDENCE_SHAPE
        )  # fmt: skip
        if not known:
            raise MissingTable("exchange", message="nothing was measured of an exchange between nodes")
        if nodes <= known[-1]:
            above = next(n for n in known if n >= nodes)
            below = [n for n in known if n <= nodes][-1]
            weight = 0.0 if above == below else float(np.log2(nodes / below) / np.log2(above / below))
            low, high = (self._measured(library, step, n, tokens) for n in (below, above))
            return np.asarray(low ** (1.0 - weight) * high**weight)
        topk = EVIDENCE_SHAPE[1]
        further = remote_peers(nodes, topk) / remote_peers(known[-1], topk)
        return 1.0 + (self._measured(library, step, known[-1], tokens) - 1.0) * further

    def _measured(self, library: str, step: str, nodes: int, tokens: np.ndarray) -> np.ndarray:
        if nodes == 1:
            return np.ones(tokens.size)
        one, many = (
            self.table.curve((library, step, "default", n * LEGACY_RANKS, n, *EVIDENCE_SHAPE), default_sms(library))
            for n in (1, nodes)
        )
        assert one is not None and many is not None
        common = np.intersect1d(one.tokens, many.tokens)
        return np.interp(np.log(tokens), np.log(common), many.at(common) / one.at(common))

    def slowness(self, pricing: "Pricing", operator: AllToAll) -> float:
        """The step from inside a node to between nodes on the pricing's system, relative to the measured one's."""
        system = pricing.system
        return system.intra_node_bw_b_s / system.p2p_bw(max(operator.moe_ep, system.gpus_per_node + 1)) / self.gap


def node_costs(pricing: "Pricing") -> NodeCosts:
    """The measurements over several nodes: of the pricing's own system where it has them, else of the H200."""
    own = pricing.built("exchange", exchanges)
    if all((name, "dispatch", "default", 16, 2, *EVIDENCE_SHAPE) in own.shapes for name in ("deepep_ht", "deepep_ll")):
        system = pricing.system
        return NodeCosts(own, system.intra_node_bw_b_s / system.inter_node_bw_b_s)
    system = load_system(EVIDENCE[0])
    table = read_exchange(pricing.database_of(*EVIDENCE))
    return NodeCosts(table, system.intra_node_bw_b_s / system.inter_node_bw_b_s)


def alike_exchanges(pricing: "Pricing", operator: AllToAll) -> Iterable[Relative]:
    """The same step of the same library at the nearest shapes, its own type first."""
    table = pricing.built("exchange", exchanges)
    shape = exchange_shape(table, operator)
    held: list[Shape] = [key for key in table.shapes if key[:2] == shape[:2]]
    wanted = {3: operator.moe_ep, 5: operator.hidden, 6: operator.topk, 7: operator.experts}
    near = [key for _, key in nearest_keys(held, wanted)]
    for key in sorted(near, key=lambda key: key[2] != shape[2])[:1]:
        ranks, nodes, hidden, topk, experts = (int(value) for value in key[3:])
        yield Relative(
            replace(operator, dtype=str(key[2]), moe_ep=ranks, nodes=nodes, hidden=hidden, topk=topk, experts=experts)
        )


EXCHANGE = TokenPrice(price_exchange, exchange_bound, alike_exchanges, typical=0.5)
