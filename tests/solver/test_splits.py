"""Which layouts a search takes: the reference's lists by count, the exhaustive ones by the rules they must obey."""

import pytest

from serveopt.errors import ConfigError, MissingTable
from serveopt.solver.engine import Engine, open_engine
from serveopt.solver.layout import Layout
from serveopt.solver.limits import check_exchange, check_layout, layout_fault
from serveopt.solver.opening import query_of
from serveopt.solver.problem import Problem
from serveopt.solver.splits import reference_layouts, role_filter, split_layouts, wide_widths

V3, Q235, Q32 = "deepseek-ai/DeepSeek-V3", "Qwen/Qwen3-235B-A22B-FP8", "Qwen/Qwen3-32B-FP8"
ROLES = ("agg", "prefill", "decode")
# search_model.md 7.2 and 13: tuples of the reference at 64 GPUs.
COUNTS = {
    (V3, "b200_sxm", "trtllm"): (39, 34, 39),
    (V3, "b200_sxm", "sglang"): (315, 220, 105),
    (Q235, "h200_sxm", "trtllm"): (29, 29, 29),
    (Q235, "h200_sxm", "vllm"): (29, 29, 29),
    (Q32, "h200_sxm", "trtllm"): (4, 4, 4),
    (Q32, "h200_sxm", "sglang"): (10, 10, 4),
}


def asked(model: str, system: str, backend: str, **options: object) -> tuple[Problem, Engine]:
    """A problem over 64 GPUs and its engine."""
    problem = Problem(model=model, system=system, backend=backend, **{"total_gpus": 64, **options})
    return problem, open_engine(query_of(problem, system))


@pytest.mark.parametrize(("place", "counts"), COUNTS.items(), ids=lambda value: "-".join(map(str, value)))
def test_reference_lists_have_the_reference_s_size(place: tuple[str, str, str], counts: tuple[int, ...]) -> None:
    problem, engine = asked(*place, space="reference")
    found = [list(reference_layouts(problem, engine, role)) for role in ROLES]
    assert tuple(map(len, found)) == counts
    assert all(len(set(layouts)) == len(layouts) for layouts in found)
    assert set(found[1]) | set(found[2]) <= set(found[0])  # one list of workers serves all roles


@pytest.mark.parametrize("backend", ["trtllm", "sglang", "vllm"])
def test_exhaustive_layouts_obey_the_rules(backend: str) -> None:
    problem, engine = asked(V3, "b200_sxm", backend)
    valid, faulty = split_layouts(problem, engine)
    assert len(set(valid)) == len(valid)
    for layout in valid:
        assert layout.tp * layout.attn_dp * layout.cp == layout.moe_tp * layout.moe_ep
        assert layout.n_gpus <= 64
        assert backend != "trtllm" or layout.attn_dp == 1 or layout.tp == 1
        assert backend != "vllm" or layout.moe_tp == 1 or layout.moe_ep == 1
    assert all(layout_fault(engine, layout) for layout, _ in faulty)
    assert max(layout.moe_ep for layout in valid) == 64
    within = {layout for layout in valid if layout.n_gpus <= 8 and layout.cp == 1}
    assert {Layout(8, 1, 1, 1, 8), Layout(1, 1, 8, 1, 8)} <= within


def test_context_parallel_workers_only_prefill() -> None:
    problem, engine = asked(V3, "b200_sxm", "sglang")
    split = [layout for layout in split_layouts(problem, engine)[0] if layout.cp > 1]
    assert split
    for layout in split:
        assert [role_filter(problem, engine, role)(layout) for role in ROLES] == [False, True, False]
    assert not [layout for layout in split_layouts(*asked(V3, "b200_sxm", "trtllm"))[0] if layout.cp > 1]


def test_dense_models_have_no_expert_degrees() -> None:
    valid, _ = split_layouts(*asked(Q32, "h200_sxm", "trtllm"))
    assert {layout[2:] for layout in valid} == {(1, 1, 1, 1)}
    assert {layout.tp for layout in valid} == {1, 2, 4, 8}


def test_wide_widths_follow_the_data_and_the_user() -> None:
    assert 32 in wide_widths(asked(V3, "b200_sxm", "sglang")[1])
    assert 8 not in wide_widths(asked(V3, "b200_sxm", "sglang")[1])  # one node: collectives, unless asked for
    assert 8 in wide_widths(asked(V3, "b200_sxm", "sglang", enable_wide_ep=True)[1])
    assert wide_widths(asked(V3, "b200_sxm", "sglang", enable_wide_ep=False)[1]) == []
    assert wide_widths(asked(Q32, "h200_sxm", "trtllm")[1]) == []


@pytest.mark.parametrize(
    ("place", "layout", "field"),
    [
        ((V3, "b200_sxm", "trtllm"), Layout(3, moe_ep=3), "tp"),
        ((V3, "b200_sxm", "trtllm"), Layout(8, moe_ep=4), "moe_ep"),
        ((V3, "b200_sxm", "trtllm"), Layout(2, attn_dp=2, moe_ep=4), "attn_dp"),
        ((V3, "b200_sxm", "vllm"), Layout(4, moe_tp=2, moe_ep=2), "moe_tp"),
        ((V3, "b200_sxm", "trtllm"), Layout(cp=2, moe_ep=2), "cp"),
        ((V3, "b200_sxm", "sglang"), Layout(tp=2, cp=2, moe_ep=4), "cp"),
        ((V3, "b200_sxm", "sglang"), Layout(pp=100), "pp"),
        ((Q32, "h200_sxm", "trtllm"), Layout(attn_dp=2), "attn_dp"),
        ((Q32, "h200_sxm", "trtllm"), Layout(tp=2, moe_ep=2), "moe_ep"),
        ((Q235, "h200_sxm", "trtllm"), Layout(tp=16, moe_ep=16), None),
    ],
)
def test_faults_name_their_degree(place: tuple[str, str, str], layout: Layout, field: str | None) -> None:
    fault = layout_fault(asked(*place)[1], layout)
    assert (fault[0] if fault else None) == field
    if fault:
        with pytest.raises(ConfigError) as caught:
            check_layout(asked(*place)[1], layout, "decode_")
        assert caught.value.field == f"decode_{field}"


def test_experts_across_nodes_need_a_measured_exchange() -> None:
    _, engine = asked(Q235, "h200_sxm", "trtllm")
    with pytest.raises(MissingTable, match="no exchange between 16 expert ranks"):
        check_exchange(engine, Layout(attn_dp=16, moe_ep=16))
    check_exchange(engine, Layout(attn_dp=8, moe_ep=8))
    check_exchange(asked(V3, "b200_sxm", "sglang")[1], Layout(attn_dp=16, moe_ep=16))


def test_latent_attention_has_no_kv_heads_to_split() -> None:
    _, engine = asked("deepseek-ai/DeepSeek-V4-Flash", "b200_sxm", "sglang")
    assert layout_fault(engine, Layout(tp=8, moe_ep=8)) is None
