"""Routed experts: fused, and as expert compute of their own under wide expert parallelism.

A measured shape is its own curve over all ranks' tokens, linear between measurements; beyond them the efficiency of
the end is held. trtllm has a second kernel for few tokens of gated nvfp4 experts, which serves up to 128 tokens
wherever that shape was measured. Source: specs/op_model.md 2.10 and 2.11.
"""

from collections.abc import Iterable
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from serveopt.errors import MissingTable
from serveopt.perfdata.quant_modes import MOE_MODES
from serveopt.perfdata.store import Table, run_starts
from serveopt.solver.operators.curve import TokenCurve, held_ends
from serveopt.solver.operators.curve_tables import CurveTable, Key, list_values, nearest_keys
from serveopt.solver.operators.data_modes import MOE_EFFICIENCY, Relative, TokenPrice, other_modes
from serveopt.solver.operators.descriptions import ExpertCompute, MegaMoe, Moe
from serveopt.solver.operators.expert_load import LoadTable
from serveopt.solver.operators.outliers import repaired
from serveopt.solver.operators.rooflines import expert_compute_bound, moe_bound

if TYPE_CHECKING:
    from serveopt.solver.operators.pricing import Pricing

FEW_TOKENS = 128
UNLIKE, UNLIKE_STEP = 1.0, 0.25  # octaves of distance that another quantisation, and a further one, counts as
FAST_KERNEL = "moe_torch_flow_min_latency"
FAST_QUANT = "nvfp4"
# Kernels that are a quantisation of their own: (type in the table, kernel) -> type asked for.
KERNEL_TYPES = MappingProxyType(
    {
        ("w4a8_mxfp4_mxfp8", "sglang_mxfp4_flashinfer_trtllm_moe"): "w4a8_mxfp4_mxfp8_trtllm",
        ("w4a16_mxfp4", "sglang_flashinfer_cutlass_moe"): "w4a16_mxfp4_cutlass",
    }
)
SHAPE = ("moe_dtype", "topk", "num_experts", "hidden_size", "inter_size", "moe_tp_size", "moe_ep_size")
COMPUTE_SHAPE = (
    "kernel", "moe_dtype", "phase", "topk", "num_experts", "num_slots", "hidden_size", "inter_size", "moe_ep_size",
)  # fmt: skip
COMPUTE_KEYS = (
    "kernel_source", "moe_dtype", "distribution", "topk", "num_experts", "num_slots", "hidden_size", "inter_size",
    "moe_ep_size",
)  # fmt: skip
DEEPEP = "deepep_moe"
COMPUTE_TABLES = (
    ("moe_expert_compute", ""), ("wideep_context_moe", "context"), ("wideep_generation_moe", "generation"),
)  # fmt: skip
MEGA_KEYS = (
    "phase", "moe_dtype", "distribution", "topk", "num_experts", "hidden_size", "inter_size", "moe_ep_size",
)  # fmt: skip


def kernel_types(table: Table) -> Table:
    """The table with kernels that are a quantisation of their own named as such."""
    types, kernels = table.categories["moe_dtype"], table.categories["kernel_source"]
    codes = table.columns["moe_dtype"].astype(np.int64)
    words = list(types)
    for (name, kernel), asked in KERNEL_TYPES.items():
        if name in types and kernel in kernels:
            own = (table.columns["moe_dtype"] == types.index(name)) & (
                table.columns["kernel_source"] == kernels.index(kernel)
            )
            words.append(asked)
            codes = np.where(own, len(words) - 1, codes)
    return replace(
        table,
        columns={**table.columns, "moe_dtype": codes},
        categories={**table.categories, "moe_dtype": tuple(words)},
    )


def read_experts(table: Table, fast: bool, only: tuple[int, int] | None = None) -> LoadTable:
    """The fused experts of a table by shape; ``fast``: those of the kernel for few tokens, else all others.

    ``only``: (number of experts, hidden size), where one model's shapes are enough.
    """
    chosen = table.columns["kernel_source"] == table.code("kernel_source", FAST_KERNEL)
    if not fast:
        chosen = ~chosen
    if only is not None:
        chosen &= (table.columns["num_experts"] == only[0]) & (table.columns["hidden_size"] == only[1])
    rows = np.flatnonzero(chosen)
    curves = CurveTable.read(kernel_types(table), ("distribution", *SHAPE), "num_tokens", rows=rows)
    return LoadTable.read([(curves, {})], SHAPE)


