"""Compiled code on disk: whole or as good as absent, whatever happens to the process, the files or the directory."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

from serveopt.kernels import jit
from serveopt.kernels.jit import KernelCache, cache_directory, must_compile

pytestmark = pytest.mark.jit_sizes

# Dies where it hurts most: when the compiled code has been written and is about to get its name.
KILLED = """
import os, signal, sys
from pathlib import Path
from tests.kernels.test_jit import ready
os.replace = lambda *names: os.kill(os.getpid(), signal.SIGKILL)
ready(Path(sys.argv[1]))(1.0, 2.0)
"""
ALL_KERNELS = """
from serveopt.solver.events import Compiling
from serveopt.solver.warm import compile_kernels
from serveopt.kernels import grids, sweeping
compile_kernels(print)
print(sum(grids.fill_efficiency.stats.cache_hits.values()), sum(sweeping.sweep_batches.stats.cache_hits.values()))
"""


def add(x: float, y: float) -> float:
    """A kernel that compiles at once."""
    return x + y


def ready(directory: Path) -> Any:
    """``add`` as a process sees it that has not called it yet."""
    compiled = numba.njit(add)
    compiled._cache = KernelCache(add, directory)
    return compiled


def loads(directory: Path) -> bool:
    """True if ``add`` is loaded and not compiled; its result is right either way."""
    compiled = ready(directory)
    assert compiled(1.0, 2.0) == 3.0
    return bool(sum(compiled.stats.cache_hits.values()))


@pytest.fixture
def fresh() -> Iterator[None]:
    """The cached choice of a directory forgotten before and after a test."""
    cache_directory.cache_clear()
    yield
    cache_directory.cache_clear()


def test_second_process_loads(tmp_path: Path) -> None:
    assert not loads(tmp_path)
    assert loads(tmp_path)


def test_signatures_have_files_of_their_own(tmp_path: Path) -> None:
    compiled = ready(tmp_path)
    assert compiled(1.0, 2.0) == 3.0
    assert compiled(1, 2) == 3
    assert compiled(np.ones(2), np.ones(2)).tolist() == [2.0, 2.0]
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.5, 0.999])
def test_truncated_file_is_compiled_anew(tmp_path: Path, share: float) -> None:
    assert not loads(tmp_path)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * share)])
    assert not loads(tmp_path)
    assert loads(tmp_path)


def test_flipped_byte_is_compiled_anew(tmp_path: Path) -> None:
    assert not loads(tmp_path)
    (file,) = tmp_path.iterdir()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert not loads(tmp_path)
    assert loads(tmp_path)


def test_killed_process_leaves_nothing_that_is_loaded(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert [file.suffix for file in tmp_path.iterdir()] == [".tmp"]
    assert not loads(tmp_path)
    assert loads(tmp_path)


def test_vanished_directory_is_no_reason_to_fail(tmp_path: Path) -> None:
    assert not loads(tmp_path / "gone")
    assert not loads(tmp_path / "gone")


@pytest.mark.usefixtures("fresh")
def test_unusable_home_gives_way_to_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home below a file cannot be made by anybody, root included."""
    (tmp_path / "file").touch()
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    found = cache_directory()
    assert found is not None
    assert tmp_path not in found.parents


@pytest.mark.usefixtures("fresh")
@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() == 0, reason="root may write anywhere")
def test_read_only_home_gives_way_to_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o500)
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = cache_directory()
    assert found is not None
    assert tmp_path not in found.parents


@pytest.mark.usefixtures("fresh")
def test_nothing_can_be_written_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "file"))
    assert cache_directory() is None


def test_new_process_loads_every_kernel() -> None:
    """Loading does without most of what numba needs to compile: every kernel still runs."""
    for _ in range(2):  # the first may find nothing
        done = subprocess.run([sys.executable, "-c", ALL_KERNELS], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-2:] == ["1", "1"]


@pytest.mark.usefixtures("fresh")
def test_a_deleted_directory_means_compiling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A running process whose cache was deleted, and parts that a killed one left, are no kernels."""
    monkeypatch.setattr(jit.config, "DISABLE_JIT", 0)
    monkeypatch.setattr(jit, "COMPILED", [])
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    found = cache_directory()
    assert found is not None
    (found / f"add-1{jit.PART}").touch()
    assert must_compile()
    (found / "add-1").touch()
    assert not must_compile()
    shutil.rmtree(found)
    assert must_compile()
