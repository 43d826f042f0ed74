"""Families with latent, sparse or state-space layers against the reference's operator lists, and where we differ."""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from serveopt.perfdata.catalogue import load_model
from serveopt.perfdata.checkpoint import QuantModes, infer_quant
from serveopt.perfdata.quant_modes import GEMM_MODES
from serveopt.perfdata.systems import load_system
from serveopt.solver.families.deepseek import DEEPSEEK, KIMIK25
from serveopt.solver.families.deepseek_v4 import DEEPSEEKV4
from serveopt.solver.families.deepseek_v32 import DEEPSEEKV32
from serveopt.solver.families.kimi_k3 import KIMIK3
from serveopt.solver.families.minimax_m3 import MINIMAXM3
from serveopt.solver.families.nemotron_h import NEMOTRONH
from serveopt.solver.families.nemotron_nas import NEMOTRONNAS
from serveopt.solver.families.table import Family, Phases, Setting, WideEp
from serveopt.solver.layout import Layout
from serveopt.solver.operators import descriptions as ops
from serveopt.solver.operators.weights import resident_bytes
from tests.solver.families.conformance import (
    Deviation,
    Row,
    compare,
    compare_weights,
    differences,
    read_rows,
    reference_ops,
    row_setting,
)  # fmt: skip

FAMILIES = {
    family.name: family
    for family in (DEEPSEEK, KIMIK25, DEEPSEEKV32, DEEPSEEKV4, MINIMAXM3, KIMIK3, NEMOTRONNAS, NEMOTRONH)
}


def facts(row: Row) -> Any:
    """What the checkpoint of a row says of its quantisation."""
    return load_model(row["model"]).quantisation


def extra(row: Row) -> Any:
    """The family-specific fields of a row's model."""
    return load_model(row["model"]).extra


DEVIATIONS = (
    Deviation(
        "vLLM's dispatch already holds the two all-reduces of a layer; the reference adds both once more",
        r"\w+_tp_allreduce",
        lambda row: row["backend"] == "vllm" and row["family"] in ("DEEPSEEK", "KIMIK25"),
    ),
    Deviation(
        "a checkpoint that leaves out the norms of attention keeps its projections quantised",
        r"(context|generation)_attention(_weights)?",
        lambda row: row["family"] == "DEEPSEEKV32" and "attention_norms" in facts(row).excluded,
    ),
    Deviation(
        "layers that reuse the choice of another layer's indexer have no indexer to store",
        r"context_attention(_weights)?",
        lambda row: row["backend"] == "sglang" and "shared" in extra(row).get("indexer_types", ()),
    ),
    Deviation(
        "the block's weights and its index keys take memory",
        r"context_attention_weights",
        lambda row: row["family"] == "MINIMAXM3",
        kv=True,
    ),
    Deviation(
        "each mixer reduces its own sum: an expert layer has one all-reduce, its dispatch",
        r"\w+_moe_(pre_dispatch|ar)",
        lambda row: row["family"] == "NEMOTRONH" and row["dp"] == 1 and not extra(row).get("moe_latent_size"),
    ),
    Deviation(
        "attention that the checkpoint leaves out of quantisation stays bfloat16",
        r"\w+_(qkv|proj)_gemm",
        lambda row: row["family"] == "NEMOTRONH" and facts(row).leaves_out("attention"),
    ),
    Deviation(
        "keys of attention layers and states of Mamba2 layers, instead of keys of all layers",
        applies=lambda row: row["family"] == "NEMOTRONH",
        kv=True,
    ),
    Deviation(
        "Mamba2 heads are split over tp like their projections; the reference prices the whole layer on every GPU",
        r"\w+_mamba_(conv1d|ssm)",
        lambda row: row["family"] == "NEMOTRONH" and row["tp"] > 1,
    ),
    Deviation(
        "vLLM decodes on the latent cache; the reference expands its keys where no block was measured",
        r"\w+_(mla_block|mla_module|attention|bmm_pre|bmm_post|downscale_gemm|q_b_proj_gemm|proj_gemm|kv_b_proj_gemm)",
        lambda row: row["backend"] == "vllm" and row["family"] in ("DEEPSEEK", "KIMIK25", "KIMIK3"),
    ),
    Deviation("the reference counts no keys at all", applies=lambda row: row["family"] == "NEMOTRONNAS", kv=True),
)


