"""Progress goes to stderr: one line about compiling in a file, a bar on a terminal, nothing when quiet."""

import pytest

from serveopt.cli.progress import COMPILING, ProgressView
from serveopt.solver.events import Compiling, Progress

EVENTS = [Compiling("sweep", 0, 2), Compiling("match", 1, 2), Progress("agg", 1, 4, 1000)]


def test_a_file_gets_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressView() as view:
        for event in EVENTS:
            view(event)
    assert capsys.readouterr() == ("", f"{COMPILING} ...\n")


def test_a_terminal_gets_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with ProgressView() as view:
        for event in EVENTS:
            view(event)
    out, err = capsys.readouterr()
    assert out == ""
    assert COMPILING in err


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressView(quiet=True) as view:
        for event in EVENTS:
            view(event)
    assert capsys.readouterr() == ("", "")
