"""Word times, and sequences brought to one step a word.

Word times come from the file `<clip>.words.csv` beside a clip (columns word, start_s, end_s; a forced aligner may write
it, and `pipeline transcribe` does), or from IEMOCAP's own alignment in the release, `sentences/ForcedAlignment/
<dialogue>/<utterance>.wdseg`: lines of first frame, last frame, score and word, a frame every 10 ms.
"""

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path, PurePosixPath

import numpy as np

from data_tools.corpora.release import read_lines
from data_tools.errors import DataError
from data_tools.files import write_text
from data_tools.sequences.steps import Floats, Steps

WORDS_SUFFIX = ".words.csv"
WDSEG_FRAME_S = 0.01
# A fourth column of no cells, whose name says that a file is ours, what it was made from, and that it is unchanged.
_RECOGNISED = "recognised"

_WDSEG = re.compile(r"\s*(\d{1,9})\s+(\d{1,9})\s+-?\d+\s+(\S+)\s*")
# <s>, </s>, <sil>, ++LAUGHTER++: no words. WORD(2): the second way to say WORD.
_NO_WORD = re.compile(r"<.*>|\+\+.*\+\+")
_VARIANT = re.compile(r"\(\d+\)$")


@dataclass(frozen=True)
class Word:
    """A spoken word; start_s, end_s: seconds from the clip's begin."""

    text: str
    start_s: float
    end_s: float


def find_words(data_dir: Path, wav: str, release: Path | None, source_audio: str) -> list[Word] | None:
    """The words of an utterance with their times; None where nobody has aligned it.

    wav: the clip's sound, relative to the data folder. release: the root of the raw release, None where it isn't at
    hand. source_audio: the utterance's sound in the release, relative to its root.

    Raises:
        DataError: a file of word times that cannot be understood.
    """
    beside = (data_dir / wav).with_suffix(WORDS_SUFFIX)
    if beside.is_file():
        return read_words_csv(beside)
    path = wdseg_path(source_audio)
    if release is None or path is None or not (release / path).is_file():
        return None
    return read_wdseg(release / path)


def wdseg_path(source_audio: str) -> PurePosixPath | None:
    """Session1/sentences/wav/D/U.wav -> Session1/sentences/ForcedAlignment/D/U.wdseg; None for any other sound."""
    path = PurePosixPath(source_audio)
    if path.parts[-4:-2] != ("sentences", "wav"):
        return None
    return path.parents[2] / "ForcedAlignment" / path.parent.name / f"{path.stem}.wdseg"


def read_words_csv(path: Path) -> list[Word]:
    """The words in a sidecar, in time order.

    Raises:
        DataError: columns are missing, or a time is no number or out of order; names the line.
    """
    rows = csv.DictReader(io.StringIO("\n".join(_lines(path))))
    words = []
    try:
        if missing := {"word", "start_s", "end_s"} - set(rows.fieldnames or ()):
            raise DataError(f"{path} lacks the columns {', '.join(sorted(missing))}; expected word, start_s, end_s")
        for row in rows:
            try:
                word = Word(str(row["word"] or ""), float(row["start_s"]), float(row["end_s"]))
            except (TypeError, ValueError):
                raise DataError(f"{path}, line {rows.line_num}: start_s and end_s must be numbers") from None
            if not 0 <= word.start_s <= word.end_s or not math.isfinite(word.end_s):
                raise DataError(
                    f"{path}, line {rows.line_num}: a word from {word.start_s} s to {word.end_s} s; expected "
                    "0 <= start_s <= end_s"
                )
            words.append(word)
    except csv.Error as error:
        raise DataError(f"{path}, line {rows.line_num}: not a line of CSV ({error})") from None
    return sorted(words, key=lambda word: word.start_s)


def write_words_csv(path: Path, words: Sequence[Word], made_from: str) -> None:
    """Write the sidecar of recognised words, whole or not at all; times to the millisecond.

    made_from: fingerprint of what they were recognised from; `recognised_from` gives it back.

    Raises:
        DataError: it cannot be written.
    """
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerows([word.text, f"{word.start_s:.3f}", f"{word.end_s:.3f}"] for word in words)
    mark = f"{_RECOGNISED}:{made_from}:{_digest(table.getvalue())}"
    write_text(path, f"word,start_s,end_s,{mark}\n{table.getvalue()}")


def recognised_from(path: Path) -> str | None:
    """The `made_from` of a sidecar that `write_words_csv` wrote; None of one by somebody else, or changed since.

    Raises:
        DataError: it cannot be read.
    """
    head, *rows = _lines(path)
    mark = head.rpartition(",")[2].split(":")
    if len(mark) != 3 or mark[0] != _RECOGNISED or mark[2] != _digest("\n".join(rows)):
        return None
    return mark[1]


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=8).hexdigest()


def read_wdseg(path: Path) -> list[Word]:
    """The words of one of IEMOCAP's alignments, in lower case, without silences and noises.

    Raises:
        DataError: it cannot be read.
    """
    words = []
    for line in _lines(path):
        if (match := _WDSEG.fullmatch(line)) and not _NO_WORD.fullmatch(match[3]):
            first, last = int(match[1]), int(match[2])
            text = _VARIANT.sub("", match[3]).lower()
            words.append(Word(text, first * WDSEG_FRAME_S, (last + 1) * WDSEG_FRAME_S))
    return words


def _lines(path: Path) -> list[str]:
    try:
        return read_lines(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def intervals(words: Sequence[Word]) -> Floats:
    """(W, 2) float32: start and end of each word."""
    return np.array([(word.start_s, word.end_s) for word in words], np.float32).reshape(len(words), 2)


def average_within(steps: Steps, spans: Floats) -> Steps:
    """One step for each span: the mean of `steps`, each weighed by the time that it shares with the span.

    spans: (W, 2) seconds. A span that no step touches is zero.
    """
    first, last = np.maximum(spans[:, :1], steps.times[:, 0]), np.minimum(spans[:, 1:], steps.times[:, 1])
    shared = (last - first).clip(min=0)  # (W, N) seconds
    weights = shared / np.maximum(shared.sum(1, keepdims=True), 1e-9)
    return Steps((weights @ steps.values).astype(np.float32), spans)
