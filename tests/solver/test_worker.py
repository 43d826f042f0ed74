"""Step latencies of one worker against sums over its operators, drafts, blocks that were not measured, images."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from serveopt.solver.engine import EngineQuery, open_engine
from serveopt.solver.layout import Layout
from serveopt.solver.operators import descriptions as ops
from serveopt.solver.shape import Shape
from serveopt.solver.worker import DECODE_STRIDE, FEWEST_BATCHES, Worker, resolve_blocks

SHAPE = Shape(isl=1000, osl=101, prefix=200)
DENSE = EngineQuery(model="Qwen/Qwen3-8B", system="h200_sxm", backend="trtllm")
LATENT = EngineQuery(model="deepseek-ai/DeepSeek-V3", system="h200_sxm", backend="trtllm")
SPEAKER = replace(LATENT, nextn=1, nextn_accepted=0.7)
VIEWER = replace(DENSE, model="Qwen/Qwen3-VL-8B-Instruct", image=(448, 448, 2))
LAYOUTS = {DENSE: Layout(tp=2), LATENT: Layout(tp=8, moe_tp=8), SPEAKER: Layout(tp=8, moe_tp=8), VIEWER: Layout(tp=2)}


@cache
def worker_of(query: EngineQuery) -> Worker:
    """The worker of a query's layout, whose engine is opened once."""
    return Worker(open_engine(query), LAYOUTS[query])


def dense_ms(worker: Worker, phase: str, tokens: float) -> float:
    """Sum over the token operators of a phase."""
    at = np.array([float(tokens)])
    return sum(float(curve.at(at)[0]) for _, curve in worker.curves(phase))


def attention_ms(worker: Worker, length: int, batch: int) -> float:
    """Sum over the sequence operators of a decode step."""
    one = np.ones(1, np.int64)
    operators = worker.sequences("generation")
    return sum(op.count * worker.decode_once(op, length * one, one, batch * one)[0] for op in operators)


@pytest.mark.parametrize("query", [DENSE, LATENT, SPEAKER], ids=["dense", "latent", "drafts"])
def test_steps_are_sums_over_operators(query: EngineQuery) -> None:
    """Tables over tokens and batches hold what the operators cost one by one."""
    worker = worker_of(query)
    steps, drafts = worker.steps(SHAPE, 300, 12), query.nextn + 1
    assert worker.drafts == drafts
    assert (steps.context.size, steps.decode.size, steps.decode_attention.size) == (301 + 12 * drafts, 13, 13)
    for batch in (1, 5, 12):
        assert steps.decode[batch] == pytest.approx(dense_ms(worker, "generation", batch * drafts), rel=1e-9)
        assert steps.decode_attention[batch] == pytest.approx(attention_ms(worker, SHAPE.middle, batch), rel=1e-9)
    logits = sum(float(curve.at(np.array([130.0]))[0]) for _, curve in worker.curves("context", logits=True))
    assert steps.context[130] == pytest.approx(dense_ms(worker, "context", 130) - logits, rel=1e-9)
    assert steps.decode_attention[0] == 0.0


def test_chosen_batches_are_those_of_all() -> None:
    """Asking for some batches, or for more than before, changes no number."""
    worker, some = worker_of(DENSE), np.array([3, 4, 9])
    shape = replace(SHAPE, isl=777)  # a length that no other test has asked for
    few = worker.steps(shape, 10, 12, only=some).decode_attention
    short, long = worker.decode_attention(shape.middle, 5), worker.decode_attention(shape.middle, 12)
    np.testing.assert_allclose(few[some], long[some], rtol=1e-12)
    np.testing.assert_array_equal(short, long[:6])


@pytest.mark.parametrize("osl", [1, 2, 33, 101, 1000])
@pytest.mark.parametrize("model", ["measured", "reference"])
def test_strides_cover_a_generation(osl: int, model: str) -> None:
    """Every step behind the first token once, at a length inside its stride."""
    worker = worker_of(DENSE)
    if model == "reference":
        worker = Worker(open_engine(replace(DENSE, cost_model=model)), LAYOUTS[DENSE])
    lengths, repeats = worker.strides(replace(SHAPE, osl=osl))
    assert repeats.sum() == osl - 1
    starts = SHAPE.isl + 1 + DECODE_STRIDE * np.arange(lengths.size)
    assert (lengths >= starts).all()
    assert (lengths < starts + repeats).all()
    assert model == "measured" or (lengths == starts).all()


