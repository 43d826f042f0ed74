"""Which worker layouts a model and a backend allow: one small rule per function, in the order they are told.

Source: specs/search_model.md 1.4 (validity), 1.8 and 7.1.
"""

from collections.abc import Callable

from serveopt.errors import ConfigError, MissingTable
from serveopt.perfdata.model_config import ModelConfig
from serveopt.solver.engine import Engine
from serveopt.solver.layout import Layout

Fault = tuple[str, str] | None  # (field, reason)
Rule = Callable[[Engine, Layout], Fault]

LATENT_FAMILIES = frozenset(("DEEPSEEK", "KIMIK25", "DEEPSEEKV32", "DEEPSEEKV4", "KIMIK3"))  # no KV heads to split
DENSE_WIDTHS = ("intermediate_size_mlp", "dense_intermediate_size")  # where experts have the plain field
CONTEXT_PARALLEL_BACKENDS = ("sglang",)
BLACKWELL = 100


def heads(engine: Engine, layout: Layout) -> Fault:
    """tp splits the attention heads."""
    model = engine.model
    if model.num_heads % layout.tp:
        return "tp", f"{layout.tp} does not divide the {model.num_heads} attention heads of {model.name}"
    return None


def kv_heads(engine: Engine, layout: Layout) -> Fault:
    """tp splits or repeats the KV heads."""
    model = engine.model
    count = model.num_kv_heads or model.num_heads
    if model.family not in LATENT_FAMILIES and max(count, layout.tp) % min(count, layout.tp):
        return "tp", f"{layout.tp} neither divides nor repeats the {count} KV heads of {model.name}"
    return None


def dense_layers(engine: Engine, layout: Layout) -> Fault:
    """tp splits the dense feed-forward layers."""
    width = dense_width(engine.model)
    if width % layout.tp:
        return "tp", f"{layout.tp} does not divide the feed-forward width {width} of {engine.model.name}"
    return None


def depth(engine: Engine, layout: Layout) -> Fault:
    """Every pipeline stage has a layer."""
    model = engine.model
    if layout.pp > model.num_layers:
        return "pp", f"{layout.pp} is more than the {model.num_layers} layers of {model.name}"
    return None


def context_parallel(engine: Engine, layout: Layout) -> Fault:
    """Context parallel ranks hold whole layers, under a backend and for a family that know them."""
    if layout.cp == 1:
        return None
    if engine.backend.name not in CONTEXT_PARALLEL_BACKENDS:
        return "cp", f"{layout.cp} is not allowed; {engine.backend.name} has no context parallelism, use 1"
    if not engine.family.context_parallel:
        return "cp", f"{layout.cp} is not allowed; {engine.model.name} has no context parallelism, use 1"
    if layout.tp > 1 or layout.attn_dp > 1:
        return "cp", f"{layout.cp} is not allowed beside tp {layout.tp} and attn_dp {layout.attn_dp}; use 1 for both"
    return None


def dense_degrees(engine: Engine, layout: Layout) -> Fault:
    """Dense models have neither experts to split nor ranks that meet in them."""
    for name in ("attn_dp", "moe_tp", "moe_ep"):
        if not engine.model.is_moe and getattr(layout, name) > 1:
            return name, f"{getattr(layout, name)} is not allowed; {engine.model.name} is dense, use 1"
    return None


def expert_gpus(engine: Engine, layout: Layout) -> Fault:
    """Attention and experts lie on the same GPUs."""
    attention, experts = layout.tp * layout.attn_dp * layout.cp, layout.moe_tp * layout.moe_ep
    if not engine.model.is_moe or attention == experts:
        return None
    return "moe_ep", (
        f"experts on moe_tp {layout.moe_tp} x moe_ep {layout.moe_ep} GPUs do not match attention on "
        f"tp {layout.tp} x attn_dp {layout.attn_dp} x cp {layout.cp} GPUs; their product must be {attention}"
    )


def expert_split(engine: Engine, layout: Layout) -> Fault:
    """moe_ep splits the experts (with the copies of a load balancer), moe_tp their width."""
    model = engine.model
    if not model.is_moe or not model.num_experts:
        return None
    if layout.moe_ep > model.num_experts or model.num_experts % layout.moe_ep:
        return "moe_ep", f"{layout.moe_ep} does not divide the {model.num_experts} experts of {model.name}"
    slots = engine.query.eplb_slots or model.num_experts
    if slots < model.num_experts or slots % layout.moe_ep:
        return "eplb_slots", (
            f"{slots} is not allowed; give a multiple of moe_ep ({layout.moe_ep}) of at least {model.num_experts}"
        )
    if model.moe_intermediate_size % layout.moe_tp:
        return "moe_tp", f"{layout.moe_tp} does not divide the expert width {model.moe_intermediate_size}"
    return None


