"""serveopt support: a matrix found by pricing, in three forms, kept when interrupted."""

import json

import pytest
from typer.testing import CliRunner

import serveopt.solver.support as support
from serveopt.cli.app import app

PLACE = ["--system", "h200_sxm", "--backend", "trtllm"]
DENSE, HELD = "Qwen/Qwen3-32B-FP8", "nvidia/Qwen3-235B-A22B-NVFP4"


def invoke(*words: str):
    return CliRunner().invoke(app, ["support", *words])


def test_cells_say_what_is_covered_and_what_is_missing() -> None:
    result = invoke("--model", f"{DENSE},{HELD}", *PLACE, "--format", "json")
    assert result.exit_code == 0, result.output
    dense, held = json.loads(result.stdout)["support"]
    assert (dense["model"], dense["status"], dense["layout"]) == (DENSE, "ok", "tp1pp1")
    assert 0.5 < dense["silicon_share"] <= 1.0
    assert (held["status"], held["silicon_share"]) == ("missing", None)
    assert "nvfp4_wo" in held["detail"]


@pytest.mark.parametrize("form", ["csv", "table"])
def test_other_forms(form: str) -> None:
    result = invoke("--model", DENSE, "--system", "h200_sxm,b60", "--format", form)
    assert result.exit_code == 0, result.output
    assert "vllm" in result.stdout
    if form == "csv":
        assert len(result.stdout.splitlines()) == 1 + 2 * 3


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--model", "nope"], "error: --model: unknown model"),
        (["--model", DENSE, "--system", "moon"], "error: --system: unknown system"),
        (["--model", DENSE, "--backend", "tgi"], "error: --backend: 'tgi' is not allowed"),
        (["--format", "xml"], "error: --format: 'xml' is not allowed"),
        (["--database-mode", "gold"], "error: --database-mode: 'gold' is not allowed"),
    ],
)
def test_wrong_words_are_one_line(words: list[str], line: str) -> None:
    result = invoke(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(line)


def test_an_unknown_architecture_is_refused_with_those_that_are_known(tmp_path) -> None:
    config = {
        "architectures": ["StrangeForCausalLM"], "num_hidden_layers": 2, "hidden_size": 8, "num_attention_heads": 2,
        "vocab_size": 8, "max_position_embeddings": 8,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    result = invoke("--model", str(tmp_path), *PLACE)
    assert result.exit_code == 2
    assert "unknown architecture 'StrangeForCausalLM'" in result.stderr
    assert "LlamaForCausalLM" in result.stderr


def test_ctrl_c_keeps_what_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    found = support.find_support

    def interrupted(*words):
        yield next(found(*words))
        raise KeyboardInterrupt

    monkeypatch.setattr(support, "find_support", interrupted)
    result = invoke("--model", f"{DENSE},{HELD}", *PLACE, "--format", "csv")
    assert result.exit_code == 130
    assert DENSE in result.stdout
    assert HELD not in result.stdout
    assert result.stderr.splitlines()[-1] == "interrupted: 1 of 2 looked at"
