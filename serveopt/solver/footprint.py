"""What a worker keeps in the memory of one GPU.

    weights / pp + activations (tokens in flight) + KV cache and states (sequences) + communication buffers + runtime

Source: specs/search_model.md section 2; where it differs: ARCHITECTURE.md, "Where we differ".
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from serveopt.kernels.records import Memory
from serveopt.solver.backends import cache_budget
from serveopt.solver.engine import Engine
from serveopt.solver.families.table import Phases, Setting
from serveopt.solver.images import encoder_bytes
from serveopt.solver.operators.weights import resident_bytes
from serveopt.solver.shape import Shape

TP_STEPS = (1, 2, 4, 8)
WORKSPACE_BLOCK = 128  # tokens are dispatched to experts in blocks of so many, with a float32 scale each


@dataclass(frozen=True)
class Footprint:
    """Memory of one GPU of a worker layout; ``fraction`` is free_gpu_memory_fraction."""

    engine: Engine
    setting: Setting
    listed: Phases
    fraction: float | None = None

    @cached_property
    def weight_bytes(self) -> float:
        """Bytes of weights on one GPU; the draft layer of speculation counts where physics does."""
        decoder = sum(map(resident_bytes, self.listed.context)) * self.draft_layers / self.setting.layout.pp
        return decoder + sum(map(resident_bytes, self.listed.encoder))

    @property
    def draft_layers(self) -> float:
        """Resident layers, draft layer included, over the model's own."""
        layers, family = self.engine.model.num_layers, self.engine.family
        added = self.setting.nextn and not family.lists_drafts and self.engine.cost_model == "measured"
        return (layers + 1) / layers if added else 1.0

    @property
    def communication_bytes(self) -> float:
        """Bytes of communication buffers on one GPU: of the widest group that it exchanges with."""
        layout = self.setting.layout
        widest = max(layout.tp, layout.moe_tp * layout.moe_ep, layout.cp)
        return float(self.engine.system.nccl_memory_bytes(max(step for step in TP_STEPS if step <= widest)))

    def encoder_bytes(self, role: str) -> float:
        """Bytes of encoder activations on one GPU that encodes."""
        return encoder_bytes(self.setting, 1) if role != "decode" else 0.0

    @property
    def other_bytes(self) -> float:
        """Bytes that the runtime holds on one GPU."""
        return self.engine.system.other_bytes * self.engine.backend.other_factor

    def memory(self, role: str, shape: Shape) -> Memory:
        """Memory of one GPU as a function of tokens and sequences; role agg, prefill or decode."""
        engine, backend = self.engine, self.engine.backend
        factor = backend.activation_factor
        per_token = (2.0 * self.attention_width * self.activation_width + self.workspace_per_token) * factor
        reserved = float(backend.reserved_tokens) if role == "agg" else 0.0
        floor = backend.activation_floor_bytes * factor
        if reserved and engine.cost_model == "reference":
            # The reference reserves for its default token limit and never for more, whatever the step holds.
            floor, per_token, reserved = max(floor, per_token * reserved), 0.0, 0.0
        budget = cache_budget(backend.name, engine.version, engine.system, self.setting.layout, role, self.fraction)
        longest = shape.isl + 1 if role == "prefill" else shape.max_seq_len or shape.isl + shape.osl
        return Memory(
            fixed=self.weight_bytes + self.communication_bytes + self.other_bytes + self.encoder_bytes(role),
            per_token=per_token,
            floor=floor,
            tokens_floor=reserved,
            per_sequence=float(engine.family.kv_bytes(self.setting, longest)) * self.draft_layers,
            capacity=float(engine.system.mem_capacity_bytes),
            share=budget.share,
            taken=budget.taken,
            drafts=float(self.setting.nextn + 1),
        )

    @property
    def attention_width(self) -> int:
        """Query heads of the whole model times the head size."""
        return self.engine.model.num_heads * self.engine.model.head_dim

    @property
    def workspace_per_token(self) -> float:
        """Bytes per token in flight of the buffers from which tokens are dispatched to experts."""
        kind, model, layout = self.engine.family.dispatch_workspace, self.engine.model, self.setting.layout
        if not kind or not model.num_experts:
            return 0.0
        hidden = kind == "hidden" or self.engine.backend.name == "sglang"
        width = model.hidden_size if hidden else self.attention_width
        load = layout.attn_dp * model.num_experts * model.experts_per_token / layout.moe_ep
        return width * load / WORKSPACE_BLOCK * 4.0

    @property
    def activation_width(self) -> float:
        """Activation workspace per token and attention width, in units of 2 bytes."""
        widths = self.engine.family.activation_widths[self.engine.backend.name]
        return widths[max(i for i, tp in enumerate(TP_STEPS) if tp <= self.setting.layout.tp)]


NO_ROOM = Memory(
    fixed=1.0,
    per_token=0.0,
    floor=0.0,
    tokens_floor=0.0,
    per_sequence=1.0,
    capacity=0.0,
    share=0.0,
    taken=0.0,
    drafts=1.0,
)  # fits nothing


def activation_bytes(memory: Memory, tokens: np.ndarray | float) -> np.ndarray:
    """Bytes of activations on one GPU with ``tokens`` in flight (as kernels.aggregate.check_memory)."""
    return np.maximum(memory.per_token * np.maximum(tokens, memory.tokens_floor), memory.floor)


def most_sequences(memory: Memory) -> int:
    """The most sequences whose KV cache can fit with the smallest activations; 0 when none does."""
    taken = memory.fixed + float(activation_bytes(memory, 1.0))
    room = min(memory.capacity - taken, memory.share * memory.capacity - memory.taken * taken)
    return max(0, int(room // memory.per_sequence)) if memory.per_sequence > 0 else 0
