"""DeepSeek-V3, R1 and Kimi-K2: latent attention, routed experts beside a shared one.

One layer is norm, latent attention, norm, shared expert and routed experts. The first layers are dense, where the
config says so. Source: specs/search_model.md 1.5 (DEEPSEEK), 1.6; we count dense layers as what they are.
"""

from serveopt.solver.families import blocks
from serveopt.solver.families.deepseek_wide import WIDE_GRAPHS
from serveopt.solver.families.expert_layers import dense_count, dense_layers, expert_layers, layer_count
from serveopt.solver.families.latent import latent_kv_bytes, mla_block
from serveopt.solver.families.table import WIDE, Family, Phases, Setting
from serveopt.solver.operators import descriptions as ops


def build_phases(setting: Setting) -> Phases:
    """Operators of a prefill and a decode step on one GPU."""
    build = WIDE_GRAPHS[setting.backend] if setting.wide_ep else build_step
    return Phases(context=(*build(setting, ops.CONTEXT),), generation=(*build(setting, ops.GENERATION),))


def build_step(setting: Setting, phase: str) -> list[ops.Operator]:
    """Operators of one step, in order of execution."""
    model = setting.model
    layers, dense, share = layer_count(setting, phase), dense_count(model), blocks.token_share(setting, phase)
    shared_quant = blocks.part_quant(setting, "shared_experts")
    return [
        *blocks.embedding(setting, phase, sharded=False),
        blocks.norm(f"{phase}_add_norm_1", layers, model.hidden_size, share),
        *mla_block(setting, phase, layers),
        blocks.norm(f"{phase}_add_norm_2", layers, model.hidden_size, share),
        *dense_layers(setting, phase, dense, model.intermediate_size),
        *expert_layers(setting, phase, layers - dense, shared_width(setting), shared_quant),
        *blocks.output(setting, phase),
    ]


def shared_width(setting: Setting) -> int:
    """Width of the shared experts on one GPU, split over tp."""
    model = setting.model
    return int(model.extra.get("n_shared_experts", 1)) * model.moe_intermediate_size // setting.layout.tp


def kv_bytes(setting: Setting, length: int) -> float:
    """KV cache bytes on one GPU of one sequence of ``length`` tokens, all layers."""
    return latent_kv_bytes(setting, length, setting.model.num_layers)


def make_family(name: str) -> Family:
    """The family under one of its names."""
    return Family(
        name=name,
        build_phases=build_phases,
        kv_bytes=kv_bytes,
        activation_widths=WIDE,
        dispatch_workspace="attention",
        context_parallel=True,
        wide_ep=True,
    )


DEEPSEEK, KIMIK25 = make_family("DEEPSEEK"), make_family("KIMIK25")
