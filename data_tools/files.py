"""Writing so that nothing is ever half there: a temporary name, then a rename. Reading files back within limits."""

import errno
import json
import math
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from data_tools.errors import DataError

# Of a file that is read whole. The largest of ours, store.json and splits.json of CMU-MOSEI, have a megabyte.
MAX_BYTES = 64 * 2**20
# Of a file with a line for each dialogue, of which there may be a million.
MAX_LIST_BYTES = 8 * MAX_BYTES
# Levels of lists and objects in a JSON file; ours have six.
MAX_DEPTH = 64
# Names that `atomic_path` makes: .<stem>.<process>.tmp<suffix>, and what a writer puts beside that.
_TEMPORARY = re.compile(r"\..+\.\d+\.tmp(\..+)?", re.DOTALL)


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """A temporary path beside `target`, renamed to it when the block ends well and deleted when it fails.

    The temporary name keeps the suffix (encoders choose a format by it) and holds the process id, so that two
    processes never write to one file. Creates the parent folder. The file gets the permissions that the umask leaves.

    Raises:
        DataError: the folder cannot be made or written to (no permission, full disk, a file in the way).
    """
    temporary = target.with_name(f".{target.stem}.{os.getpid()}.tmp{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)  # a link of that name would be written through
        yield temporary
        _follow_umask(temporary)
        temporary.replace(target)
    except (OSError, SafetensorError) as error:
        # safetensors reports a full disk as an error of its own.
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot write {target}: {reason}; check permissions and free space") from error
    finally:
        # After the rename nothing is there; after a failure the half-written file must go.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _follow_umask(path: Path) -> None:
    """Give a file that a library made for its owner alone (safetensors: 0600) the permissions that a new file gets."""
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        return
    # The umask cannot be asked for without changing it, for all threads: a new file shows it.
    new = path.with_name(f"{path.name}.mode")
    try:
        new.unlink(missing_ok=True)
        new.touch()
        path.chmod(stat.S_IMODE(new.stat().st_mode))
    finally:
        new.unlink(missing_ok=True)


def check_writable(target: Path, remedy: str) -> None:
    """Ask before long work whether `target` can be written after it; makes no file and no folder.

    remedy: what to do else, e.g. "name another place with --out".

    Raises:
        DataError: it cannot.
    """
    folder = target.parent
    try:
        while not folder.exists():
            folder = folder.parent
        if target.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise DataError(f"cannot write {target}: {error.strerror or error}; {remedy}") from error


def sweep(folder: Path) -> None:
    """Delete what `atomic_path` left behind in `folder` when its process was killed; hold the folder's lock."""
    for leftover in folder.glob(".*.tmp*"):
        if _TEMPORARY.fullmatch(leftover.name):
            leftover.unlink(missing_ok=True)


def refuse_links(root: Path, folder: Path) -> None:
    """Refuse to write into `folder` below `root`, or delete there, where a link on the way leads elsewhere.

    `root` itself may be a link: it is what a person has named. What lies in it may come from a stranger.

    Raises:
        DataError: `folder`, or one between the two, is a symbolic link.
    """
    for place in (folder, *folder.parents):
        if place == root or not place.is_relative_to(root):
            return
        if place.is_symlink():
            raise DataError(
                f"{place} is a link to another place, and nothing is written or deleted through a link in a folder of "
                "ours; put the folder itself there, or link the whole of the folder above"
            )


def write_text(target: Path, text: str) -> None:
    """`text` as UTF-8 in `target`, whole or not at all."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(target: Path, value: Any) -> None:
    """`value` as indented JSON in `target`, whole or not at all; keys keep their order."""
    write_text(target, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_limited(path: Path, limit: int = MAX_BYTES) -> bytes:
    """The bytes of a file that has at most `limit` of them.

    Raises:
        OSError: it cannot be read, is larger, or is no file.
    """
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):  # a named pipe would be waited for for ever
        raise OSError(errno.EINVAL, "it is not a file")
    if about.st_size > limit:
        raise OSError(errno.EFBIG, f"it has {about.st_size} bytes, more than the {limit} that such a file may have")
    with path.open("rb") as file:
        return file.read(limit)


def parse_json(content: bytes) -> Any:
    """The value of a JSON text, of numbers and texts that can be written again, at most MAX_DEPTH levels deep.

    Raises:
        ValueError: it is none; says why.
    """
    try:
        value = json.loads(content.decode("utf-8"), parse_constant=_finite, parse_float=_finite, parse_int=_whole)
    except RecursionError:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels") from None
    left = [(value, 0)]
    while left:
        part, depth = left.pop()
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
        if isinstance(part, str):
            _check_text(part)
        elif isinstance(part, dict):
            for name, inner in part.items():
                _check_text(name)
                left.append((inner, depth + 1))
        elif isinstance(part, list):
            left.extend((inner, depth + 1) for inner in part)
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:20]} is not finite")
    return value


def _whole(text: str) -> int:
    value = int(text)
    if abs(value) >= 2**63:
        raise ValueError(f"the number {text[:20]}... is too large")
    return value


def _check_text(text: str) -> None:
    if "\0" in text:
        raise ValueError("a text holds a NUL character")
    if not text.isascii():
        text.encode("utf-8")  # raises a ValueError for half of a surrogate pair


def read_json(path: Path, limit: int = MAX_BYTES) -> dict[str, Any]:
    """The object in a JSON file of at most `limit` bytes and MAX_DEPTH levels.

    Raises:
        DataError: the file cannot be read or isn't a JSON object.
    """
    try:
        value = parse_json(read_limited(path, limit))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error}); restore it or make its folder again") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} holds {type(value).__name__}, expected an object; make its folder again")
    return value


def read_json_if_any(path: Path, limit: int = MAX_BYTES) -> dict[str, Any]:
    """As `read_json`; empty where there is no such file."""
    return read_json(path, limit) if path.is_file() else {}


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold `folder` for one run; the lock goes with the process, however that ends.

    Raises:
        DataError: another run holds it, or the folder cannot be written to.
    """
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        # The lock's file may be there already, in a folder that takes no more.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except Timeout:
        raise DataError(
            f"another run is at work in {folder} (it holds {lock.lock_file}); wait for it or use another folder"
        ) from None
    except OSError as error:
        lock.release()
        raise DataError(
            f"cannot write to {folder}: {error.strerror or error}; check permissions and space, or use another folder"
        ) from error
    try:
        yield
    finally:
        lock.release()
