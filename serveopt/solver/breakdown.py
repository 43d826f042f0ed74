"""Where the time of a step goes: one line per operator, with its source and what of it was measured."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from serveopt.solver.images import count_images
from serveopt.solver.layout import Layout
from serveopt.solver.operators import descriptions as ops
from serveopt.solver.operators.power import decode_power, prompt_power, token_power
from serveopt.solver.operators.sequence import GridPrice, SequencePrice, SumPrice
from serveopt.solver.problem import Problem
from serveopt.solver.shape import Shape, request_shape
from serveopt.solver.worker import Worker

if TYPE_CHECKING:
    import polars as pl

MEASURED = ("silicon",)


@dataclass(frozen=True, slots=True)
class Part:
    """One operator of a phase: ms over all layers (and steps), of which ``measured_ms`` rest on measurements.

    ``power_w``: what one GPU draws meanwhile, None where nobody collected it.
    """

    phase: str
    op: str
    latency_ms: float
    source: str
    measured_ms: float
    power_w: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """The line of a breakdown."""
        names = ("phase", "op", "latency_ms", "source", "power_w")
        return {name: getattr(self, name) for name in names}


def token_parts(
    worker: Worker, phase: str, tokens: tuple[float, float], name: str, factor: float = 1.0
) -> Iterator[Part]:
    """Parts of the token operators of a phase at (tokens, tokens of the logits), each ``factor`` times."""
    for logits, count in ((False, tokens[0]), (True, tokens[1])):
        latency = worker.at_tokens(phase, np.array([count]), logits)[:, 0] * factor
        for (operator, curve), value in zip(worker.curves(phase, logits), latency.tolist(), strict=True):
            share = overlap_share(worker, operator, count) if isinstance(operator, ops.Overlap) else 0.0
            known = 1.0 if curve.source in MEASURED else share
            watts = token_power(worker.engine.pricing, operator, count)
            yield Part(name, operator.label, value, curve.source, value * known, watts)


def overlap_share(worker: Worker, overlap: ops.Overlap, tokens: float) -> float:
    """Share of the longer chain's time at ``tokens`` that was measured."""
    best = (0.0, 0.0)
    for chain in (overlap.first, overlap.second):
        total = known = 0.0
        for operator in chain:
            curve = worker.engine.pricing.token_curve(operator)
            value = float(np.interp(tokens, curve.tokens, curve.latency_ms))
            total += value
            known += value if curve.source in MEASURED else 0.0
        best = max(best, (total, known))
    return best[1] / best[0] if best[0] > 0.0 else 0.0


def sequence_part(worker: Worker, operator: ops.SequenceOperator, once_ms: float, extra_ms: float, name: str) -> Part:
    """The part of a sequence operator that takes ``once_ms`` per layer, ``extra_ms`` of it beside its table."""
    price: SequencePrice = worker.engine.pricing.sequence(operator)
    total = float(once_ms * operator.count)
    known = (total - float(extra_ms * operator.count)) * measured_weight(price)
    return Part(name, operator.label, total, price.source, known)


def measured_weight(price: SequencePrice) -> float:
    """Share of a price, extras apart, that is read from its own measurements (0 to 1)."""
    if isinstance(price, SumPrice):
        total = sum(weight for weight, _ in price.terms)
        return sum(weight * measured_weight(term) for weight, term in price.terms) / total
    if isinstance(price, GridPrice):
        return 1.0 if price.source in ("silicon", "mixed") and not price.transferred else 0.0
    return 1.0 if price.source in MEASURED else 0.0


def prompt_parts(worker: Worker, shape: Shape, prompts: int, name: str, factor: float = 1.0) -> Iterator[Part]:
    """Parts of the sequence operators of a prefill of ``prompts`` whole prompts."""
    for operator in worker.sequences("context"):
        once = worker.prefill_once(operator, shape, prompts)[prompts] * factor
        price = worker.engine.pricing.sequence(operator)
        extra = 0.0
        if isinstance(price, GridPrice):
            extra = price.extra_ms + price.extra_ms_per_token * (shape.isl - shape.prefix) * prompts / price.cp
        part = sequence_part(worker, operator, once, min(extra * factor, once), name)
        yield replace(part, power_w=prompt_power(worker.engine.pricing, operator, prompts, shape.isl))


