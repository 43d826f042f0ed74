"""The one njit wrapper of the package, and where its compiled code is kept.

``error_model="numpy"``: a division by zero is inf or NaN, as in numpy, and costs no branch.
``nogil``: chunks run side by side in ordinary threads, so progress can be shown and Ctrl-C is heard between
chunks (ARCHITECTURE.md, "Threads, not prange"). No fastmath: NaN means "no data".

Compiled code is kept by ``KernelCache`` and not by numba's own cache, for three reasons. Numba's knows a kernel by its
own file only, and would go on serving a kernel whose callee in another file has changed: here the directory carries a
digest of all kernel sources. Numba's trusts its files, and its index and data can come from different processes: here a
file is replaced as a whole and carries a checksum, so that a killed process, a full disk or two first runs at once cost
a compilation, never a crash. And numba's first reads everything that its compiler knows, which takes longer than the
loading. Where no directory can be written, kernels are compiled anew in every process.
"""

import contextlib
import functools
import hashlib
import os
import pickle
import secrets
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import NullCache
from numba.core.compiler import CompileResult
from numba.core.runtime import rtsys
from numba.core.serialize import dumps

config: Any = numba.config  # its settings are made at run time
CHECKSUM_BYTES = hashlib.sha256().digest_size
PART = ".tmp"
COMPILED: list[str] = []  # kernels that were not found on disk by this process


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
    try:
        scratch = tempfile.gettempdir()
    except FileNotFoundError:  # nothing can be written anywhere
        return
    yield Path(scratch) / f"serveopt-{os.getuid() if hasattr(os, 'getuid') else 'user'}"


@functools.cache
def cache_directory() -> Path | None:
    """The directory for compiled code; None when none can be written by this user alone."""
    for home in cache_homes():
        path = home / f"kernels-{source_digest()}"
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path):
                pass
            # Compiled code is loaded without further checks: a directory of somebody else's is not to be trusted.
            if not hasattr(os, "getuid") or path.stat().st_uid == os.getuid():
                return path
        except OSError:
            continue
    return None


class KernelCache(NullCache):
    """Compiled code of one kernel, a file for each signature: whole, or as good as not there."""

    def __init__(self, function: Callable[..., Any], directory: Path) -> None:
        self.name = f"{function.__module__.rpartition('.')[2]}.{function.__qualname__}"
        self.directory = directory

    @property
    def cache_path(self) -> str:
        """The directory, under the name that numba's statistics ask for."""
        return str(self.directory)

    def path(self, signature: Any, codegen: Any) -> Path:
        """The file of a signature, for this processor and this Python."""
        key = repr((signature, codegen.magic_tuple(), sys.implementation.cache_tag))
        return self.directory / f"{self.name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The compiled code of a signature; None where there is none, or it is damaged."""
        content = b""
        with contextlib.suppress(OSError):
            content = self.path(sig, target_context.codegen()).read_bytes()
        checksum, payload = content[:CHECKSUM_BYTES], content[CHECKSUM_BYTES:]
        if not payload or hashlib.sha256(payload).digest() != checksum:
            COMPILED.append(self.name)
            return None
        rtsys.initialize(target_context)  # machine code refers to the functions of numba's runtime
        return CompileResult._rebuild(target_context, *pickle.loads(payload))

    def save_overload(self, sig: Any, data: Any) -> None:
        """Nothing; keeps compiled code for other processes, where the disk takes it."""
        if data.library.has_dynamic_globals:
            return  # it holds addresses of this process
        payload = dumps(data._reduce())
        path = self.path(sig, data.codegen)
        part = path.with_name(f"{path.name}.{secrets.token_hex(8)}{PART}")
        with contextlib.suppress(OSError):
            part.write_bytes(hashlib.sha256(payload).digest() + payload)
            os.replace(part, path)
            return
        with contextlib.suppress(OSError):
            part.unlink()


def must_compile() -> bool:
    """True if kernels are known not to be on disk: none is, or one was looked for in vain."""
    if config.DISABLE_JIT:
        return False
    directory = cache_directory()
    return bool(COMPILED) or directory is None or not any(is_kernel(name) for name in listed(directory))


def is_kernel(name: str) -> bool:
    """True for the name of a whole file; a killed process may leave parts."""
    return not name.endswith(PART)


def listed(directory: Path) -> list[str]:
    """The names in a directory, none where it has gone."""
    try:
        return os.listdir(directory)
    except OSError:
        return []


def kernel(function: Callable[..., Any]) -> Any:
    """``function`` compiled on first call, kept on disk for the next process."""
    compiled: Any = numba.njit(error_model="numpy", nogil=True)(function)
    directory = cache_directory()
    if directory is not None and not config.DISABLE_JIT:
        compiled._cache = KernelCache(function, directory)
    return compiled
