"""Families with grouped-query attention against built reference models, and what differs from them with its reason."""

import re
from dataclasses import replace
from typing import Any

import pytest

from serveopt.errors import ConfigError
from serveopt.perfdata.catalogue import load_model
from serveopt.perfdata.checkpoint import QuantModes, infer_quant
from serveopt.perfdata.systems import load_system
from serveopt.solver.families import gemma4, hybrid_moe, llama, moe, qwen3_vl, qwen35, step3p7
from serveopt.solver.families.table import Family, Setting, WideEp
from serveopt.solver.images import count_images, encoder_bytes, measure_images, request_images
from serveopt.solver.layout import Layout
from serveopt.solver.operators import descriptions as ops
from serveopt.solver.operators.weights import resident_bytes
from tests.solver.families.conformance import Deviation, Row, differences, read_rows

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        llama.LLAMA, moe.MOE, qwen3_vl.QWEN3VL, qwen3_vl.QWEN3VL_MOE, hybrid_moe.HYBRIDMOE, step3p7.STEP3P7,
        gemma4.GEMMA4MIX, qwen35.QWEN35,
    )
}  # fmt: skip


def model_named(*parts: str) -> Any:
    """True for rows of models whose name has all ``parts``."""
    return lambda row: all(part in row["model"] for part in parts)


def recount(counts: dict[str, float]) -> Any:
    """The row with other counts of the operators whose labels match a pattern, and weights in proportion."""

    def rewrite(row: Row) -> Row:
        result = dict(row)
        for phase in ("context", "generation"):
            listed = []
            for entry in row[f"{phase}_ops"]:
                ((kind, fields),) = entry.items()
                count = next((n for label, n in counts.items() if re.fullmatch(label, fields["name"])), None)
                listed.append({kind: {**fields, "scale_factor": fields["scale_factor"] if count is None else count}})
            result[f"{phase}_ops"] = listed
        pairs = zip(row["context_ops"], result["context_ops"], row["weights"], strict=True)
        result["weights"] = [
            size * (count_of(new) / count_of(old) if count_of(old) else 1.0) for old, new, size in pairs
        ]
        return result

    return rewrite


def count_of(entry: dict[str, Any]) -> float:
    """How often an operator of the reference runs."""
    ((_, fields),) = entry.items()
    return float(fields["scale_factor"])


DEVIATIONS = {
    "MOE": (
        Deviation("prefill ends in logits, and the output weights are resident", "context_logits_gemm"),
        Deviation(
            "the checkpoint leaves attention in bfloat16", r"\w+_(qkv|proj)_gemm", model_named("MiniMax", "NVFP4")
        ),
    ),
    "QWEN3VL": (Deviation("queries and keys are normalised as in Qwen3", "context_attention"),),
    "HYBRIDMOE": (
        Deviation("dense layers add up attention and feed-forward over tp", r"\w+_dense_(attn|ffn)_ar"),
        Deviation(
            "pattern 1 is windowed: 39 windowed layers, 8 full ones with experts and the dense one full", "|".join(
                ("context_attention", "generation_attention", r"\w+_(swa|global)_dense_\w+")
            ),
            model_named("MiMo"),
            kv=True,  # and values are narrower than keys, windows cap the cache
            rewrite=recount({r"\w+_global_(?!dense)\w+": 8.0, r"\w+_swa_(?!dense)\w+": 39.0}),
        ),
        Deviation("every expert layer has a shared expert", r"\w+_shared_expert_\w+", model_named("Llama-4")),
        Deviation(
            "every fourth layer is full, the others attend within chunks that cap the cache",
            "context_attention|generation_attention",
            model_named("Llama-4"),
            kv=True,
        ),
        Deviation(
            "of 48 layers 12 are full", applies=model_named("Scout"),
            rewrite=recount({r"\w+_global_\w+": 12.0, r"\w+_swa_\w+": 36.0}),
        ),
        Deviation(
            "half of the expert layers are full", r"\w+_swa_(?!dense)\w+", applies=model_named("Maverick"),
            rewrite=recount({r"\w+_global_\w+": 12.0}),
        ),
    ),
    "STEP3P7": (Deviation("dense layers add up attention and feed-forward over tp", r"\w+_dense_(attn|ffn)_ar"),),
    "GEMMA4MIX": (
        Deviation("a model without experts adds up over tp", r"\w+_(attn|ffn)_ar", model_named("31B")),
        Deviation(
            "the checkpoint names what stays in bfloat16, and the experts are not among it", r"\w+_moe",
            model_named("26B", "NVFP4"),
        ),
    ),
    "QWEN35": (
        Deviation(
            "attention is added up once", r"\w+_moe_pre_dispatch",
            lambda row: row["backend"] == "trtllm" and row["dp"] == 1,
        ),
    ),
}  # fmt: skip
DEVIATIONS["QWEN3VL_MOE"] = (*DEVIATIONS["MOE"], *DEVIATIONS["QWEN3VL"])


