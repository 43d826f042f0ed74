"""Quantisation of checkpoints, and how backends and GPUs change it."""

import gzip
import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from serveopt.errors import ConfigError
from serveopt.perfdata.catalogue import load_model
from serveopt.perfdata.checkpoint import CHOICES, QuantModes, infer_quant, native_fp4_experts
from serveopt.perfdata.model_config import ModelConfig, reduce_config
from serveopt.perfdata.quant_parts import classify_excluded
from serveopt.perfdata.store import open_database
from serveopt.perfdata.systems import PIPELINES, load_system
from serveopt.solver.quantisation import (
    adapt_for_large_ep,
    adapt_for_search,
    adapt_quant,
    context_attention_tables,
    runs_in_search,
)

SHARED = Path(__file__).parents[2].parent / "shared"
NOTHING: frozenset[str] = frozenset()
BLACKWELL, HOPPER = 100, 90


def reference_lines(name: str) -> Iterator[dict[str, Any]]:
    file = SHARED / "data" / name
    if not file.exists():
        pytest.skip(f"{name} is not in ../shared (reference data is not part of the repository)")
    with gzip.open(file, "rt") as lines:
        yield from map(json.loads, lines)


def adapt(modes: QuantModes, model: ModelConfig, **changes: Any) -> QuantModes:
    situation: dict[str, Any] = {"backend": "trtllm", "sm_version": BLACKWELL, "context_fmha_slices": ()}
    situation |= {"user_set": NOTHING, "runs_prefill": True} | changes
    return adapt_quant(modes, model, **situation)


@lru_cache(maxsize=64)
def measured_arithmetic(system: str, backend: str, version: str, tables: tuple[str, ...]) -> set[tuple[str, str]]:
    database = open_database(system, backend, version)
    found: set[tuple[str, str]] = set()
    for table in filter(None, map(database.table, tables)):
        fmha = "attn_dtype" if "attn_dtype" in table.categories else "mla_dtype"
        keys = (fmha, "kv_cache_dtype")
        codes = set(zip(*(table.columns[key].tolist() for key in keys), strict=True))
        found |= {tuple(table.categories[key][code] for key, code in zip(keys, pair, strict=True)) for pair in codes}
    return found


def test_reference_models_have_our_shapes_and_modes() -> None:
    """All models of the reference, built without a GPU: rules 1, 3, 4, 5 and 7 do not apply."""
    compared = 0
    for line in reference_lines("op_lists.jsonl.gz"):
        m = load_model(line["model"])
        shape = (
            m.architecture,
            m.family,
            m.num_layers,
            m.hidden_size,
            m.num_heads,
            m.num_kv_heads,
            m.head_dim,
        )
        keys = ("architecture", "family", "layers", "hidden", "heads", "kv_heads", "head_size")
        assert shape == tuple(line[key] for key in keys)
        assert m.intermediate_size == line["inter"]
        inferred = infer_quant(m)
        adapted = adapt(inferred, m, backend=line["backend"])
        if m.family in ("DEEPSEEKV4", "KIMIK3") and line["backend"] == "sglang":
            adapted = adapt(inferred, m, backend=line["backend"], user_set={"moe"})
        assert adapted.as_dict() == line["quant"], (line["model"], line["backend"])
        compared += 1
    assert compared == 972


def test_reference_estimates_run_in_our_modes() -> None:
    compared = 0
    for line in reference_lines("estimate_checkpoints.jsonl.gz"):
        if "raw" not in line:
            continue
        asked, ran = line["input"], line["raw"]
        model = load_model(asked["model_path"])
        system, backend = asked["system_name"], asked["backend_name"]
        tables = context_attention_tables(model.family, backend)
        measured = measured_arithmetic(system, backend, line["backend_version"], tables)
        for role in ("(p)", "(d)") if asked["mode"] == "disagg" else ("",):
            ours = adapt(
                infer_quant(model),
                model,
                backend=backend,
                sm_version=load_system(system).sm_version,
                context_fmha_slices=measured,
                runs_prefill=role != "(d)",
            )
            columns = {"gemm": "gemm", "moe": "moe", "fmha": "fmha", "kv": "kvcache", "comm": "comm"}
            assert ours.as_dict() == {name: ran[role + column] for name, column in columns.items()}, asked
            compared += 1
    assert compared == 169


