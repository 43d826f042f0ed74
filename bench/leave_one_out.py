"""Error of every rule that fills the space between measurements, by leaving measurements out.

A key of one axis is taken out of a measured slice (a prompt length, a batch, a count of heads ...) and everything
measured there, as far as it has neighbours on all sides, is priced from the rest by the engine's own look-up. What is
left out is further from its neighbours than a query ever is: errors inside the full tables are smaller.

One row per operator and axis: median and 90th percentile of the absolute error and (signed median), in percent,
for the reference's rules and ours, and what the reference itself reports (median / P90 over all its axes). A sample
with a fixed seed; weight shapes of GEMMs are all left out in turn.

    python bench/leave_one_out.py [--by-backend] [SYSTEM ...]
"""

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

try:  # as a script its own directory is the first to be searched
    from gemm_leave_one_out import leave_one_out as leave_shapes_out
except ImportError:
    from bench.gemm_leave_one_out import leave_one_out as leave_shapes_out
from serveopt.kernels.grids import fill_efficiency, grid_ms
from serveopt.kernels.jit import kernel
from serveopt.perfdata.store import open_database
from serveopt.perfdata.systems import load_system
from serveopt.solver.operators import descriptions as ops
from serveopt.solver.operators.collectives import read_all_reduce, read_nccl
from serveopt.solver.operators.curve import TokenCurve
from serveopt.solver.operators.gemm import read_gemm
from serveopt.solver.operators.grid_pricing import read_measured
from serveopt.solver.operators.moe import read_default
from serveopt.solver.operators.outliers import repaired
from serveopt.solver.operators.pricing import Pricing
from serveopt.solver.operators.sequence import GridPrice
from serveopt.solver.operators.sequence_bounds import BOUNDS
from serveopt.solver.operators.sequence_kinds import Kind, kind_of
from serveopt.solver.operators.slice_choice import as_measured, table_index
from serveopt.solver.operators.slices import Measured, nest

BACKENDS = ("trtllm", "sglang", "vllm")
MODELS = ("reference", "measured")
SLICES, POINTS, CURVES = 12, 300, 400  # looked at per table, per slice and axis, per table
PLANE_POINTS = 150  # per slice along the prefix
BLOCK = {"fmha": "bfloat16", "kv": "fp8", "gemm": "fp8_block"}
DSV4 = {
    "heads": 8, "native_heads": 64, **BLOCK, "hidden": 4096, "q_lora": 1024, "o_lora": 1024, "head_dim": 512,
    "rope_dim": 64, "index_heads": 64, "index_dim": 128, "topk": 512, "o_groups": 1, "window": 128,
}  # fmt: skip
MSA = (8, 1, 6144, 128, 128, 16, 128, 2048, 128)
GDN = ("gdn", "chunk_gated_delta_rule", "context", 2048, 4, 16, 128, 32, 128)
# Operators whose sizes and types the slices of a table replace.
OPERATORS: dict[str, Any] = {
    "context attention": ops.ContextAttention("", 1, 32, 8, 128, "bfloat16", "bfloat16"),
    "decode attention": ops.GenerationAttention("", 1, 32, 8, 128, "bfloat16"),
    "encoder attention": ops.EncoderAttention("", 1, 16, 80),
    "context MLA": ops.Mla("", 1, "context", 16, "bfloat16", "bfloat16"),
    "decode MLA": ops.Mla("", 1, "generation", 16, "bfloat16", "bfloat16"),
    "context MLA module": ops.MlaModule("", 1, "context", 16, 128, **BLOCK),
    "decode MLA module": ops.MlaModule("", 1, "generation", 16, 128, **BLOCK),
    "context wide MLA": ops.WideEpMla("", 1, "context", "fa3", 16, "bfloat16", "bfloat16"),
    "decode wide MLA": ops.WideEpMla("", 1, "generation", "fa3", 16, "bfloat16", "bfloat16"),
    "context DSA": ops.Dsa("", 1, "context", "DeepseekV32ForCausalLM", 16, **BLOCK),
    "decode DSA": ops.Dsa("", 1, "generation", "DeepseekV32ForCausalLM", 16, **BLOCK),
    "context CSA": ops.Dsv4("", 1, "context", "csa", **DSV4),
    "decode CSA": ops.Dsv4("", 1, "generation", "csa", **DSV4),
    "context HCA": ops.Dsv4("", 1, "context", "hca", **DSV4),
    "decode HCA": ops.Dsv4("", 1, "generation", "hca", **DSV4),
    "context MSA": ops.Msa("", 1, "context", *MSA, **BLOCK),
    "decode MSA": ops.Msa("", 1, "generation", *MSA, **BLOCK),
    "context GDN": ops.StateKernel("", 1, *GDN),
}
REPORTED = {
    "GEMM": "4.9 / 15.6", "GEMM shape": "3.6 / 14.7", "context attention": "2.0 / 9.7", "context MLA": "2.2 / 10",
    "decode MLA": "2.2 / 10", "context MLA module": "2.2 / 10", "decode MLA module": "2.2 / 10",
    "decode attention": "1.1", "context DSA": "5.4 / 27",
}  # fmt: skip
Errors = dict[tuple[str, str, str], list[np.ndarray]]  # (operator, axis, cost model) -> relative errors