@pytest.mark.parametrize("row", read_rows(*FAMILIES))
def test_equals_reference(row: Row) -> None:
    """Operators of all phases, weights and KV bytes, but for the deviations above."""
    assert differences(row, FAMILIES[row["family"]], DEVIATIONS.get(row["family"], ())) == []


@pytest.mark.parametrize("row", read_rows("MOE"))
def test_equals_reference_on_blackwell(row: Row) -> None:
    """Tokens are gathered quantised there."""
    assert differences(row, FAMILIES["MOE"], DEVIATIONS["MOE"], "b200_sxm") == []


def setting_of(name: str, layout: Layout | None = None, **given: Any) -> Setting:
    """A model on H200 under sglang."""
    model = load_model(name)
    values: dict[str, Any] = {"backend": "sglang", "system": load_system("h200_sxm"), "quant": infer_quant(model)}
    return Setting(model=model, layout=layout or Layout(), **{**values, **given})


@pytest.mark.parametrize(
    ("model", "billions"),
    [
        ("Qwen/Qwen3-235B-A22B", 235.1),
        ("Qwen/Qwen3-30B-A3B", 30.5),
        ("openai/gpt-oss-120b", 116.8),
        ("XiaomiMiMo/MiMo-V2-Flash", 309),
        ("meta-llama/Llama-4-Scout-17B-16E-Instruct", 107.8),
        ("meta-llama/Llama-4-Maverick-17B-128E-Instruct", 400.7),
        ("google/gemma-4-26B-A4B", 25.2),
        ("Qwen/Qwen3.5-397B-A17B", 396),
        ("Qwen/Qwen3.5-27B", 26.9),
    ],
)
def test_weights_are_those_of_the_published_model(model: str, billions: float) -> None:
    """Parameters of the text model by its publisher, the output matrix counted even where it is shared."""
    setting = setting_of(model, quant=QuantModes())
    phases = FAMILIES[setting.model.family].build_phases(setting)
    shared = setting.model.extra.get("tie_word_embeddings", False)
    own = sum(resident_bytes(one) for one in phases.context) / 2
    own -= setting.model.vocab_size * setting.model.hidden_size if shared else 0
    assert own / 1e9 == pytest.approx(billions, rel=0.012)


@pytest.mark.parametrize(
    ("model", "full", "windowed", "window"),
    [
        ("XiaomiMiMo/MiMo-V2-Flash", 9, 39, 128),
        ("meta-llama/Llama-4-Scout-17B-16E-Instruct", 12, 36, 8192),
        ("meta-llama/Llama-4-Maverick-17B-128E-Instruct", 12, 36, 8192),
        ("stepfun-ai/Step-3.7-Flash", 12, 33, 512),
        ("openai/gpt-oss-120b", 18, 18, 128),
        ("google/gemma-4-26B-A4B", 5, 25, 1024),
    ],
)
def test_windows(model: str, full: int, windowed: int, window: int) -> None:
    """Layers by their attention; the cache of windowed layers stops to grow at the window."""
    setting = setting_of(model)
    family = FAMILIES[setting.model.family]
    phases = family.build_phases(setting)
    for phase in (phases.context, phases.generation):
        found = [one for one in phase if isinstance(one, ops.ContextAttention | ops.GenerationAttention)]
        assert sum(one.count for one in found if one.window == 0) == full
        assert sum(one.count for one in found if one.window == window) == windowed
    growth = [family.kv_bytes(setting, n + 1) - family.kv_bytes(setting, n) for n in (window - 1, window)]
    assert 0 < growth[1] < growth[0]


def test_mimo_caches_narrow_values() -> None:
    """Keys of 192 values and values of 128 a head: 4 heads on full layers, 8 on windowed ones."""
    setting = setting_of("XiaomiMiMo/MiMo-V2-Flash")
    assert hybrid_moe.HYBRIDMOE.kv_bytes(setting, 1000) == (9 * 4 * 1000 + 39 * 8 * 128) * (192 + 128)


def labels(listed: tuple[ops.Operator, ...]) -> list[str]:
    """Labels in order."""
    return [one.label for one in listed]


@pytest.mark.parametrize("family", [llama.LLAMA, moe.MOE, hybrid_moe.HYBRIDMOE, step3p7.STEP3P7, gemma4.GEMMA4MIX])
def test_context_parallel(family: Family) -> None:
    """Every prefill operator but logits and the exchange sees a share of the tokens; keys and values are gathered."""
    models = {
        "LLAMA": "Qwen/Qwen3-8B", "MOE": "Qwen/Qwen3-30B-A3B", "HYBRIDMOE": "XiaomiMiMo/MiMo-V2-Flash",
        "STEP3P7": "stepfun-ai/Step-3.7-Flash", "GEMMA4MIX": "google/gemma-4-26B-A4B",
    }  # fmt: skip
    moe_ep = 1 if family.name == "LLAMA" else 2
    phases = family.build_phases(setting_of(models[family.name], Layout(cp=2, moe_ep=moe_ep)))
    for one in phases.context:
        if isinstance(one, ops.Gemm | ops.MemoryMove | ops.Embedding | ops.PointToPoint):
            assert one.share == (1.0 if one.label == "context_logits_gemm" else 0.5), one.label
    gathers = [one for one in phases.context if one.label == "context_cp_all_gather"]
    attention = [one for one in phases.context if isinstance(one, ops.ContextAttention)]
    assert sum(one.count for one in gathers) == sum(one.count for one in attention)
    assert all(one.cp == 2 for one in attention)
    assert "generation_cp_all_gather" not in labels(phases.generation)


