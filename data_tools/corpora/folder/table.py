"""The table of one's own videos: what its columns mean, and the utterance of each row."""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from data_tools.corpora.folder.files import SOUND_SUFFIXES, VIDEO_SUFFIXES, Files, NoFileError, unique_ids
from data_tools.corpora.folder.values import UnusableError, interval, sentiment_of, share, whole_number
from data_tools.corpora.release import Release, check_emotions, printable
from data_tools.corpora.tables import HEADER_AGAIN, Table, read_table
from data_tools.errors import DataError
from data_tools.records import LABEL_PREFIX, Utterance
from data_tools.splits import SPLIT_WORDS

# What a column may be called, in small or capital letters; the second names are those of our own manifest.
FIELDS = {
    "video": ("video", "source_video", "file"),
    "start": ("start", "start_s"),
    "end": ("end", "end_s"),
    "text": ("text", "transcript"),
    "label": ("label", "emotion"),
    "sentiment": ("sentiment",),
    "speaker": ("speaker",),
    "session": ("session",),
    "dialogue": ("dialogue", "dialogue_id"),
    "split": ("split",),
    "id": ("id", "utterance_id"),
    "audio": ("audio", "source_audio"),
    "audio_stream": ("audio_stream",),
}
# What others call them; a blank or a hyphen counts as an underscore. Used where none of the names above is there.
OTHER_NAMES = {
    "video": ("filename", "file_name", "filepath", "file_path", "path", "video_path", "video_file", "clip"),
    "start": ("start_time", "starttime", "begin", "onset"),
    "end": ("end_time", "endtime", "stop", "offset"),
    "text": ("utterance", "sentence", "transcription", "words"),
    "label": ("labels", "emotions"),
    "speaker": ("speaker_id",),
    "session": ("session_id",),
    "split": ("subset", "fold", "partition"),
    "audio": ("audio_path", "audio_file", "wav"),
}
MAX_EMOTIONS = 100
MAX_NAME_CHARACTERS = 64


@dataclass(frozen=True)
class _Columns:
    """fields: name in FIELDS -> column. emotions: emotion in small letters -> its column; none where `label` names it.

    chosen: emotion in small letters -> as the data set calls it, in label order.
    """

    fields: dict[str, str]
    emotions: dict[str, str]
    chosen: dict[str, str]


class _Row(NamedTuple):
    """A row by FIELDS. utterance_id, dialogue_id: as they are to be, or empty where no video gives them."""

    where: str
    cells: dict[str, str]
    labels: dict[str, str]
    utterance_id: str
    dialogue_id: str


def read_rows(release: Release, path: Path, emotions: Sequence[str], encoding: str | None) -> None:
    """Fill `release`, its emotions too, from the table in `path`: each row is an utterance or a reject.

    Raises:
        DataError: as `read_table`; a column that is needed is missing, or an emotion is not in the table.
    """
    table = read_table(path, encoding)
    columns = _columns(path, table, emotions)
    release.emotions = tuple(columns.chosen.values())
    source = release.root / path.name
    for number, why in table.bad:
        # A header is no utterance that is lost.
        name = None if why == HEADER_AGAIN else f"{path.name} {table.unit} {number}"
        release.reject(name, source, "row:unreadable", f"{table.unit} {number}: {why}")
    files = Files(release.root)
    seen: set[str] = set()
    for row in _rows(path, table, columns, files):
        if row.utterance_id in seen:
            release.reject(
                None, source, "duplicate", f"{row.where}: the id {row.utterance_id[:200]!r} is there already"
            )
            continue
        seen.add(row.utterance_id)
        try:
            release.add(_utterance(row, columns, files), source, row.where)
        except (UnusableError, NoFileError) as problem:
            release.reject(row.utterance_id, source, problem.reason, f"{row.where}: {problem.detail}")
    if not emotions and not columns.emotions:
        _keep_used_labels(release)
    _add_notes(release, table, columns)


def _keep_used_labels(release: Release) -> None:
    """Leave out the labels that only rejects have: they are no classes."""
    used = {name for utterance in release.utterances for name, value in utterance.labels.items() if value}
    release.emotions = tuple(name for name in release.emotions if name in used)
    release.utterances = [
        replace(utterance, labels={name: utterance.labels[name] for name in release.emotions})
        for utterance in release.utterances
    ]


