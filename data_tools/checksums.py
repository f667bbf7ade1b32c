"""Checksums beside files: `NAME.sha256`, in the form that `sha256sum --check` reads too.

A file without one, of an earlier version of this program, is taken as it is.
"""

import hashlib
import re
from pathlib import Path

from data_tools.errors import DataError
from data_tools.files import read_limited, write_text

SUFFIX = ".sha256"
_LINE = re.compile(r"([0-9a-f]{64}) [ *][^\n]*\n?")
# Path, size, time and number on disk of a file that was compared: another state is another file.
State = tuple[str, int, int, int]
_sound: set[State] = set()


def checksum_path(path: Path) -> Path:
    """Where the checksum of the file `path` is kept."""
    return path.with_name(path.name + SUFFIX)


def write_checksum(made: Path, target: Path) -> None:
    """Write the checksum of the finished file `made` for `target`, to which the caller is about to move it.

    In this order a process that is killed in between leaves a file that is not its checksum's, and so is made anew.

    Raises:
        DataError: the checksum cannot be written. OSError: `made` cannot be read.
    """
    write_text(checksum_path(target), f"{_digest(made)}  {target.name}\n")


def has_checksum(path: Path) -> bool:
    """Return True if there is a checksum beside the file `path`."""
    return checksum_path(path).is_file()


def check_sum(path: Path, remedy: str) -> None:
    """Compare a file with its checksum, once for each process and state of the file.

    Raises:
        DataError: it is another file than the one that was written, or one of the two cannot be read; ends in `remedy`.
    """
    if not has_checksum(path):
        return
    try:
        about = path.stat()
        state = (str(path.absolute()), about.st_size, about.st_mtime_ns, about.st_ino)
        if state in _sound:
            return
        line = _LINE.fullmatch(read_limited(checksum_path(path), 4096).decode("utf-8", "replace"))
        if line is None or line[1] != _digest(path):
            raise DataError(
                f"{path} is damaged: it is not what its checksum {checksum_path(path).name} says; delete it and "
                f"{remedy}"
            )
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be compared with its checksum ({error}); {remedy}") from error
    _sound.add(state)


def found_sound() -> frozenset[State]:
    """The files that this process has compared, for a worker's `trust`."""
    return frozenset(_sound)


def trust(states: frozenset[State]) -> None:
    """Don't compare again what the parent of this process has compared."""
    _sound.update(states)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
