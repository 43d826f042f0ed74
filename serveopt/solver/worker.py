"""One worker: a layout of an engine, its weights, its memory and its step latencies.

Token-only operators are summed to one curve per phase, attention is tabulated over batches; a search then needs a
handful of loads per candidate, and a single estimate reads the same curves.
"""

from dataclasses import dataclass, field

import numpy as np

from serveopt.kernels.attention import fill_decode_attention, fill_prefill_attention
from serveopt.kernels.curves import fill_curve_points, tabulate_sum
from serveopt.kernels.records import Memory, Scheduler, Steps
from serveopt.solver.backends import cache_budget
from serveopt.solver.engine import Engine
from serveopt.solver.families.table import Phases
from serveopt.solver.layout import Layout
from serveopt.solver.operators import descriptions as ops
from serveopt.solver.operators.curve import TokenCurve, join
from serveopt.solver.operators.pricing import shape_key

DECODE_STRIDE = 32  # decode steps priced once
BF16_BYTES = 2
FEWEST_BATCHES = 8  # looked at however slow a step is: what comes nearest to the target may have to be said
ATTENTION = (ops.ContextAttention, ops.GenerationAttention)
TP_STEPS = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True)
class Shape:
    """The request shape: prompt, answer, cached prefix; ``max_seq_len`` sizes the KV cache."""

    isl: int
    osl: int
    prefix: int = 0
    max_seq_len: int | None = None

    @property
    def middle(self) -> int:
        """KV length half-way through the answer."""
        return self.isl + self.osl // 2 + 1