def read_shapes(table: Table) -> list[Key]:
    """The shapes of the experts that serve any number of tokens, each once, in file order."""
    rows = np.flatnonzero(table.columns["kernel_source"] != table.code("kernel_source", FAST_KERNEL))
    typed = kernel_types(table)
    columns = [typed.columns[name][rows] for name in SHAPE]
    types, *sizes = (column[run_starts(columns, rows.size)].tolist() for column in columns)
    words = typed.categories["moe_dtype"]
    return list(dict.fromkeys(zip([words[code] for code in types], *sizes, strict=True)))


def model_experts(pricing: "Pricing", model: tuple[int, int], fast: bool) -> LoadTable:
    """The experts of one model, (number, hidden size): the whole table has thousands of shapes."""
    return pricing.built(f"moe {model} {fast}", lambda own: read_experts(own.require("moe"), fast, model))


def moe_shape(operator: Moe) -> Key:
    """The operator's place in the table."""
    sizes = (operator.topk, operator.experts, operator.hidden, operator.inter, operator.moe_tp, operator.moe_ep)
    return (operator.quant, *sizes)


def price_moe(pricing: "Pricing", operator: Moe) -> TokenCurve:
    """Latency of the fused experts over all ranks' tokens."""
    shape, model = moe_shape(operator), (operator.experts, operator.hidden)
    points = model_experts(pricing, model, fast=False).curve(shape, operator.distribution)
    bound = moe_bound(pricing.system, operator)
    fast = None
    if operator.quant == FAST_QUANT and operator.gated:
        fast = model_experts(pricing, model, fast=True).curve(shape, operator.distribution)
    if points is None and fast is None:
        raise missing_shape("moe", shape, pricing.indexed("moe", read_shapes))
    measured = pricing.cost_model == "measured"
    parts = [
        None if part is None else held_ends(repaired(part) if measured else part, bound, flat_head=measured)
        for part in (fast, points)
    ]
    if parts[0] is None or parts[1] is None:
        return parts[0] or parts[1]  # type: ignore[return-value]
    return few_then_many(parts[0], parts[1])


def few_then_many(few: TokenCurve, many: TokenCurve) -> TokenCurve:
    """``few`` up to 128 tokens, ``many`` from 129 on."""
    last, first = np.array([float(FEW_TOKENS)]), np.array([FEW_TOKENS + 1.0])
    below, above = few.tokens < FEW_TOKENS, many.tokens > FEW_TOKENS + 1
    return TokenCurve(
        np.concatenate([few.tokens[below], last, first, many.tokens[above]]),
        np.concatenate([few.latency_ms[below], few.at(last), many.at(first), many.latency_ms[above]]),
        few.source if few.source == many.source else "mixed",
    )


def missing_shape(name: str, shape: Key, known: list[Key]) -> MissingTable:
    """The error of an expert shape: what was asked for and which sizes were measured nearest to it."""
    quants = list_values(known, 0)
    if shape[0] not in {key[0] for key in known}:
        return MissingTable(name, f"moe_dtype={shape[0]} (measured: {quants})")
    wanted = dict(zip(SHAPE, shape, strict=False))
    model = [key for key in known if key[:5] == shape[:5]]
    if model:
        split = "; ".join(sorted({f"tp{key[5]} ep{key[6]}" for key in model}))
        return MissingTable(name, f"moe_tp={shape[5]} moe_ep={shape[6]} of {shape[0]} (measured: {split})")
    text = ", ".join(f"{key}={value}" for key, value in list(wanted.items())[:5])
    sizes = {f"{key[1]}/{key[2]}/{key[3]}/{key[4]}" for key in known if key[0] == shape[0]}
    return MissingTable(name, f"{text} (measured topk/experts/hidden/inter: {', '.join(sorted(sizes)[:8])}, ...)")


