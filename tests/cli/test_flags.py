"""Options are rows of a table over the records they fill."""

from dataclasses import fields

import pytest

from serveopt.cli.flags import POINT_FLAGS, SEARCH_FLAGS, field_values, flag_name, normalise_args, parameters
from serveopt.solver.point import Point
from serveopt.solver.problem import Problem

TABLES = [(Problem, SEARCH_FLAGS), (Point, POINT_FLAGS)]


@pytest.mark.parametrize(("record", "flags"), TABLES)
def test_every_field_has_exactly_one_option(record: type, flags: tuple) -> None:
    assert sorted(flag.field for flag in flags) == sorted(field.name for field in fields(record))


@pytest.mark.parametrize(("record", "flags"), TABLES)
def test_no_spelling_means_two_things(record: type, flags: tuple) -> None:
    names = [name for flag in flags for name in flag.names]
    assert len(names) == len(set(names))
    assert all("_" not in name for name in names)


def test_a_spelling_is_first_everywhere_or_nowhere() -> None:
    first = {flag.names[0] for _, flags in TABLES for flag in flags}
    others = {name for _, flags in TABLES for flag in flags for name in flag.names[1:]}
    assert not first & others


def test_defaults_are_those_of_the_record() -> None:
    found = {parameter.name: parameter.default for parameter in parameters(Problem, SEARCH_FLAGS)}
    problem = Problem(model="m", system="s", total_gpus=1)
    assert found["ttft_ms"] == problem.ttft_ms
    assert found["model"] is parameters(Problem, SEARCH_FLAGS)[0].empty
    assert {parameter.default for parameter in parameters(Point, POINT_FLAGS, required=False)[:2]} == {None}


@pytest.mark.parametrize(
    ("words", "read"),
    [
        ("default --model_path m --total_gpus 8", "default --model m --total-gpus 8"),
        ("default --model m --total-gpus 8", "default --model m --total-gpus 8"),
        ("cli default --ttft_ms=5.0", "default --ttft=5.0"),
        ("estimate --bs 4 --prefill_tp_size 2", "estimate --batch-size 4 --p-tp 2"),
        ("data import a_b --to c_d", "data import a_b --to c_d"),
        ("default -- --model_path", "default -- --model_path"),
    ],
)
def test_normalise_args(words: str, read: str) -> None:
    assert normalise_args(words.split()) == read.split()


def test_comma_lists_become_tuples() -> None:
    flags = [flag for flag in SEARCH_FLAGS if flag.field == "systems_paths"]
    assert field_values(flags, {"systems_paths": "a, default,"}) == {"systems_paths": ("a", "default")}


@pytest.mark.parametrize(
    ("field", "flag"),
    [("tpot_ms", "--tpot"), ("kv_quant", "--kvcache-quant-mode"), ("save_dir", "--save-dir")],
)
def test_flag_name(field: str, flag: str) -> None:
    assert flag_name(field) == flag