@dataclass
class Worker:
    """One worker layout of an engine."""

    engine: Engine
    layout: Layout
    fraction: float | None = None  # free_gpu_memory_fraction
    phases: Phases = field(init=False)

    def __post_init__(self) -> None:
        self.phases = self.engine.family.build_phases(self.engine.model, self.engine.quant, self.layout)

    def curves(self, phase: str, logits: bool | None = None) -> list[tuple[ops.Operator, TokenCurve]]:
        """Token operators of a phase with their curves; ``logits`` selects only, or all but, the logits GEMM."""
        chosen = []
        for operator in getattr(self.phases, phase):
            is_logits = operator.label.endswith("logits_gemm")
            if isinstance(operator, ATTENTION) or (logits is not None and is_logits != logits):
                continue
            chosen.append((operator, self.engine.pricing.token_curve(operator)))
        return chosen

    def attention(self, phase: str) -> list[ops.AttentionOperator]:
        """Attention operators of a phase."""
        return [operator for operator in getattr(self.phases, phase) if isinstance(operator, ATTENTION)]

    def check_data(self) -> None:
        """Nothing; MissingTable names the first operator of either phase that was not measured."""
        for phase in ("context", "generation"):
            self.curves(phase)
            for operator in self.attention(phase):
                self.engine.pricing.attention_slice(operator)

    def tabulate(self, phase: str, size: int, logits: bool | None = None) -> np.ndarray:
        """float64[size]: ms of a phase's token operators at 0 .. size - 1 tokens."""
        out = np.zeros(size)
        tabulate_sum(join([curve for _, curve in self.curves(phase, logits)]), out)
        return out

    def at_tokens(self, phase: str, tokens: np.ndarray, logits: bool | None = None) -> np.ndarray:
        """float64[operators, points]: ms of every token operator at the given token counts."""
        curves = join([curve for _, curve in self.curves(phase, logits)])
        out = np.zeros((curves.offset.size - 1, tokens.size))
        fill_curve_points(curves, tokens.astype(np.float64), out)
        return out

    def prefill_attention(self, shape: Shape, prompts: int) -> np.ndarray:
        """float64[prompts + 1]: ms of prefill attention of 0 .. prompts whole prompts, all layers."""
        return sum_over(self.attention("context"), prompts + 1, lambda op, out: self._fill_prefill(op, shape, out))

    def decode_attention(self, length: int, batch: int) -> np.ndarray:
        """float64[batch + 1]: ms of attention in one decode step at KV length ``length``, all layers."""
        once = np.ones(1, np.int64)
        step = self._summed_attention(length * once, once, np.arange(1, batch + 1))
        return np.concatenate([np.zeros(1), step])

    def generation_attention(self, shape: Shape, batches: np.ndarray) -> np.ndarray:
        """float64[n]: ms of attention over a whole generation for each batch size."""
        starts = np.arange(0, max(shape.osl - 1, 0), DECODE_STRIDE)
        repeats = np.minimum(DECODE_STRIDE, shape.osl - 1 - starts)
        return self._summed_attention(shape.isl + starts + 1, repeats, batches)

    def _summed_attention(self, lengths: np.ndarray, repeats: np.ndarray, batches: np.ndarray) -> np.ndarray:
        """float64[n]: ms of decode attention summed over lengths, all layers.

        Layouts that differ in pipeline depth only ask for the same numbers: batches 1 .. n are kept per operator.
        """
        return sum_over(
            self.attention("generation"),
            batches.size,
            lambda op, out: self._fill_decode(op, lengths, repeats, batches, out),
        )

    def _fill_prefill(self, operator: ops.AttentionOperator, shape: Shape, out: np.ndarray) -> None:
        measured = self.engine.pricing.attention_slice(operator)
        new_tokens = shape.isl - shape.prefix
        fill_prefill_attention(measured.grid, measured.roofline, float(operator.heads), new_tokens, shape.prefix, out)
        out[1:] += measured.extra_ms

    def _fill_decode(
        self, operator: ops.AttentionOperator, lengths: np.ndarray, repeats: np.ndarray, batches: np.ndarray,
        out: np.ndarray,
    ) -> None:  # fmt: skip
        if not np.array_equal(batches, np.arange(1, batches.size + 1)):
            self._price_decode(operator, lengths, repeats, batches, out)
            return
        memo = self.engine.pricing.decode_memo
        key = (shape_key(operator), lengths.tobytes(), repeats.tobytes())
        known = memo.get(key, np.zeros(0))
        if known.size < batches.size:
            more = np.zeros(batches.size - known.size)
            self._price_decode(operator, lengths, repeats, batches[known.size :], more)
            known = memo[key] = np.concatenate([known, more])
        out[:] = known[: batches.size]

    def _price_decode(
        self, operator: ops.AttentionOperator, lengths: np.ndarray, repeats: np.ndarray, batches: np.ndarray,
        out: np.ndarray,
    ) -> None:  # fmt: skip
        measured = self.engine.pricing.attention_slice(operator)
        fill_decode_attention(
            measured.grid, measured.roofline, float(operator.heads), lengths, repeats, batches.astype(np.float64), out
        )

    def steps(self, shape: Shape, tokens: int, batch: int, only: np.ndarray | None = None) -> Steps:
        """Step latencies for aggregated serving with up to ``tokens`` context tokens and ``batch`` requests.

        ``only`` int64[n] are the batches whose decode attention is needed, None: all.
        """
        attention = self.decode_attention(shape.middle, batch) if only is None else np.zeros(batch + 1)
        if only is not None and only.size:
            attention[only] = self._summed_attention(np.array([shape.middle]), np.ones(1, np.int64), only)
        return Steps(
            context=self.tabulate("context", tokens + batch + 1, logits=False),
            context_logits=float(self.at_tokens("context", np.ones(1), logits=True).sum()),
            decode=self.tabulate("generation", batch + 1),
            decode_attention=attention,
        )

    def step_ms(self, shape: Shape, batches: np.ndarray) -> np.ndarray:
        """float64[n]: ms of one decode step of each batch size at the mean KV length."""
        once = np.ones(1, np.int64)
        attention = self._summed_attention(shape.middle * once, once, batches)
        return self.at_tokens("generation", batches).sum(axis=0) + attention

    def largest_batch(self, shape: Shape, most: int, limit_ms: float) -> int:
        """The largest batch up to ``most`` whose decode step takes at most ``limit_ms``, but no fewer than eight."""
        doubled = 2 ** np.arange(int(most).bit_length())
        slow = np.flatnonzero(self.step_ms(shape, doubled) > 2.0 * limit_ms)
        if slow.size:
            # Steps are not strictly monotone in the batch, but a factor of two at a doubling is beyond any dip.
            most = min(most, int(doubled[slow[0]]))
        within = np.flatnonzero(self.step_ms(shape, np.arange(1, most + 1)) <= limit_ms) if most else np.zeros(0, int)
        return max(int(within[-1]) + 1 if within.size else 0, min(most, FEWEST_BATCHES))

    def prefill_ms(self, shape: Shape, batches: np.ndarray) -> np.ndarray:
        """float64[n]: ms of a prefill step of each batch of whole prompts."""
        tokens = batches * (shape.isl - shape.prefix)
        dense = self.at_tokens("context", tokens, logits=False).sum(axis=0)
        logits = self.at_tokens("context", batches, logits=True).sum(axis=0)
        return dense + logits + self.prefill_attention(shape, int(batches.max()))[batches]

    def generation_ms(self, shape: Shape, batches: np.ndarray) -> np.ndarray:
        """float64[n]: ms of all osl - 1 decode steps of each batch size."""
        dense = self.at_tokens("generation", batches).sum(axis=0) * max(shape.osl - 1, 0)
        return dense + self.generation_attention(shape, batches)

    def answer_tokens(self, shape: Shape) -> int:
        """Tokens of an answer that count as throughput: the reference leaves out the first when aggregated."""
        return shape.osl if self.engine.cost_model == "measured" else shape.osl - 1

    def scheduler(self, shape: Shape) -> Scheduler:
        """The backend's scheduling rules for this model."""
        measured = self.engine.cost_model == "measured"
        return self.engine.backend.scheduler(self.engine.model.num_layers, self.answer_tokens(shape), measured)

    @property
    def weight_bytes(self) -> float:
        """Bytes of weights on one GPU."""
        return sum(resident_bytes(self.engine, operator) for operator in self.phases.context) / self.layout.pp

    @property
    def communication_bytes(self) -> float:
        """Bytes of communication buffers on one GPU."""
        return float(self.engine.system.nccl_memory_bytes(min(self.layout.tp, TP_STEPS[-1])))

    @property
    def other_bytes(self) -> float:
        """Bytes that the runtime holds on one GPU."""
        return self.engine.system.other_bytes * self.engine.backend.other_factor

    def memory(self, role: str, shape: Shape) -> Memory:
        """Memory of one GPU as a function of tokens and sequences; role agg, prefill or decode."""
        engine = self.engine
        backend = engine.backend
        factor = backend.activation_factor
        per_token = 2.0 * engine.model.num_heads * engine.model.head_dim * self.activation_width * factor
        reserved = float(backend.reserved_tokens) if role == "agg" else 0.0
        floor = backend.activation_floor_bytes * factor
        if reserved and engine.cost_model == "reference":
            # The reference reserves for its default token limit and never for more, whatever the step holds.
            floor, per_token, reserved = max(floor, per_token * reserved), 0.0, 0.0
        budget = cache_budget(backend.name, engine.version, engine.system, self.layout, role, self.fraction)
        longest = shape.isl + 1 if role == "prefill" else shape.max_seq_len or shape.isl + shape.osl
        return Memory(
            fixed=self.weight_bytes + self.communication_bytes + self.other_bytes,
            per_token=per_token,
            floor=floor,
            tokens_floor=reserved,
            per_sequence=float(engine.family.kv_bytes(engine.model, engine.quant, self.layout, longest)),
            capacity=float(engine.system.mem_capacity_bytes),
            share=budget.share,
            taken=budget.taken,
        )

    @property
    def activation_width(self) -> float:
        """Activation workspace per token and attention width, in units of 2 bytes."""
        widths = self.engine.family.activation_widths[self.engine.backend.name]
        return widths[max(i for i, tp in enumerate(TP_STEPS) if tp <= self.layout.tp)]


