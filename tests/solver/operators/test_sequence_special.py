"""Sequence operators with rules of their own: absorbed projections, fused state kernels, compressed attention."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serveopt.errors import MissingTable
from serveopt.solver.operators import descriptions as ops
from tests.solver.operators.sequence_tables import decode_ms, grid_rows, prefill_ms, prices_of, write_table

BMM = ops.MlaBmm("op", 1, "pre", 16, "fp8")
KDA = ops.StateKernel("op", 1, "kda", "fused_recurrent_kda", "generation", 2304, 4, 32, 128, 32, 128)
CSA = ops.Dsv4(
    "op", 1, "context", "csa", heads=8, native_heads=64, fmha="bfloat16", kv="fp8", gemm="fp8_block", hidden=4096,
    q_lora=1024, o_lora=1024, head_dim=512, rope_dim=64, index_heads=64, index_dim=128, topk=512, o_groups=8,
    window=128,
)  # fmt: skip


def bmm_rows(quant: str, heads: tuple[int, ...] = (16, 32)) -> list[dict[str, Any]]:
    """An absorbed projection, linear in heads and tokens."""
    fixed = {"bmm_dtype": quant, "kernel_source": "default", "op_name": "mla_gen_pre"}
    axes = {"num_heads": heads, "num_tokens": (1, 8, 64)}
    return grid_rows(axes, lambda num_heads, num_tokens: 1e-3 * num_heads * (1 + num_tokens), **fixed)


def test_absorbed_projection_is_a_curve_over_the_batch(tmp_path: Path) -> None:
    """Linear between batches, whatever the length; the largest batch's efficiency is held."""
    write_table(tmp_path, "sglang", "mla_bmm", bmm_rows("fp8"))
    price = prices_of(tmp_path, "sglang").sequence(BMM)
    assert [decode_ms(price, length, 36) for length in (1, 9999)] == pytest.approx([1e-3 * 16 * 37] * 2, rel=1e-3)
    assert price.source == "silicon"
    assert decode_ms(price, 1, 64 * 4096) > 1000 * decode_ms(price, 1, 64)


def test_absorbed_projection_of_other_heads_and_types(tmp_path: Path) -> None:
    """Heads that were not measured are a share of the next power of two; types fall back to bfloat16."""
    write_table(tmp_path, "sglang", "mla_bmm", bmm_rows("bfloat16"))
    prices = prices_of(tmp_path, "sglang")
    share = decode_ms(prices.sequence(replace(BMM, heads=24)), 1, 8)
    assert share == pytest.approx(24 / 32 * 1e-3 * 32 * 9, rel=1e-3)


def kda_rows(kernel: str, factor: float, **fixed: Any) -> list[dict[str, Any]]:
    """A kernel of Kimi delta attention in decode, linear in the batch."""
    given = {"kernel_source": kernel, "phase": "generation", "d_model": 2304, "d_conv": 4, "num_k_heads": 32}
    given |= {"head_k_dim": 128, "num_v_heads": 32, "head_v_dim": 128} | fixed
    axes = {"batch_size": (1, 16, 256), "seq_len": (1,)}
    return grid_rows(axes, lambda batch_size, seq_len: factor * batch_size, **given)


def test_kernel_that_does_both_is_charged_once(tmp_path: Path) -> None:
    """Where only the fused kernel was measured, it stands for the recurrence and the convolution is free."""
    write_table(tmp_path, "vllm", "kda", kda_rows("kda_fused_decode", 1e-3))
    prices = prices_of(tmp_path, "vllm")
    convolution = replace(KDA, kernel="causal_conv1d_update")
    assert decode_ms(prices.sequence(KDA), 1, 16) == pytest.approx(16e-3, rel=1e-3)
    assert decode_ms(prices.sequence(convolution), 1, 16) == 0.0


def test_own_kernel_goes_first(tmp_path: Path) -> None:
    """Where the recurrence was measured alone, the fused kernel is not looked at."""
    rows = kda_rows("kda_fused_decode", 1e-3) + kda_rows("fused_recurrent_kda", 4e-4)
    write_table(tmp_path, "vllm", "kda", rows)
    price = prices_of(tmp_path, "vllm").sequence(KDA)
    assert decode_ms(price, 1, 16) == pytest.approx(64e-4, rel=1e-3)


