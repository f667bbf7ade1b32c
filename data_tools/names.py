"""Names that come out of files: what may become the name of a file of ours, and how any name is shown."""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

# File systems allow 255 bytes; what comes round an id (`.<id>.<process>.tmp.mp4`) needs some of them.
_MAX_ID_BYTES = 200
# Control characters but tab and line end, marks that turn the direction of text, and halves of surrogate pairs.
_UNSHOWN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """`text` with bytes of a file name that are not UTF-8 written as \\xff: no file of ours could hold them."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # halves of surrogate pairs that stand for no byte
        return text.encode("utf-8", "backslashreplace").decode()


def for_terminal(text: str) -> str:
    """`text` with what a terminal would obey or cannot show written as \\x1b; tabs and line ends stay.

    Names of files and texts of a corpus come from strangers: an escape sequence in one could rewrite the screen.
    """
    return _UNSHOWN.sub(_escaped, text)


def for_json(text: str) -> str:
    """JSON `text` with the same characters as JSON's own escapes: the value stays, and a terminal obeys nothing."""
    return _UNSHOWN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}"


def unsafe_id(name: str) -> str:
    """Reason that `name` cannot be the name of a file; empty where it can. Ids become file names as they are."""
    if printable(name) != name or not name.isprintable():
        return f"the id {printable(name)!r} holds characters that cannot be shown: no file may be called that"
    if not name or name.startswith(".") or "/" in name or "\\" in name:
        return f"the id {name!r} is empty, begins with a dot, or holds a slash: no file may be called that"
    if len(name.encode()) > _MAX_ID_BYTES:
        return f"the id {name[:40]!r}... has {len(name.encode())} bytes; the limit is {_MAX_ID_BYTES}"
    return ""


def is_inside(relative: str) -> bool:
    """Return True if a path that a file names stays below the folder that it is relative to."""
    path = PurePosixPath(relative)
    return bool(relative) and "\0" not in relative and not path.is_absolute() and ".." not in path.parts


def own_name(name: str, emotions: Sequence[str]) -> str:
    """`name` for a row of ours, marked where an emotion is called so: two rows of one name would be one."""
    while name in emotions:
        name += "*"
    return name
