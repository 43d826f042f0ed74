"""What every test directory shares: where reference data lies, and sizes that need compiled kernels."""

import os
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without compilation, tests marked ``jit_sizes`` would take minutes."""
    if os.environ.get("NUMBA_DISABLE_JIT", "0") in ("", "0"):
        return
    for item in items:
        if "jit_sizes" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs compiled kernels at this size"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The directory of reference data; tests that need it are skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("reference data ../shared is absent")
    return SHARED
