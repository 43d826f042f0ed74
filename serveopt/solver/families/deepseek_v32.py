"""DeepSeek-V3.2 and GLM-5: latent attention over the tokens that an indexer chooses, routed and shared experts.

The attention block was measured with its projections and its indexer; its weights are listed beside it. GLM-5.2 shares
the choice of one layer's indexer with the next ones, which sglang makes use of.
Source: specs/search_model.md 1.4, 1.5 (DEEPSEEKV32), op_model.md 2.18.
"""

from math import ceil

from serveopt.perfdata.model_config import ModelConfig
from serveopt.perfdata.quant_modes import GEMM_MODES
from serveopt.solver.families import blocks
from serveopt.solver.families.deepseek_wide import reduce_attention, wide_layers
from serveopt.solver.families.expert_layers import dense_count, dense_layers, expert_layers, layer_count
from serveopt.solver.families.latent import latent_of
from serveopt.solver.families.table import WIDE, Family, Phases, Setting
from serveopt.solver.operators import descriptions as ops
from serveopt.solver.operators.sequence_bounds import DSA_WIDTHS

ROPE_BYTES = 2  # the rotary part of the cache stays bfloat16
SCALE_BLOCK, SCALE_BYTES = 128, 4  # index keys carry a scale per block


def build_phases(setting: Setting) -> Phases:
    """Operators of a prefill and a decode step on one GPU."""
    return Phases(context=(*build_step(setting, ops.CONTEXT),), generation=(*build_step(setting, ops.GENERATION),))


def build_step(setting: Setting, phase: str) -> list[ops.Operator]:
    """Operators of one step, in order of execution."""
    model = setting.model
    layers, dense, share = layer_count(setting, phase), dense_count(model), blocks.token_share(setting, phase)
    wide = setting.wide_ep is not None
    return [
        *blocks.embedding(setting, phase, sharded=False),
        blocks.norm(f"{phase}_add_norm_1", layers, model.hidden_size, share),
        *attention(setting, phase, layers),
        *(reduce_attention(setting, phase, layers) if wide else []),
        blocks.norm(f"{phase}_add_norm_2", layers, model.hidden_size, share),
        *dense_layers(setting, phase, dense, model.intermediate_size, reduces=1 if wide else 2),
        *feed_forward(setting, phase, layers - dense),
        *blocks.output(setting, phase),
    ]


def feed_forward(setting: Setting, phase: str, count: float) -> list[ops.Operator]:
    """Experts of ``count`` layers. Shared ones are split like the routed ones: whole under expert parallelism."""
    if setting.wide_ep:
        return wide_layers(setting, phase, count)
    model = setting.model
    width = int(model.extra.get("n_shared_experts", 1)) * model.moe_intermediate_size // setting.layout.moe_tp
    return expert_layers(setting, phase, count, width, blocks.part_quant(setting, "shared_experts"))


def attention(setting: Setting, phase: str, count: float) -> list[ops.Operator]:
    """The measured block of ``count`` layers and its weights."""
    model, layout, quant = setting.model, setting.layout, setting.quant
    heads = model.num_heads // layout.tp
    share = full_share(setting)
    block = ops.Dsa(
        f"{phase}_attention", count, phase, model.architecture, heads, quant.fmha, quant.kv, block_mode(setting), share,
        layout.cp if phase == ops.CONTEXT else 1, block_widths(model),
    )  # fmt: skip
    return [block, ops.Resident(f"{phase}_attention_weights", weight_bytes(setting, share), count)]


def block_widths(model: ModelConfig) -> tuple[int, ...]:
    """Sizes of the block's projections, heads and indexer; () for the architecture's own, which were measured."""
    given, latent = model.extra, latent_of(model)
    widths = (
        model.hidden_size, latent.q, latent.kv, latent.nope, latent.rope, latent.value, given["index_topk"],
        given["index_n_heads"], given["index_head_dim"],
    )  # fmt: skip
    return () if widths == DSA_WIDTHS[model.architecture] else widths


def block_mode(setting: Setting) -> str:
    """GEMM mode of the block: bfloat16 where the checkpoint leaves out all of attention."""
    return blocks.part_quant(setting, "attention")


def full_share(setting: Setting) -> float:
    """Share of layers that run the indexer; the kernels that reuse its choice exist on sglang."""
    kinds = setting.model.extra.get("indexer_types", ())
    if setting.backend != "sglang" or not kinds:
        return 1.0
    return float(sum(kind == "full" for kind in kinds) / len(kinds))


def weight_bytes(setting: Setting, indexer_share: float) -> float:
    """Bytes of the projections of one layer on one GPU; ``indexer_share`` of the layers have an indexer."""
    model = setting.model
    hidden, latent, heads = model.hidden_size, latent_of(model), model.num_heads // setting.layout.tp
    index_heads, index_dim = index_shape(model)
    elements = {
        "q": hidden * latent.q + latent.q * heads * (latent.nope + latent.rope),
        "kv": hidden * latent.cached + latent.kv * heads * (latent.nope + latent.value),
        "o": heads * latent.value * hidden,
        # queries, the weights of heads, and the one key
        "indexer": (latent.q * index_heads * index_dim + hidden * (index_heads + index_dim)) * indexer_share,
    }
    return sum(size * GEMM_MODES[blocks.part_quant(setting, part)].bytes_per_element for part, size in elements.items())


def index_shape(model: ModelConfig) -> tuple[int, int]:
    """Heads of the indexer and their width."""
    return model.extra.get("index_n_heads", 64), model.extra.get("index_head_dim", 128)


def kv_bytes(setting: Setting, length: int) -> float:
    """KV cache bytes on one GPU of one sequence of ``length`` tokens: latents and index keys, all layers."""
    latent = latent_of(setting.model)
    _, index_dim = index_shape(setting.model)
    index = index_dim + ceil(index_dim / SCALE_BLOCK) * SCALE_BYTES
    per_token = latent.kv * setting.quant.kv_bytes + latent.rope * ROPE_BYTES + index
    return float(setting.model.num_layers * length * per_token)


DEEPSEEKV32 = Family(
    name="DEEPSEEKV32",
    build_phases=build_phases,
    kv_bytes=kv_bytes,
    activation_widths=WIDE,
    dispatch_workspace="attention",
    context_parallel=True,
    wide_ep=True,
)
