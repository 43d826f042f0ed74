"""Prices of sequence operators on tiny tables: which slice serves, in which mode, and how prefixes and ranks enter."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serveopt.errors import MissingTable
from serveopt.kernels.grids import bound_ms
from serveopt.perfdata.systems import load_system
from serveopt.solver.operators import descriptions as ops
from serveopt.solver.operators.sequence_bounds import BOUNDS
from tests import oracle
from tests.solver.operators.sequence_tables import (
    SYSTEM,
    decode_ms,
    grid_rows,
    prefill_ms,
    prices_of,
    write_table,
)

PLAIN = ops.ContextAttention("op", 1, 32, 8, 128, "bfloat16", "bfloat16")
DECODE = ops.GenerationAttention("op", 1, 32, 8, 128, "bfloat16")
MODULE = ops.MlaModule("op", 1, "context", 16, 128, "bfloat16", "bfloat16", "fp8_block")
SPARSE = ops.Dsa("op", 1, "context", "DeepseekV32ForCausalLM", 16, "bfloat16", "fp8", "fp8_block")
PROMPTS = (64, 256, 1024, 4096)


def bound(operator: Any, *point: float, **fields: float) -> float:
    """The operator's speed-of-light ms."""
    roof = BOUNDS[type(operator)](load_system(SYSTEM), operator)._replace(**fields)
    return float(bound_ms(roof, *map(float, point)))


def attention_rows(lane: str, factor: float, **fixed: Any) -> list[dict[str, Any]]:
    """Prefill attention of one lane: ``factor`` times a square."""
    given = {"attn_dtype": "bfloat16", "kv_cache_dtype": "bfloat16", "num_key_value_heads": 8, "head_dim": 128}
    given |= {"step": 0, "window_size": 0, "kernel_source": lane} | fixed
    axes = {"num_heads": (16, 32), "isl": PROMPTS, "batch_size": (1, 2, 4)}
    return grid_rows(axes, lambda num_heads, isl, batch_size: factor * num_heads * batch_size * isl**2, **given)


def module_rows(factor: float = 1e-4, **fixed: Any) -> list[dict[str, Any]]:
    """Prefill of a latent attention module, linear in everything."""
    given = {"mla_dtype": "bfloat16", "kv_cache_dtype": "bfloat16", "gemm_type": "fp8_block", "step": 0} | fixed
    axes = {"num_heads": (16, 32), "isl": PROMPTS, "batch_size": (1, 2, 4)}
    return grid_rows(axes, lambda num_heads, isl, batch_size: factor * num_heads * batch_size * isl, **given)


def sparse_rows(steps: tuple[int, ...], factor: float = 1e-4, skips: str = "", **fixed: Any) -> list[dict[str, Any]]:
    """Prefill of sparse attention, linear in everything, 1 ms more per 1000 cached tokens."""
    given = {"mla_dtype": "bfloat16", "kv_cache_dtype": "fp8", "gemm_type": "fp8_block", "kernel_source": "trtllm"}
    given |= {"op_name": f"dsa_context_module{skips}", "architecture": SPARSE.architecture, "tp_size": 8} | fixed
    axes = {"num_heads": (16, 32), "step": steps, "isl": PROMPTS, "batch_size": (1, 2, 4)}
    return grid_rows(
        axes,
        lambda num_heads, step, isl, batch_size: factor * num_heads * batch_size * isl + step / 1000,
        **given,
    )


def test_lanes_in_order(tmp_path: Path) -> None:
    """The backend's default kernel, the one asked for, and for other shapes whichever was measured."""
    rows = attention_rows("fa3", 1e-9) + attention_rows("triton", 3e-9) + attention_rows("triton", 5e-9, head_dim=256)
    write_table(tmp_path, "sglang", "context_attention", rows)
    prices = prices_of(tmp_path, "sglang", cost_model="reference")
    extra = prices.sequence(PLAIN).extra_ms  # type: ignore[attr-defined]
    cases = [(prices, PLAIN, 1e-9), (prices, replace(PLAIN, head_dim=256), 5e-9)]
    cases.append((prices_of(tmp_path, "sglang", cost_model="reference", attention_backend="triton"), PLAIN, 3e-9))
    for own, operator, factor in cases:
        assert prefill_ms(own.sequence(operator), 1024) - extra == pytest.approx(factor * 32 * 1024**2, rel=1e-3)


def test_other_spellings_by_best_source(tmp_path: Path) -> None:
    """Of a kernel's names, the one that the newest measurement uses."""
    fixed = {"phase": "context", "d_model": 2048, "d_conv": 4, "num_k_heads": 16, "head_k_dim": 128}
    fixed |= {"num_v_heads": 32, "head_v_dim": 128}
    axes = {"batch_size": (1, 2), "seq_len": (64, 1024)}
    names = {"0.24.0": "chunk_gated_delta_rule_triton", "0.22.0": "chunk_gated_delta_rule"}
    for factor, (version, kernel) in enumerate(names.items(), 1):
        rows = grid_rows(axes, lambda batch_size, seq_len, f=factor: f * batch_size * seq_len, **fixed)
        write_table(tmp_path, "vllm", "gdn", [{**row, "kernel_source": kernel} for row in rows], version)
    operator = ops.StateKernel("op", 1, "gdn", "chunk_gated_delta_rule", "context", 2048, 4, 16, 128, 32, 128)
    price = prices_of(tmp_path, "vllm").sequence(operator)
    assert prefill_ms(price, 1024, 2) == pytest.approx(2048.0, rel=1e-3)
    elsewhere = prices_of(tmp_path, "vllm").sequence(replace(operator, num_v_heads=24))
    assert (elsewhere.source, price.source) == ("estimated", "silicon")