def choose_emotions(wanted: Sequence[str], found: Sequence[str], what: str) -> dict[str, str]:
    """Emotion in small letters -> as it is called, in label order: the `wanted` ones, else all of `found`.

    Raises:
        DataError: one of `wanted` is not in `found`, or without wanted ones `found` are too many to be emotions.
    """
    check_emotions([name.lower() for name in wanted], found, f"these {what}")
    if not wanted and len(found) > MAX_EMOTIONS:
        raise DataError(
            f"the {what} name {len(found)} labels, e.g. {', '.join(map(repr, found[:3]))}; at most {MAX_EMOTIONS}. "
            "If these are emotions, name those you want, e.g. --set 'emotions=[happy, sad]'"
        )
    return {name.lower(): name for name in wanted} or dict(zip(found, found, strict=True))


def check_name(name: str) -> str:
    """Reason that `name` cannot be that of an emotion; empty where it can."""
    if not name or not name.isprintable() or len(name) > MAX_NAME_CHARACTERS:
        return f"{printable(name)[:80]!r} is empty, longer than {MAX_NAME_CHARACTERS} characters or cannot be shown"
    return ""


def _columns(path: Path, table: Table, emotions: Sequence[str]) -> _Columns:
    by_name: dict[str, str] = {}
    for column in table.rows.columns:
        if column.lower() in by_name:
            raise DataError(f"{path}: the columns {by_name[column.lower()]!r} and {column!r} are the same; rename one")
        by_name[column.lower()] = column
    usual = {re.sub(r"[\s-]+", "_", name): column for name, column in by_name.items()}
    fields = {}
    for field, names in FIELDS.items():
        there = [by_name[name] for name in names if name in by_name]
        there = there or [usual[name] for name in OTHER_NAMES.get(field, ()) if name in usual]
        if len(there) > 1:
            raise DataError(f"{path}: the columns {', '.join(map(repr, there))} both mean {field}; rename one")
        if there:
            fields[field] = there[0]
    free = {name: column for name, column in by_name.items() if column not in fields.values()}
    flags = {name.removeprefix(LABEL_PREFIX): c for name, c in free.items() if name.startswith(LABEL_PREFIX)}
    flags = {e.lower(): free[e.lower()] for e in emotions if e.lower() in free} | flags
    _check_columns(path, table, fields, flags)
    if "label" in fields:
        named = {n for cell in table.rows[fields["label"]] for n in _names(cell) if not check_name(n)}
        return _Columns(fields, {}, choose_emotions(emotions, sorted(named), f"rows of {path.name}"))
    unusable = [name for name in flags if check_name(name)]
    if unusable:
        raise DataError(f"{path}: {LABEL_PREFIX}{unusable[0][:80]!r} names no emotion; rename the column")
    chosen = choose_emotions(emotions, list(flags), f"columns of {path.name}")
    return _Columns(fields, {name: flags[name] for name in chosen}, chosen)


def _check_columns(path: Path, table: Table, fields: Mapping[str, str], flags: Mapping[str, str]) -> None:
    problem = ""
    if "video" not in fields:
        problem = "no column video"
    elif ("start" in fields) != ("end" in fields):
        problem = "only one of the columns start and end"
    elif "label" in fields and flags:
        problem = f"both a column {fields['label']!r} and columns for each emotion ({', '.join(flags.values())})"
    elif not ("label" in fields or flags or "sentiment" in fields):
        problem = "nothing to learn"
    if problem:
        there = ", ".join(repr(str(column)[:80]) for column in table.rows.columns[:40])
        raise DataError(
            f"{path} has {problem}. Its columns: {there}. Needed: video; start and end, or neither; and a column label "
            f"with names, or columns {LABEL_PREFIX}<emotion> with 0 and 1, or columns that --set 'emotions=[...]' "
            f"names, or sentiment. See docs/corpora/folder.md"
        )


def _rows(path: Path, table: Table, columns: _Columns, files: Files) -> list[_Row]:
    """The rows with their ids: `<video>_<number of the row among those of this video>` where the table gives none."""
    records = table.rows.to_dict("records")
    # Ids come from the file that a cell means: a name without its suffix is the same video as one with it.
    videos = {cell: _path_or_none(files, cell) for cell in table.rows[columns.fields["video"]].str.strip().unique()}
    ids = unique_ids(video for video in videos.values() if video is not None)
    count: Counter[str] = Counter()
    rows = []
    for number, record in zip(table.rows.index, records, strict=True):
        cells = {field: record[column].strip() for field, column in columns.fields.items()}
        video = videos[cells["video"]]
        where = f"{table.unit} {number}"
        if video is None:
            own, dialogue_id = f"{path.name} {where}", ""
        else:
            count[video] += 1
            own, dialogue_id = f"{ids[video]}_{count[video]}", ids[video]
        labels = {emotion: record[column].strip() for emotion, column in columns.emotions.items()}
        rows.append(_Row(where, cells, labels, cells.get("id") or own, cells.get("dialogue") or dialogue_id))
    return rows


