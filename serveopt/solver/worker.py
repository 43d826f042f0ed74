"""One worker: a layout of an engine, its weights, its memory and its step latencies.

Token-only operators are summed to one curve per phase, attention is tabulated over batches; a search then needs a
handful of loads per candidate, and a single estimate reads the same curves.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from serveopt.kernels.curves import fill_curve_points, tabulate_sum
from serveopt.kernels.records import Curves, Memory, Scheduler, Steps, Workload
from serveopt.solver.engine import Engine
from serveopt.solver.families.table import Phases, Setting
from serveopt.solver.footprint import Footprint
from serveopt.solver.images import count_images
from serveopt.solver.layout import Layout
from serveopt.solver.operators import descriptions as ops
from serveopt.solver.operators.curve import TokenCurve, join
from serveopt.solver.operators.pricing import shape_key
from serveopt.solver.operators.sequence import SequencePrice
from serveopt.solver.shape import Shape

DECODE_STRIDE = 32  # decode steps priced once
FEWEST_BATCHES = 8  # looked at however slow a step is: what comes nearest to the target may have to be said
FEWEST_MIXED = 64  # aggregated batches likewise
TYPICAL_WAVE = 64  # requests whose images are spread over the ranks of an encoder in a search


@dataclass
class Worker:
    """One worker layout of an engine."""

    engine: Engine
    layout: Layout
    fraction: float | None = None  # free_gpu_memory_fraction
    setting: Setting = field(init=False)
    listed: Phases = field(init=False)  # as the family lists them
    footprint: Footprint = field(init=False)
    phases: Phases = field(init=False)  # blocks without a measurement of their own replaced by their parts
    # By phase and logits: a search asks some ten times for the same.
    _curves: dict[tuple[str, bool | None], list[tuple[ops.Operator, TokenCurve]]] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )
    _joined: dict[tuple[str, bool | None], Curves] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.setting = self.engine.setting(self.layout)
        self.listed = self.engine.family.build_phases(self.setting)
        self.footprint = Footprint(self.engine, self.setting, self.listed, self.fraction)
        parts = (self.listed.context, self.listed.generation, self.listed.encoder)
        self.phases = Phases(*(tuple(resolve_blocks(self.engine, part)) for part in parts))

    @property
    def drafts(self) -> int:
        """Tokens that a decoding request brings into a step."""
        return self.setting.nextn + 1

    @property
    def tokens_per_step(self) -> float:
        """Tokens that a decode step yields per request."""
        return self.engine.nextn_accepted + 1.0

    def curves(self, phase: str, logits: bool | None = None) -> list[tuple[ops.Operator, TokenCurve]]:
        """Token operators of a phase with their curves; ``logits`` selects only, or all but, the logits GEMM."""
        key = (phase, logits)
        if key not in self._curves:
            self._curves[key] = self._read_curves(phase, logits)
        return self._curves[key]

    def joined(self, phase: str, logits: bool | None = None) -> Curves:
        """The curves of a phase, as the kernels read them."""
        key = (phase, logits)
        if key not in self._joined:
            self._joined[key] = join([curve for _, curve in self.curves(phase, logits)])
        return self._joined[key]

    def _read_curves(self, phase: str, logits: bool | None) -> list[tuple[ops.Operator, TokenCurve]]:
        chosen = []
        for operator in getattr(self.phases, phase):
            is_logits = operator.label.endswith("logits_gemm")
            if isinstance(operator, ops.SequenceOperator) or (logits is not None and is_logits != logits):
                continue
            chosen.append((operator, self.engine.pricing.token_curve(operator)))
        return chosen

    def sequences(self, phase: str) -> list[ops.SequenceOperator]:
        """Sequence operators of a phase: attention, blocks with attention inside, state kernels."""
        return [operator for operator in getattr(self.phases, phase) if isinstance(operator, ops.SequenceOperator)]

    def check_data(self) -> None:
        """Nothing; MissingTable names the first operator of either phase that was not measured."""
        encoder = ("encoder",) if count_images(self.setting).images else ()
        for phase in ("context", "generation", *encoder):
            self.curves(phase)
            for operator in self.sequences(phase):
                self.engine.pricing.sequence(operator)

    def tabulate(self, phase: str, size: int, logits: bool | None = None) -> np.ndarray:
        """float64[size]: ms of a phase's token operators at 0 .. size - 1 tokens."""
        out = np.zeros(size)
        tabulate_sum(self.joined(phase, logits), out)
        return out

    def at_tokens(self, phase: str, tokens: np.ndarray, logits: bool | None = None) -> np.ndarray:
        """float64[operators, points]: ms of every token operator at the given token counts."""
        curves = self.joined(phase, logits)
        out = np.zeros((curves.offset.size - 1, tokens.size))
        fill_curve_points(curves, tokens.astype(np.float64), out)
        return out

    def prefill_attention(self, shape: Shape, prompts: int) -> np.ndarray:
        """float64[prompts + 1]: ms of prefill attention of 0 .. prompts whole prompts, all layers."""
        return sum_over(self.sequences("context"), prompts + 1, lambda op, out: self._fill_prefill(op, shape, out))

    def decode_attention(self, length: int, batch: int) -> np.ndarray:
        """float64[batch + 1]: ms of attention in one decode step at KV length ``length``, all layers."""
        once = np.ones(1, np.int64)
        step = self._summed_attention(length * once, once, np.arange(1, batch + 1))
        return np.concatenate([np.zeros(1), step])

    def generation_attention(self, shape: Shape, batches: np.ndarray) -> np.ndarray:
        """float64[n]: ms of sequence operators over a whole generation for each batch size.

        Steps are priced in strides, each at the length of its middle step (the reference: of its first).
        """
        return self._summed_attention(*self.strides(shape), batches)

    def strides(self, shape: Shape) -> tuple[np.ndarray, np.ndarray]:
        """(KV lengths int64[k] at which a generation is priced, how many steps each stands for int64[k])."""
        starts = np.arange(0, max(shape.osl - 1, 0), DECODE_STRIDE)
        repeats = np.minimum(DECODE_STRIDE, shape.osl - 1 - starts)
        middle = repeats // 2 if self.engine.cost_model == "measured" else 0
        return shape.isl + starts + 1 + middle, repeats

    def prefill_once(self, operator: ops.SequenceOperator, shape: Shape, prompts: int) -> np.ndarray:
        """float64[prompts + 1]: ms of one layer's operator for 0 .. prompts whole prompts."""
        out = np.zeros(prompts + 1)
        self._fill_prefill(operator, shape, out)
        return out

    def decode_once(
        self, operator: ops.SequenceOperator, lengths: np.ndarray, repeats: np.ndarray, batches: np.ndarray
    ) -> np.ndarray:
        """float64[n]: ms of one layer's operator summed over lengths for each batch size."""
        out = np.zeros(batches.size)
        self._price_decode(operator, lengths, repeats, batches, out)
        return out

    def encode_once(self, operator: ops.SequenceOperator, requests: int = 1) -> float:
        """ms of one encoder layer's operator for the images of some requests."""
        images = count_images(self.setting, requests)
        out = np.zeros(images.images + 1)
        self.engine.pricing.sequence(operator).prefill(images.patches_per_image, 0, out)
        return float(out[-1])

    def _summed_attention(self, lengths: np.ndarray, repeats: np.ndarray, batches: np.ndarray) -> np.ndarray:
        """float64[n]: ms of decode attention summed over lengths, all layers.

        Layouts that differ in pipeline depth only ask for the same numbers: batches 1 .. n are kept per operator.
        """
        return sum_over(
            self.sequences("generation"),
            batches.size,
            lambda op, out: self._fill_decode(op, lengths, repeats, batches, out),
        )

    def _fill_prefill(self, operator: ops.SequenceOperator, shape: Shape, out: np.ndarray) -> None:
        self.engine.pricing.sequence(operator).prefill(shape.isl - shape.prefix, shape.prefix, out)

    def _fill_decode(
        self, operator: ops.SequenceOperator, lengths: np.ndarray, repeats: np.ndarray, batches: np.ndarray,
        out: np.ndarray,
    ) -> None:  # fmt: skip
        if not np.array_equal(batches, np.arange(1, batches.size + 1)):
            self._price_decode(operator, lengths, repeats, batches, out)
            return
        memo = self.engine.pricing.decode_memo
        key = (shape_key(operator), self.drafts, lengths.tobytes(), repeats.tobytes())
        known = memo.get(key, np.zeros(0))
        if known.size < batches.size:
            more = np.zeros(batches.size - known.size)
            self._price_decode(operator, lengths, repeats, batches[known.size :], more)
            known = memo[key] = np.concatenate([known, more])
        out[:] = known[: batches.size]

    def _price_decode(
        self, operator: ops.SequenceOperator, lengths: np.ndarray, repeats: np.ndarray, batches: np.ndarray,
        out: np.ndarray,
    ) -> None:  # fmt: skip
        price: SequencePrice = self.engine.pricing.sequence(operator)
        sizes = batches.astype(np.float64)
        if self.drafts > 1 and self.engine.cost_model == "measured":
            # Drafts of a request share its cache: it is read once, only the arithmetic multiplies.
            price.decode(lengths, repeats, sizes, out, self.drafts)
        else:
            price.decode(lengths, repeats, sizes * self.drafts, out)

    def steps(self, shape: Shape, tokens: int, batch: int, only: np.ndarray | None = None) -> Steps:
        """Step latencies for aggregated serving with up to ``tokens`` context tokens and ``batch`` requests.

        ``only`` int64[n] are the batches whose decode attention is needed, None: all.
        """
        attention = self.decode_attention(shape.middle, batch) if only is None else np.zeros(batch + 1)
        if only is not None and only.size:
            attention[only] = self._summed_attention(np.array([shape.middle]), np.ones(1, np.int64), only)
        return Steps(
            context=self.tabulate("context", tokens + batch * self.drafts + 1, logits=False),
            context_logits=self.mixed_logits(shape, tokens, batch),
            decode=np.ascontiguousarray(self.tabulate("generation", batch * self.drafts + 1)[:: self.drafts]),
            decode_attention=attention,
        )

    def mixed_logits(self, shape: Shape, tokens: int, batch: int) -> np.ndarray:
        """float64[sequences + 1]: ms of the logits in a mixed step (reference: of one sequence)."""
        if self.engine.cost_model == "reference":
            return np.full(1, float(self.at_tokens("context", np.ones(1), logits=True).sum()))
        return self.tabulate("context", batch * self.drafts + tokens // shape.isl + 2, logits=True)

    def step_ms(self, shape: Shape, batches: np.ndarray) -> np.ndarray:
        """float64[n]: ms of one decode step of each batch size at the mean KV length."""
        return self.at_tokens("generation", batches * self.drafts).sum(axis=0) + self.step_attention(shape, batches)

    def step_attention(self, shape: Shape, batches: np.ndarray) -> np.ndarray:
        """float64[n]: ms of attention in one decode step of each batch size at the mean KV length."""
        once = np.ones(1, np.int64)
        return self._summed_attention(shape.middle * once, once, batches)

    def largest_mixed_batch(self, shape: Shape, most: int, limit_ms: float, prompts: int) -> int:
        """The largest batch up to ``most`` that some context budget may serve within ``limit_ms`` a step; 64 at least.

        A TPOT is a mean of decode steps and of mixed steps. A mixed step with up to ``prompts`` prompts decodes all but
        as many requests of the batch, and carries no fewer tokens than a decode step, or the prompts in their place.

        Schedulers that spread decodes over mixed steps know an exception: where prefill outlasts the answers, steps
        stay as small as the budget says, however many requests wait. A larger batch then serves what a smaller one
        serves, but for the rounding of its number of steps, which is less than one in osl; it is left out.
        """
        if most <= FEWEST_MIXED:
            return most
        limit, each = most, min(self.drafts, shape.isl - shape.prefix)
        mixed = rising(self.tabulate("context", (most - 1) * each + 1, logits=False))[::each]
        decode = rising(self.tabulate("generation", most * self.drafts + 1))[self.drafts :: self.drafts]

        def least_ms(batches: np.ndarray, attention: np.ndarray, fewer: np.ndarray) -> np.ndarray:
            return np.minimum(mixed[batches - 1] + fewer, decode[batches - 1] + attention)

        doubled = 2 ** np.arange(int(most).bit_length())
        attention = self.step_attention(shape, np.concatenate([doubled, np.maximum(doubled - prompts, 1)]))
        slow = np.flatnonzero(least_ms(doubled, *np.split(attention, 2)) > 2.0 * limit_ms)
        if slow.size:
            most = min(most, int(doubled[slow[0]]))  # as in largest_batch
        batches = np.arange(1, most + 1)
        attention = self.step_attention(shape, batches)
        fewer = rising(attention)[np.maximum(batches - prompts, 1) - 1]
        within = np.flatnonzero(least_ms(batches, attention, fewer) <= limit_ms)
        return min(max(int(within[-1]) + 1 if within.size else 0, FEWEST_MIXED), limit)

    def largest_batch(self, shape: Shape, most: int, limit_ms: float) -> int:
        """The largest batch up to ``most`` whose decode step takes at most ``limit_ms``, but no fewer than eight."""
        least = min(most, FEWEST_BATCHES)
        doubled = 2 ** np.arange(int(most).bit_length())
        slow = np.flatnonzero(self.step_ms(shape, doubled) > 2.0 * limit_ms)
        if slow.size:
            # Steps are not strictly monotone in the batch, but a factor of two at a doubling is beyond any dip.
            most = min(most, int(doubled[slow[0]]))
        within = np.flatnonzero(self.step_ms(shape, np.arange(1, most + 1)) <= limit_ms) if most else np.zeros(0, int)
        return max(int(within[-1]) + 1 if within.size else 0, least)

    def prefill_ms(self, shape: Shape, batches: np.ndarray) -> np.ndarray:
        """float64[n]: ms of a prefill step of each batch of whole prompts, their images encoded first."""
        tokens = batches * (shape.isl - shape.prefix)
        dense = self.at_tokens("context", tokens, logits=False).sum(axis=0)
        logits = self.at_tokens("context", batches, logits=True).sum(axis=0)
        pictured = count_images(self.setting).images > 0
        images = np.array([self.encoder_ms(int(batch)) for batch in batches]) if pictured else 0.0
        return images + dense + logits + self.prefill_attention(shape, int(batches.max()))[batches]

    def generation_ms(self, shape: Shape, batches: np.ndarray) -> np.ndarray:
        """float64[n]: ms of decoding osl - 1 tokens of each batch size."""
        dense = self.at_tokens("generation", batches * self.drafts).sum(axis=0) * max(shape.osl - 1, 0)
        return (dense + self.generation_attention(shape, batches)) / self.tokens_per_step

    def encoder_ms(self, requests: int = 1) -> float:
        """ms of the vision encoder for the images of some requests; 0 without images."""
        images = count_images(self.setting, requests)
        if not images.images:
            return 0.0
        dense = float(self.at_tokens("encoder", np.array([images.patches])).sum())
        return dense + sum(op.count * self.encode_once(op, requests) for op in self.sequences("encoder"))

    def answer_tokens(self, shape: Shape) -> int:
        """Tokens of an answer that count as throughput: the reference leaves out the first when aggregated."""
        return shape.osl if self.engine.cost_model == "measured" else shape.osl - 1

    def scheduler(self, shape: Shape, batch: int = TYPICAL_WAVE) -> Scheduler:
        """The backend's scheduling rules for this model; images are encoded in waves of ``batch`` requests."""
        measured = self.engine.cost_model == "measured"
        rules = self.engine.backend.scheduler(self.engine.model.num_layers, self.answer_tokens(shape), measured)
        return rules._replace(drafts=self.drafts, encoder_ms=self.encoder_ms(batch) / batch)

    def workload(self, shape: Shape, ttft_ms: float, tpot_ms: float) -> Workload:
        """The request shape and the targets as the kernels read them."""
        steps = 1.0 + (shape.osl - 1) / self.tokens_per_step
        return Workload(shape.isl, shape.osl, shape.prefix, ttft_ms, tpot_ms, steps)

    def memory(self, role: str, shape: Shape) -> Memory:
        """Memory of one GPU as a function of tokens and sequences; role agg, prefill or decode."""
        return self.footprint.memory(role, shape)


def rising(values: np.ndarray) -> np.ndarray:
    """float64[n]: at every place the least of what follows, the place included.

    >>> rising(np.array([3.0, 1.0, 4.0])).tolist()
    [1.0, 1.0, 4.0]
    """
    return np.minimum.accumulate(values[::-1])[::-1]


def resolve_blocks(engine: Engine, operators: Iterable[ops.Operator]) -> Iterator[ops.Operator]:
    """The operators that cost time; a block that was not measured as a whole is replaced by its parts."""
    for operator in operators:
        if isinstance(operator, ops.Resident):
            continue
        if not isinstance(operator, ops.Fallback):
            yield operator
            continue
        # A block's roofline leaves out its projections: without a measurement only its parts are complete.
        if engine.pricing.mode != "sol" and engine.pricing.is_measured(operator.primary):
            yield operator.primary
        else:
            yield from resolve_blocks(engine, operator.parts)


def sum_over(operators: list[ops.SequenceOperator], size: int, fill) -> np.ndarray:  # type: ignore[no-untyped-def]
    """float64[size]: the sum over operators of count times what ``fill`` writes."""
    total = np.zeros(size)
    part = np.zeros(size)
    for operator in operators:
        fill(operator, part)
        total += operator.count * part
    return total
