"""Results of earlier work on files, remembered while the files stay as they were: nothing is read to know that."""

from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path
from typing import Any

from data_tools.files import refuse_links
from data_tools.keyed_lines import KeyedLines


def state_of(paths: Iterable[str | Path]) -> str:
    """Digest of size, times and number on disk of files, which changes when one of them is written to or replaced.

    The time of the last change of a file's record (`ctime`) is among them: no program can set it back.
    """
    digest = blake2b(digest_size=16)
    for path in paths:
        try:
            found = Path(path).stat()
            about = f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}\n"
        except OSError:
            about = "missing\n"
        digest.update(about.encode())
    return digest.hexdigest()


class Seen:
    """Results by name, each with the state of what it was made from and of what was made, in a hidden file `path`.

    The file is of this machine's disk alone: a copy of the folder, or the loss of the file, costs a second reading.
    Hold the folder's lock.

    Raises:
        DataError: `path` is a link.
    """

    def __init__(self, path: Path) -> None:
        refuse_links(path.parent, path)
        self._lines = KeyedLines(path)

    def result(self, name: str, made_from: str, made: str) -> Any:
        """The result of `name` for these states; None where it has none."""
        try:
            value = self._lines.read(name)
            return value["result"] if (value["from"], value["made"]) == (made_from, made) else None
        except (OSError, KeyError, TypeError):
            return None

    def remember(self, name: str, made_from: str, made: str, result: Any) -> None:
        """Set the result of `name`. made_from: taken before the work began. Raises DataError as `KeyedLines.append`."""
        self._lines.append(name, {"from": made_from, "made": made, "result": result})

    def finish(self, names: set[str]) -> None:
        """Forget all but `names`. Raises DataError as `KeyedLines.tidy`."""
        for name in [name for name in self._lines if name not in names]:
            self._lines.drop(name)
        self._lines.tidy()
