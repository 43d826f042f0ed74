"""Which wide expert parallel graphs are covered, and which quantisation a user may ask for."""

import pytest

from serveopt.errors import ConfigError
from serveopt.perfdata.catalogue import load_model
from serveopt.perfdata.store import open_database
from serveopt.solver.collected import check_measured, measured_modes
from serveopt.solver.engine import EngineQuery, open_engine
from serveopt.solver.layout import Layout

V3 = "deepseek-ai/DeepSeek-V3"


def engine(backend: str, system: str = "h200_sxm", model: str = V3, **options: object):
    return open_engine(EngineQuery(model=model, system=system, backend=backend, searching=False, **options))


@pytest.mark.parametrize(
    ("backend", "system", "width", "libraries", "nodes"),
    [
        ("sglang", "h200_sxm", 16, ("deepep_ht", "deepep_ll"), 2),
        ("sglang", "h200_sxm", 64, ("deepep_ht", "deepep_ll"), 8),
        ("trtllm", "h200_sxm", 32, ("trtllm_deepep_ht", "trtllm_deepep_ll"), 4),
        ("vllm", "h200_sxm", 16, ("deepep_ht", "deepep_ll"), 2),
        ("trtllm", "gb200", 16, ("trtllm_deepep_ht", "trtllm_deepep_ll"), 4),
    ],
)
def test_the_first_measured_library_serves(
    backend: str, system: str, width: int, libraries: tuple[str, str], nodes: int
) -> None:
    wide = engine(backend, system).setting(Layout(attn_dp=width, moe_ep=width)).wide_ep
    assert wide is not None
    assert ((wide.context, wide.generation), wide.nodes) == (libraries, nodes)


def test_no_wide_graph_without_need_or_data() -> None:
    assert engine("sglang").setting(Layout(attn_dp=8, moe_ep=8)).wide_ep is None  # one node
    assert engine("sglang", wide_ep=True).setting(Layout(attn_dp=8, moe_ep=8)).wide_ep is not None
    assert engine("sglang", wide_ep=False).setting(Layout(attn_dp=16, moe_ep=16)).wide_ep is None
    assert engine("sglang").setting(Layout(attn_dp=32, moe_tp=2, moe_ep=16)).wide_ep is None  # whole experts only
    assert engine("trtllm").setting(Layout(tp=16, moe_ep=16)).wide_ep is None  # trtllm exchanges between dp ranks
    assert engine("trtllm", model="Qwen/Qwen3-235B-A22B-FP8").setting(Layout(attn_dp=16, moe_ep=16)).wide_ep is None


def test_the_wide_graph_of_sglang_has_its_own_arithmetic() -> None:
    own = engine("sglang").setting(Layout(attn_dp=16, moe_ep=16)).quant
    assert (own.fmha, own.kv) == ("fp8_block", "fp8")
    assert engine("sglang").setting(Layout(attn_dp=8, moe_ep=8)).quant.fmha != "fp8_block"
    kept = engine("sglang", quant=(("fmha", "bfloat16"),)).setting(Layout(attn_dp=16, moe_ep=16)).quant
    assert kept.fmha == "bfloat16"


def test_modes_are_those_of_the_tables() -> None:
    database, model = open_database("h200_sxm", "trtllm"), load_model(V3)
    assert {"bfloat16", "fp8", "fp8_block", "fp8_static"} <= measured_modes(database, model, "gemm")
    assert measured_modes(database, model, "fmha") == {"bfloat16"}
    check_measured(database, model, [("gemm", "fp8"), ("kv", "fp8")])
    with pytest.raises(ConfigError, match="'nvfp4' was not measured with trtllm") as caught:
        check_measured(database, model, [("gemm", "nvfp4")])
    assert caught.value.field == "gemm_quant"
    assert "fp8_block" in caught.value.hint


def test_speculation_follows_the_model() -> None:
    assert engine("sglang", nextn="auto", nextn_accepted=0.7).nextn == 1
    with pytest.raises(ConfigError, match="speculates on 0 tokens"):
        engine("sglang", model="Qwen/Qwen3-32B", nextn="auto", nextn_accepted=0.7)