def _path_or_none(files: Files, cell: str) -> str | None:
    """Path of the video that a cell names, there or not; None where that is no place in the folder."""
    try:
        return files.find(cell, VIDEO_SUFFIXES)
    except NoFileError as error:
        return files.inside(cell) if error.reason != "path:outside" and cell else None


def _utterance(row: _Row, columns: _Columns, files: Files) -> Utterance:
    """The utterance of a row; raises UnusableError or NoFileError."""
    cells = row.cells
    if not cells["video"]:
        raise UnusableError("no_video", "the cell video is empty")
    video = files.find(cells["video"], VIDEO_SUFFIXES)
    start_s, end_s = interval(cells.get("start", ""), cells.get("end", ""))
    sentiment = sentiment_of(cells.get("sentiment", ""))
    labels = _labels(row, columns)
    if not labels and sentiment is None:
        raise UnusableError("unlabelled", "it has neither a label nor a sentiment")
    fold = cells.get("split", "").lower()
    if fold and fold not in SPLIT_WORDS:
        raise UnusableError("fold:unknown", f"the split {fold[:80]!r} is none of {', '.join(SPLIT_WORDS)}")
    return Utterance(
        utterance_id=row.utterance_id,
        dialogue_id=row.dialogue_id,
        speaker=cells.get("speaker") or row.dialogue_id,
        session=cells.get("session", ""),
        start_s=start_s,
        end_s=end_s,
        text=cells.get("text", ""),
        labels=labels,
        sentiment=sentiment,
        source_video=video,
        source_audio=files.find(cells["audio"], SOUND_SUFFIXES) if cells.get("audio") else video,
        fold=SPLIT_WORDS[fold] if fold else "",
        audio_stream=whole_number("audio_stream", cells.get("audio_stream", "")),
    )


def _names(cell: str) -> list[str]:
    """The labels that a cell names, separated by ; or | or commas, in small letters."""
    parts = (unicodedata.normalize("NFC", part).strip().lower() for part in re.split(r"[;|,]", cell))
    return [part for part in parts if part]


def _labels(row: _Row, columns: _Columns) -> dict[str, float]:
    """The labels of a row in label order; empty where the data set has none.

    Raises:
        UnusableError: no label, none that the task uses, or no number from 0 to 1.
    """
    if not columns.chosen:
        return {}
    if not columns.emotions:
        names = _names(row.cells["label"])
        for name in names:
            if problem := check_name(name):
                raise UnusableError("labels:unreadable", problem)
        if names and not set(names) & set(columns.chosen):
            raise UnusableError(f"label:{names[0]}", f"the label {names[0]!r} is not in the task's emotions")
        values = dict.fromkeys(names, 1.0)
    else:
        values = {name: share(name, cell) for name, cell in row.labels.items() if cell}
    if not values:
        raise UnusableError("unlabelled", "it has no label")
    return {emotion: values.get(name, 0.0) for name, emotion in columns.chosen.items()}


def _is_other_name(field: str, column: str) -> bool:
    return column.lower() not in FIELDS[field]


def _add_notes(release: Release, table: Table, columns: _Columns) -> None:
    used = {*columns.fields.values(), *columns.emotions.values()}
    unused = [str(column)[:40] for column in table.rows.columns if column not in used]
    if unused:
        more = f" and {len(unused) - 10} more" if len(unused) > 10 else ""
        release.notes.append(f"columns that are not used: {', '.join(map(repr, unused[:10]))}{more}")
    if "label" in columns.fields:
        commas = sum(len(_names(cell)) > 1 and "," in cell for cell in table.rows[columns.fields["label"]])
        if commas:
            release.notes.append(
                f"{commas} cells name several labels between commas, as between ; they are as many labels"
            )
    renamed = [f"{column!r} as {field}" for field, column in columns.fields.items() if _is_other_name(field, column)]
    if renamed:
        release.notes.append(f"columns that are read under another name: {', '.join(renamed)}")
    if "text" not in columns.fields:
        release.notes.append("the table has no column text: no utterance has words")
    if "speaker" not in columns.fields:
        release.notes.append("the table names no speakers: each video (or dialogue) counts as a speaker of its own")
    if any(utterance.fold for utterance in release.utterances):
        release.notes.append("the table states a split: --split release keeps it")
