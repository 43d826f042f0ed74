"""Which worker layouts a model and a backend allow."""

from serveopt.errors import ConfigError
from serveopt.solver.engine import Engine
from serveopt.solver.layout import Layout


def layout_fault(engine: Engine, layout: Layout) -> tuple[str, str] | None:
    """(field, reason) why a layout cannot run, or None."""
    model = engine.model
    if model.num_heads % layout.tp:
        return "tp", f"{layout.tp} does not divide the {model.num_heads} attention heads of {model.name}"
    kv_heads = model.num_kv_heads or model.num_heads
    if max(kv_heads, layout.tp) % min(kv_heads, layout.tp):
        return "tp", f"{layout.tp} neither divides nor repeats the {kv_heads} KV heads of {model.name}"
    if model.intermediate_size % layout.tp:
        return "tp", f"{layout.tp} does not divide the feed-forward width {model.intermediate_size} of {model.name}"
    if layout.pp > model.num_layers:
        return "pp", f"{layout.pp} is more than the {model.num_layers} layers of {model.name}"
    if layout.cp > 1:
        return "cp", f"{layout.cp} is not allowed; context parallelism cannot be priced yet, use 1"
    if not engine.family.moe:
        for name in ("attn_dp", "moe_tp", "moe_ep"):
            if getattr(layout, name) > 1:
                return name, f"{getattr(layout, name)} is not allowed; {model.name} is dense, use 1"
    return None


def check_layout(engine: Engine, layout: Layout, pool: str = "") -> None:
    """Nothing; ConfigError naming the degree that cannot run."""
    fault = layout_fault(engine, layout)
    if fault:
        raise ConfigError(fault[1], field=f"{pool}{fault[0]}")