def is_engine_rule(engine: Engine) -> bool:
    """False for single points by the reference's rules: it leaves such layouts out of searches, but prices them."""
    return engine.query.searching or engine.cost_model == "measured"


def trtllm_attention(engine: Engine, layout: Layout) -> Fault:
    """trtllm splits attention over heads or over requests."""
    if is_engine_rule(engine) and engine.backend.name == "trtllm" and layout.attn_dp > 1 and layout.tp > 1:
        return "attn_dp", f"{layout.attn_dp} is not allowed; trtllm combines it with tp 1 only, not {layout.tp}"
    return None


def vllm_experts(engine: Engine, layout: Layout) -> Fault:
    """vllm splits experts by number or by width."""
    if is_engine_rule(engine) and engine.backend.name == "vllm" and layout.moe_tp > 1 and layout.moe_ep > 1:
        return "moe_tp", f"{layout.moe_tp} is not allowed; vllm combines it with moe_ep 1 only, not {layout.moe_ep}"
    return None


def fused_experts(engine: Engine, layout: Layout) -> Fault:
    """The fused expert kernel is sglang's, for Blackwell and whole experts."""
    if engine.query.moe_backend is None:
        return None
    if engine.backend.name != "sglang" or engine.system.sm_version < BLACKWELL:
        return "moe_backend", f"{engine.query.moe_backend} is not allowed; it needs sglang on a Blackwell GPU"
    if layout.moe_tp > 1:
        return "moe_tp", f"{layout.moe_tp} is not allowed; {engine.query.moe_backend} takes whole experts, use 1"
    return None


def family_rule(engine: Engine, layout: Layout) -> Fault:
    """What the family itself asks for."""
    return engine.family.fault(engine.setting(layout))


RULES: dict[str, Rule] = {
    "heads": heads,
    "kv_heads": kv_heads,
    "dense_layers": dense_layers,
    "depth": depth,
    "dense_degrees": dense_degrees,
    "context_parallel": context_parallel,
    "expert_gpus": expert_gpus,
    "expert_split": expert_split,
    "trtllm_attention": trtllm_attention,
    "vllm_experts": vllm_experts,
    "fused_experts": fused_experts,
    "family": family_rule,
}


def layout_fault(engine: Engine, layout: Layout) -> Fault:
    """(field, reason) why a layout cannot run, or None."""
    return next((fault for rule in RULES.values() if (fault := rule(engine, layout))), None)


def check_exchange(engine: Engine, layout: Layout) -> None:
    """Nothing; MissingTable where experts span nodes and no exchange library was measured at that width."""
    across = layout.moe_ep > engine.system.gpus_per_node
    if not across or engine.query.database_mode != "silicon" or engine.setting(layout).wide_ep is not None:
        return
    model, place = engine.model, f"{engine.backend.name} on {engine.system.name}"
    raise MissingTable(
        "moe_a2a",
        message=f"no exchange between {layout.moe_ep} expert ranks was measured for {model.name} with {place}",
    )


def check_layout(engine: Engine, layout: Layout, pool: str = "") -> None:
    """Nothing; ConfigError naming the degree that cannot run, MissingTable where its exchange was not measured."""
    fault = layout_fault(engine, layout)
    if fault:
        own = f"{pool}{fault[0]}" if fault[0] in Layout._fields else fault[0]
        raise ConfigError(fault[1], field=own)
    check_exchange(engine, layout)


def dense_width(model: ModelConfig) -> int:
    """Width of the dense feed-forward layers, 0 where a model has none."""
    if model.is_moe and not has_dense_layers(model):
        return 0
    wide = (int(model.extra.get(name) or 0) for name in DENSE_WIDTHS)
    return next((width for width in wide if width), model.intermediate_size)


def has_dense_layers(model: ModelConfig) -> bool:
    """True if a model with experts also has dense feed-forward layers."""
    extra = model.extra
    frequency = extra.get("moe_layer_freq")
    return (
        int(extra.get("first_k_dense_replace") or 0) > 0
        or (isinstance(frequency, tuple) and 0 in frequency)
        or int(extra.get("interleave_moe_layer_step") or 1) > 1
        or "-" in model.layer_pattern
        or model.family == "GEMMA4MIX"
    )
