"""A value for each of many keys in one file that grows line by line, such as the receipts of a million dialogues."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_tools.errors import DataError
from data_tools.files import MAX_BYTES, atomic_path, parse_json


class KeyedLines:
    """Lines `"key"<tab><JSON>` in the file `path`, which may not be there yet. The last line of a key counts.

    A last line that a killed process left without its end is as good as not there. One process writes at a time.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._starts: dict[str, int] = {}
        self._end = 0
        self._tidy = True
        previous = ""
        for start, line in self._lines():
            self._end = start + len(line)
            key = _key_of(line)
            if key is None:
                self._tidy = False
                continue
            self._tidy = self._tidy and key > previous
            self._starts[key], previous = start, key
        # What is behind the end is a line that was not finished.
        self._tidy = self._tidy and (not path.is_file() or path.stat().st_size == self._end)

    def __contains__(self, key: str) -> bool:
        return key in self._starts

    def __iter__(self) -> Iterator[str]:
        return iter(self._starts)

    def read(self, key: str) -> Any:
        """The value of `key`; None where it has none, or its line is damaged."""
        return next(self.read_all([key]))[1]

    def read_all(self, keys: Iterator[str] | list[str]) -> Iterator[tuple[str, Any]]:
        """(key, value) as of `read`, for each of `keys`: the file is opened once."""
        if not self._starts:
            yield from ((key, None) for key in keys)
            return
        with self.path.open("rb") as file:
            for key in keys:
                start = self._starts.get(key)
                if start is None:
                    yield key, None
                    continue
                file.seek(start)
                try:
                    yield key, parse_json(file.readline(MAX_BYTES).partition(b"\t")[2])
                except ValueError:
                    yield key, None

    def append(self, key: str, value: Any) -> None:
        """Set the value of `key`.

        Raises:
            DataError: the file cannot be written.
        """
        line = f"{json.dumps(key)}\t{json.dumps(value, ensure_ascii=False, allow_nan=False)}\n".encode()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("r+b" if self.path.exists() else "wb") as file:
                file.truncate(self._end)
                file.seek(self._end)
                file.write(line)
        except OSError as error:
            raise _cannot_write(self.path, error) from error
        self._tidy = self._tidy and key > next(reversed(self._starts), "")
        self._starts.pop(key, None)
        self._starts[key] = self._end
        self._end += len(line)

    def drop(self, key: str) -> None:
        """Forget `key`: `tidy` leaves its line out."""
        if self._starts.pop(key, None) is not None:
            self._tidy = False

    def tidy(self) -> None:
        """Write the file anew, sorted and with a line for each key, whole or not at all; without any key there is none.

        Raises:
            DataError: the file cannot be written.
        """
        if self._tidy:
            return
        starts: dict[str, int] = {}
        end = 0
        try:
            if not self._starts:
                self.path.unlink(missing_ok=True)
                self._end, self._tidy = 0, True
                return
            with self.path.open("rb") as before, atomic_path(self.path) as temporary, temporary.open("wb") as after:
                for key in sorted(self._starts):
                    before.seek(self._starts[key])
                    starts[key] = after.tell()
                    after.write(before.readline())
                end = after.tell()
        except OSError as error:
            raise _cannot_write(self.path, error) from error
        self._starts, self._end, self._tidy = starts, end, True

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """(start, line) of every whole line."""
        if not self.path.is_file():
            return
        start = 0
        with self.path.open("rb") as file:
            while (line := file.readline(MAX_BYTES)).endswith(b"\n"):
                yield start, line
                start += len(line)


def _key_of(line: bytes) -> str | None:
    """Key of a line; None where it is damaged."""
    try:
        key = json.loads(line.partition(b"\t")[0])
    except ValueError:
        return None
    return key if isinstance(key, str) else None


def _cannot_write(path: Path, error: OSError) -> DataError:
    return DataError(f"cannot write {path}: {error.strerror or error}; check permissions and free space")
