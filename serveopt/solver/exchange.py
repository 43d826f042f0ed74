"""Which wide expert parallel graphs the measured data covers.

Such a graph needs the exchange of tokens (dispatch and combine of one library, in prefill and in decode) and the
experts at that width. A library measured on one node stands for several of them too; pricing scales it.
Source: specs/search_model.md 7.4, op_model.md 2.11 and 2.12.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from serveopt.perfdata.store import Database, Table, run_starts
from serveopt.solver.families.table import Setting, WideEp, ceil_div

PHASES = ("context", "generation")
MOST_CHOSEN = 8  # experts per token that the exchange kernels take
BLACKWELL = 100
# backend -> (library of prefill, library of decode, lowest sm_version), in order of preference
LIBRARIES = {
    "sglang": (("deepep_ht", "deepep_ll", 0),),
    "vllm": (("deepep_ht", "deepep_ll", 0), ("deepep_v2_context", "deepep_v2_generation", 0)),
    "trtllm": (
        ("trtllm_deepep_ht", "trtllm_deepep_ll", 0),
        ("nvlink_two_sided", "nvlink_two_sided", BLACKWELL),
        ("nvlink_one_sided", "nvlink_one_sided", BLACKWELL),
    ),
}
LEGACY_NODE = 8  # GPUs of a node in the tables that name nodes instead of ranks
# Tables of one library each.
LEGACY_LIBRARIES = {"wideep_deepep_normal": "deepep_ht", "wideep_deepep_ll": "deepep_ll"}
NVLINK_LIBRARIES = {"NVLinkTwoSided": "nvlink_two_sided", "NVLinkOneSided": "nvlink_one_sided"}
NVLINK_NODE = 4
EXPERT_TABLES = {"wideep_context_moe": PHASES[:1], "wideep_generation_moe": PHASES[1:], "wideep_moe": PHASES}
WIDE_BACKENDS_NEED_DP = ("trtllm",)

Exchange = tuple[str, int, int, int, int, int]  # library, ep, nodes, hidden, topk, experts
Experts = tuple[str, str, int, int, int, int, int, int]  # quant, phase, hidden, inter, topk, experts, slots, ep


@dataclass(frozen=True, slots=True)
class ExchangeIndex:
    """What was measured: exchanges and experts by their whole key."""

    exchanges: frozenset[Exchange]
    experts: frozenset[Experts]


@lru_cache(maxsize=32)
def exchange_index(database: Database) -> ExchangeIndex:
    """The index of a database; read once."""
    return ExchangeIndex(frozenset(read_exchanges(database)), frozenset(read_experts(database)))


def distinct(table: Table, columns: tuple[str, ...]) -> Iterator[list[int]]:
    """Distinct rows of the key columns, text as codes."""
    starts = run_starts([table.columns[name] for name in columns], len(table))
    keys = (table.columns[name][starts].tolist() for name in columns)
    yield from (list(key) for key in dict.fromkeys(zip(*keys, strict=True)))


def read_exchanges(database: Database) -> Iterator[Exchange]:
    """Every measured exchange."""
    if (table := database.table("moe_a2a")) is not None:
        names = ("comm_backend", "ep_size", "node_num", "hidden_size", "topk", "num_experts")
        for library, *rest in distinct(table, names):
            yield (table.categories["comm_backend"][library], *rest)  # type: ignore[misc]
    for name, library_name in LEGACY_LIBRARIES.items():
        if (table := database.table(name)) is not None:
            for nodes, *rest in distinct(table, ("node_num", "hidden_size", "num_topk", "num_experts")):
                yield (library_name, nodes * LEGACY_NODE, nodes, *rest)  # type: ignore[misc]
    if (table := database.table("trtllm_alltoall")) is not None:
        keys = ("kernel_source", "moe_ep_size", "hidden_size", "topk", "num_experts")
        for kernel, ep, *rest in distinct(table, keys):
            known = NVLINK_LIBRARIES.get(table.categories["kernel_source"][kernel], "")
            yield (known, ep, max(1, ep // NVLINK_NODE), *rest)  # type: ignore[misc]


def read_experts(database: Database) -> Iterator[Experts]:
    """Every measured shape of experts at a width."""
    names = ("moe_dtype", "hidden_size", "inter_size", "topk", "num_experts", "moe_ep_size")
    for name, phases in EXPERT_TABLES.items():
        table = database.table(name)
        if table is None:
            continue
        slots = "num_slots" if "num_slots" in table.columns else "num_experts"
        for quant, hidden, inter, topk, experts, ep, slot in distinct(table, (*names, slots)):
            word = table.categories["moe_dtype"][quant]
            yield from ((word, phase, hidden, inter, topk, experts, slot, ep) for phase in phases)
    # Fused experts serve the wide graph too where its own kernel was not measured.
    if (table := database.table("moe")) is not None:
        for quant, hidden, inter, topk, experts, ep, moe_tp in distinct(table, (*names, "moe_tp_size")):
            if moe_tp == 1:
                word = table.categories["moe_dtype"][quant]
                yield from ((word, phase, hidden, inter, topk, experts, experts, ep) for phase in PHASES)


def find_wide_ep(setting: Setting, database: Database) -> WideEp | None:
    """The wide graph of a layout, None where the data does not cover it."""
    layout, model = setting.layout, setting.model
    topk, experts = model.experts_per_token, model.num_experts
    fits = layout.moe_tp == 1 and layout.moe_ep > 1 and 0 < topk <= MOST_CHOSEN and experts % layout.moe_ep == 0
    if not fits or (setting.backend in WIDE_BACKENDS_NEED_DP and layout.attn_dp == 1):
        return None
    index = exchange_index(database)
    slots = setting.slots if setting.eplb and setting.slots else experts
    shape = (model.hidden_size, model.moe_intermediate_size, topk, experts)
    # Only trtllm's table tells the copies of a load balancer apart.
    placed = {experts, slots} if setting.backend in WIDE_BACKENDS_NEED_DP else {experts}
    for phase in PHASES:
        if not any((setting.quant.moe, phase, *shape, slot, layout.moe_ep) in index.experts for slot in placed):
            return None
    nodes = ceil_div(layout.moe_ep, setting.system.gpus_per_node)
    for context, generation, sm_version in LIBRARIES[setting.backend]:
        measured = all(is_measured(index, library, setting, nodes) for library in (context, generation))
        if measured and setting.system.sm_version >= sm_version:
            return WideEp(context=context, generation=generation, nodes=nodes)
    return None


def is_measured(index: ExchangeIndex, library: str, setting: Setting, nodes: int) -> bool:
    """True if a library was measured at this width, or on the one node that stands for more."""
    model = setting.model
    shape = (model.hidden_size, model.experts_per_token, model.num_experts)
    node = LEGACY_NODE if setting.backend == "sglang" else setting.system.gpus_per_node
    here = (library, setting.layout.moe_ep, nodes, *shape)
    return here in index.exchanges or (library, node, 1, *shape) in index.exchanges
