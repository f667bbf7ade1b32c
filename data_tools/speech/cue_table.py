"""Words of a table with times: a row an utterance or a word, as people, recognisers and this program write it."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from data_tools.corpora.tables import read_table
from data_tools.errors import DataError
from data_tools.speech.cues import Cue, time_s

CUE_TABLE_SUFFIXES = (".csv", ".tsv")
# Names of columns in small letters, blanks and marks as `_`, without a unit behind them.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "start": ("start", "start_time", "starttime", "begin", "begin_time", "from", "onset", "tmin"),
    "end": ("end", "end_time", "endtime", "stop", "finish", "to", "offset", "tmax"),
    "duration": ("duration", "dur", "length"),
    "text": (
        *("text", "transcript", "transcription", "sentence", "utterance", "content", "words", "word", "label"),
        *("subtitle", "caption", "annotation"),
    ),
    "speaker": ("speaker", "speaker_id", "participant", "tier"),
}
_UNIT = re.compile(r"_(hh_mm_ss_msec|hh_mm_ss_ms|ss_msec|ss_ms|s|sec|secs|seconds|ms|msec|milliseconds)\Z")
# Whole numbers whose rows last so long on the average are no seconds but milliseconds: recognisers write such tables.
_LONGEST_MEAN_S = 200


def table_cues(path: Path, encoding: str | None = None) -> list[Cue]:
    """The words of a .csv or .tsv file: columns of begin, end or duration, and text (`COLUMNS`).

    Times are seconds, or clock times such as 1:02.5; whole numbers that could be no seconds are milliseconds. A row
    without an end lasts up to the next one. Separators and quotes are as for `read_table`.

    Raises:
        DataError: as `read_table`, no column of begins or of words, or a row that cannot be used; names its line.
    """
    table = read_table(path, encoding)
    if table.bad:
        line, why = table.bad[0]
        raise DataError(f"{path}, line {line}: {why}; mend or delete it ({len(table.bad)} such lines)")
    columns = _columns(path, list(table.rows.columns))
    begins, ends, lengths = (_times(path, table.rows, columns.get(part)) for part in ("start", "end", "duration"))
    speakers = table.rows[columns["speaker"]] if "speaker" in columns else [""] * len(begins)
    cues = []
    rows = zip(table.rows.index, begins, ends, lengths, table.rows[columns["text"]], speakers, strict=True)
    for line, begin, end, length, text, speaker in rows:
        if begin is None:
            raise DataError(f"{path}, line {line}: no time in {columns['start']!r}; expected one in each row")
        reached = end if end is not None else math.inf if length is None else begin + length
        cues.append(Cue(begin, reached, text, speaker.strip()))
    scale = _scale(columns, table.rows, [cue.end_s - cue.start_s for cue in cues])
    return [replace(cue, start_s=scale * cue.start_s, end_s=scale * cue.end_s) for cue in cues]


def _columns(path: Path, names: Sequence[str]) -> dict[str, str]:
    """Part of a cue -> the name of its column in the table; of several that could be it, the first in `COLUMNS`."""
    plain: dict[str, str] = {}
    for name in names:
        plain.setdefault(_UNIT.sub("", _plain(name)), name)
    found = {
        part: next(plain[name] for name in known if name in plain)
        for part, known in COLUMNS.items()
        if not plain.keys().isdisjoint(known)
    }
    if lacking := [part for part in ("start", "text") if part not in found]:
        raise DataError(
            f"{path} has no column of {' and none of '.join(lacking)} among {', '.join(names)!r:.200}; expected "
            "a first line with start, end and text (or word), times in seconds or like 0:01:02.5"
        )
    return found


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _times(path: Path, rows: pd.DataFrame, name: str | None) -> list[float | None]:
    """Times of a column in its own unit; None where a cell is empty, or there is no such column."""
    if name is None:
        return [None] * len(rows)
    times: list[float | None] = []
    for line, cell in rows[name].items():
        text = cell.strip()
        value = time_s(text.replace(",", ".")) if text else None
        if text and (value is None or value < 0):
            raise DataError(f"{path}, line {line}: {name} is {cell!r:.60}; expected seconds, or a time like 0:01:02.5")
        times.append(value)
    return times


def _scale(columns: Mapping[str, str], rows: pd.DataFrame, lengths: Sequence[float]) -> float:
    """Seconds that one of the table's numbers stands for. lengths: of its rows, in that unit."""
    unit = _UNIT.search(_plain(columns["start"]))
    if unit and unit[1] in ("ms", "msec", "milliseconds"):
        return 0.001
    cells = (cell.strip() for part in ("start", "end", "duration") if part in columns for cell in rows[columns[part]])
    whole = all(cell.isdecimal() for cell in cells if cell)
    known = [length for length in lengths if math.isfinite(length)]
    return 0.001 if whole and known and sum(known) / len(known) >= _LONGEST_MEAN_S else 1.0
