"""Workers with sequence operators, speculation and exchange groups: what a step charges whom."""

import numpy as np
import pytest

from serveopt.solver.engine import EngineQuery, open_engine
from serveopt.solver.estimate import estimate
from serveopt.solver.layout import Layout
from serveopt.solver.point import Point
from serveopt.solver.shape import Shape
from serveopt.solver.worker import Worker

DEEPSEEK = {"model": "deepseek-ai/DeepSeek-V3", "system": "h200_sxm", "backend": "sglang"}


def worker(layout: Layout, **given: object) -> Worker:
    """DeepSeek-V3 on H200 under sglang."""
    return Worker(open_engine(EngineQuery(**{**DEEPSEEK, **given})), layout)  # type: ignore[arg-type]


def test_prompts_of_a_step_are_priced_one_by_one() -> None:
    """Two prompts of 4k cost about two, not one of 8k whose attention is twice as long."""
    own = worker(Layout(tp=8, moe_ep=8))
    two = own.prefill_attention(Shape(4000, 10), 2)
    one = own.prefill_attention(Shape(8000, 10), 1)[1]
    assert two[2] == pytest.approx(2 * two[1], rel=0.15)
    assert one > 1.4 * two[2]


def test_decoding_requests_of_a_mixed_step_pay_for_their_cache() -> None:
    """The mixed step holds decode attention, and more of it behind longer prompts."""
    costs = []
    for isl in (1000, 8000):
        ops = estimate(Point(**DEEPSEEK, tp=8, moe_ep=8, mode="agg", isl=isl, osl=500, batch=32, ctx_tokens=8192)).ops
        mixed = [part for part in ops if part["phase"] == "mixed_step" and part["op"].startswith("generation")]
        costs.append(sum(part["latency_ms"] for part in mixed))
    assert 0 < costs[0] < costs[1]


def test_drafts_read_the_cache_once() -> None:
    """Three drafts cost less than three more sequences under measured physics, exactly that under the reference's."""
    shape, batch = Shape(8000, 500), np.array([16])
    layout = Layout(tp=8, moe_ep=8)
    for cost_model, exact in (("reference", True), ("measured", False)):
        plain = worker(layout, cost_model=cost_model)
        drafting = worker(layout, cost_model=cost_model, nextn=3, nextn_accepted=0.0)
        scale = (61 + 3) / 61
        four = plain.decode_attention(shape.middle, 64)[64] * scale
        own = drafting.decode_attention(shape.middle, 16)[16]
        assert own == pytest.approx(four, rel=1e-9) if exact else own < 0.7 * four
        assert drafting.step_ms(shape, batch)[0] > plain.step_ms(shape, batch)[0]


def test_accepted_drafts_shorten_answers() -> None:
    """TPOT falls with what is accepted, in proportion when nothing else changes."""
    given = {**DEEPSEEK, "tp": 8, "moe_ep": 8, "mode": "static_gen", "isl": 1000, "osl": 100, "batch": 8, "nextn": 2}
    none, some = (estimate(Point(**given, nextn_accepted=accepted)) for accepted in (0.0, 1.0))  # type: ignore[arg-type]
    assert some.tpot_ms == pytest.approx(none.tpot_ms / 2)


def test_the_draft_layer_takes_memory() -> None:
    """One more layer of weights and cache under measured physics."""
    plain, drafting = (worker(Layout(tp=8, moe_ep=8), nextn=n).footprint for n in (0, 1))
    assert drafting.weight_bytes == pytest.approx(plain.weight_bytes * 62 / 61)


def test_buffers_follow_the_widest_group() -> None:
    """Ranks that exchange tokens hold buffers though attention is not split."""
    apart, together = (worker(layout).footprint for layout in (Layout(attn_dp=8, moe_ep=8), Layout(tp=8, moe_ep=8)))
    assert apart.communication_bytes == together.communication_bytes > 0


def test_decode_is_integrated_at_the_middle_of_its_strides() -> None:
    """The mean length of a generation is the mean over its steps."""
    shape = Shape(1000, 321)
    lengths, repeats = worker(Layout(tp=8, moe_ep=8)).strides(shape)
    assert repeats.sum() == 320
    assert np.average(lengths, weights=repeats) == pytest.approx(1000 + 1 + 319 / 2, abs=1)
    early, _ = worker(Layout(tp=8, moe_ep=8), cost_model="reference").strides(shape)
    assert (early[:-1] == lengths[:-1] - 16).all()


def test_images_come_before_the_prompt() -> None:
    """An image adds tokens to the prompt and its encoder to TTFT, nothing to a step of decode."""
    given = {"model": "Qwen/Qwen3-VL-8B-Instruct", "system": "h200_sxm", "mode": "static", "isl": 500, "osl": 50}
    text, image = (
        estimate(Point(**given, image_height=size, image_width=size, batch=2))  # type: ignore[arg-type]
        for size in (0, 896)
    )
    parts = {part["op"] for part in image.ops if part["phase"] == "encoder"}
    assert "encoder_attention" in parts and image.ttft_ms > 1.5 * text.ttft_ms
    assert image.tpot_ms == pytest.approx(text.tpot_ms, rel=0.1)
