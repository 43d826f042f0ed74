"""What must hold of any model and backend: modes agree where data is, what is shared or cached is not paid twice."""

from itertools import pairwise

import numpy as np
import pytest

from serveopt.errors import MissingTable
from serveopt.solver.engine import EngineQuery, open_engine
from serveopt.solver.estimate import Estimate, estimate
from serveopt.solver.operators.descriptions import ContextAttention
from serveopt.solver.point import Point

MODELS = (
    ("deepseek-ai/DeepSeek-V3", "h200_sxm", "sglang", {"tp": 8, "moe_ep": 8}),
    ("deepseek-ai/DeepSeek-V3.2", "b200_sxm", "vllm", {"tp": 8, "moe_ep": 8}),
    ("Qwen/Qwen3.5-35B-A3B", "h200_sxm", "sglang", {"tp": 2, "moe_ep": 2}),
    ("nvidia/Nemotron-H-56B-Base-8K", "h200_sxm", "vllm", {"tp": 4}),
    ("openai/gpt-oss-120b", "h200_sxm", "vllm", {"tp": 2, "moe_ep": 2}),
    ("Qwen/Qwen3-8B", "h100_sxm", "trtllm", {"tp": 1}),
)


UNEVEN = ("deepseek-ai/DeepSeek-V3", "h200_sxm", "trtllm", {"tp": 8, "moe_ep": 8})


def static(case: tuple[str, str, str, dict[str, int]], **given: object) -> Estimate:
    """A static estimate of a model."""
    model, system, backend, degrees = case
    values = {"mode": "static", "isl": 4000, "osl": 100, "batch": 8, **degrees, **given}
    return estimate(Point(model=model, system=system, backend=backend, **values))  # type: ignore[arg-type]


def times(own: Estimate, part: str) -> float:
    """ms of the operators whose label holds ``part``."""
    return sum(line["latency_ms"] for line in own.ops if part in line["op"])


@pytest.mark.parametrize("case", MODELS, ids=[case[0] for case in MODELS])
def test_hybrid_is_silicon_where_silicon_answers(case: tuple[str, str, str, dict[str, int]]) -> None:
    """Gaps are filled, measurements never replaced."""
    silicon, hybrid = (static(case, database_mode=mode) for mode in ("silicon", "hybrid"))
    assert hybrid.ttft_ms == pytest.approx(silicon.ttft_ms)
    assert hybrid.tpot_ms == pytest.approx(silicon.tpot_ms)


@pytest.mark.parametrize("case", MODELS, ids=[case[0] for case in MODELS])
def test_a_longer_prefix_leaves_less_to_do(case: tuple[str, str, str, dict[str, int]]) -> None:
    """Of the same prompt, more in the cache never takes longer to prefill."""
    found = [static(case, isl=8000, prefix_len=prefix).ttft_ms for prefix in (0, 2000, 4000, 6000, 7900)]
    assert all(later <= earlier * 1.02 for earlier, later in pairwise(found)), found


def test_a_window_does_not_see_a_long_prefix() -> None:
    """100 new tokens behind 32k cost a windowed layer what they cost behind 4k."""
    pricing = open_engine(EngineQuery(model="openai/gpt-oss-120b", system="h200_sxm", backend="vllm")).pricing
    windowed = pricing.sequence(ContextAttention("a", 1, 32, 4, 64, "bfloat16", "bfloat16", window=128))
    near, far = np.zeros(9), np.zeros(9)
    windowed.prefill(100, 4000, near)
    windowed.prefill(100, 32000, far)
    assert far[8] < 1.5 * near[8]


def test_state_kernels_are_split_over_tp() -> None:
    """Mamba2 heads of four GPUs take a fraction of the time of one."""
    one, four = (
        times(static(("nvidia/Nemotron-H-56B-Base-8K", "h200_sxm", "vllm", {"tp": tp}), batch=256), "mamba_ssm")
        for tp in (1, 4)
    )
    assert four == pytest.approx(one / 4, rel=0.1)


def test_blackwell_gathers_quantised_tokens_on_every_generation() -> None:
    """B300 dispatches like B200."""
    degrees = {"attn_dp": 4, "moe_ep": 4}
    b200, b300 = (
        times(static(("nvidia/DeepSeek-V3.1-NVFP4", system, "trtllm", degrees)), "context_moe_pre_dispatch")
        for system in ("b200_sxm", "b300_sxm")
    )
    assert b300 < 1.5 * b200


def test_backends_agree_on_latent_decode() -> None:
    """vLLM decodes on the latent cache too."""
    degrees = {"attn_dp": 8, "moe_ep": 8}
    found = {
        backend: static(("nvidia/DeepSeek-V3.1-NVFP4", "b200_sxm", backend, degrees), batch=64, isl=8000).tpot_ms
        for backend in ("trtllm", "vllm")
    }
    assert found["vllm"] < 2 * found["trtllm"]


@pytest.mark.parametrize("alphas", [(0.0, 0.6), (0.6, 1.01), (1.01, 1.2)])
def test_an_uneven_load_takes_longer(alphas: tuple[float, float]) -> None:
    """The fullest expert rank decides."""
    even, uneven = (static(UNEVEN, moe_load_alpha=alpha).ttft_ms for alpha in alphas)
    assert even < uneven


def test_a_load_balancer_helps_prefill() -> None:
    """With fused experts as well as in a wide graph."""
    assert static(UNEVEN, enable_eplb=True).ttft_ms < static(UNEVEN).ttft_ms
    wide = {"enable_wide_ep": True, "tp": 1, "attn_dp": 8}
    assert static(MODELS[0], enable_eplb=True, **wide).ttft_ms < static(MODELS[0], **wide).ttft_ms


def test_drafts_do_not_multiply_states() -> None:
    """Four tokens of a request read its state once."""
    case = ("Qwen/Qwen3.5-35B-A3B", "h200_sxm", "sglang", {"tp": 1, "moe_ep": 1, "batch": 64})
    plain = times(static(case), "gdn_recurrence")
    drafting = times(static(case, nextn=3, nextn_accepted=0.0), "gdn_recurrence")
    assert drafting < 2 * plain


def test_what_no_mode_but_hybrid_answers() -> None:
    """A table that is missing is named in silicon and filled in hybrid."""
    case = ("MiniMaxAI/MiniMax-M3", "b200_sxm", "sglang", {"tp": 8, "moe_ep": 8})
    with pytest.raises(MissingTable, match="msa_context_module"):
        static(case)
    filled = static(case, database_mode="hybrid")
    assert 0 < filled.measured_share < 1 and filled.ttft_ms > 0