def test_per_projection_exclusions_agree_with_the_reference() -> None:
    """The op lists price each projection of sparse attention in its own type."""
    compared = 0
    for line in reference_lines("op_lists.jsonl.gz"):
        facts = load_model(line["model"]).quantisation
        sparse = (op["DsaContext"] for op in line["context_ops"] if "DsaContext" in op)
        for op in sparse:
            whole = facts.leaves_out("attention") or "attention_norms" in facts.excluded
            for part, mode in op["attn_projection_quant_modes"].items():
                excluded = whole or facts.leaves_out(part)
                assert (mode == "bfloat16") == (excluded or line["quant"]["gemm"] == "bfloat16"), line["model"]
                compared += 1
    assert compared > 100


def checkpoint(
    quant: dict[str, Any], hf: dict[str, Any] | None = None, arch: str = "LlamaForCausalLM", **fields: Any
) -> ModelConfig:
    shape = {"num_hidden_layers": 4, "hidden_size": 512, "num_attention_heads": 8, "vocab_size": 1000}
    raw = {
        "architectures": [arch],
        "max_position_embeddings": 4096,
        "quantization_config": quant,
        **shape,
        **fields,
    }
    return reduce_config("m", raw, {"quantization": hf} if hf else None)


def grouped(weights: dict[str, Any], ignore: tuple[str, ...] = (), **group: Any) -> dict[str, Any]:
    groups = {"group_0": {"targets": ["Linear"], "weights": weights, **group}}
    return {"quant_method": "compressed-tensors", "config_groups": groups, "ignore": list(ignore)}


INT4, FLOAT4 = {"type": "int", "num_bits": 4}, {"type": "float", "num_bits": 4, "group_size": 32}
FLOAT8 = {"type": "float", "num_bits": 8, "dynamic": False}
DYNAMIC = {"input_activations": {"type": "float", "num_bits": 8, "dynamic": True}}
MIXED = {
    "quant_algo": "MIXED_PRECISION",
    "quantized_layers": {
        "layers.0.self_attn.q_proj": {"quant_algo": "FP8"},
        "layers.0.mlp.experts.0.up_proj": {"quant_algo": "NVFP4"},
        "layers.0.mlp.shared_experts.up_proj": {"quant_algo": "MXFP8"},
    },
}