def test_modes_of_a_measured_slice(tmp_path: Path) -> None:
    """Silicon, hybrid and empirical agree where it was measured; the roofline needs no measurement."""
    write_table(tmp_path, "vllm", "mla_context_module", module_rows())
    found = {mode: prices_of(tmp_path, "vllm", mode).sequence(MODULE) for mode in ("silicon", "hybrid", "empirical")}
    for price in found.values():
        assert prefill_ms(price, 1024, 2) == pytest.approx(1e-4 * 16 * 2 * 1024, rel=1e-3)
    assert {mode: price.source for mode, price in found.items()} == {
        "silicon": "silicon", "hybrid": "silicon", "empirical": "empirical"
    }  # fmt: skip
    sol = prices_of(tmp_path, "vllm", "sol").sequence(MODULE)
    assert sol.source == "sol"
    assert prefill_ms(sol, 777, 3) == pytest.approx(bound(MODULE, 16, 777, 3), rel=1e-9)


def test_another_slice_lends_its_efficiency(tmp_path: Path) -> None:
    """Hybrid scales the nearest slice by the ratio of the bounds; silicon says what is missing and what is there."""
    write_table(tmp_path, "vllm", "mla_context_module", module_rows())
    wanted = replace(MODULE, fmha="fp8", kv="fp8")
    with pytest.raises(MissingTable, match=r"mla_dtype=fp8.*measured mla_dtype: bfloat16"):
        prices_of(tmp_path, "vllm").sequence(wanted)
    price = prices_of(tmp_path, "vllm", "hybrid").sequence(wanted)
    ratio = bound(wanted, 16, 1024, 2) / bound(MODULE, 16, 1024, 2)
    assert price.source == "empirical"
    assert prefill_ms(price, 1024, 2) == pytest.approx(1e-4 * 16 * 2 * 1024 * ratio, rel=1e-3)
    assert 0.3 < ratio < 1.0


def test_table_never_collected(tmp_path: Path) -> None:
    """Hybrid charges the roofline at a typical efficiency and says so; silicon names system, backend and version."""
    write_table(tmp_path, "vllm", "mla_context_module", module_rows())
    with pytest.raises(MissingTable, match=r"generation_attention.*h200_sxm/vllm/0.24.0"):
        prices_of(tmp_path, "vllm").sequence(DECODE)
    price = prices_of(tmp_path, "vllm", "hybrid").sequence(DECODE)
    assert price.source == "estimated"
    spread = sum(bound(DECODE, 32, 8, length) for length in (900, 950, 1000, 1050, 1100)) / 5
    assert decode_ms(price, 1000, 8) == pytest.approx(spread / 0.4, rel=1e-9)


def test_square_rule_of_prefixes(tmp_path: Path) -> None:
    """Latent attention was measured without prefixes: a prompt behind one is the rest of the square."""
    write_table(tmp_path, "vllm", "mla_context_module", module_rows())
    price = prices_of(tmp_path, "vllm").sequence(MODULE)
    whole = prefill_ms(price, 4096, 2)
    assert prefill_ms(price, 1024, 2, prefix=3072) == pytest.approx(
        whole * oracle.squared_prefix(1024, 3072), rel=1e-12
    )


def test_planes_of_prefixes(tmp_path: Path) -> None:
    """Sparse attention is linear between measured prefixes and follows the roofline beyond them."""
    write_table(tmp_path, "trtllm", "dsa_context_module", sparse_rows((0, 1000)))
    price = prices_of(tmp_path, "trtllm", cost_model="reference").sequence(SPARSE)
    plain = 1e-4 * 16 * 1024
    for prefix, added in ((0, 0.0), (250, 0.25), (500, 0.5), (1000, 1.0)):
        assert prefill_ms(price, 1024, prefix=prefix) == pytest.approx(plain + added, rel=1e-3)
    far = bound(SPARSE, 16, 1024, 1, prefix=5000.0) / bound(SPARSE, 16, 1024, 1, prefix=1000.0)
    assert far > 1.0
    assert prefill_ms(price, 1024, prefix=5000) == pytest.approx((plain + 1.0) * far, rel=1e-3)


