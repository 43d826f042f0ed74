"""A finished search made by hand: the views are tested on it without a search."""

from dataclasses import replace

import polars as pl

from serveopt.solver.problem import Problem
from serveopt.solver.ranking import Ranking

QUANT = {
    "gemm_quant": "fp8_block",
    "kv_quant": "fp8",
    "fmha_quant": "fp8",
    "moe_quant": "fp8_block",
    "comm_quant": "half",
}
HOME = {"backend": "trtllm", "version": "1.3.0rc20", "system": "h200_sxm"}


def layout(tp: int, prefix: str = "") -> dict:
    """Degrees of a dense worker."""
    degrees = {"tp": tp, "pp": 1, "attn_dp": 1, "moe_tp": 1, "moe_ep": 1, "cp": 1}
    return {prefix + name: degree for name, degree in degrees.items()}


def metrics(rank: int, rate: float, user: float, n_gpus: int, concurrency: int, total_gpus: int) -> dict:
    """The columns that both modes have; consistent with each other."""
    replicas = total_gpus // n_gpus
    return HOME | {
        "rank": rank,
        "tokens_s_gpu": rate,
        "tokens_s_gpu_cluster": rate * replicas * n_gpus / total_gpus,
        "tokens_s_user": user,
        "ttft_ms": 530.9 + rank,
        "tpot_ms": 1000.0 / user,
        "e2e_ms": 530.9 + rank + 999 * 1000.0 / user,
        "request_rate_rps": rate * n_gpus / 999.0,
        "concurrency": concurrency,
        "replicas": replicas,
        "n_gpus": n_gpus,
        "n_gpus_used": replicas * n_gpus,
        "tokens_s": rate * n_gpus,
        "memory_gib": 58.9,
        "measured_share": 0.93,
    }


def agg_row(rank: int, rate: float, user: float, tp: int, batch: int, total_gpus: int) -> dict:
    extra = {"parallel": f"tp{tp}pp1", "batch": batch, "ctx_tokens": 8000, "chunked_prefill": False}
    return metrics(rank, rate, user, tp, batch, total_gpus) | layout(tp) | extra | QUANT


def disagg_row(
    rank: int,
    rate: float,
    user: float,
    prefill: tuple[int, int],
    decode: tuple[int, int, int],
    total_gpus: int,
) -> dict:
    """``prefill`` = (workers, tp), ``decode`` = (workers, tp, batch)."""
    row = metrics(rank, rate, user, prefill[0] * prefill[1] + decode[0] * decode[1], decode[2] * decode[0], total_gpus)
    row["xpyd"] = f"{prefill[0]}P{decode[0]}D"
    for role, (workers, tp, batch) in {"prefill_": (*prefill, 1), "decode_": decode}.items():
        facts = {
            "workers": workers,
            "n_gpus": tp,
            "parallel": f"tp{tp}pp1",
            "batch": batch,
            "memory_gib": 36.6,
            "seq_s": 3.39,
        }
        row |= {role + name: value for name, value in (facts | HOME | QUANT).items()} | layout(tp, role)
    return row


def make_ranking(total_gpus: int = 32, **changes: object) -> Ranking:
    """A search over Qwen3-32B on h200_sxm, five rows a mode."""
    agg = [agg_row(i + 1, 1368.4 - 60 * i, 44.5 - i, tp, 64 * tp, total_gpus) for i, tp in enumerate((2, 1, 4, 8))]
    shapes = [((2, 1), (1, 2, 128)), ((5, 1), (3, 1, 96)), ((8, 1), (1, 8, 512)), ((5, 4), (3, 4, 1024))]
    disagg = [disagg_row(i + 1, 1449.2 - 80 * i, 49.2 - i, p, d, total_gpus) for i, (p, d) in enumerate(shapes)]
    front = [("agg", u, 1600.0 - 9.0 * u) for u in range(20, 130, 3)] + [
        ("disagg", u, 1800.0 - 12.0 * u) for u in range(25, 120, 5)
    ]
    columns = {
        "tokens_s_gpu": 1.0,
        "ttft_ms": 500.0,
        "tpot_ms": 20.0,
        "e2e_ms": 21000.0,
        "concurrency": 64,
        "n_gpus": 2,
        "replicas": 16,
    }
    pareto = [
        columns | {"serving_mode": mode, "label": "tp2pp1", "tokens_s_user": float(u), "tokens_s_gpu_cluster": y}
        for mode, u, y in front
    ]
    fields = {
        "problem": Problem(model="Qwen/Qwen3-32B-FP8", system="h200_sxm", total_gpus=total_gpus),
        "chosen": "disagg",
        "agg": pl.DataFrame(agg),
        "disagg": pl.DataFrame(disagg),
        "pareto": pl.DataFrame(pareto),
        "evaluated": 1_234_567,
        "matched": 8_900,
        "search_ms": 456.7,
        "rejected": {"agg": {"memory": 12, "ttft": 345}, "disagg": {"tpot": 678, "indivisible": 0}},
        "notes": ("embedding is estimated, not measured",),
    }
    return Ranking(**(fields | changes))


def encoded_ranking() -> Ranking:
    """The same search with encode workers beside every replica."""
    plain = make_ranking()
    own = [pl.lit(2).alias("encoder_workers"), pl.lit(1).alias("encoder_tp"), pl.lit(8).alias("encoder_batch")]
    own += [pl.lit(4.6).alias("encoder_memory_gib"), (pl.col("n_gpus") + 2).alias("n_gpus")]
    return replace(
        plain,
        agg=plain.agg.with_columns(*own, pl.lit(1).alias("agg_workers")),
        disagg=plain.disagg.with_columns(*own),
    )