def sum_over(operators: list[ops.AttentionOperator], size: int, fill) -> np.ndarray:  # type: ignore[no-untyped-def]
    """float64[size]: the sum over operators of count times what ``fill`` writes."""
    total = np.zeros(size)
    part = np.zeros(size)
    for operator in operators:
        fill(operator, part)
        total += operator.count * part
    return total


def resident_bytes(engine: Engine, operator: ops.Operator) -> float:
    """Bytes of weights of an operator on one GPU, all its layers."""
    from serveopt.perfdata.quant_modes import GEMM_MODES

    if isinstance(operator, ops.Gemm):
        return operator.n * operator.k * GEMM_MODES[operator.quant].bytes_per_element * operator.count
    if isinstance(operator, ops.Embedding):
        return operator.rows * operator.hidden * BF16_BYTES * operator.count
    return 0.0


NO_ROOM = Memory(
    fixed=1.0, per_token=0.0, floor=0.0, tokens_floor=0.0, per_sequence=1.0, capacity=0.0, share=0.0, taken=0.0
)  # fits nothing


def activation_bytes(memory: Memory, tokens: np.ndarray | float) -> np.ndarray:
    """Bytes of activations on one GPU with ``tokens`` in flight (as kernels.aggregate.check_memory)."""
    return np.maximum(memory.per_token * np.maximum(tokens, memory.tokens_floor), memory.floor)


def most_sequences(memory: Memory) -> int:
    """The most sequences whose KV cache can fit with the smallest activations; 0 when none does."""
    taken = memory.fixed + float(activation_bytes(memory, 1.0))
    room = min(memory.capacity - taken, memory.share * memory.capacity - memory.taken * taken)
    return max(0, int(room // memory.per_sequence)) if memory.per_sequence > 0 else 0
