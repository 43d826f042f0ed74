"""Hybrid attention with experts: MiMo-V2-Flash and Llama-4.

MiMo says per layer whether attention is windowed (1) or full (0), with heads of their own for each and values
narrower than keys. Llama-4 attends within chunks except on every fourth layer, has experts on every n-th layer, and a
shared expert beside them. Source: specs/search_model.md 1.2 and 1.5 (family HYBRIDMOE); which layers are full from the
models' own published code.
"""

from functools import partial

from serveopt.perfdata.model_config import ModelConfig
from serveopt.solver.families.blocks import Heads, block_fault, model_heads
from serveopt.solver.families.layer_groups import Group, build_phases, group_kv_bytes, group_layers, shared_expert
from serveopt.solver.families.table import Family, Setting
from serveopt.solver.operators import descriptions as ops

LLAMA4 = "Llama4ForConditionalGeneration"
FULL_EVERY = 4  # Llama-4: layers 3, 7, ... attend to everything


def layer_groups(setting: Setting) -> list[Group]:
    """The layers of a model by attention and feed-forward."""
    return GROUPS[setting.model.architecture](setting)


def mimo_groups(setting: Setting) -> list[Group]:
    """MiMo-V2-Flash: patterns per layer."""
    model = setting.model
    facts, layers = model.extra, model.num_layers
    windowed = facts.get("hybrid_layer_pattern", (0,) * layers)
    experts = facts.get("moe_layer_freq", (1,) * layers)
    kinds = ((not one, bool(expert)) for one, expert in zip(windowed, experts, strict=True))
    full = Heads(model.num_heads, model.num_kv_heads, model.head_dim, facts.get("v_head_dim", model.head_dim))
    swa_dim = facts.get("swa_head_dim", model.head_dim)
    swa = Heads(
        facts.get("swa_num_attention_heads", model.num_heads),
        facts.get("swa_num_key_value_heads", model.num_kv_heads),
        swa_dim,
        facts.get("swa_v_head_dim", swa_dim),
        facts.get("sliding_window_size", 0) or facts.get("sliding_window", 0),
    )
    return group_layers(kinds, full, swa, model.intermediate_size)


def llama4_groups(setting: Setting) -> list[Group]:
    """Llama-4: chunked attention but for every fourth layer, experts on every n-th."""
    model = setting.model
    step = model.extra.get("interleave_moe_layer_step", 1)
    kinds = [((i + 1) % FULL_EVERY == 0, (i + 1) % step == 0) for i in range(model.num_layers)]
    chunked = model_heads(setting, model.extra.get("attention_chunk_size", 0))
    dense = model.extra.get("intermediate_size_mlp", model.intermediate_size)
    return group_layers(kinds, model_heads(setting), chunked, dense)


GROUPS = {"MiMoV2FlashForCausalLM": mimo_groups, LLAMA4: llama4_groups}


def shared_width(model: ModelConfig) -> int:
    """Width of the shared expert on every expert layer; 0: none."""
    own = model.intermediate_size if model.architecture == LLAMA4 else model.moe_intermediate_size
    return own * (1 if model.architecture == LLAMA4 else int(model.extra.get("n_shared_experts", 0)))


def add_shared(setting: Setting, phase: str, groups: list[Group]) -> list[ops.Operator]:
    """The shared expert of all expert layers."""
    return shared_expert(setting, phase, groups, shared_width(setting.model))


HYBRIDMOE = Family(
    name="HYBRIDMOE",
    build_phases=partial(build_phases, groups=layer_groups, extra=add_shared),
    kv_bytes=partial(group_kv_bytes, groups=layer_groups),
    context_parallel=True,
    fault=block_fault,
)