def alike_experts(pricing: "Pricing", operator: Moe) -> Iterable[Relative]:
    """The nearest measured shapes, one of each quantisation."""
    if pricing.database.table("moe") is None:
        return
    known = pricing.indexed("moe", read_shapes)
    for key, scale in nearest_of_quants(known, (0, operator.quant), moe_shape(operator)):
        topk, experts, hidden, inter, moe_tp, moe_ep = (int(value) for value in key[1:])
        alike = replace(
            operator, quant=str(key[0]), topk=topk, experts=experts, hidden=hidden, inter=inter, moe_tp=moe_tp,
            moe_ep=moe_ep,
        )  # fmt: skip
        yield Relative(alike, scale)


def nearest_of_quants(known: list[Key], quant: tuple[int, str], shape: Key) -> list[tuple[Key, float]]:
    """(key, scale): the nearest shape of each quantisation, by its distance and how unlike the arithmetic is.

    ``quant`` is (position in the key, name). Another quantisation counts as UNLIKE octaves and a step of its order
    more, so that the same shape in other arithmetic comes before a quite different shape of the same.
    """
    at, name = quant
    wanted = {i: int(value) for i, value in enumerate(shape) if isinstance(value, int)}
    quants = list(dict.fromkeys(str(key[at]) for key in known))
    others = other_modes(name, quants, MOE_MODES, MOE_EFFICIENCY)
    found = []
    for order, (other, scale) in enumerate(((name, 1.0), *others)):
        for distance, key in nearest_keys([key for key in known if key[at] == other], wanted)[:1]:
            found.append((distance + (UNLIKE + UNLIKE_STEP * order if order else 0.0), key, scale))
    return [(key, scale) for _, key, scale in sorted(found, key=lambda entry: entry[0])]


def read_expert_compute(pricing: "Pricing") -> LoadTable:
    """Expert compute by kernel, phase and shape: a table of its own, then those of each framework's graph."""
    sources: list[tuple[CurveTable, dict[str, str | int | None]]] = []
    for name, phase in COMPUTE_TABLES:
        table = pricing.database.table(name)
        if table is not None:
            names = tuple(key for key in (*COMPUTE_KEYS, "phase") if key in table.columns and key != "kernel_source")
            supplied: dict[str, str | int | None] = {"kernel": DEEPEP, "phase": phase, "num_slots": None}
            sources.append((CurveTable.read(table, names, "num_tokens"), supplied))
    table = pricing.database.table("wideep_moe")
    if table is not None:
        for kernel in table.categories["kernel_source"]:
            rows = np.flatnonzero(table.columns["kernel_source"] == table.code("kernel_source", kernel))
            curves = CurveTable.read(table, COMPUTE_KEYS[1:], "num_tokens", rows=rows)
            sources += [(curves, {"kernel": kernel, "phase": phase}) for phase in ("context", "generation")]
    if not sources:
        raise MissingTable("expert compute", f"nothing collected for {pricing.place}")
    return LoadTable.read(sources, COMPUTE_SHAPE)


def compute_kernel(pricing: "Pricing", table: LoadTable, quant: str) -> str:
    """The kernel that the backend runs, else the first that was measured."""
    kernels = list(dict.fromkeys(str(key[0]) for key in table.loads))
    deep = pricing.system.is_blackwell and "fp8_block" in quant
    preferred = {"trtllm": "deepgemm" if deep else "moe_torch_flow"}.get(pricing.database.backend, DEEPEP)
    return preferred if preferred in kernels else kernels[0]


def compute_shape(operator: ExpertCompute, kernel: str) -> Key:
    """The operator's place in the table."""
    sizes = (operator.topk, operator.experts, operator.slots, operator.hidden, operator.inter, operator.moe_ep)
    return (kernel, operator.quant, operator.phase, *sizes)


def price_expert_compute(pricing: "Pricing", operator: ExpertCompute) -> TokenCurve:
    """Latency of the experts of one rank of a wide group, over the tokens that arrive.

    Where the wide graph's own kernel was not measured, that of the fused experts at the same width serves.
    """
    try:
        return price_own_compute(pricing, operator)
    except MissingTable as error:
        if operator.slots != operator.experts or operator.distribution.endswith("_eplb"):
            raise
        fused = Moe(
            operator.label, operator.count, operator.hidden, operator.inter, operator.topk, operator.experts, 1,
            operator.moe_ep, operator.quant, operator.distribution,
        )  # fmt: skip
        try:
            return price_moe(pricing, fused)
        except MissingTable:
            raise error from None


