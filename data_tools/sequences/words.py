"""Words and their vectors from a GloVe file: plain text, a word and its numbers on each line."""

import re
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

import numpy as np

from data_tools.errors import DataError
from data_tools.sequences.steps import Floats

MAX_SIZE = 2048
# A number has up to 20 characters, a word up to a few hundred bytes: longer lines are of another kind of file.
_MAX_LINE = 64 * 1024
_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")


def split_words(text: str) -> list[str]:
    """Words and marks in lower case, as GloVe's vocabularies have them; contractions stay whole."""
    return [word.lower().replace("’", "'") for word in _WORD.findall(text)]


def read_vectors(path: Path, wanted: AbstractSet[str]) -> dict[str, Floats]:
    """The vectors of those of the `wanted` words that the file has, (D,) float32 each.

    The file is read once, line by line, and only what is wanted is kept. The first line says what D is; one of two
    numbers alone (word2vec's header) is skipped. A word may hold spaces. The first of two lines of one word counts.

    Raises:
        DataError: no such file, a line of another size or that holds no numbers, or more than 2048 of them.
    """
    found: dict[str, Floats] = {}
    size = 0
    for number, line in enumerate(_lines(path), start=1):
        parts = line.rstrip("\r\n ").split(" ")
        if number == 1 and len(parts) == 2 and all(part.isdigit() for part in parts):
            continue
        if not size:
            size = len(parts) - 1
            if not 1 <= size <= MAX_SIZE:
                raise DataError(f"{path}, line {number}: {size} numbers after a word; expected 1 to {MAX_SIZE}")
        if len(parts) <= size:
            raise DataError(f"{path}, line {number}: {len(parts) - 1} numbers, but the lines before have {size}")
        word = " ".join(parts[:-size])
        if word in wanted and word not in found:
            found[word] = _numbers(parts[-size:], path, number)
    if not size:
        raise DataError(f"{path} holds no word vectors; expected lines of a word and its numbers")
    return found


def vectors_of(words: Sequence[str], vectors: dict[str, Floats], size: int) -> Floats:
    """(W, size): zero for a word without a vector."""
    nothing = np.zeros(size, np.float32)
    return np.array([vectors.get(word, nothing) for word in words], np.float32).reshape(len(words), size)


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(_MAX_LINE):
                number += 1
                if len(line) == _MAX_LINE:
                    raise DataError(
                        f"{path}, line {number} has more than {_MAX_LINE} bytes: not a file of word vectors"
                    )
                yield line.decode("utf-8", errors="replace")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}; give a GloVe text file") from error


def _numbers(parts: Sequence[str], path: Path, number: int) -> Floats:
    try:
        values = np.array([float(part) for part in parts], np.float32)
    except ValueError:
        raise DataError(f"{path}, line {number}: not all of its {len(parts)} last entries are numbers") from None
    if not np.isfinite(values).all():
        raise DataError(f"{path}, line {number}: a number that is not finite")
    return values
