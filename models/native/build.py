"""Compiles the C kernels of this folder for this machine's processor, once, and loads them.

The library lies in the user's cache folder; its name holds a digest of sources, compiler and processor, so that it is
compiled again where one of them is another, and one of its own bytes, so that it is compiled again where it is damaged.
Where that folder cannot be used, a private one is made for this process.
"""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import stat
import subprocess
import tempfile
import warnings
from functools import lru_cache
from pathlib import Path

from models.errors import ModelError

# Rows whose statistics norm.c sums at a time, and outputs up to whose multiple float32.c may fill a packed kernel: what
# is given to the kernels has room for that.
SUM_ROWS, PANEL_ROOM = 128, 64
_SOURCES = ("float32.c", "bfloat16.c", "norm.c", "pool.c", "attend.c", "sites.c", "nucleus.c")
_FLAGS = ("-O3", "-march=native", "-fPIC", "-fopenmp", "-std=gnu11")
_SIZES = (f"-DSUM_ROWS={SUM_ROWS}", f"-DPANEL_ROOM={PANEL_ROOM}")
_COMPILE_LIMIT_S = 120
# What tells compilers apart that call themselves the same: a script's own bytes.
_SCRIPT_BYTES = 2**16


def cache_folder() -> Path:
    """The folder in which this user's machine keeps what can be made again; made where it is not there.

    Raises:
        OSError: it cannot be made, or somebody else could have put something there.
    """
    try:
        place = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # a user without a home; everybody can guess this name, and make the folder before us
        place = Path(tempfile.gettempdir()) / f"cache-{os.getuid()}"
        place.mkdir(mode=0o700, exist_ok=True)
        _check_ours(place)
    folder = place / "emotion-pipeline"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_ours(folder)
    return folder


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
    """Return True if `library` gives the kernels; without them plain torch does the same work more slowly."""
    return not isinstance(_library_or_why_not(), ModelError)


@lru_cache
def _library_or_why_not() -> ctypes.CDLL | ModelError:
    try:
        found = _by_any(_compilers())
    except ModelError as error:
        warnings.warn(f"plain torch takes the place of the kernels in C, more slowly: {error}", stacklevel=2)
        return error
    found.has_bfloat16.restype = ctypes.c_int
    if found.has_bfloat16():
        found.convolve_bfloat16.restype = ctypes.c_int64
    return found


def _compilers() -> list[list[str]]:
    """Commands to try, one after the other; the user's own alone where there is one."""
    named = shlex.split(os.environ.get("CC") or "")
    found = [command for command in ([named] if named else [["cc"], ["gcc"]]) if shutil.which(command[0])]
    if not found:
        raise ModelError(
            f"backend 'native' needs a C compiler, and {shlex.join(named) or 'cc'!r} is not there; install gcc (or "
            "name another one in the environment variable CC), or use backend=auto or torch"
        )
    return found


def _by_any(compilers: list[list[str]]) -> ctypes.CDLL:
    for compiler in compilers:
        try:
            return _built(compiler)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            said = getattr(error, "stderr", None) or error
            failed = ModelError(
                f"backend 'native': its kernels cannot be compiled by {shlex.join(compiler)!r} or loaded ({said}); "
                "name another compiler in the environment variable CC, or use backend=auto or torch"
            )
    raise failed


def _built(compiler: list[str]) -> ctypes.CDLL:
    """The library out of the cache, or compiled into it; where that folder can't serve, into one of this process."""
    name = f"native-{_digest(compiler)}"
    try:
        folder = cache_folder()
        for path in sorted(folder.glob(f"{name}-*.so")):
            _check_ours(path)
            if path.name == _named(path, name):
                return _loaded(path)
            path.unlink()  # the processor would fall over the missing pages of one that is cut short
        return _compiled(compiler, folder, name)
    except OSError:
        with tempfile.TemporaryDirectory() as private:  # what is loaded stays when its file goes
            return _compiled(compiler, Path(private), name)


def _named(library: Path, name: str) -> str:
    """The name of a library in the cache: it ends in the digest of its own bytes, so that damage shows."""
    return f"{name}-{hashlib.sha256(library.read_bytes()).hexdigest()[:16]}.so"


def _check_ours(path: Path) -> None:
    """Raises OSError where somebody else could have written what is about to be loaded."""
    found = path.lstat()
    if found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(f"{path} belongs to another user, or others may write to it")


def _compiled(compiler: list[str], folder: Path, name: str) -> ctypes.CDLL:
    """Under a temporary name first: another process may be about to do the same."""
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        objects = []
        for source in _SOURCES:
            objects.append(str(Path(temporary) / f"{source}.o"))
            _run([*compiler, *_FLAGS, *_SIZES, "-c", str(Path(__file__).with_name(source)), "-o", objects[-1]])
        built = Path(temporary) / "native.so"
        # Without -fopenmp here: the names of its library stay open until they meet torch's.
        _run([*compiler, "-shared", *objects, "-o", str(built)])
        built.chmod(0o700)
        path = folder / _named(built, name)
        built.replace(path)
    return _loaded(path)


def _loaded(path: Path) -> ctypes.CDLL:
    """Threads come from the library that torch brought, so that both share one pool of them."""
    return ctypes.CDLL(str(path))


def _run(command: list[str]) -> None:
    subprocess.run(command, capture_output=True, text=True, check=True, timeout=_COMPILE_LIMIT_S)


def _digest(compiler: list[str]) -> str:
    folder = Path(__file__).parent
    place = shutil.which(compiler[0]) or compiler[0]
    version = subprocess.run([*compiler, "--version"], capture_output=True, text=True, check=False).stdout
    parts = [place, *compiler, version, *_FLAGS, *_SIZES, _processor()]
    parts += [path.read_text(encoding="utf-8") for path in sorted((*folder.glob("*.c"), *folder.glob("*.h")))]
    digest = hashlib.sha256("\0".join(parts).encode())
    if Path(place).stat().st_size <= _SCRIPT_BYTES:
        digest.update(Path(place).read_bytes())
    return digest.hexdigest()[:16]


def _processor() -> str:
    """Model and instruction sets of the processor: what `-march=native` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return "\n".join(sorted({line for line in lines if line.startswith(("model", "flags", "Features", "CPU"))}))
