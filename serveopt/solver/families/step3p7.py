"""Step-3.5 and Step-3.7: full and windowed attention, dense layers first, experts with a shared one behind.

Windowed layers may have heads of their own (``attention_other_setting``), and attention a gate per head.
Source: specs/search_model.md 1.2 and 1.5 (family STEP3P7).
"""

from functools import partial

from serveopt.solver.families.blocks import BF16, Heads, block_fault, part_quant, step_scale, token_share
from serveopt.solver.families.layer_groups import Group, build_phases, group_kv_bytes, group_layers, shared_expert
from serveopt.solver.families.table import WIDE, Family, Setting
from serveopt.solver.operators import descriptions as ops


def layer_groups(setting: Setting) -> list[Group]:
    """The layers of a model by attention and feed-forward; draft layers at the end of the list do not count."""
    model = setting.model
    facts, layers = model.extra, model.num_layers
    kinds = facts.get("layer_types", ("full_attention",) * layers)[:layers]
    first = facts.get("first_k_dense_replace", 0)
    listed = expert_layers(facts.get("moe_layers_enum", ()))
    pairs = (
        (kind == "full_attention", index in listed if listed else index >= first) for index, kind in enumerate(kinds)
    )
    other = facts.get("attention_other_setting", {})
    dim = other.get("head_dim", model.head_dim)
    windowed = Heads(
        other.get("num_attention_heads", model.num_heads), other.get("num_attention_groups", model.num_kv_heads),
        dim, dim, facts.get("sliding_window", 0),
    )  # fmt: skip
    full = Heads(model.num_heads, model.num_kv_heads, model.head_dim, model.head_dim)
    return group_layers(pairs, full, windowed, model.intermediate_size)


def expert_layers(listed: str | tuple[int, ...]) -> frozenset[int]:
    """Indices of expert layers from a list or from its text "3,4,5"."""
    numbers = listed.split(",") if isinstance(listed, str) else listed
    return frozenset(int(number) for number in numbers if str(number).strip())


def add_parts(setting: Setting, phase: str, groups: list[Group]) -> list[ops.Operator]:
    """The gate per head, and the shared expert of expert layers."""
    facts = setting.model.extra
    gated = groups if facts.get("use_head_wise_attn_gate", False) else []
    gates = [one for group in gated for one in head_gate(setting, phase, group)]
    return [*gates, *shared_expert(setting, phase, groups, facts.get("share_expert_dim", 0))]


def head_gate(setting: Setting, phase: str, group: Group) -> list[ops.Operator]:
    """One gate value per head and its product with the attention output."""
    prefix, count = f"{phase}_{group.name}", group.layers * step_scale(setting, phase)
    share, own = token_share(setting, phase), group.heads.heads // setting.layout.tp
    width = own * group.heads.v_dim
    return [
        ops.Gemm(f"{prefix}_head_gate_gemm", count, own, setting.model.hidden_size, part_quant(setting, "attention"),
                 share=share),
        ops.MemoryMove(f"{prefix}_head_gate_mul", count, 2 * width * BF16, share),
    ]  # fmt: skip


STEP3P7 = Family(
    name="STEP3P7",
    build_phases=partial(build_phases, groups=layer_groups, extra=add_parts),
    kv_bytes=partial(group_kv_bytes, groups=layer_groups),
    activation_widths=WIDE,
    dispatch_workspace="hidden",
    context_parallel=True,
    fault=block_fault,
)