@kernel
def look_up(grid: Any, roof: Any, points: Any, power: float, out: Any) -> None:
    """Nothing; fills out[i] (float64[n]) with the latency in ms at points[i] (float64[n, 3])."""
    near = np.empty((2, 5))
    for i in range(out.size):
        out[i] = grid_ms(grid, roof, near, (points[i, 0], points[i, 1], points[i, 2]), power)


def slices_of(pricing: Pricing, operator: Any, rng: np.random.Generator) -> Iterator[tuple[Measured, Kind]]:
    """Some measured slices of an operator's table."""
    kind = kind_of(operator)
    table = pricing.database.table(kind.table(operator))
    if table is None:
        return
    index = table_index(pricing, kind, table)
    fixed = [at for at, (column, _) in enumerate(kind.keys) if column in ("phase", "skips")]
    own = {"phase": getattr(operator, "phase", ""), "skips": 0}
    keys = [key for key in sorted(index.rows, key=str) if all(key[at] == own[kind.keys[at][0]] for at in fixed)]
    keys = [key for key in keys if "conv1d" not in str(key[0])]
    for at in rng.permutation(len(keys))[:SLICES]:
        like = as_measured(operator, kind, keys[at])
        roof = BOUNDS[type(like)](pricing.system, like)
        yield read_measured(table, kind, index.rows[keys[at]], roof, bool(roof.kind)), kind


def has_neighbours(columns: np.ndarray, axis: int) -> np.ndarray:
    """bool[rows]: measured on both sides along an axis with all other keys equal."""
    others = [column for at, column in enumerate(columns) if at != axis]
    order = np.lexsort((columns[axis], *others))
    same = np.all([column[order][1:] == column[order][:-1] for column in others], axis=0)
    inside = np.zeros(order.size, bool)
    inside[order[1:-1]] = same[1:] & same[:-1]
    return inside


def leave_keys_out(measured: Measured, kind: Kind, model: str, axis: int, rng: np.random.Generator) -> np.ndarray:
    """float64[n]: relative errors where a key of an axis was taken out; 0 to 2 are the grid's axes, 3 the prefix."""
    columns = [*measured.axes, np.zeros(measured.latency_ms.size) if measured.prefix is None else measured.prefix]
    columns, first = np.unique(np.stack(columns).astype(np.float64), axis=1, return_index=True)
    latency = measured.latency_ms[first].astype(np.float64)
    varied = [at for at in range(4) if np.unique(columns[at]).size > 1 and (at < 3 or at == axis)]
    if axis not in varied:
        return np.zeros(0)
    inside = np.all([has_neighbours(columns, at) for at in varied], axis=0) & (latency > 0)
    chosen = rng.permutation(np.flatnonzero(inside))[: PLANE_POINTS if axis == 3 else POINTS]
    power, errors = getattr(kind.power, model), []
    for key in np.unique(columns[axis][chosen]):
        wanted, rows = chosen[columns[axis][chosen] == key], np.flatnonzero(columns[axis] != key)
        if axis == 3:
            rest = Measured(tuple(columns[:3, rows]), columns[3, rows], latency[rows], measured.roof)
            bounded = kind.by_bound and model == "measured"
            guess = np.array([between_planes(rest, columns[:, at], power, bounded) for at in wanted])
            errors.append(guess / latency[wanted] - 1.0)
            continue
        for prefix in np.unique(columns[3][wanted]):
            own, plane = wanted[columns[3][wanted] == prefix], rows[columns[3][rows] == prefix]
            roof = measured.roof if measured.prefix is None else measured.roof._replace(prefix=float(prefix))
            guess = from_plane(roof, columns[:3, plane], latency[plane], columns[:3, own], power)
            errors.append(guess / latency[own] - 1.0)
    return np.concatenate(errors) if errors else np.zeros(0)


def from_plane(roof: Any, axes: np.ndarray, latency: np.ndarray, points: np.ndarray, power: float) -> np.ndarray:
    """float64[n]: ms at the points (float64[3, n]) from what is left of a plane."""
    grid = nest(axes, latency)
    fill_efficiency(grid, roof, grid.efficiency)
    out = np.zeros(points.shape[1])
    look_up(grid, roof, np.ascontiguousarray(points.T), power, out)
    return out


def between_planes(rest: Measured, point: np.ndarray, power: float, by_bound: bool) -> float:
    """ms at (heads, prompt, batch, prefix) from the planes of the other prefixes."""
    heads, tokens, batch, prefix = point
    price = GridPrice(rest, rest.roof, float(heads), "silicon", power=power, by_bound=by_bound)
    out = np.zeros(int(batch) + 1)
    price.prefill(int(tokens), int(prefix), out)
    return float(out[-1])


