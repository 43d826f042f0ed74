"""serveopt bench: its names, its gate on runs made by hand, wrong values, and small real runs."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from serveopt.cli.app import app
from serveopt.cli.benchmarks import lookups, machine, processes, runner, searches, stages, startup
from serveopt.cli.benchmarks.comparison import Change, compare, comparison_document, doubts
from serveopt.cli.benchmarks.figures import (
    FACT,
    LESS,
    MORE,
    NUMPY,
    PYTHON,
    Figure,
    Report,
    better_of,
    document,
    least,
    most,
    read_report,
)
from serveopt.cli.benchmarks.view import print_report
from serveopt.errors import ConfigError
from serveopt.solver.problem import Problem

DOCUMENT = Path(__file__).parents[2] / "docs" / "bench.md"
KEYS = [
    "version", "serveopt", "started", "machine", "load_1min", "calibration", "partial", "wall_s", "figures", "failures",
]  # fmt: skip
MACHINE_KEYS = ["cpu", "cores", "arch", "os", "python", "numba", "numpy", "polars", "compiled"]
FIGURE_KEYS = ["id", "part", "subject", "metric", "value", "better", "scaled_by", "spread", "repeats"]
COMPARISON_KEYS = ["earlier", "same_machine", "differences", "tolerance", "changes", "regressions", "notes"]
WALL = Figure("searches", "q32", "wall_s", 2.0, LESS, PYTHON, 1.1, 3)
PEAK = Figure("searches", "q32", "peak_mib", 200.0, LESS)
RATE = Figure("stages", "aggregated sweep, 1 thread", "candidates_s", 1e8, MORE, NUMPY, 1.02, 3)
COUNT = Figure("searches", "q32", "candidates", 1000.0)
TINY = Problem(
    model="Qwen/Qwen3-8B", system="h100_sxm", total_gpus=1, serving_mode="agg", isl=24, osl=6, ttft_ms=1e5, tpot_ms=1e4,
    max_batch=4, max_ctx_tokens=40,
)  # fmt: skip


def make_report(*figures: Figure, **other: Any) -> Report:
    """A run with calibration loops of 20 and 10 ms on this machine."""
    loops = {PYTHON: {"ms": 20.0, "spread": 1.0}, NUMPY: {"ms": 10.0, "spread": 1.0}}
    base = Report("0.1.0", "2026-01-01T00:00:00+00:00", machine.fingerprint(), 0.1, loops, list(figures))
    return replace(base, **other)


def saved(report: Report, target: Path) -> Path:
    """The file of a run."""
    target.write_text(json.dumps(document(report)))
    return target


def invoke(*words: str):
    return CliRunner().invoke(app, ["bench", *words])


def test_names_of_the_json_object() -> None:
    """A reader of version 1 relies on them, and docs/bench.md explains each."""
    written = document(make_report(WALL))
    comparison = comparison_document(compare(make_report(WALL), make_report(WALL), 1.25))
    assert list(written) == KEYS
    assert list(written["machine"]) == MACHINE_KEYS
    assert list(written["figures"][0]) == FIGURE_KEYS
    assert list(comparison) == COMPARISON_KEYS
    assert list(comparison["changes"][0]) == [field.name for field in fields(Change)]
    text = DOCUMENT.read_text()
    for name in (*KEYS, *MACHINE_KEYS, *FIGURE_KEYS, *COMPARISON_KEYS, *comparison["changes"][0]):
        assert f"`{name}`" in text, name
    for name, problem in searches.PROBLEMS.items():
        model, system, gpus, backend = problem
        assert f"| `{name}` | {model} | {gpus} {system} | {backend} |" in text


def test_a_run_is_read_as_it_was_saved(tmp_path: Path) -> None:
    report = make_report(WALL, RATE, failures=[{"part": "searches", "subject": "x", "message": "y"}], partial=True)
    assert asdict(read_report(saved(report, tmp_path / "run.json"))) == asdict(report)


def test_best_and_spread_of_repeats() -> None:
    assert least(("a", "b", "c_s"), [3.0, 2.0, 4.0], PYTHON) == Figure("a", "b", "c_s", 2.0, LESS, PYTHON, 2.0, 3)
    assert most(("a", "b", "c_s"), [3.0, 2.0, 4.0], NUMPY) == Figure("a", "b", "c_s", 4.0, MORE, NUMPY, 2.0, 3)


def test_measured_again_the_better_counts() -> None:
    assert better_of(WALL, replace(WALL, value=1.0)) == replace(WALL, value=1.0, spread=2.2, repeats=6)
    assert better_of(RATE, replace(RATE, value=2e8)).value == 2e8
    assert better_of(COUNT, replace(COUNT, value=1.0)).value == 1.0


@pytest.mark.parametrize(
    ("figure", "value", "regressed"),
    [(WALL, 2.4, False), (WALL, 2.6, True), (WALL, 0.1, False), (RATE, 9e7, False), (RATE, 7e7, True),
     (RATE, 5e8, False), (PEAK, 260.0, True), (COUNT, 9000.0, False)],
)  # fmt: skip
def test_gate_on_the_same_machine(figure: Figure, value: float, regressed: bool) -> None:
    now = replace(figure, value=value)
    comparison = compare(make_report(figure), make_report(now), 1.25)
    assert comparison.same_machine
    assert [change.id for change in comparison.regressions] == ([figure.id] if regressed else [])
    assert doubts(make_report(figure), 1.25)([now]) == regressed


def test_another_machine_is_compared_by_its_calibration_loops() -> None:
    """This machine takes twice as long for everything: nothing got worse but the memory."""
    far = make_report(WALL, RATE, PEAK)
    far.machine = far.machine | {"cpu": "another", "cores": far.machine["cores"] + 1}
    slow = {PYTHON: {"ms": 40.0, "spread": 1.0}, NUMPY: {"ms": 20.0, "spread": 1.0}}
    now = make_report(replace(WALL, value=4.0), replace(RATE, value=5e7), replace(PEAK, value=300.0), calibration=slow)
    comparison = compare(far, now, 1.25)
    assert not comparison.same_machine
    assert set(comparison.differences) == {"cpu", "cores"}
    assert [change.factor for change in comparison.changes] == pytest.approx([1.0, 1.0, 1.5])
    assert [change.id for change in comparison.regressions] == [PEAK.id]
    assert not doubts(far, 1.25)(now.figures)
    unknown = compare(replace(far, calibration={}), now, 1.25)
    assert [change.id for change in unknown.changes] == [PEAK.id]
    assert any(note.startswith(f"{WALL.id} was left out") for note in unknown.notes)


def test_notes_say_what_is_not_alike() -> None:
    slow = {PYTHON: {"ms": 30.0, "spread": 1.0}, NUMPY: {"ms": 10.0, "spread": 1.0}}
    earlier = make_report(WALL, COUNT, RATE, partial=True, load_1min=1e3)
    now = make_report(WALL, replace(COUNT, value=2000.0), calibration=slow)
    notes = "\n".join(compare(earlier, now, 1.25).notes)
    assert "the earlier run was interrupted" in notes
    assert "load average 1000.0" in notes
    assert "searches/q32/candidates: 1,000 before, 2,000 now" in notes
    assert "the python calibration loop, which serveopt has no part in, takes 1.50x as long" in notes
    assert "1 figures of the earlier run were not measured now" in notes


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--only", "kernels,everything"], "'everything' is not allowed; choose from startup, searches"),
        (["--problem", "q33"], "'q33' is not allowed; choose from q32, q235, dsv3, gptoss, kimi"),
        (["--repeat", "0"], "0 is not allowed; repeat 1 to 1000 times"),
        (["--tolerance", "0.9"], "0.9 is not allowed; tolerate a factor of 1 or more"),
        (["--tolerance", "nan"], "nan is not allowed; tolerate a factor of 1 or more"),
        (["--format", "xml"], "'xml' is not allowed; choose one of table, json"),
        (["--save", "/dev/null/run.json"], "cannot write /dev/null/run.json"),
        (["--save", "/"], "/ is a directory"),
        (["--compare", "/dev/null/run.json"], "cannot read /dev/null/run.json"),
    ],
)
def test_a_wrong_value_is_one_line_before_anything_is_measured(words: list[str], said: str) -> None:
    result = invoke(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    first = result.stderr.splitlines()[0]
    assert first.startswith("error: ")
    assert said in first


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a run of serveopt bench"),
        ('{"version": 99, "figures": []}', "has version 99, this program reads 1"),
        ('{"version": 1, "figures": []}', "is damaged"),
        ('{"version": 1, "figures": [{"x": 1}]}', "is damaged"),
        ('{"version": 1, "figures": [1]}', "is damaged"),
    ],
)
def test_a_file_that_is_no_run_is_told(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_report(tmp_path / "run.json")


@pytest.mark.jit_sizes
def test_a_small_run_saves_and_is_its_own_equal(tmp_path: Path) -> None:
    target = tmp_path / "run.json"
    words = ["--only", "kernels", "--repeat", "1", "--format", "json"]
    first = invoke(*words, "--save", str(target))
    assert first.exit_code == 0, first.stderr
    run = json.loads(first.stdout)
    assert {figure["part"] for figure in run["figures"]} == {"kernels"}
    assert {figure["metric"] for figure in run["figures"]} == {"ns"}
    assert "kernels: lookups" in first.stderr
    assert {"python", "numpy"} == set(run["calibration"])
    assert document(read_report(target)) == run
    second = invoke(*words, "--compare", str(target), "--tolerance", "1e6", "--quiet")
    assert (second.exit_code, second.stderr) == (0, "")
    compared = json.loads(second.stdout)["comparison"]
    assert compared["same_machine"]
    assert len(compared["changes"]) == len(run["figures"])


@pytest.mark.jit_sizes
def test_a_regression_is_a_line_and_exit_code_1(tmp_path: Path) -> None:
    fast = make_report(Figure("kernels", "curve lookup", "ns", 1e-6, LESS, NUMPY))
    result = invoke("--only", "kernels", "--repeat", "1", "-q", "--compare", str(saved(fast, tmp_path / "run.json")))
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("regression: kernels/curve lookup/ns: 1e-06 before, ")
    assert "1.25x is tolerated" in lines[0]
    assert "1 figures, 1 worse than 1.25x" in result.stdout


def test_every_kernel_is_measured_on_any_size() -> None:
    figures = lookups.measure_lookups(repeat=2, items=20, round_s=0.0)
    assert len({figure.id for figure in figures}) == 7
    assert all(figure.value > 0 and figure.spread >= 1 for figure in figures)


def test_stages_on_small_sizes() -> None:
    swept = stages.measure_sweep(threads=2, repeat=1, problem=TINY)
    assert swept[1] == Figure("stages", "aggregated sweep, 2 threads", "candidates", swept[1].value)
    assert swept[0].value > 0 and swept[1].value > 0
    matched = stages.measure_matching(threads=2, repeat=1, rows=1)
    assert matched[0].subject == "disaggregated matching, 2 threads"
    assert matched[1].value > 100


@pytest.mark.jit_sizes
def test_planning_starts_from_nothing() -> None:
    (figure,) = stages.measure_planning(repeat=2)
    assert figure.metric == "layouts_s"
    assert figure.value > 0


def test_a_search_is_a_process_of_its_own() -> None:
    limits = ["--serving-mode", "agg", "--max-batch", "2", "--max-ctx-tokens", "100", "--isl", "100", "--osl", "10"]
    figures = {figure.metric: figure for figure in searches.measure_search("gptoss", 1, limits)}
    assert list(figures) == ["wall_s", "cpu_s", "peak_mib", "search_s", "candidates", "best_tokens_s_gpu"]
    assert all(figure.value > 0 for figure in figures.values())
    assert figures["candidates"].better == FACT


def test_a_search_that_fails_is_told_and_the_rest_goes_on() -> None:
    report, choice = make_report(), runner.Choice(("searches",), ("q32",), 1, True)
    step = runner.Step("searches", "q32", lambda: searches.measure_search("q32", 1, ["--isl", "0"]))
    assert runner.take(report, step, runner.trust) == []
    assert report.failures[0]["subject"] == "q32"
    assert "0 is not allowed" in report.failures[0]["message"]
    assert [step.part for step in runner.plan(choice)] == ["searches"]


def test_what_is_in_doubt_is_measured_twice() -> None:
    report, values = make_report(), iter([3.0, 2.0])
    step = runner.Step("searches", "q32", lambda: [replace(WALL, value=next(values))])
    runner.take(report, step, doubts(make_report(replace(WALL, value=1.0)), 1.25))
    assert [figure.value for figure in report.figures] == [2.0]


def test_a_process_that_fails_or_takes_too_long_is_one_error() -> None:
    with pytest.raises(processes.RunError, match=r"left with 3 .* boom"):
        processes.run([sys.executable, "-c", "import sys; print('boom', file=sys.stderr); sys.exit(3)"])
    with pytest.raises(processes.RunError, match="cannot start"):
        processes.run(["/nonexistent/program"])
    with pytest.raises(processes.RunError, match="left with -9"):
        processes.run([sys.executable, "-c", "import time; time.sleep(60)"], limit_s=0.05)


def test_startup_steps() -> None:
    figures = startup.measure_step("import serveopt", 1)
    assert [figure.metric for figure in figures] == ["inside_ms", "process_ms", "peak_mib"]
    assert [figure.metric for figure in startup.measure_step(startup.VERSION_COMMAND, 1)] == ["process_ms"]


def test_processes_are_measured_before_this_one_grows() -> None:
    """The parts that load the compiler come last, and planning a run does not load it."""
    assert runner.PARTS[-2:] == ("kernels", "stages")
    script = "import sys; from serveopt.cli.benchmarks import runner; list(runner.plan(runner.Choice()))\n"
    script += "print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_ctrl_c_keeps_what_was_measured() -> None:
    words = [sys.executable, "-m", "serveopt", "bench", "--only", "startup", "--repeat", "2", "--format", "json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stderr is not None
        line = ""
        while not line.startswith("[1/"):
            line = child.stderr.readline()
            assert line
        os.kill(child.pid, signal.SIGINT)
        out, err = child.communicate(timeout=60)
    run = json.loads(out)
    assert (child.returncode, run["partial"]) == (130, True)
    assert 1 <= len(run["figures"]) < 12
    assert "interrupted: partial" in err


def test_the_table_fits_80_columns() -> None:
    values = {"wall_s": 123.4, "cpu_s": 123.4, "peak_mib": 1234.5, "candidates": 2e9, "best_tokens_s_gpu": 12345.6}
    rows = [replace(WALL, metric=metric, value=value) for metric, value in values.items()]
    report = make_report(*rows, RATE, Figure("startup", "import serveopt", "inside_ms", 12.3, LESS, PYTHON, 1.0, 2))
    comparison = compare(report, report, 1.25)
    console = Console(width=80, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    with console.file:
        print_report(report, console, comparison)
    text = console.export_text()
    assert "…" not in text
    assert "import serveopt, the step" in text
    assert "7 figures, none worse than 1.25x" in text