@pytest.mark.parametrize(
    ("quant", "hf", "expected"),
    [
        ({}, None, ("bfloat16", "bfloat16", "bfloat16", "bfloat16")),
        ({"quant_method": "fp8", "activation_scheme": "dynamic"}, None, ("fp8", "fp8", "fp8", "fp8")),
        ({"quant_method": "fp8", "activation_scheme": "static"}, None, ("fp8_static", "fp8", "fp8", "fp8")),
        ({"quant_method": "fp8"}, None, ("fp8_static", "fp8", "fp8", "fp8")),
        (
            {"quant_method": "fp8", "weight_block_size": [128, 128]},
            None,
            ("fp8_block", "fp8_block", "fp8", "fp8"),
        ),
        ({}, {"quant_algo": "NVFP4"}, ("nvfp4", "nvfp4", "fp8", "fp8")),
        ({"quant_method": "mxfp4"}, None, ("bfloat16", "w4a16_mxfp4", "bfloat16", "bfloat16")),
        ({"quant_method": "awq", "bits": 4}, None, ("int4_wo", "int4_wo", "bfloat16", "bfloat16")),
        ({"quant_method": "gptq", "bits": 8}, None, ("int8_wo", "int8_wo", "bfloat16", "bfloat16")),
        ({"kv_cache_dtype": "fp8_e5m2"}, None, ("bfloat16", "bfloat16", "fp8", "fp8")),
        ({"kv_cache_scheme": {"num_bits": 16}}, None, ("bfloat16", "bfloat16", "bfloat16", "bfloat16")),
        (
            {"kv_cache_scheme": {"num_bits": 8, "type": "int"}},
            None,
            ("bfloat16", "bfloat16", "bfloat16", "int8"),
        ),
        (grouped(INT4), None, ("int4_wo", "int4_wo", "bfloat16", "bfloat16")),
        (grouped(INT4, ("re:.*self_attn.*",)), None, ("bfloat16", "int4_wo", "bfloat16", "bfloat16")),
        (grouped(INT4, ("re:.*\\.experts\\..*",)), None, ("int4_wo", "bfloat16", "bfloat16", "bfloat16")),
        (grouped(FLOAT4), None, ("bfloat16", "w4a16_mxfp4", "bfloat16", "bfloat16")),
        (grouped({**FLOAT4, "group_size": 16}), None, ("w4a16_nvfp4", "w4a16_nvfp4", "bfloat16", "bfloat16")),
        (grouped(FLOAT8), None, ("fp8_static", "fp8", "bfloat16", "bfloat16")),
        (grouped(FLOAT8, **DYNAMIC), None, ("fp8", "fp8", "bfloat16", "bfloat16")),
        (
            grouped({**FLOAT8, "strategy": "block"}),
            None,
            ("fp8_block", "fp8_block", "bfloat16", "bfloat16"),
        ),
        (MIXED, None, ("fp8_block", "nvfp4", "bfloat16", "bfloat16")),
        ({**MIXED, "quant_method": "fp8"}, None, ("fp8_static", "nvfp4", "bfloat16", "bfloat16")),
        (
            {**MIXED, "quant_method": "fp8", "weight_block_size": [128, 128]},
            None,
            ("fp8_block", "nvfp4", "bfloat16", "bfloat16"),
        ),
    ],
)
def test_inference(quant: dict[str, Any], hf: dict[str, Any] | None, expected: tuple[str, ...]) -> None:
    modes = infer_quant(checkpoint(quant, hf))
    assert (modes.gemm, modes.moe, modes.fmha, modes.kv) == expected
    assert modes.comm == "half"


def test_unknown_algorithm_asks_for_the_modes() -> None:
    model = checkpoint({"quant_method": "bitsandbytes"})
    with pytest.raises(ConfigError, match="m: unknown quantisation 'bitsandbytes'") as caught:
        infer_quant(model)
    assert "gemm_quant" in caught.value.hint
    assert infer_quant(model, {"gemm": "int4_wo"}).gemm == "int4_wo"
    experts = checkpoint({"quant_method": "x"}, arch="MixtralForCausalLM", num_experts=8, num_experts_per_tok=2)
    with pytest.raises(ConfigError):
        infer_quant(experts, {"gemm": "int4_wo"})
    with pytest.raises(ConfigError, match="'fp9' is not allowed") as caught:
        infer_quant(model, {"kv": "fp9"})
    assert caught.value.field == "kv_quant"


def test_exclusions_need_half_of_the_layers_that_have_the_part() -> None:
    counts = {"all": 10, "attention": 4, "mamba": 6}
    some = [f"layers.{i}.mixer.in_proj" for i in range(2)] + [f"layers.{i}.self_attn*" for i in (1, 3)]
    assert classify_excluded(some, counts) == ("attention",)
    assert classify_excluded(["layers.99.self_attn*", "mtp.layers.0*", "layers.1*"], counts) == ()
    assert classify_excluded(["*.attn.*", "head", "*.ffn.shared_experts.*"], counts) == (
        "attention",
        "lm_head",
        "shared_experts",
    )
    assert classify_excluded(["model.layers.*.mlp.gate", "mlp.shared_expert_gate", "gate"], counts) == ()
    assert classify_excluded([r"re:.*mlp\.(gate|up|gate_up|down)_proj.*"], counts) == ("dense_mlp",)


def test_every_mode_has_a_size_and_a_pipeline() -> None:
    for component in ("gemm", "moe", "fmha"):
        for mode in CHOICES[component].values():
            assert 0.5 <= mode.bytes_per_element <= 2 and mode.pipeline in PIPELINES
    assert QuantModes(gemm="nvfp4").gemm_mode.bytes_per_element == 0.5625
    assert (QuantModes(kv="fp8").kv_bytes, QuantModes().comm_bytes) == (1, 2)


