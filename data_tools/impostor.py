"""Files that stand in place of data: pointers of Git LFS and git-annex, and saved web pages."""

import errno
from dataclasses import dataclass
from pathlib import Path

from data_tools.errors import DataError

_HEAD_BYTES = 512


@dataclass(frozen=True)
class Impostor:
    """A kind of such files. reason: the code of a reject. one, many: its name. remedy: how to get the real file."""

    reason: str
    one: str
    many: str
    remedy: str


_LFS = Impostor(
    "file:pointer",
    "a Git LFS pointer, not the file itself",
    "Git LFS pointers, not the files themselves",
    "run `git lfs pull` where it was cloned",
)
_ANNEX = Impostor(
    "file:pointer",
    "a git-annex pointer, not the file itself",
    "git-annex pointers, not the files themselves",
    "run `git annex get` where it was cloned",
)
_PAGE = Impostor(
    "file:web_page",
    "a saved web page, not the file itself",
    "saved web pages, not the files themselves",
    "download again, signed in if the site asks for it",
)
_STARTS = (
    (b"version https://git-lfs.github.com/spec/", _LFS),
    (b"/annex/objects/", _ANNEX),
    (b"<!doctype html", _PAGE),
    (b"<html", _PAGE),
)


def find_impostor(path: Path) -> Impostor | None:
    """Return the kind of file that lies at `path` in place of data; None for any other content.

    Raises:
        OSError: it cannot be opened. Do not ask about a pipe or a device: opening it could wait for ever.
    """
    with path.open("rb") as file:
        return impostor_in(file.read(_HEAD_BYTES))


def impostor_in(content: bytes) -> Impostor | None:
    """As `find_impostor`, of what a file holds."""
    head = content[:_HEAD_BYTES].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if head.startswith(b"<?xml") and b"<error>" in head:  # how object stores say that there is no such file
        return _PAGE
    return next((impostor for start, impostor in _STARTS if head.startswith(start)), None)


def check_genuine(path: Path) -> None:
    """Refuse a file that stands in place of the real one.

    Raises:
        DataError: it is one; says how to get the real file. OSError: it cannot be opened, or is no file.
    """
    if path.exists() and not path.is_file():  # a pipe would be waited for for ever
        raise OSError(errno.EINVAL, "it is not a file", str(path))
    if impostor := find_impostor(path):
        raise DataError(f"{path} is {impostor.one}; {impostor.remedy}")
