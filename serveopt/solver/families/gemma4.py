"""Gemma-4: windowed and full attention with heads of their own, a dense feed-forward part on every layer, and in the
mixed models routed experts behind it.

Full layers may use their keys as values, which saves a projection; both are cached all the same. A model without
experts splits over tp alone. Source: specs/search_model.md 1.2, 1.5 and 2.3 (family GEMMA4MIX).
"""

from serveopt.solver.families.blocks import (
    Heads,
    attention_core,
    embedding,
    gated_ffn,
    model_heads,
    norm,
    output,
    part_quant,
    routed_experts,
    step_scale,
    token_share,
)
from serveopt.solver.families.layer_groups import ALPHA, Group, group_kv_bytes
from serveopt.solver.families.table import WIDE, Family, Phases, Setting
from serveopt.solver.operators import descriptions as ops

LARGEST_FREE_ROUTER = 128  # fewer experts: choosing them costs nothing worth an operator


def layer_groups(setting: Setting) -> list[Group]:
    """Windowed layers, then full ones."""
    model = setting.model
    facts, layers = model.extra, model.num_layers
    full = sum(kind == "full_attention" for kind in facts.get("layer_types", ())[:layers])
    dim = facts.get("global_head_dim", model.head_dim)
    heads = Heads(
        model.num_heads, facts.get("num_global_key_value_heads", 0) or model.num_kv_heads, dim, dim,
        shared_kv=facts.get("attention_k_eq_v", False),
    )  # fmt: skip
    rows = (
        Group("swa", layers - full, model_heads(setting, facts.get("sliding_window", 0))),
        Group("global", full, heads),
    )
    return [row for row in rows if row.layers]


def build_phases(setting: Setting) -> Phases:
    """Operators of a prefill and a decode step on one GPU."""
    return Phases(
        context=(*build_step(setting, ops.CONTEXT),),
        generation=(*build_step(setting, ops.GENERATION),),
    )


def build_step(setting: Setting, phase: str) -> list[ops.Operator]:
    """Operators of one step, group by group."""
    layers = [one for group in layer_groups(setting) for one in group_step(setting, phase, group)]
    return [*embedding(setting, phase, sharded=False), *layers, *output(setting, phase)]


def group_step(setting: Setting, phase: str, group: Group) -> list[ops.Operator]:
    """Operators of the layers of one group; without experts the layer has all-reduces of its own."""
    model, tp, share = setting.model, setting.layout.tp, token_share(setting, phase)
    prefix, count, hidden = f"{phase}_{group.name}", group.layers * step_scale(setting, phase), model.hidden_size
    names = (f"{prefix}_shared_mlp_gate_up_gemm", f"{prefix}_shared_mlp_act", f"{prefix}_shared_mlp_down_gemm")
    sizes = (2 * model.intermediate_size // tp, hidden, model.intermediate_size // tp)
    core = attention_core(prefix, setting, phase, part_quant(setting, "attention"), (count, group.heads))
    dense = gated_ffn(names, count, sizes, part_quant(setting, "dense_mlp"), share, low_precision=True)
    first = [norm(f"{prefix}_attn_norm", count, hidden, share), *core]
    second = [norm(f"{prefix}_ffn_norm", count, hidden, share), *dense]
    if not model.num_experts:
        attention_sum = ops.AllReduce(f"{prefix}_attn_ar", count, hidden, tp, share)
        return [*first, attention_sum, *second, ops.AllReduce(f"{prefix}_ffn_ar", count, hidden, tp, share)]
    routed = routed_experts(prefix, setting, count, phase, ALPHA)
    return [*first, *second, *(routed if model.num_experts >= LARGEST_FREE_ROUTER else routed[1:])]


def kv_bytes(setting: Setting, length: int) -> float:
    """Bytes on one GPU of keys and values of one sequence."""
    return group_kv_bytes(setting, length, layer_groups)


def fault(setting: Setting) -> tuple[str, str] | None:
    """A model without experts cannot spread them."""
    if setting.model.num_experts or setting.layout.moe_ep == 1:
        return None
    return "moe_ep", f"{setting.model.name} has no experts to spread over {setting.layout.moe_ep} GPUs"


GEMMA4MIX = Family(
    name="GEMMA4MIX",
    build_phases=build_phases,
    kv_bytes=kv_bytes,
    activation_widths=WIDE,
    dispatch_workspace="hidden",
    context_parallel=True,
    fault=fault,
)