def uniform(setting: Setting) -> Setting:
    """The model as the reference sees it: every layer alike. What dense layers cost has tests of its own."""
    given = dict(setting.model.extra)
    given.update(first_k_dense_replace=1 if setting.model.family == "KIMIK3" else 0, moe_layer_freq=())
    sparse = given.get("sparse_attention_config")
    if sparse:
        given["sparse_attention_config"] = {**sparse, "sparse_attention_freq": ()}
    return replace(setting, model=replace(setting.model, extra=given))


def folded(operators: Iterable[ops.Operator]) -> list[ops.Operator]:
    """Operators of one label and shape as one."""
    counts: dict[ops.Operator, float] = defaultdict(float)
    for operator in operators:
        counts[replace(operator, count=0.0)] += operator.count
    return [replace(operator, count=count) for operator, count in counts.items()]


def build_uniform(family: Family) -> Family:
    """The family with every layer alike."""
    return replace(
        family,
        build_phases=lambda setting: family.build_phases(uniform(setting)),
        kv_bytes=lambda setting, length: family.kv_bytes(uniform(setting), length),
    )


def corrected(row: Row) -> Row:
    """The row without two slips of the reference that are too deep inside for a Deviation."""
    return CORRECTIONS.get(row["family"], lambda same: same)(row) if row else row


def with_own_heads(row: Row) -> Row:
    """Kimi-K2 has 64 heads; the reference prices its kernels with DeepSeek's 128."""
    return {**row, **{name: [_halved(entry) for entry in row[name]] for name in ("context_ops", "generation_ops")}}


