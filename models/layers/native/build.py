"""Compiles the C kernels of this folder for this machine's processor, once, and loads them.

The library lies in the user's cache folder; its name holds a digest of sources, compiler and processor, so that it is
compiled again where one of them is another.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

from models.errors import ModelError

_SOURCES = ("float32.c", "bfloat16.c", "norm.c", "pool.c", "attend.c", "sites.c", "nucleus.c")
_FLAGS = ("-O3", "-march=native", "-fPIC", "-fopenmp", "-std=gnu11")
_COMPILE_LIMIT_S = 120


def cache_folder() -> Path:
    """The folder in which this user's machine keeps what can be made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "emotion-pipeline"


def library() -> ctypes.CDLL:
    """The kernels, ready to be called.

    Raises:
        ModelError: no C compiler, one that cannot compile for this processor, or a library that torch's threads don't
            fit.
    """
    found = _library_or_why_not()
    if isinstance(found, ModelError):
        raise found
    return found


def is_available() -> bool:
    """Whether `library` gives the kernels; where they are missing, plain torch does the same work more slowly."""
    return not isinstance(_library_or_why_not(), ModelError)


@lru_cache
def _library_or_why_not() -> ctypes.CDLL | ModelError:
    compiler = os.environ.get("CC", "cc")
    found_at = shutil.which(compiler)
    if found_at is None:
        return ModelError(
            f"backend 'native' needs a C compiler, and {compiler!r} is not there; install gcc (or name another one in "
            "the environment variable CC), or use backend=auto or torch"
        )
    try:
        path = cache_folder() / f"native-{_digest(found_at)}.so"
        if not path.is_file():
            _compile(compiler, path)
        # Threads come from the library that torch brought, so that both share one pool of them.
        found = ctypes.CDLL(str(path))
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or error
        return ModelError(
            f"backend 'native': its kernels cannot be compiled by {compiler!r} or loaded ({said}); delete "
            f"{cache_folder()}, name another compiler in the environment variable CC, or use backend=auto or torch"
        )
    found.has_bfloat16.restype = ctypes.c_int
    if found.has_bfloat16():
        found.convolve_bfloat16.restype = ctypes.c_int64
    return found


def _digest(compiler: str) -> str:
    folder = Path(__file__).parent
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    parts = [compiler, version, *_FLAGS, _processor()]
    parts += [path.read_text(encoding="utf-8") for path in sorted((*folder.glob("*.c"), *folder.glob("*.h")))]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _processor() -> str:
    """What `-march=native` looks at: the processor and what it can do."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return "\n".join(sorted({line for line in lines if line.startswith(("model", "flags", "Features", "CPU"))}))


def _compile(compiler: str, path: Path) -> None:
    """Under a temporary name first: another process may be about to do the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as name:
        objects = []
        for source in _SOURCES:
            objects.append(str(Path(name) / f"{source}.o"))
            _run([compiler, *_FLAGS, "-c", str(Path(__file__).with_name(source)), "-o", objects[-1]])
        built = Path(name) / "native.so"
        # Without -fopenmp here: the names of its library stay open until they meet torch's.
        _run([compiler, "-shared", *objects, "-o", str(built)])
        built.replace(path)


def _run(command: list[str]) -> None:
    subprocess.run(command, capture_output=True, text=True, check=True, timeout=_COMPILE_LIMIT_S)
