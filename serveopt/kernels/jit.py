"""The one njit wrapper of the package, and where its compiled code is kept.

``error_model="numpy"``: a division by zero is inf or NaN, as in numpy, and costs no branch.
``nogil``: chunks run side by side in ordinary threads, so progress can be shown and Ctrl-C is heard between
chunks (ARCHITECTURE.md, "Threads, not prange"). No fastmath: NaN means "no data".

Numba's own cache knows a kernel by its own file only, and would go on serving a kernel whose callee in another file
has changed. The cache directory therefore carries a digest of all kernel sources. Where no directory can be written,
kernels are compiled anew in every process.
"""

import functools
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba

config: Any = numba.config  # its settings are made at run time


def source_digest() -> str:
    """A digest of every kernel source and of the compiler's version."""
    digest = hashlib.sha256(numba.__version__.encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def cache_homes() -> Iterator[Path]:
    """Directories that may hold compiled code, best first."""
    if os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(os.environ["NUMBA_CACHE_DIR"])
    elif os.environ.get("XDG_CACHE_HOME"):
        yield Path(os.environ["XDG_CACHE_HOME"]) / "serveopt"
    elif "HOME" in os.environ:
        yield Path(os.environ["HOME"]) / ".cache" / "serveopt"
    yield Path(tempfile.gettempdir()) / f"serveopt-{os.getuid() if hasattr(os, 'getuid') else 'user'}"


@functools.cache
def cache_directory() -> str | None:
    """The directory for compiled code; None when none can be written by this user alone."""
    for home in cache_homes():
        path = home / f"kernels-{source_digest()}"
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path):
                pass
            # Compiled code is loaded without further checks: a directory of somebody else's is not to be trusted.
            if not hasattr(os, "getuid") or path.stat().st_uid == os.getuid():
                return str(path)
        except OSError:
            continue
    return None


def kernel(function: Callable[..., Any]) -> Any:
    """``function`` compiled on first call, kept on disk for the next process."""
    directory = cache_directory()
    outer, config.CACHE_DIR = config.CACHE_DIR, directory or ""
    try:
        return numba.njit(cache=directory is not None, error_model="numpy", nogil=True)(function)
    finally:
        config.CACHE_DIR = outer