def test_unmeasured_geometry_takes_the_nearest(tmp_path: Path) -> None:
    """Half the heads move half the bytes; the reference charges the roofline instead."""
    write_table(tmp_path, "vllm", "kda", kda_rows("fused_recurrent_kda", 1e-2))
    half = replace(KDA, num_k_heads=16, num_v_heads=16)
    price = prices_of(tmp_path, "vllm").sequence(half)
    assert price.source == "estimated"
    assert decode_ms(price, 1, 16) == pytest.approx(0.08, rel=0.02)
    theirs = prices_of(tmp_path, "vllm", cost_model="reference").sequence(half)
    assert theirs.source == "sol"
    assert decode_ms(theirs, 1, 16) < 0.08


def csa_rows(heads: int, tp: int) -> list[dict[str, Any]]:
    """Prefill of compressed attention, linear in everything."""
    fixed = {"mla_dtype": "bfloat16", "kv_cache_dtype": "fp8_e4m3", "gemm_type": "fp8_block", "num_heads": heads}
    fixed |= {"tp_size": tp, "kernel_source": "default"}
    axes = {"step": (0, 1024), "isl": (64, 1024, 4096), "batch_size": (1, 2, 4)}
    return grid_rows(axes, lambda step, isl, batch_size: 1e-3 * batch_size * (isl + step) * heads / 8, **fixed)


def calibration_rows() -> list[dict[str, Any]]:
    """Top-k selection: 0.1 ms per sequence too long on the scores of the benchmark, in prefill."""
    axes = {"step": (0, 1024), "isl": (1024, 4096), "batch_size": (1, 4)}
    rows = []
    for mode, factor in (("v1_flat", 0.3), ("v1_top_last", 0.2), ("v2_flat", 1.0), ("v2_top_last", 9.0)):
        fixed = {"score_mode": mode, "num_heads": 64, "kernel_source": "default"}
        rows += grid_rows(axes, lambda step, isl, batch_size, f=factor: f * batch_size, **fixed)
    return rows


def test_selection_is_charged_as_in_serving(tmp_path: Path) -> None:
    """The overcharge of the benchmark's scores comes off, linear between batches and held at the ends."""
    write_table(tmp_path, "sglang", "dsv4_csa_context_module", csa_rows(8, 8))
    plain = prices_of(tmp_path, "sglang").sequence(CSA)
    before = [prefill_ms(plain, 1024, batch) for batch in (1, 2, 4)]
    assert before == pytest.approx([1.024, 2.048, 4.096], rel=1e-3)
    write_table(tmp_path, "sglang", "dsv4_csa_topk_calib", calibration_rows())
    corrected = prices_of(tmp_path, "sglang").sequence(CSA)
    after = [prefill_ms(corrected, 1024, batch) for batch in (1, 2, 4)]
    np.testing.assert_allclose(np.subtract(before, after), [0.1, 0.2, 0.4], rtol=1e-2)
    assert prefill_ms(corrected, 64, 1) == pytest.approx(max(0.0, 0.064 - 0.1), abs=1e-6)


def test_heads_of_the_nearest_split(tmp_path: Path) -> None:
    """Head counts that were not measured: the largest measured below, else the smallest."""
    write_table(tmp_path, "sglang", "dsv4_csa_context_module", csa_rows(8, 8) + csa_rows(32, 2))
    prices = prices_of(tmp_path, "sglang", cost_model="reference")
    found = {heads: prefill_ms(prices.sequence(replace(CSA, heads=heads)), 1024) for heads in (4, 8, 16, 32, 64)}
    assert found == pytest.approx({4: 1.024, 8: 1.024, 16: 1.024, 32: 4.096, 64: 4.096}, rel=1e-3)


def test_missing_batches_are_an_error_only_where_a_table_is_needed(tmp_path: Path) -> None:
    """No table of absorbed projections: silicon refuses, the roofline does not."""
    write_table(tmp_path, "sglang", "kda", kda_rows("fused_recurrent_kda", 1e-3))
    with pytest.raises(MissingTable, match="mla_bmm"):
        prices_of(tmp_path, "sglang").sequence(BMM)
    assert decode_ms(prices_of(tmp_path, "sglang", "sol").sequence(BMM), 1, 8) > 0.0