def test_rule_1_native_fp4_experts_on_sglang() -> None:
    model = load_model("deepseek-ai/DeepSeek-V4-Flash")
    modes = infer_quant(model)
    assert native_fp4_experts(model) and modes.moe == "w4a8_mxfp4_mxfp8" and modes.kv == "fp8"
    assert adapt(modes, model, backend="sglang").moe == "w4a8_mxfp4_mxfp8_trtllm"
    assert adapt(modes, model, backend="sglang", sm_version=HOPPER).moe == "w4a16_mxfp4_cutlass"
    assert adapt(modes, model, backend="vllm").moe == "w4a8_mxfp4_mxfp8"
    assert runs_in_search(model, BLACKWELL) and not runs_in_search(model, HOPPER)
    kimi = load_model("moonshotai/Kimi-K3")
    assert adapt(infer_quant(kimi), kimi, backend="sglang").moe == "w4a8_mxfp4_mxfp8"
    assert not native_fp4_experts(load_model("nvidia/DeepSeek-V4-Flash-NVFP4"))


def test_rules_2_and_4_rename_fp4_kernels() -> None:
    model = load_model("nvidia/NVIDIA-Nemotron-3.5-Lightning-30B-A3B-NVFP4")
    modes = infer_quant(model)
    assert adapt(modes, model, backend="vllm").moe == "nvfp4"
    assert adapt(modes, model, backend="trtllm").moe == "w4a16_nvfp4"
    model = load_model("nvidia/Qwen3-235B-A22B-NVFP4")
    hopper = adapt(infer_quant(model), model, sm_version=HOPPER)
    assert (hopper.gemm, hopper.moe) == ("nvfp4_wo", "nvfp4_wo")


def test_rule_3_is_for_searches() -> None:
    model = load_model("openai/gpt-oss-120b")
    modes = infer_quant(model)
    assert adapt(modes, model).moe == "w4a16_mxfp4"
    search = {"backend": "trtllm", "sm_version": BLACKWELL, "user_set": NOTHING}
    assert adapt_for_search(modes, model, **search).moe == "w4a8_mxfp4_mxfp8"
    assert adapt_for_search(modes, model, **{**search, "sm_version": HOPPER}) == modes
    assert adapt_for_search(modes, model, **{**search, "user_set": {"moe"}}) == modes


@pytest.mark.parametrize(
    ("slices", "runs_prefill", "fmha"),
    [
        ({("bfloat16", "fp8")}, True, "bfloat16"),
        ({("bfloat16", "fp8"), ("fp8", "fp8")}, True, "fp8"),
        ({("bfloat16", "fp8")}, False, "fp8"),
        ({("bfloat16", "bfloat16")}, True, "fp8"),
        (set(), True, "fp8"),
    ],
)
def test_rule_5_follows_the_measured_tables(slices: set[tuple[str, str]], runs_prefill: bool, fmha: str) -> None:
    model = load_model("Qwen/Qwen3-32B-FP8")
    adapted = adapt(infer_quant(model), model, context_fmha_slices=slices, runs_prefill=runs_prefill)
    assert adapted.fmha == fmha


def test_rules_6_and_7_choose_attention() -> None:
    dense, sparse = load_model("Qwen/Qwen3-32B-FP8"), load_model("zai-org/GLM-5-FP8")
    assert adapt(infer_quant(dense), dense, backend="vllm").fmha == "bfloat16"
    assert adapt(infer_quant(sparse), sparse, backend="sglang").fmha == "bfloat16"
    model = load_model("deepseek-ai/DeepSeek-V3")
    modes = infer_quant(model)
    wide = adapt_for_large_ep(modes, model, backend="sglang", user_set=NOTHING)
    assert (wide.fmha, wide.kv) == ("fp8_block", "fp8")
    assert adapt_for_large_ep(modes, model, backend="trtllm", user_set=NOTHING) == modes


def test_what_a_user_set_stays() -> None:
    model = load_model("nvidia/Qwen3-235B-A22B-NVFP4")
    modes = infer_quant(model, {"gemm": "nvfp4", "fmha": "fp8"})
    adapted = adapt(modes, model, backend="vllm", sm_version=HOPPER, user_set={"gemm", "fmha"})
    assert (adapted.gemm, adapted.fmha, adapted.moe) == ("nvfp4", "fp8", "nvfp4_wo")
