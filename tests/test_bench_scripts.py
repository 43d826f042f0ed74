"""The scripts of bench/: they start, refuse what is wrong, and read what the peer prints."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from serveopt.kernels import aggregate, sweeping

BENCH = Path(__file__).resolve().parents[1] / "bench"
SCRIPTS = ["side_by_side", "scaling", "roofline"]
# As the peer prints them, under one backend and under all.
PEER_TABLES = """
agg Top Configurations: (Ranked by tokens/s/gpu)
+------+---------+--------------+---------------+
| Rank | backend | tokens/s/gpu | tokens/s/user |
+------+---------+--------------+---------------+
|  1   |  trtllm |   1368.35    |     44.54     |
|  2   |  trtllm |   1348.88    |     34.62     |
+------+---------+--------------+---------------+

disagg_sglang Top Configurations: (Ranked by tokens/s/gpu)
+------+---------+--------------+---------------+
| Rank | backend | tokens/s/gpu | tokens/s/user |
+------+---------+--------------+---------------+
|  1   |  sglang |   1200.00    |     49.18     |
+------+---------+--------------+---------------+

disagg_trtllm Top Configurations: (Ranked by tokens/s/gpu)
| Rank | backend | tokens/s/gpu | tokens/s/user |
|  1   |  trtllm |   1449.23    |     49.18     |
********************************************************************************
| a later table | of something else |
"""


@pytest.fixture(autouse=True)
def beside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts find the modules beside them."""
    monkeypatch.syspath_prepend(str(BENCH))


def load(name: str) -> ModuleType:
    """The module of a script."""
    spec = importlib.util.spec_from_file_location(f"bench_{name}", BENCH / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def start(name: str, *words: str) -> "subprocess.CompletedProcess[str]":
    """The finished process of a script."""
    env = os.environ | {"PYTHONPATH": str(BENCH.parent)}
    return subprocess.run([sys.executable, str(BENCH / f"{name}.py"), *words], env=env, capture_output=True, text=True)


@pytest.mark.parametrize("name", SCRIPTS)
def test_help(name: str) -> None:
    done = start(name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"python bench/{name}.py" in done.stdout


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("side_by_side", ["--peer-python", "/nonexistent/bin/python"], "side_by_side: no aiconfigurator beside"),
        ("side_by_side", ["--peer-python", "x", "--problem", "q32,q33"], "'q33' is none of q32, q235, dsv3"),
        ("side_by_side", ["--peer-python", "x", "--repeat", "0"], "must be at least 1"),
        ("scaling", ["--along", "gpus"], "invalid choice"),
        ("roofline", ["--repeat", "few"], "invalid int value"),
    ],
)
def test_a_wrong_value_is_told(name: str, words: list[str], said: str) -> None:
    done = start(name, *words)
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_the_peers_best_rates_are_read_from_its_tables() -> None:
    assert load("side_by_side").peer_best(PEER_TABLES) == {"agg": 1368.35, "disagg": 1449.23}


def test_the_peers_silence_is_no_rate() -> None:
    assert load("side_by_side").peer_best("No results.") == {"agg": 0.0, "disagg": 0.0}


def test_side_by_side_asks_the_standard_problems() -> None:
    module = load("side_by_side")
    assert module.read_problems("standard") == ["q32", "q235", "dsv3", "gptoss", "kimi"]
    assert set(module.read_problems("all,q32")) == set(module.PROBLEMS)


def test_the_roofline_counts_loops_that_exist() -> None:
    """Whoever renames or removes a loop of the sweep has to count again."""
    for name in load("roofline").LOOPS:
        assert any(hasattr(module, name.split(":")[0]) for module in (aggregate, sweeping)), name


def test_bounds_of_a_roofline() -> None:
    module = load("roofline")
    machine = module.Machine(2e9, 1e9, 4e9, 5e8, 2.0, 5.0)
    work = module.Work(loads=3, stores=1, arithmetic=8, divisions=1, dependent=2)
    near, far = (list(module.bounds_ns(work, machine, level).values()) for level in (1, 2))
    assert near == pytest.approx([2.0, 2.0, 2.0, 4.0])  # memory, arithmetic, divisions, dependent loads
    assert far == pytest.approx([4.0, 2.0, 2.0, 10.0])