def cached_parts(
    worker: Worker, lengths: np.ndarray, repeats: np.ndarray, batch: int, name: str, factor: float = 1.0
) -> Iterator[Part]:
    """Parts of the sequence operators of decode steps of one batch, summed over lengths."""
    if batch == 0:
        return
    length = float(np.average(lengths, weights=repeats)) if repeats.sum() else 1.0
    for operator in worker.sequences("generation"):
        once = worker.decode_once(operator, lengths, repeats, np.array([batch]))[0] * factor
        part = sequence_part(worker, operator, float(once), 0.0, name)
        yield replace(part, power_w=decode_power(worker.engine.pricing, operator, batch, length))


def encoder_parts(worker: Worker, requests: int, factor: float) -> Iterator[Part]:
    """Parts of the vision encoder for the images of some requests."""
    images = count_images(worker.setting, requests)
    if not images.images:
        return
    tokens = float(images.patches)
    yield from token_parts(worker, "encoder", (tokens, tokens), "encoder", factor)
    for operator in worker.sequences("encoder"):
        yield sequence_part(worker, operator, worker.encode_once(operator, requests) * factor, 0.0, "encoder")


def prefill_parts(worker: Worker, shape: Shape, batch: int, name: str, factor: float = 1.0) -> list[Part]:
    """Parts of a prefill step of ``batch`` prompts, their images included."""
    tokens = (float(batch * (shape.isl - shape.prefix)), float(batch))
    images = encoder_parts(worker, batch, factor)
    dense = token_parts(worker, "context", tokens, name, factor)
    return [*images, *dense, *prompt_parts(worker, shape, batch, name, factor)]


def generation_parts(worker: Worker, shape: Shape, batch: int, name: str, factor: float = 1.0) -> list[Part]:
    """Parts of decoding osl - 1 tokens of ``batch`` sequences."""
    factor = factor / worker.tokens_per_step
    tokens = float(batch * worker.drafts)
    dense = token_parts(worker, "generation", (tokens, tokens), name, max(shape.osl - 1, 0) * factor)
    return [*dense, *cached_parts(worker, *worker.strides(shape), batch, name, factor)]


def decode_step_parts(worker: Worker, shape: Shape, batch: int, name: str = "decode_step") -> list[Part]:
    """Parts of one decode step at the mean length."""
    tokens = float(batch * worker.drafts)
    dense = token_parts(worker, "generation", (tokens, tokens), name)
    once = np.ones(1, np.int64)
    return [*dense, *cached_parts(worker, shape.middle * once, once, batch, name)]


def measured_share(prefill: Worker, decode: Worker, shape: Shape, batch: int) -> float:
    """Share of a request's GPU time, prefill and decode, that rests on measurements (0 to 1)."""
    parts = prefill_parts(prefill, shape, 1, "context")
    parts += generation_parts(decode, shape, batch, "generation", 1.0 / batch)
    total = sum(part.latency_ms for part in parts)
    return sum(part.measured_ms for part in parts) / total if total > 0.0 else 0.0


def add_measured_share(
    problem: Problem, frame: "pl.DataFrame", mode: str, workers: Mapping[tuple[str, str, str, Layout], Worker]
) -> "pl.DataFrame":
    """The ranked rows with ``measured_share``; ``workers`` by (variant, backend, system, layout)."""
    import polars as pl

    if frame.is_empty():
        return frame
    prefixes = ("", "") if mode == "agg" else ("prefill_", "decode_")
    shares = []
    for row in frame.to_dicts():
        first, second = (
            workers[
                row.get("variant", ""),
                row[f"{p}backend"],
                row[f"{p}system"],
                Layout(*(row[f"{p}{name}"] for name in Layout._fields)),
            ]
            for p in prefixes
        )
        shape = request_shape(problem, second.engine)
        shares.append(measured_share(first, second, shape, row[f"{prefixes[1]}batch"]))
    return frame.with_columns(pl.Series("measured_share", shares, pl.Float64))