def test_generation_is_the_sum_of_its_steps() -> None:
    """Strides are close to pricing every step."""
    worker, batch = worker_of(DENSE), np.array([4])
    each = sum(attention_ms(worker, SHAPE.isl + i + 1, 4) for i in range(SHAPE.osl - 1))
    dense = dense_ms(worker, "generation", 4) * (SHAPE.osl - 1)
    assert worker.generation_ms(SHAPE, batch)[0] == pytest.approx(each + dense, rel=2e-3)


def test_prefix_is_not_computed_again() -> None:
    """A cached prefix takes its tokens out of the dense operators and its square out of attention."""
    worker, batches = worker_of(DENSE), np.array([1, 3])
    whole, behind = (worker.prefill_ms(replace(SHAPE, prefix=prefix), batches) for prefix in (0, 500))
    assert (behind < 0.75 * whole).all()
    assert (behind > 0.4 * whole).all()


def test_accepted_drafts_shorten_a_generation() -> None:
    """A step over drafts costs more than one without and yields more tokens."""
    alone, drafting = worker_of(LATENT), worker_of(SPEAKER)
    batch = np.array([16])
    assert drafting.step_ms(SHAPE, batch) > alone.step_ms(SHAPE, batch)
    assert drafting.step_ms(SHAPE, batch) < 2 * alone.step_ms(SHAPE, batch)
    assert drafting.generation_ms(SHAPE, batch) < alone.generation_ms(SHAPE, batch)
    work = drafting.workload(SHAPE, 1e3, 1e2)
    assert work.answer_steps == pytest.approx(1 + 100 / 1.7)


def test_reference_counts_drafts_as_sequences() -> None:
    """Its attention of b requests with drafts is that of more requests."""
    query = replace(SPEAKER, cost_model="reference")
    worker = Worker(open_engine(query), LAYOUTS[SPEAKER])
    alone = Worker(open_engine(replace(LATENT, cost_model="reference")), LAYOUTS[LATENT])
    own = worker.decode_attention(SHAPE.middle, 8) / sum(op.count for op in worker.sequences("generation"))
    other = alone.decode_attention(SHAPE.middle, 16) / sum(op.count for op in alone.sequences("generation"))
    np.testing.assert_allclose(own, other[::2], rtol=1e-9)


def test_unmeasured_blocks_are_replaced_by_their_parts() -> None:
    """A block with its own measurement stays whole; weights cost no time."""
    engine = open_engine(LATENT)
    measured = ops.MlaModule("block", 61, "generation", 16, 128, "bfloat16", "bfloat16", "fp8_block")
    parts: tuple[ops.Operator, ...] = (ops.Gemm("part", 61, 2112, 7168, "fp8_block"),)
    whole = ops.Fallback("block", measured, parts)
    unknown = ops.Fallback("block", replace(measured, gemm="int4_wo"), (whole, *parts))
    weights = ops.Resident("weights", 1e9)
    assert list(resolve_blocks(engine, [weights, whole])) == [measured]
    assert list(resolve_blocks(engine, [unknown])) == [measured, *parts]


def test_images_are_encoded_before_a_wave() -> None:
    """More requests, more images; text alone costs nothing."""
    viewer = worker_of(VIEWER)
    assert worker_of(DENSE).encoder_ms(4) == 0.0
    assert 0.0 < viewer.encoder_ms(1) <= viewer.encoder_ms(4)
    assert viewer.scheduler(SHAPE, 4).encoder_ms == pytest.approx(viewer.encoder_ms(4) / 4)
    plain = Worker(open_engine(replace(VIEWER, image=(0, 0, 0))), LAYOUTS[VIEWER])
    two = np.array([2])
    added = viewer.prefill_ms(SHAPE, two) - plain.prefill_ms(SHAPE, two)
    assert added[0] == pytest.approx(viewer.encoder_ms(2), rel=1e-9)


@pytest.mark.parametrize("limit_ms", [1e-6, 7.0, 9.0, 1e6])
def test_largest_batch(limit_ms: float) -> None:
    """The last batch whose step is within the limit, and a few where none is."""
    worker, most = worker_of(DENSE), 200
    steps = worker.step_ms(SHAPE, np.arange(1, most + 1))
    within = np.flatnonzero(steps <= limit_ms)
    expected = max(int(within[-1]) + 1 if within.size else 0, FEWEST_BATCHES)
    assert worker.largest_batch(SHAPE, most, limit_ms) == expected
