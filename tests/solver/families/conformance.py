"""Operator lists of the reference as our records, and the differences of a built model from them.

A row of op_lists.jsonl.gz is one built model: every operator of both phases (and of the encoder), weight bytes and KV
bytes per sequence. ``differences`` builds the same model here and returns one line for each thing that differs.
A Deviation names labels that differ on purpose: their operators are left out on both sides, and their weights too.
"""

import gzip
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from serveopt.perfdata.catalogue import load_model
from serveopt.perfdata.checkpoint import QuantModes
from serveopt.perfdata.systems import load_system
from serveopt.solver.families.table import Family, Setting
from serveopt.solver.layout import Layout
from serveopt.solver.operators import descriptions as ops
from serveopt.solver.operators.weights import resident_bytes

OP_LISTS = Path(__file__).parents[3].parent / "shared" / "data" / "op_lists.jsonl.gz"
TOLERANCE = 1e-3
Row = dict[str, Any]


@dataclass(frozen=True)
class Deviation:
    """Where we differ from the reference on purpose.

    ``labels``: a pattern of what is not compared; ``kv``: KV bytes differ as well; ``rewrite``: makes the row right.
    """

    reason: str
    labels: str = ""
    applies: Callable[[Row], bool] = lambda row: True
    kv: bool = False
    rewrite: Callable[[Row], Row] = lambda row: row


@cache
def all_rows() -> tuple[Row, ...]:
    """Every built model of the reference."""
    with gzip.open(OP_LISTS, "rt") as file:
        return tuple(json.loads(line) for line in file)


def read_rows(*families: str) -> list[Any]:
    """One parameter per built model of ``families``; a single skipped one where the data is absent."""
    if not OP_LISTS.is_file():
        return [pytest.param(None, marks=pytest.mark.skip(reason="reference data ../shared is absent"))]
    return [pytest.param(row, id=name_row(row)) for row in all_rows() if row["family"] in families]


def name_row(row: Row) -> str:
    """Model, backend and layout in a few letters."""
    layout = "".join(f"{name}{row[name]}" for name in ("tp", "pp", "dp", "moe_tp", "moe_ep") if row[name] > 1)
    draft = f"-nextn{row['nextn']}" if row["nextn"] else ""
    return f"{row['model'].split('/')[-1]}-{row['backend']}-{layout or 'one'}{draft}"


def row_setting(row: Row, system: str = "h200_sxm") -> Setting:
    """The setting that a row was built with; the list does not name a system."""
    return Setting(
        model=load_model(row["model"]),
        quant=QuantModes(**row["quant"]),
        layout=Layout(row["tp"], row["pp"], row["dp"], row["moe_tp"], row["moe_ep"]),
        backend=row["backend"],
        system=load_system(system),
        nextn=row["nextn"],
    )


def differences(row: Row, family: Family, deviations: Iterable[Deviation] = (), system: str = "h200_sxm") -> list[str]:
    """One line per operator, weight or KV size that is not the reference's."""
    setting = row_setting(row, system)
    active = [one for one in deviations if one.applies(row)]
    pattern = re.compile("|".join(f"(?:{one.labels})" for one in active if one.labels) or "(?!)")
    for one in active:
        row = one.rewrite(row)
    phases = family.build_phases(setting)
    merged = setting.model.extra.get("vision_config", {}).get("spatial_merge_size", 1) ** 2
    lines: list[str] = []
    for phase in ("context", "generation", "encoder"):
        listed = [one for entry in row.get(f"{phase}_ops") or () for one in reference_ops(entry, setting.system)]
        listed = [over_patches(one, merged) for one in listed]
        own = getattr(phases, phase)
        lines += [f"{phase}: {line}" for line in compare(own, listed, pattern)]
    lines += compare_weights(row, phases.context, pattern)
    if not any(one.kv for one in active):
        lines += compare_kv(row, family, setting)
    return lines


def over_patches(one: ops.Operator, merged: int) -> ops.Operator:
    """The operator per patch of an image: the list counts what lies behind the merge per merged token."""
    if isinstance(one, ops.Gemm | ops.MemoryMove | ops.AllReduce) and one.label.startswith("encoder_projector"):
        return replace(one, share=one.share / merged)
    if isinstance(one, ops.Nccl) and one.label.startswith("encoder"):
        return replace(one, elements_per_token=one.elements_per_token / merged)
    return one


def compare(own: Iterable[ops.Operator], listed: Iterable[ops.Operator], pattern: re.Pattern[str]) -> list[str]:
    """What only one of the two lists has; order is of no consequence."""
    mine = Counter(line for one in own for line in canonical(one, pattern))
    theirs = Counter(line for one in listed for line in canonical(one, pattern))
    return [f"only ours {line}" for line in sorted((mine - theirs).elements())] + [
        f"only theirs {line}" for line in sorted((theirs - mine).elements())
    ]