def price_own_compute(pricing: "Pricing", operator: ExpertCompute) -> TokenCurve:
    """Latency of the wide graph's own expert kernel, over the tokens that arrive."""
    table = pricing.built("expert compute", read_expert_compute)
    shape = compute_shape(operator, compute_kernel(pricing, table, operator.quant))
    points = table.curve(shape, operator.distribution)
    if points is None:
        known = [key for key in table.loads if key[:3] == shape[:3]]
        text = ", ".join(f"{name}={value}" for name, value in zip(COMPUTE_SHAPE, shape, strict=True))
        held = {"/".join(map(str, key[3:8])) for key in known}
        raise MissingTable(
            "expert compute",
            f"{text} (measured topk/experts/slots/hidden/inter: {', '.join(sorted(held)[:6]) or 'none'}; "
            f"ep: {list_values(known, 8)})",
        )
    bound = expert_compute_bound(pricing.system, operator)
    return held_ends(points, bound, flat_head=pricing.cost_model == "measured")


def alike_compute(pricing: "Pricing", operator: ExpertCompute) -> Iterable[Relative]:
    """The nearest measured expert compute of the phase, one of each quantisation."""
    try:
        table = pricing.built("expert compute", read_expert_compute)
    except MissingTable:
        return
    kernel = compute_kernel(pricing, table, operator.quant)
    known = [key for key in table.loads if key[0] == kernel and key[2] == operator.phase]
    for key, scale in nearest_of_quants(known, (1, operator.quant), compute_shape(operator, kernel)):
        topk, experts, slots, hidden, inter, moe_ep = (int(value) for value in key[3:])
        alike = replace(
            operator, quant=str(key[1]), topk=topk, experts=experts, slots=slots, hidden=hidden, inter=inter,
            moe_ep=moe_ep,
        )  # fmt: skip
        yield Relative(alike, scale)


def read_mega(table: Table) -> LoadTable:
    """Fused dispatch, experts and combine, by phase and shape."""
    curves = CurveTable.read(table, MEGA_KEYS, "num_tokens")
    return LoadTable.read([(curves, {})], tuple(name for name in MEGA_KEYS if name != "distribution"))


def mega_shape(operator: MegaMoe) -> Key:
    """The operator's place in the table."""
    sizes = (operator.topk, operator.experts, operator.hidden, operator.inter, operator.moe_ep)
    return (operator.phase, operator.quant, *sizes)


def price_mega(pricing: "Pricing", operator: MegaMoe) -> TokenCurve:
    """Latency of the fused kernel over a rank's own tokens; its ends are held in proportion to the tokens."""
    table, shape = pricing.indexed("dsv4_megamoe_module", read_mega), mega_shape(operator)
    points = table.curve(shape, operator.distribution)
    if points is None:
        known = ["/".join(map(str, key)) for key in table.loads]
        raise MissingTable("dsv4_megamoe_module", f"{'/'.join(map(str, shape))} (measured: {', '.join(known[:6])})")
    return held_ends(points, lambda tokens: tokens, flat_head=pricing.cost_model == "measured")


def alike_mega(pricing: "Pricing", operator: MegaMoe) -> Iterable[Relative]:
    """The nearest measured shape of the phase."""
    if pricing.database.table("dsv4_megamoe_module") is None:
        return
    known = list(pricing.indexed("dsv4_megamoe_module", read_mega).loads)
    wanted = {i: int(value) for i, value in enumerate(mega_shape(operator)) if i > 1}
    for _, key in nearest_keys([key for key in known if key[0] == operator.phase], wanted)[:1]:
        topk, experts, hidden, inter, moe_ep = (int(value) for value in key[2:])
        alike = replace(
            operator, quant=str(key[1]), topk=topk, experts=experts, hidden=hidden, inter=inter, moe_ep=moe_ep
        )
        yield Relative(alike)


MOE = TokenPrice(price_moe, moe_bound, alike_experts, typical=0.3)
EXPERT_COMPUTE = TokenPrice(price_expert_compute, expert_compute_bound, alike_compute, typical=0.3)
MEGA_MOE = TokenPrice(price_mega, moe_bound, alike_mega, typical=0.3)
