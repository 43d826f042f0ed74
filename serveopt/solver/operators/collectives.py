"""Collective communication: the backend's all-reduce, NCCL, and pipeline hand-over.

Latency is linear in the message between measurements and proportional to it outside. Beyond the widest measured
group the ring traffic and the slower link scale it:

    t(n) = t(w) * ((n - 1) / n) / ((w - 1) / w) * bandwidth(w) / bandwidth(n)

Source: specs/op_model.md 2.14 and 2.15.
"""

import numpy as np

from serveopt.errors import MissingTable
from serveopt.perfdata.store import Table
from serveopt.perfdata.systems import SystemSpec
from serveopt.solver.operators.curve import TokenCurve, line, proportional_ends
from serveopt.solver.operators.descriptions import AllReduce, Nccl, PointToPoint

EAGER_SUFFIX = "_eager"


def message_curve(table: Table, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(message elements, ms) of the selected rows, sorted, first of equal sizes."""
    rows = np.flatnonzero(mask)
    size, first = np.unique(table.columns["message_size"][rows], return_index=True)
    return size.astype(np.float64), table.values["latency_ms"][rows][first].astype(np.float64)


def ring_scale(system: SystemSpec, gpus: int, measured: int) -> float:
    """How much longer a ring over ``gpus`` takes than over the ``measured`` ones."""
    traffic = (gpus - 1) / gpus * measured / (measured - 1)
    return traffic * system.p2p_bw(measured) / system.p2p_bw(gpus)


def all_reduce_curve(table: Table | None, system: SystemSpec, operator: AllReduce) -> TokenCurve:
    """Latency over tokens of the backend's all-reduce; nothing for one GPU."""
    if operator.gpus == 1:
        return line(0.0, 0.0, "silicon")
    measured = min(operator.gpus, system.gpus_per_node)
    if table is None:
        raise MissingTable("custom_allreduce", f"num_gpus={measured}")
    mask = (table.columns["num_gpus"] == measured) & compiled_rows(table)
    size, latency = message_curve(table, mask)
    if size.size == 0:
        raise MissingTable("custom_allreduce", f"num_gpus={measured}")
    scale = ring_scale(system, operator.gpus, system.gpus_per_node) if operator.gpus > system.gpus_per_node else 1.0
    size, latency = proportional_ends(size, latency)
    return TokenCurve(size / operator.hidden, latency * scale, "silicon")


def compiled_rows(table: Table) -> np.ndarray:
    """Rows measured inside a CUDA graph: serving never runs the eager variant where both exist."""
    if "kernel_source" not in table.columns or table.name != "custom_allreduce":
        return np.ones(table.source.size, bool)
    eager = [code for code, name in enumerate(table.categories["kernel_source"]) if name.endswith(EAGER_SUFFIX)]
    mask = ~np.isin(table.columns["kernel_source"], eager)
    return mask if mask.any() else np.ones(table.source.size, bool)


def nccl_curve(table: Table | None, system: SystemSpec, operator: Nccl) -> TokenCurve:
    """Latency over tokens of an NCCL collective; nothing for one GPU."""
    if operator.gpus == 1:
        return line(0.0, 0.0, "silicon")
    key = f"{operator.operation}, {operator.comm}, num_gpus={operator.gpus}"
    if table is None:
        raise MissingTable("nccl", key)
    mask = np.ones(table.source.size, bool)
    for name, value in (("op_name", operator.operation), ("nccl_dtype", operator.comm)):
        names = table.categories.get(name, ())
        mask &= table.columns[name] == (names.index(value) if value in names else -1)
    widths = table.columns["num_gpus"][mask]
    if widths.size == 0:
        raise MissingTable("nccl", key)
    measured = min(operator.gpus, int(widths.max()))
    size, latency = message_curve(table, mask & (table.columns["num_gpus"] == measured))
    if size.size == 0:
        raise MissingTable("nccl", key)
    scale = ring_scale(system, operator.gpus, measured) if operator.gpus > measured else 1.0
    size, latency = proportional_ends(size, latency)
    return TokenCurve(size / operator.elements_per_token, latency * scale, "silicon")


def point_to_point_curve(system: SystemSpec, operator: PointToPoint) -> TokenCurve:
    """Latency over tokens of handing bf16 activations to the next stage, at the inter-node bandwidth."""
    slope = operator.hidden * 2.0 / system.inter_node_bw_b_s
    return line(1e3 * system.p2p_latency_s, 1e3 * slope, "empirical")