def test_planes_by_the_roofline(tmp_path: Path) -> None:
    """The indexer starts at 2048 keys: between prefixes the latency follows the roofline, which knows that."""
    write_table(tmp_path, "trtllm", "dsa_context_module", sparse_rows((0, 4000)))
    price = prices_of(tmp_path, "trtllm").sequence(SPARSE)
    low, high = (bound(SPARSE, 16, 1024, 4, prefix=float(prefix)) for prefix in (0, 4000))
    for prefix in (500, 1000, 1200, 3000):
        weight = (bound(SPARSE, 16, 1024, 4, prefix=float(prefix)) - low) / (high - low)
        assert prefill_ms(price, 1024, 4, prefix=prefix) == pytest.approx(4e-4 * 16 * 1024 + 4.0 * weight, rel=1e-3)
    before, behind = (prefill_ms(price, 1024, 4, prefix=prefix) for prefix in (1024, 1025))
    assert behind - before > 10 * (before - prefill_ms(price, 1024, 4, prefix=1023))


def test_single_plane(tmp_path: Path) -> None:
    """With one measured prefix a prompt behind another is the longer prompt, scaled by the roofline."""
    write_table(tmp_path, "trtllm", "dsa_context_module", sparse_rows((0,)))
    price = prices_of(tmp_path, "trtllm").sequence(SPARSE)
    ratio = bound(SPARSE, 16, 1024, 2, prefix=3072.0) / bound(SPARSE, 16, 4096, 2)
    assert prefill_ms(price, 1024, 2, prefix=3072) == pytest.approx(1e-4 * 32 * 4096 * ratio, rel=1e-3)


@pytest.mark.parametrize("tokens", [1024, 1000, 7, 1])
def test_context_parallel_ranks_take_two_pieces(tmp_path: Path, tokens: int) -> None:
    """Of 2 cp pieces a rank runs the first and the last; fused kernels run once, on a rank's tokens."""
    write_table(tmp_path, "sglang", "context_attention", attention_rows("fa3", 1e-9))
    prices = prices_of(tmp_path, "sglang")
    alone, split = prices.sequence(PLAIN), prices.sequence(replace(PLAIN, cp=4))
    extra, per_token = alone.extra_ms, alone.extra_ms_per_token  # type: ignore[attr-defined]
    piece = -(-tokens // 8)
    pieces = prefill_ms(alone, piece, 2) + prefill_ms(alone, piece, 2, prefix=tokens - piece)
    kernels = pieces - 2 * (extra + per_token * 2 * piece)
    assert prefill_ms(split, tokens, 2) == pytest.approx(kernels + extra + per_token * 2 * tokens / 4, rel=1e-9)


def test_fused_kernels_scale_with_tokens(tmp_path: Path) -> None:
    """Every token is rotated and written; the reference charges those of one."""
    write_table(tmp_path, "sglang", "context_attention", attention_rows("fa3", 1e-9))
    added = {}
    for model in ("measured", "reference"):
        price = prices_of(tmp_path, "sglang", cost_model=model).sequence(PLAIN)
        added[model] = [prefill_ms(price, 1024, b) - 1e-9 * 32 * b * 1024**2 for b in (1, 4)]
    assert added["reference"] == pytest.approx([0.0132] * 2, rel=2e-2)
    moved = 2 * (2 * 32 * 128 + 2 * 8 * 128) + 2 * 8 * 128 * 2  # bytes: queries and keys twice, keys and values
    per_token = 1.1e3 * moved / (0.8 * load_system(SYSTEM).mem_bw_b_s)
    assert added["measured"][1] - added["measured"][0] == pytest.approx(3 * 1024 * per_token, rel=2e-2)
    assert prices_of(tmp_path, "sglang").sequence(PLAIN).source == "mixed"


def test_layers_that_reuse_an_indexer(tmp_path: Path) -> None:
    """The mean of layers that run the indexer and layers that do not, in their shares."""
    rows = sparse_rows((0, 1000)) + sparse_rows((0, 1000), 2e-5, "_skip_indexer")
    write_table(tmp_path, "sglang", "dsa_context_module", rows)
    prices = prices_of(tmp_path, "sglang")
    full, mixed = (prices.sequence(replace(SPARSE, full_share=share)) for share in (1.0, 0.25))
    one = prefill_ms(full, 1024)
    assert one == pytest.approx(1e-4 * 16 * 1024, rel=1e-3)
    assert prefill_ms(mixed, 1024) == pytest.approx(0.25 * one + 0.75 * 0.2 * one, rel=2e-3)
    assert mixed.source == "silicon"


def test_drafts_share_the_cache(tmp_path: Path) -> None:
    """A step that verifies drafts reads the cache once: dearer than one token, cheaper than as many sequences."""
    write_table(tmp_path, "vllm", "mla_context_module", module_rows())
    price = prices_of(tmp_path, "vllm", "sol").sequence(DECODE)
    lengths, once = np.array([4096]), np.ones(1, np.int64)
    batches = np.array([1.0, 64.0])
    for drafts in (1, 2, 4):
        ratio = price.draft_ratio(drafts, lengths, once, batches)  # type: ignore[attr-defined]
        assert (ratio >= 1.0).all()
        assert (ratio <= max(1.0, 0.9 * drafts)).all()
