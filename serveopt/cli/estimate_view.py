"""One estimate for people: the point and its speed, memory as bars, operators with their source."""

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import TYPE_CHECKING

from rich.bar import Bar
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from serveopt.solver.point import POOLS, Point

if TYPE_CHECKING:
    from serveopt.solver.estimate import Estimate

BAR_WIDTH = 30
TOTAL = "total"


def print_estimate(point: Point, estimate: "Estimate", console: Console) -> None:
    """Nothing; prints the whole estimate."""
    for line in summary_lines(point, estimate):
        console.print(line)
    if estimate.oom or estimate.kv_oom:
        console.print(Text(misfit(estimate), style="bold red"))
    for title, parts in memory_parts(estimate.memory_gib):
        console.print()
        console.print(memory_table(title, parts))
    console.print()
    console.print(operator_table(estimate))
    for warning in estimate.warnings:
        console.print(Text(f"note: {warning}", style="yellow"))


def misfit(estimate: "Estimate") -> str:
    """What does not fit, and by how much."""
    pools = [parts for _, parts in memory_parts(estimate.memory_gib)]
    fullest = max(pools, key=lambda parts: parts.get(TOTAL, 0.0))
    total, cache = fullest.get(TOTAL, 0.0), fullest.get("kv_cache", 0.0)
    fits_empty = 0.0 < total - cache < estimate.capacity_gib
    what = "the KV cache of this batch" if estimate.kv_oom or fits_empty else "the model"
    room = f": {total:.1f} of {estimate.capacity_gib:.1f} GiB" if estimate.capacity_gib else ""
    return f"{what} does not fit in GPU memory{room}"


def summary_lines(point: Point, estimate: "Estimate") -> Iterator[Text]:
    """What was priced and how fast it is."""
    where = f"{estimate.n_gpus} x {point.system}, {point.backend} {estimate.backend_version}"
    yield Text(f"{point.model} on {where}: {estimate.mode}", style="bold")
    yield Text(f"{point.isl} tokens in, {point.osl} out; {_workers(point)}; {estimate.cost_model} pricing")
    yield Text(f"TTFT {estimate.ttft_ms:.1f} ms, TPOT {estimate.tpot_ms:.3f} ms, request {estimate.e2e_ms:.0f} ms")
    yield Text(
        f"{estimate.tokens_s_gpu:.1f} tokens/s/gpu, {estimate.tokens_s_user:.1f} tokens/s/user, "
        f"{estimate.request_rate_rps:.3f} req/s, {estimate.concurrency} in flight"
    )
    yield Text(f"{estimate.measured_share:.0%} of the time rests on measurements; {point.database_mode} data")
    if estimate.energy_j is not None:
        share = f"{estimate.energy_share:.0%} of the time"
        yield Text(f"{estimate.energy_j:.1f} J on each GPU in the operators whose power is known, {share}")
    yield Text("quantisation: " + ", ".join(f"{name} {mode}" for name, mode in estimate.quant.items()))


def memory_parts(memory_gib: Mapping[str, object]) -> Iterator[tuple[str, Mapping[str, float]]]:
    """(title, GiB by component) of each kind of worker; a disaggregated point has two."""
    pools = {name: parts for name, parts in memory_gib.items() if isinstance(parts, Mapping)}
    for name, parts in (pools or {"": memory_gib}).items():
        yield f"memory per {name} GPU".replace("  ", " "), parts


def memory_table(title: str, parts: Mapping[str, float]) -> Table:
    """Memory of one GPU by component, longest bar first."""
    table = _table(title, "component", "GiB", "")
    components = {name: gib for name, gib in parts.items() if name != TOTAL}
    scale = max(components.values(), default=0.0) or 1.0
    for name, gib in sorted(components.items(), key=lambda component: -component[1]):
        table.add_row(name, f"{gib:.2f}", Bar(scale, 0, gib, width=BAR_WIDTH))
    table.add_row(TOTAL, f"{parts[TOTAL]:.2f}", "")
    return table


def operator_table(estimate: "Estimate") -> Table:
    """Latency of every operator that takes time, its share of the phase, and where the number comes from."""
    table = _table("operators", "phase", "operator", "ms", "share", "source")
    for phase, ops in groupby(estimate.ops, key=lambda op: op["phase"]):
        parts = [op for op in ops if op["latency_ms"] > 0]
        whole = sum(op["latency_ms"] for op in parts)
        for op in parts:
            table.add_row(phase, op["op"], f"{op['latency_ms']:.3f}", f"{op['latency_ms'] / whole:.1%}", op["source"])
        table.add_row(phase, TOTAL, f"{whole:.3f}", "", "", style="bold", end_section=True)
    return table


def _workers(point: Point) -> str:
    """The workers of a point in words."""
    if point.mode != "disagg":
        return f"{point.layout('').parallel(moe=_is_moe(point, ''))}, batch {point.batch}"
    parts = (
        f"{getattr(point, pool + 'workers')} {pool.rstrip('_')} "
        f"{point.layout(pool).parallel(moe=_is_moe(point, pool))} batch {getattr(point, pool + 'batch')}"
        for pool in POOLS
    )
    return " + ".join(parts)


def _is_moe(point: Point, pool: str) -> bool:
    layout = point.layout(pool)
    return max(layout.attn_dp, layout.moe_tp, layout.moe_ep) > 1


def _table(title: str, *headings: str) -> Table:
    table = Table(
        title=Text(title, style="bold"),
        title_justify="left",
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=0,
    )
    for name in headings:
        table.add_column(name, justify="right" if name in ("ms", "GiB", "share") else "left", overflow="fold")
    return table
