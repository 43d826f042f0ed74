"""What differs between serving frameworks, one row each: scheduling, memory accounting, pool rules.

Source: specs/search_model.md 2 (memory) and 4.2 (scheduling).
"""

from dataclasses import dataclass

from serveopt.kernels.records import Scheduler
from serveopt.perfdata.systems import SystemSpec
from serveopt.solver.layout import Layout

MIB = 1 << 20
GIB = 1 << 30
TRTLLM_RESERVED_TOKENS = 8192  # its default max_num_tokens: activations are set aside for that many
VLLM_OLDER_SHARE = ("0.14", "0.19")


@dataclass(frozen=True, slots=True)
class Backend:
    """Rules of one framework."""

    name: str
    spread_decode: bool
    mixed_steps_hidden: int
    overhead_ms_per_layer: float
    log_queue: bool
    capped: bool
    activation_floor_bytes: float
    activation_factor: float
    other_factor: float
    reserved_tokens: int  # 0: activations follow the tokens of the step
    equal_tp_pools: bool  # prefill and decode workers must use the same tp

    def scheduler(self, layers: int, answer_tokens: int, strict_chunks: bool) -> Scheduler:
        """The rules as the kernels read them."""
        return Scheduler(
            spread_decode=int(self.spread_decode),
            mixed_steps_hidden=self.mixed_steps_hidden,
            overhead_ms=self.overhead_ms_per_layer * layers,
            log_queue=int(self.log_queue),
            capped=int(self.capped),
            answer_tokens=float(answer_tokens),
            strict_chunks=int(strict_chunks),
            drafts=1,
            encoder_ms=0.0,
        )


TRTLLM = Backend("trtllm", True, 3, 0.0, False, False, 70 * MIB, 1.0, 1.0, TRTLLM_RESERVED_TOKENS, False)
SGLANG = Backend("sglang", True, 3, 0.0, False, False, 90 * MIB, 1.15, 1.2, 0, True)
VLLM = Backend("vllm", False, 0, 0.8, True, True, 70 * MIB, 1.0, 1.0, 0, False)
BACKENDS = {backend.name: backend for backend in (TRTLLM, SGLANG, VLLM)}


@dataclass(frozen=True, slots=True)
class CacheBudget:
    """KV cache may hold share * capacity - taken * (everything else), in bytes."""

    share: float
    taken: float


def cache_budget(
    backend: str, version: str, system: SystemSpec, layout: Layout, role: str, fraction: float | None
) -> CacheBudget:
    """How much of a GPU the backend gives to its KV cache; ``fraction`` overrides its default."""
    if backend == "trtllm":
        kept = (0.9 if fraction is None else fraction) * (1 - 0.015) * (1 - 0.02)
        return CacheBudget(kept, kept)
    if fraction is None:
        fraction = vllm_fraction(version) if backend == "vllm" else sglang_fraction(system, layout, role)
    return CacheBudget(fraction * (1 - 0.02), 1.0)


def vllm_fraction(version: str) -> float:
    """vllm's default gpu_memory_utilization.

    >>> vllm_fraction("0.24.0"), vllm_fraction("0.19.0")
    (0.92, 0.9)
    """
    return 0.90 if version.startswith(VLLM_OLDER_SHARE) else 0.92


def sglang_fraction(system: SystemSpec, layout: Layout, role: str) -> float:
    """sglang's mem_fraction_static: a constant when aggregated, else derived from memory and graph sizes."""
    if role == "agg":
        return 0.88
    capacity_mib = system.mem_capacity_bytes / MIB
    wide = layout.tp >= 4
    tiers = (
        (20 * 1024, 2048, 8),
        (35 * 1024, 2048, 80 if wide else 24),
        (60 * 1024, 4096, 160 if wide else 32),
        (160 * 1024, 8192, 512 if wide else 256),
    )
    chunk, graph_batch = 16384, 512
    for limit, tier_chunk, tier_batch in tiers:
        if capacity_mib < limit:
            chunk, graph_batch = tier_chunk, tier_batch
            break
    reserved = 512 + 1.5 * chunk + layout.tp * layout.pp / 8 * 1024 + 2 * graph_batch
    if layout.attn_dp > 1:
        reserved += 3 * graph_batch * layout.attn_dp
        reserved += 1.5 * graph_batch * layout.attn_dp if graph_batch > 300 else 0
    if capacity_mib > 60 * 1024:
        reserved = max(reserved, 10240)
    return round((capacity_mib - reserved) / capacity_mib, 3)