def leave_knots_out(curve: TokenCurve, repair: Callable[[TokenCurve], TokenCurve]) -> np.ndarray:
    """float64[n]: relative errors of a curve at its own knots, each taken out in turn."""
    errors = []
    for i in range(1, curve.tokens.size - 1):
        rest = TokenCurve(np.delete(curve.tokens, i), np.delete(curve.latency_ms, i), "silicon")
        errors.append(repair(rest).at(curve.tokens[i : i + 1])[0] / curve.latency_ms[i] - 1.0)
    return np.array(errors)


def token_errors(pricing: Pricing, rng: np.random.Generator) -> Iterator[tuple[tuple[str, str, str], np.ndarray]]:
    """Errors of the operators that are curves over tokens."""
    tables = {"MoE": ("moe", read_default), "all-reduce": ("custom_allreduce", read_all_reduce),
              "NCCL": ("nccl", read_nccl)}  # fmt: skip
    for name, (table, read) in tables.items():
        if pricing.database.table(table) is None:
            continue
        source = pricing.indexed(table, read)
        curves = list(moe_curves(source)) if name == "MoE" else [source.curve(key) for key in source]
        chosen = [curves[at] for at in rng.permutation(len(curves))[:CURVES]]
        for model in MODELS:
            repair = repaired if name == "MoE" and model == "measured" else lambda curve: curve
            for curve in chosen:
                yield (name, "tokens" if name == "MoE" else "message", model), leave_knots_out(curve, repair)


def moe_curves(table: Any) -> Iterator[TokenCurve]:
    """The measured curves of fused experts, whatever their load."""
    for shape, loads in table.loads.items():
        for load in loads:
            curve = table.curve(shape, load)
            if curve is not None and curve.source == "silicon":
                yield curve


def gemm_errors(pricing: Pricing) -> Iterator[tuple[tuple[str, str, str], np.ndarray]]:
    """Errors of GEMMs along the tokens of a measured shape, and at shapes that were not measured."""
    table = pricing.database.table("gemm")
    for quant in table.categories["gemm_dtype"] if table else ():
        gemms = read_gemm(table, pricing.system, quant)
        m, low, mid, high = gemms.m, gemms.latency_ms[..., :-2], gemms.latency_ms[..., 1:-1], gemms.latency_ms[..., 2:]
        weight = (m[1:-1] - m[:-2]) / (m[2:] - m[:-2])
        error = (((1.0 - weight) * low + weight * high) / mid - 1.0).ravel()
        for model in MODELS:
            yield ("GEMM", "tokens", model), error[~np.isnan(error)]
            yield ("GEMM shape", "n, k", model), leave_shapes_out(gemms, model)


def collect(system: str, backend: str, errors: Errors) -> None:
    """Nothing; adds the errors of one (system, backend)."""
    pricing = Pricing(open_database(system, backend), load_system(system))
    for key, error in (*gemm_errors(pricing), *token_errors(pricing, np.random.default_rng(0))):
        errors.setdefault(key, []).append(error)
    for name, operator in OPERATORS.items():
        for measured, kind in slices_of(pricing, operator, np.random.default_rng(0)):
            axes = (*(kind.generation_axes if measured.roof.kind else kind.context_axes), kind.prefix)
            for axis, model in ((axis, model) for axis in range(4) for model in MODELS):
                found = leave_keys_out(measured, kind, model, axis, np.random.default_rng(0))
                if found.size:
                    label = "prefix" if axis == 3 else axes[axis]
                    errors.setdefault((name, label, model), []).append(found)


def summary(errors: list[np.ndarray]) -> str:
    """Median / P90 (signed median) in percent."""
    joined = 100.0 * np.concatenate(errors)
    middle, high = np.quantile(np.abs(joined), (0.5, 0.9))
    return f"{middle:.2f} / {high:.1f} ({np.median(joined):+.2f})"


def print_table(errors: Errors) -> None:
    """Nothing; prints one row per operator and axis."""
    print("| operator | left out | points | reference | measured | reported |\n|---|---|---|---|---|---|")
    for name, axis in dict.fromkeys((name, axis) for name, axis, _ in errors):
        own, theirs = errors[name, axis, "measured"], errors[name, axis, "reference"]
        count = sum(part.size for part in own)
        print(f"| {name} | {axis} | {count} | {summary(theirs)} | {summary(own)} | {REPORTED.get(name, '')} |")


def main() -> None:
    """Nothing; prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("systems", nargs="*", default=["h200_sxm", "b200_sxm"])
    parser.add_argument("--by-backend", action="store_true", help="one table per system and backend")
    given = parser.parse_args()
    every: Errors = {}
    for system in given.systems:
        for backend in BACKENDS:
            own: Errors = {}
            collect(system, backend, own)
            if given.by_backend:
                print(f"\n{system} {backend}\n")
                print_table(own)
            for key, parts in own.items():
                every.setdefault(key, []).extend(parts)
    if not given.by_backend:
        print_table(every)


if __name__ == "__main__":
    main()
