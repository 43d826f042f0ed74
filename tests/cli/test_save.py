"""--save-dir: all of the result or none of it, and a clear word before the search when it cannot be."""

import csv
import json
from pathlib import Path

import pytest

from serveopt.cli import save
from serveopt.errors import ConfigError
from tests.cli.rankings import make_ranking


def test_the_whole_result_is_written(tmp_path: Path) -> None:
    target = tmp_path / "made" / "for" / "it"
    save.check_save_dir(target)
    save.save_result(make_ranking(), target)
    files = sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file())
    tables = [
        "agg/best_config_topn.csv",
        "agg/pareto.csv",
        "disagg/best_config_topn.csv",
        "disagg/pareto.csv",
    ]
    assert files == [*tables, "pareto_frontier.png", "result.json"]
    assert json.loads((target / "result.json").read_text())["version"] == 1
    assert (target / "pareto_frontier.png").stat().st_size > 10_000
    with (target / "disagg" / "best_config_topn.csv").open() as file:
        first = next(csv.DictReader(file))
    assert first["(p)workers"] == "2"
    assert first["tokens/s/gpu"] == "1449.2"
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_an_empty_directory_is_filled(tmp_path: Path) -> None:
    save.check_save_dir(tmp_path / "there")
    (tmp_path / "there").mkdir()
    save.save_result(make_ranking(), tmp_path / "there")
    assert (tmp_path / "there" / "result.json").is_file()


def test_a_mode_without_rows_has_no_directory(tmp_path: Path) -> None:
    ranking = make_ranking()
    save.save_result(make_ranking(chosen="agg", disagg=ranking.disagg.clear()), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "agg",
        "pareto_frontier.png",
        "result.json",
    ]


def test_nothing_is_left_behind_by_a_failure(tmp_path: Path) -> None:
    broken = make_ranking(agg=make_ranking().agg.drop("batch"))
    with pytest.raises(Exception, match="batch"):
        save.save_result(broken, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "old.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is not empty") as caught:
        save.check_save_dir(tmp_path)
    assert caught.value.field == "save_dir"
    with pytest.raises(ConfigError, match="is a file"):
        save.check_save_dir(tmp_path / "old.txt")
    assert (tmp_path / "old.txt").read_text() == "mine"


def test_an_unwritable_place_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot write") as caught:
        save.check_save_dir(tmp_path / "file" / "below")
    assert "\n" not in caught.value.message