def test_scale_blocks_must_fit() -> None:
    """An expert width of 1536 splits into 128s over 4 but not over 8 ranks; bfloat16 knows no blocks."""
    setting = setting_of("Qwen/Qwen3-235B-A22B-FP8", Layout(tp=4, moe_tp=4))
    assert moe.MOE.fault(setting) is None
    narrow = replace(setting, layout=Layout(tp=8, moe_tp=8))
    assert (moe.MOE.fault(narrow) or ("",))[0] == "moe_tp"
    assert moe.MOE.fault(replace(narrow, quant=QuantModes())) is None


def test_other_faults() -> None:
    """Heads of linear layers, and experts where there are none."""
    assert (qwen35.QWEN35.fault(setting_of("Qwen/Qwen3.5-27B", Layout(tp=32))) or ("",))[0] == "tp"
    assert qwen35.QWEN35.fault(setting_of("Qwen/Qwen3.5-27B", Layout(tp=4))) is None
    dense = setting_of("nvidia/Gemma-4-31B-IT-NVFP4", Layout(tp=2, moe_ep=2))
    assert (gemma4.GEMMA4MIX.fault(dense) or ("",))[0] == "moe_ep"


def test_wide_expert_parallelism() -> None:
    """Exchange and experts replace dispatch; a load balancer flattens the load of prefill."""
    wide = WideEp(context="deepep_ht", generation="deepep_ll", nodes=2)
    setting = setting_of("Qwen/Qwen3-235B-A22B-FP8", Layout(tp=2, attn_dp=8, moe_ep=16), wide_ep=wide)
    phases = moe.MOE.build_phases(setting)
    exchanges = [one for one in phases.context if isinstance(one, ops.AllToAll)]
    assert [(one.step, one.library, one.share, one.nodes) for one in exchanges] == [
        ("dispatch", "deepep_ht", 0.5, 2), ("combine", "deepep_ht", 0.5, 2),
    ]  # fmt: skip
    assert {one.share for one in phases.generation if isinstance(one, ops.AllToAll)} == {1.0}
    (experts,) = (one for one in phases.context if isinstance(one, ops.ExpertCompute))
    assert (experts.share, experts.distribution, experts.slots) == (8.0, "power_law_1.2", 128)
    balanced = moe.MOE.build_phases(replace(setting, eplb=True))
    (experts,) = (one for one in balanced.context if isinstance(one, ops.ExpertCompute))
    assert (experts.share, experts.distribution) == (6.4, "power_law_0.6")
    trtllm = replace(setting, eplb=True, slots=144, backend="trtllm")
    (experts,) = (one for one in moe.MOE.build_phases(trtllm).generation if isinstance(one, ops.ExpertCompute))
    assert (experts.share, experts.distribution, experts.slots) == (8.0, "power_law_1.2_eplb", 144)


def test_images() -> None:
    """Patches and tokens of an image, spread over ranks as whole images."""
    model = load_model("Qwen/Qwen3-VL-8B-Instruct")
    assert measure_images(model, 10, 10, 1).tokens == 1  # no image is smaller than one token
    assert measure_images(model, 1000, 700, 1).patches == 62 * 44
    assert measure_images(model, 0, 0, 1).tokens == 0
    with pytest.raises(ConfigError, match="takes no images"):
        measure_images(load_model("Qwen/Qwen3-8B"), 448, 448, 1)
    setting = setting_of(model.name, Layout(tp=4), image=(448, 448, 3))
    assert request_images(setting).tokens == 3 * 196
    assert count_images(setting, 3).patches == 3 * 784
    assert count_images(replace(setting, encoder_dp=False), 3).patches == 9 * 784
    assert encoder_bytes(setting, 3) == 2 * (3 * 784 * 1152 * 3 + 3 * 3 * 196 * 4096 * 4)


def test_split_encoder() -> None:
    """Without data parallel encoding heads and widths are split, and nothing is gathered."""
    phases = qwen3_vl.QWEN3VL.build_phases(setting_of("Qwen/Qwen3-VL-8B-Instruct", Layout(tp=4), encoder_dp=False))
    (attention,) = (one for one in phases.encoder if isinstance(one, ops.EncoderAttention))
    assert attention.heads == 4 and "encoder_dp_all_gather" not in labels(phases.encoder)
    assert {one.gpus for one in phases.encoder if isinstance(one, ops.AllReduce)} == {4}