def _halved(entry: dict[str, Any]) -> dict[str, Any]:
    ((kind, fields),) = entry.items()
    if kind == "Fallback":
        return {kind: {**fields, "fallback": [_halved(part) for part in fields["fallback"]]}}
    if kind in ("ContextMla", "GenerationMla"):
        return {kind: {**fields, "num_heads": fields["num_heads"] // 2}}
    return entry


def with_index_key(row: Row) -> Row:
    """The indexer has a projection to its key too, which the reference prices and does not weigh."""
    return {**row, "weights": [_with_key(row, *pair) for pair in zip(row["context_ops"], row["weights"], strict=True)]}


def _with_key(row: Row, entry: dict[str, Any], size: float) -> float:
    ((kind, fields),) = entry.items()
    if kind != "DsaContext":
        return size
    mode = fields["attn_projection_quant_modes"]["indexer"]
    return size + fields["scale_factor"] * row["hidden"] * 128 * GEMM_MODES[mode].bytes_per_element


CORRECTIONS = {"KIMIK25": with_own_heads, "DEEPSEEKV32": with_index_key}


@pytest.mark.parametrize("row", read_rows(*(name for name in FAMILIES if name != "NEMOTRONNAS")))
def test_equals_reference(row: Row) -> None:
    """Operators of both phases, weight bytes and KV bytes, but for the deviations listed above."""
    assert not differences(corrected(row), build_uniform(FAMILIES[row["family"]]), DEVIATIONS)


@pytest.mark.parametrize("row", read_rows("NEMOTRONNAS"))
def test_searched_blocks_equal_reference(row: Row) -> None:
    """The reference lists runs of equal blocks one by one, we each kind once: together they are the same."""
    setting, nothing = row_setting(row), re.compile("(?!)")
    phases = NEMOTRONNAS.build_phases(setting)
    for phase in ("context", "generation"):
        listed = [one for entry in row[f"{phase}_ops"] for one in reference_ops(entry, setting.system)]
        assert not compare(folded(getattr(phases, phase)), folded(listed), nothing)
    assert not compare_weights(row, phases.context, nothing)


def make_setting(model: str, backend: str = "sglang", system: str = "b200_sxm", **given: Any) -> Setting:
    """A setting of a catalogue model with the quantisation of its checkpoint."""
    config = load_model(model)
    layout = given.pop("layout", Layout(tp=4, moe_ep=4))
    return Setting(
        model=config, quant=infer_quant(config), layout=layout, backend=backend, system=load_system(system), **given
    )


def named(phases: Phases, phase: str) -> dict[str, ops.Operator]:
    """Operators of a phase by label, those of overlaps and fallbacks too."""
    found: dict[str, ops.Operator] = {}
    pending = list(getattr(phases, phase))
    while pending:
        one = pending.pop()
        found[one.label] = one
        pending += [*getattr(one, "first", ()), *getattr(one, "second", ()), *getattr(one, "parts", ())]
    return found


@pytest.mark.parametrize(
    ("model", "dense", "width"),
    [
        ("deepseek-ai/DeepSeek-V3", 3, 18432),
        ("moonshotai/Kimi-K2.5", 1, 18432),
        ("zai-org/GLM-5", 3, 12288),
        ("MiniMaxAI/MiniMax-M3", 3, 12288),
    ],
)
@pytest.mark.parametrize("phase", ["context", "generation"])
def test_first_layers_are_dense(model: str, dense: int, width: int, phase: str) -> None:
    setting = make_setting(model, nextn=2)
    found = named(FAMILIES[setting.model.family].build_phases(setting), phase)
    layers = setting.model.num_layers + (2 if phase == "generation" else 0)  # draft layers have experts
    up, reduce = found[f"{phase}_dense_gate_up_gemm"], found[f"{phase}_dense_ar"]
    assert isinstance(up, ops.Gemm) and isinstance(reduce, ops.AllReduce)
    assert (up.count, up.n, up.k) == (dense, 2 * width // 4, setting.model.hidden_size)
    assert (reduce.count, reduce.gpus) == (2 * dense, 4)
    assert found[f"{phase}_moe"].count == pytest.approx(layers - dense)
    assert found[f"{phase}_shared_gate_up_gemm"].count == pytest.approx(layers - dense)


def test_full_attention_layers_of_minimax_m3() -> None:
    setting = make_setting("MiniMaxAI/MiniMax-M3")
    found = [one for one in MINIMAXM3.build_phases(setting).context if one.label == "context_attention"]
    assert {type(one): one.count for one in found} == {ops.ContextAttention: 3, ops.Msa: 57}
    per_token = 60 * 2 * 1 * 128 + 57 * 128  # one KV head per GPU, one index key
    assert MINIMAXM3.kv_bytes(setting, 10) == 10 * 2 * per_token


def test_states_of_nemotron_h() -> None:
    """Nemotron-3-Nano on four GPUs: 23 Mamba2 layers of 64 heads of 64, 8 groups of 128 states, 6 of attention."""
    setting = make_setting("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16")
    state = 3 * (16 * 64 + 2 * 2 * 128) * 2 + 16 * 64 * 128 * 4
    assert NEMOTRONH.kv_bytes(setting, 100) == 23 * state + 6 * 100 * 2 * 128 * 2


def test_keys_of_searched_blocks() -> None:
    """49 of the 80 blocks of Nemotron-Super have attention with 8 KV heads."""
    setting = make_setting("nvidia/Llama-3_3-Nemotron-Super-49B-v1", layout=Layout(tp=4))
    assert NEMOTRONNAS.kv_bytes(setting, 10) == 10 * 49 * 2 * 2 * 128 * 2
    assert not NEMOTRONNAS.speculative


WIDE = {
    "sglang": WideEp(context="deepep_ht", generation="deepep_ll", nodes=2),
    "vllm": WideEp(context="deepep_ht", generation="deepep_ll", nodes=2),
    "trtllm": WideEp(context="nvlink_two_sided", generation="nvlink_two_sided", nodes=2),
}


@pytest.mark.parametrize("backend", WIDE)
@pytest.mark.parametrize("model", ["deepseek-ai/DeepSeek-V3", "deepseek-ai/DeepSeek-V3.2"])
def test_wide_expert_parallel_graph(model: str, backend: str) -> None:
    """Every part is there once, in both phases, and all weights are counted."""
    layout = Layout(tp=1, attn_dp=16, moe_ep=16)
    setting = make_setting(model, backend, layout=layout, wide_ep=WIDE[backend])
    family = FAMILIES[setting.model.family]
    phases = family.build_phases(setting)
    for phase in ("context", "generation"):
        found = named(phases, phase)
        for part in ("add_norm_1", "add_norm_2", "router_gemm", "shared_ffn2_gemm", "logits_gemm", "p2p", "moe"):
            assert f"{phase}_{part}" in found, part
        assert isinstance(found[f"{phase}_moe"], ops.ExpertCompute)
        assert {one.step for one in found.values() if isinstance(one, ops.AllToAll)} >= {"dispatch", "combine"}
    ordinary = family.build_phases(replace(setting, wide_ep=None))
    wide, plain = (sum(map(resident_bytes, one.context)) for one in (phases, ordinary))
    # Shared experts of V3.2 are split over moe_tp (1 here), those of V3 over tp (1 here): nothing differs.
    assert wide == pytest.approx(plain, rel=1e-6)


def test_early_launch_of_trtllm() -> None:
    """A tenth off every operator of a decode layer; look-up and logits stay."""
    layout = Layout(tp=1, attn_dp=16, moe_ep=16)
    setting = make_setting("deepseek-ai/DeepSeek-V3", "trtllm", layout=layout, wide_ep=WIDE["trtllm"])
    found = named(DEEPSEEK.build_phases(setting), "generation")
    assert found["generation_moe"].count == pytest.approx(0.9 * 58)
    assert found["generation_bmm_pre"].count == pytest.approx(0.9 * 61)
    assert found["generation_logits_gemm"].count == found["generation_embedding"].count == 1


def test_split_heads_of_sglang_are_gathered_and_summed() -> None:
    layout = Layout(tp=2, attn_dp=8, moe_ep=16)
    setting = make_setting("deepseek-ai/DeepSeek-V3", "sglang", "h200_sxm", layout=layout, wide_ep=WIDE["sglang"])
    phases = DEEPSEEK.build_phases(setting)
    kernel = named(phases, "context")["context_attention"]
    assert isinstance(kernel, ops.WideEpMla) and (kernel.kernel, kernel.heads) == ("flashinfer", 64)
    assert {"context_tp_all_gather", "context_tp_reduce_scatter"} <= set(named(phases, "context"))
    assert "generation_attention_ar" in named(phases, "generation")


@pytest.mark.parametrize("model", ["deepseek-ai/DeepSeek-V4-Pro", "moonshotai/Kimi-K3"])
def test_one_kernel_for_dispatch_and_experts(model: str) -> None:
    setting = make_setting(model, layout=Layout(attn_dp=8, moe_ep=8), moe_backend="megamoe")
    family = FAMILIES[setting.model.family]
    phases, ordinary = family.build_phases(setting), family.build_phases(replace(setting, moe_backend=None))
    for phase in ("context", "generation"):
        found = named(phases, phase)
        assert isinstance(found[f"{phase}_moe"], ops.MegaMoe)
        assert not any("dispatch" in label for label in found)
    weights = [sum(map(resident_bytes, one.context)) for one in (phases, ordinary)]
    assert weights[0] == pytest.approx(weights[1])


@pytest.mark.parametrize("model", [f"deepseek-ai/DeepSeek-{name}" for name in ("V3", "V3.2", "V4-Pro")])
def test_context_parallel_prefill(model: str) -> None:
    """Prefill operators see their part of the prompt; decode does not know of it."""
    setting = make_setting(model, layout=Layout(tp=1, moe_ep=8, cp=8))
    family = FAMILIES[setting.model.family]
    assert family.context_parallel
    phases = family.build_phases(setting)
    context, generation = named(phases, "context"), named(phases, "generation")
    assert context["context_shared_gate_up_gemm"].share == 1 / 8  # type: ignore[union-attr]
    assert generation["generation_shared_gate_up_gemm"].share == 1  # type: ignore[union-attr]
    assert context["context_attention"].cp == 8  # type: ignore[union-attr]
    assert getattr(generation["generation_attention"], "cp", 1) == 1


@pytest.mark.parametrize(
    ("model", "billions"),
    [
        ("deepseek-ai/DeepSeek-V3", 671),
        ("zai-org/GLM-5", 744),
        ("moonshotai/Kimi-K2.5", 1030),
        ("deepseek-ai/DeepSeek-V4-Flash", 284),
        ("nvidia/Llama-3_3-Nemotron-Super-49B-v1", 49.9),
        ("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", 31.6),
        ("nvidia/NVIDIA-Nemotron-3-Ultra-550B-A55B-BF16", 550),
        ("nvidia/Nemotron-H-56B-Base-8K", 56),
    ],
)
def test_weights_are_those_of_the_published_model(model: str, billions: float) -> None:
    """Parameters by the publisher, without draft layers, against bfloat16 weights on one GPU."""
    setting = replace(make_setting(model, layout=Layout()), quant=QuantModes())
    own = sum(map(resident_bytes, FAMILIES[setting.model.family].build_phases(setting).context)) / 2
    assert own / 1e9 == pytest.approx(billions, rel=0.012)