def compare_weights(row: Row, own: Iterable[ops.Operator], pattern: re.Pattern[str]) -> list[str]:
    """Nothing, or one line: bytes of weights of the prefill list, without what deviates."""
    mine = sum(resident_bytes(one) for one in own if not pattern.fullmatch(one.label))
    entries = zip(row["context_ops"], row["weights"], strict=True)
    theirs = sum(size for entry, size in entries if not pattern.fullmatch(listed_label(entry)))
    close = abs(mine - theirs) <= TOLERANCE * max(mine, theirs)
    return [] if close else [f"weights {mine:.0f}, listed {theirs:.0f}"]


def compare_kv(row: Row, family: Family, setting: Setting) -> list[str]:
    """One line per sequence length whose KV cache differs."""
    lines = []
    for length, size in row["kv_bytes_seq"].items():
        own = family.kv_bytes(setting, int(length))
        if abs(own - size) > TOLERANCE * max(own, size):
            lines.append(f"kv at {length}: {own}, listed {size}")
    return lines


def listed_label(entry: dict[str, Any]) -> str:
    """The label of an operator of the reference."""
    ((_, fields),) = entry.items()
    return str(fields["name"])


def canonical(one: ops.Operator, pattern: re.Pattern[str]) -> list[str]:
    """The operator as text without what the list does not tell; [] for one that deviates or takes no time."""
    if pattern.fullmatch(one.label) or one.count == 0 or isinstance(one, ops.Resident):
        return []
    if isinstance(one, ops.AllReduce | ops.Nccl) and one.gpus == 1:
        return []
    if isinstance(one, ops.Overlap):
        both = (one.first, one.second)
        chains = sorted(sorted(line for part in chain for line in canonical(part, pattern)) for chain in both)
        return [f"Overlap {one.label} {chains}"]
    if isinstance(one, ops.Fallback):
        parts = sorted(line for part in one.parts for line in canonical(part, pattern))
        return [f"Fallback {one.label} {canonical(one.primary, pattern)} else {parts}"]
    if isinstance(one, ops.Mla) and one.phase == ops.GENERATION:
        one = replace(one, fmha="")
    values = (getattr(one, name) for name in one.__slots__ if name != "label")
    shown = (round(value, 6) if isinstance(value, float | int) else value for value in values)
    return [f"{type(one).__name__} {one.label} {' '.join(str(float(v) if type(v) is int else v) for v in shown)}"]


def reference_ops(entry: dict[str, Any], system: Any) -> list[ops.Operator]:
    """The records of one operator of the reference."""
    ((kind, d),) = entry.items()
    if kind == "MoeDispatch":
        return expand_dispatch(d, system.sm_version)
    if kind == "Overlap":
        first, second = (
            tuple(part for one in d[group] for part in reference_ops(one, system)) for group in ("group_a", "group_b")
        )
        return [ops.Overlap(d["name"], first, second)]  # type: ignore[arg-type]
    if kind == "Fallback":
        primary = d["primary"][0] if isinstance(d["primary"], list) else d["primary"]
        parts = tuple(part for one in d["fallback"] for part in reference_ops(one, system))
        return [ops.Fallback(d["name"], reference_ops(primary, system)[0], parts)]  # type: ignore[arg-type]
    return [RECORDS[kind](d["name"], d["scale_factor"], d)]


