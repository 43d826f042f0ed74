"""``serveopt explore`` from outside: what it needs, and that no other command pays for it."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from serveopt.cli.app import app

QUESTION = ["explore", "--model", "Qwen/Qwen3-8B", "--system", "h100_sxm", "--total-gpus", "2"]
RUN = "import sys; from serveopt.cli.app import app; "


def run_code(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_without_the_extra_one_line_says_how_to_get_it() -> None:
    done = run_code(f"{RUN}sys.modules['textual'] = None; app({QUESTION!r})")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: explore needs Textual: pip install 'serveopt[tui]'\n"


@pytest.mark.parametrize("words", [["--help"], ["explore", "--help"], ["support", "--help"]])
def test_help_does_not_load_textual(words: list[str]) -> None:
    done = run_code(f"{RUN}import atexit; atexit.register(lambda: print('textual' in sys.modules)); app({words!r})")
    assert done.returncode == 0
    assert done.stdout.endswith("False\n")


def test_a_wrong_value_is_found_before_the_view() -> None:
    result = CliRunner().invoke(app, [*QUESTION, "--isl", "0"])
    assert result.exit_code == 2
    assert result.stderr.startswith("error: --isl: 0 is not allowed")


def test_it_needs_a_terminal() -> None:
    pytest.importorskip("textual", reason="the extra 'tui' is not installed")
    result = CliRunner().invoke(app, QUESTION)
    assert result.exit_code == 2
    assert result.stderr == "error: explore needs a terminal; 'serveopt default' prints the same ranking anywhere\n"
