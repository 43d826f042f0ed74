"""The words users know for our identifiers, in one table: CSV columns and terminal headings.

Frames and JSON carry identifiers with their units (``tokens_s_gpu``, ``ttft_ms``). Saved CSV files use the column
names that existing scripts read; the terminal uses the headings of the same tables. Role columns are the role's
mark in front of the plain heading: ``prefill_batch`` is ``(p)bs``.
"""

import re

CSV_HEADINGS = {
    "prefix_len": "prefix",
    "tokens_s": "tokens/s",
    "tokens_s_gpu": "tokens/s/gpu",
    "tokens_s_gpu_cluster": "tokens/s/gpu_cluster",
    "tokens_s_user": "tokens/s/user",
    "ttft_ms": "ttft",
    "tpot_ms": "tpot",
    "e2e_ms": "request_latency",
    "request_rate_rps": "request_rate",
    "n_gpus": "num_total_gpus",
    "n_gpus_used": "gpus_used",
    "attn_dp": "dp",
    "batch": "bs",
    "memory_gib": "memory",
    "gemm_quant": "gemm",
    "kv_quant": "kvcache",
    "fmha_quant": "fmha",
    "moe_quant": "moe",
    "comm_quant": "comm",
}

TERMINAL_HEADINGS = {
    "rank": "Rank",
    "backend": "backend",
    "tokens_s_gpu": "tokens/s\n/gpu",
    "tokens_s_gpu_cluster": "tokens/s\n/gpu",
    "tokens_s_user": "tokens/s\n/user",
    "request_rate_rps": "req/s",
    "ttft_ms": "TTFT\nms",
    "tpot_ms": "TPOT\nms",
    "e2e_ms": "request\n_latency\nms",
    "concurrency": "concurrency",
    "total_gpus": "total_gpus\n(used)",
    "replicas": "replicas",
    "n_gpus": "gpus/\nreplica",
    "worker_gpus": "gpus/\nworker",
    "workers": "workers",
    "parallel": "parallel",
    "batch": "bs",
    "encode": "encode\nworkers",
    "variant": "variant",
}

REASON_WORDS = {"kv_cache": "KV cache", "ttft": "TTFT", "tpot": "TPOT", "no_data": "no data"}

_ROLE_MARKS = {"prefill_": "(p)", "decode_": "(d)", "agg_": "(a)", "encoder_": "(e)"}
_ROLE_HEADINGS = {"n_gpus": "gpus/worker", "seq_s": "seq/s/worker"}


def csv_heading(identifier: str) -> str:
    """The column name of a saved CSV file.

    >>> csv_heading("tokens_s_gpu"), csv_heading("prefill_batch"), csv_heading("decode_n_gpus")
    ('tokens/s/gpu', '(p)bs', '(d)gpus/worker')
    """
    mark, name = split_role(identifier)
    if mark and name in _ROLE_HEADINGS:
        return mark + _ROLE_HEADINGS[name]
    return mark + CSV_HEADINGS.get(name, name)


def split_role(identifier: str) -> tuple[str, str]:
    """The role's mark, empty where there is no role, and the identifier without its role.

    >>> split_role("decode_parallel"), split_role("parallel")
    (('(d)', 'parallel'), ('', 'parallel'))
    """
    for prefix, mark in _ROLE_MARKS.items():
        if identifier.startswith(prefix):
            return mark, identifier.removeprefix(prefix)
    return "", identifier


def short_layout(parallel: str) -> str:
    """The degrees of a worker that are not 1, of several workers joined by " + " each.

    >>> short_layout("tp1pp1dp4etp1ep4"), short_layout("tp16pp1"), short_layout("tp1pp1 + tp2pp1")
    ('dp4ep4', 'tp16', 'tp1 + tp2')
    """
    return " + ".join("".join(re.findall(r"[a-z]+(?!1(?!\d))\d+", part)) or "tp1" for part in parallel.split(" + "))