def expand_dispatch(d: dict[str, Any], sm_version: int) -> list[ops.Operator]:
    """The collectives of a dispatch, as op_model.md 2.13 has them."""
    name, count, hidden = d["name"], d["scale_factor"], d["hidden_size"]
    dp, pre = d["attention_dp_size"], d["pre_dispatch"]
    wide = d["moe_tp_size"] * d["moe_ep_size"]
    inner = max(1, wide // dp)
    reduce = ops.AllReduce(name, count, hidden, wide, 1 / d["scale_num_tokens"])
    outer = ops.Nccl(name, count, "all_gather" if pre else "reduce_scatter", hidden * dp, wide)
    if d["backend"] == "vllm":
        reduced = inner > 1 and not (pre and d["attn_ar_modeled"])
        return [*([reduce] if reduced else []), *([outer] if dp > 1 else [])]
    if d["backend"] == "sglang" and inner > 1 and dp > 1:
        return [ops.Nccl(name, count, "reduce_scatter" if pre else "all_gather", hidden, inner), outer]
    if d["backend"] == "trtllm" and sm_version == 100 and dp > 1:
        packed = {"nvfp4": 0.28125, "fp8": 0.5, "fp8_block": 0.5}.get(d["moe_quant"], 1.0) if pre else 1.0
        return [replace(outer, elements_per_token=hidden * dp * packed)]
    if inner > 1:
        return [reduce]
    return [outer] if dp > 1 else []


def _state(table: str) -> Callable[[str, float, dict[str, Any]], ops.Operator]:
    """The reader of a state kernel of one table."""
    names = ("phase", "d_model", "d_conv", "num_k_heads", "head_k_dim", "num_v_heads", "head_v_dim")
    return lambda n, c, d: ops.StateKernel(
        n, c, table, d["kernel_source"], *(d[name] for name in names),
        draft_tokens=d.get("draft_tokens", 0), state_dtype=d.get("mamba_ssm_dtype", "float32"),
    )  # fmt: skip


def _module(phase: str) -> dict[str, Callable[[str, float, dict[str, Any]], ops.Operator]]:
    """Readers of the operators that exist once per phase."""
    title = phase.capitalize()
    return {
        f"MlaModule{title}": lambda n, c, d: ops.MlaModule(
            n, c, phase, d["num_heads"], d["native_num_heads"], d["fmha_quant_mode"], d["kv_cache_dtype"],
            d["gemm_quant_mode"],
        ),
        f"{title}Mla": lambda n, c, d: ops.Mla(
            n, c, phase, d["num_heads"], d.get("fmha_quant_mode", ""), d["kv_cache_dtype"]
        ),
        f"Dsa{title}": lambda n, c, d: ops.Dsa(
            n, c, phase, d["architecture"], d["num_heads"], d["fmha_quant_mode"], d["kv_cache_dtype"],
            d["gemm_quant_mode"], d["full_frac"],
        ),
        f"Dsv4{title}": lambda n, c, d: ops.Dsv4(
            n, c, phase, d["attn_kind"].lower(), d["num_heads"], d["native_heads"], d["fmha_quant_mode"],
            d["kv_cache_dtype"], d["gemm_quant_mode"], d["hidden_size"], d["q_lora_rank"], d["o_lora_rank"],
            d["head_dim"], d["rope_head_dim"], d["index_n_heads"], d["index_head_dim"], d["index_topk"],
            d["o_groups"], d["window_size"],
        ),
        f"Msa{title}": lambda n, c, d: ops.Msa(
            n, c, phase, d["num_heads"], d["num_kv_heads"], d["hidden_size"], d["head_dim"], d["v_head_dim"],
            d["index_n_heads"], d["index_head_dim"], d["index_topk"], d["block_size"], d["fmha_quant_mode"],
            d["kv_cache_dtype"], d["gemm_quant_mode"],
        ),
    }  # fmt: skip


RECORDS: dict[str, Callable[[str, float, dict[str, Any]], ops.Operator]] = {
    "Embedding": lambda n, c, d: ops.Embedding(n, c, d["vocab_size"], d["hidden_size"]),
    "Elementwise": lambda n, c, d: ops.MemoryMove(n, c, d["bytes_per_token"], 1 / d["scale_num_tokens"]),
    "Gemm": lambda n, c, d: ops.Gemm(
        n, c, d["n"], d["k"], d["quant_mode"], d["low_precision_input"], 1 / d["scale_num_tokens"]
    ),
    "CustomAllReduce": lambda n, c, d: ops.AllReduce(n, c, d["hidden_size"], d["tp_size"]),
    "Nccl": lambda n, c, d: ops.Nccl(n, c, d["operation"], d["hidden_size"], d["num_gpus"], d["dtype"]),
    "P2P": lambda n, c, d: ops.PointToPoint(n, c, d["hidden_size"]),
    "Moe": lambda n, c, d: ops.Moe(
        n, c, d["hidden_size"], d["inter_size"], d["topk"], d["num_experts"], d["moe_tp_size"], d["moe_ep_size"],
        d["quant_mode"], d["workload_distribution"], d["is_gated"], float(d["attention_dp_size"]),
    ),
    "Mhc": lambda n, c, d: ops.Mhc(n, c, d["op"], d["hc_mult"], d["hidden_size"]),
    "ContextAttention": lambda n, c, d: ops.ContextAttention(
        n, c, d["n"], d["n_kv"], d["head_size"], d["fmha_quant_mode"], d["kv_cache_dtype"], d["window_size"],
        d["use_qk_norm"],
    ),
    "GenerationAttention": lambda n, c, d: ops.GenerationAttention(
        n, c, d["n"], d["n_kv"], d["head_size"], d["kv_cache_dtype"], d["window_size"]
    ),
    "EncoderAttention": lambda n, c, d: ops.EncoderAttention(n, c, d["n"], d["head_size"], d["fmha_quant_mode"]),
    "MlaBmm": lambda n, c, d: ops.MlaBmm(n, c, "pre" if d["is_pre"] else "post", d["num_heads"], d["quant_mode"]),
    "Mamba2": lambda n, c, d: ops.Mamba2(
        n, c, d["kernel_source"], d["phase"], d["d_model"], d["d_state"], d["d_conv"], d["nheads"], d["head_dim"],
        d["n_groups"], d["chunk_size"],
    ),
    "Gdn": _state("gdn"),
    "Kda": _state("kda"),
    **_module(ops.CONTEXT),
    **_module(ops.GENERATION),
}  # fmt: skip
