"""The layout of MMSA (and MMSA-FET, M-SENA), in which CMU-MOSI, CMU-MOSEI and CH-SIMS are handed on as cut clips.

    <NAME>/label.csv                       video_id, clip_id, text, label, ..., mode
    <NAME>/Raw/<video_id>/<clip_id>.mp4

A reader asks `is_mmsa` for its root, takes the rows with `read_mmsa` and turns them into utterances with `whole_clip`.
"""

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

from data_tools.corpora.release import Release, is_file, is_folder
from data_tools.errors import DataError
from data_tools.impostor import check_genuine
from data_tools.records import Utterance
from data_tools.splits import SPLIT_WORDS

Fold = Literal["", "train", "valid", "test"]

TABLE, CLIPS = "label.csv", "Raw"
_NAMES = ("mosei", "mosi", "sims")
_NEEDED = ("video_id", "clip_id", "text", "label")


@dataclass(frozen=True)
class MmsaClip:
    """One usable row of label.csv whose mp4 is there.

    video_id, clip_id: as the files are named; they keep leading zeros. label: sentiment, inside the corpus' bounds.
    fold: the split that the release states, empty where it states none. file: the clip, below the release's root.
    siblings: the clips of its video, itself too, that the table or the disk has, usable or not.
    """

    video_id: str
    clip_id: str
    text: str
    label: float
    fold: Fold
    file: Path
    siblings: frozenset[str] = frozenset()

    @property
    def utterance_id(self) -> str:
        """`<video>_<clip>`."""
        return f"{self.video_id}_{self.clip_id}"


class Row(NamedTuple):
    """A row of a label table as it was found. mode: the word for its split."""

    line: int
    video_id: str
    clip_id: str
    text: str
    label: str
    mode: str


def is_mmsa(folder: Path, name: str, tables: Sequence[str] = (TABLE,)) -> bool:
    """Return True if `folder` holds a corpus in this layout and its name is not that of one of the other two.

    name: mosei, mosi or sims. tables: names that the table may have.
    """
    named = next((known for known in _NAMES if known in folder.name.lower()), name)
    return named == name and any(is_file(folder / table) for table in tables) and is_folder(folder / CLIPS)


def read_mmsa(
    release: Release, folder: Path, bound: float, fallback_encoding: str = "cp1252", table: str = TABLE
) -> list[MmsaClip]:
    """The clips of `folder` (the one with label.csv) in the order of the table; the others become rejects.

    Every row with ids and every mp4 below Raw/ is accounted for: `no_video` (a row without its file), `unlabelled` (a
    file without a row, or a row without a label), `labels:unreadable`, `duplicate`. Ids that lost leading zeros in a
    spreadsheet (clip 1 for 0001.mp4) or became 1.0 find their file by number. A label beyond -bound ... bound is moved
    to the bound; that, and modes that are no split, are counted in a note.

    fallback_encoding: of a table that is neither UTF-8 nor UTF-16. table: its name.

    Raises:
        DataError: the table cannot be read at all, or lacks a column.
    """
    rows, damage = _read_table(release, folder / table, fallback_encoding)
    return match_clips(release, folder / table, rows, folder / CLIPS, bound, damage)


def match_clips(
    release: Release, table: Path, rows: Iterable[Row], raw: Path, bound: float, damage: str = ""
) -> list[MmsaClip]:
    """As `read_mmsa`, of rows that another table holds in another form.

    table: where the rows are from. raw: the folder with `<video_id>/<clip_id>.mp4`. damage: what broke the table off.
    """
    files = _list_clips(raw)
    by_number = {video: _by_number(clips) for video, clips in files.items()}
    folders_by_number = _by_number(files)
    clips: list[MmsaClip] = []
    seen: set[str] = set()
    counted: Counter[str] = Counter()
    siblings = {video: set(clips) for video, clips in files.items()}
    for row in rows:
        video_id = _name_on_disk(row.video_id, files, folders_by_number)
        clip_id = _name_on_disk(row.clip_id, files.get(video_id, {}), by_number.get(video_id, {}))
        utterance_id = f"{video_id}_{clip_id}"
        if utterance_id in seen:
            release.reject(None, table, "duplicate", f"line {row.line}: a second row of {utterance_id}")
            continue
        seen.add(utterance_id)
        siblings.setdefault(video_id, set()).add(clip_id)
        counted["renamed"] += (video_id, clip_id) != (row.video_id, row.clip_id)
        file = files.get(video_id, {}).get(clip_id)
        label = _number(row.label)
        if file is None:
            path = f"{raw.name}/{row.video_id}/{row.clip_id}.mp4"
            release.reject(utterance_id, table, "no_video", f"line {row.line}: there is no {path}")
        elif label is None:
            release.reject(utterance_id, table, "labels:unreadable", f"line {row.line}: {row.label!r} is not a number")
        elif math.isnan(label):
            release.reject(utterance_id, table, "unlabelled", f"line {row.line}: the label is empty")
        else:
            counted["outside"] += abs(label) > bound
            fold: Fold = SPLIT_WORDS.get(row.mode.lower(), "")
            counted["without split"] += not fold
            clamped = min(float(bound), max(-float(bound), label))
            clips.append(MmsaClip(video_id, clip_id, row.text, clamped, fold, file))
    _reject_unnamed(release, table, files, seen, damage)
    _add_notes(release, table, counted, bound)
    return [replace(clip, siblings=frozenset(siblings[clip.video_id])) for clip in clips]


def whole_clip(release: Release, clip: MmsaClip, labels: Mapping[str, float]) -> Utterance:
    """The utterance of a clip: picture and sound are the whole file; speaker and dialogue are the video.

    labels: emotion -> 0.0 or 1.0, empty where only sentiment is labelled.
    """
    source = release.relative(clip.file)
    return Utterance(
        utterance_id=clip.utterance_id,
        dialogue_id=clip.video_id,
        speaker=clip.video_id,
        session="",
        start_s=0.0,
        end_s=math.inf,
        text=clip.text,
        labels=dict(labels),
        sentiment=clip.label,
        source_video=source,
        source_audio=source,
        audio_is_cut=True,
        fold=clip.fold,
    )


def _read_table(release: Release, table: Path, fallback_encoding: str) -> tuple[list[Row], str]:
    """Rows that name a clip, and what broke the table off before its end (empty where nothing did)."""
    # newline="" leaves line ends inside quotes as they are; the csv reader knows all three kinds.
    reader = csv.reader(io.StringIO(_decoded(release, table, fallback_encoding), newline=""))
    rows: list[Row] = []
    try:
        header = [name.strip() for name in next(reader, [])]
        missing = [name for name in _NEEDED if name not in header]
        if missing:
            raise DataError(
                f"{table} has no column {', '.join(missing)}; its columns are {', '.join(header)[:200] or 'none'}; "
                f"expected MMSA's video_id, clip_id, text, label, ..., mode"
            )
        places = [header.index(name) for name in _NEEDED]
        mode = header.index("mode") if "mode" in header else None
        for fields in reader:
            if not any(field.strip() for field in fields):
                continue
            video_id, clip_id, text, label = (fields[place].strip() if place < len(fields) else "" for place in places)
            if not video_id or not clip_id:
                detail = f"line {reader.line_num} has no video_id or no clip_id: {','.join(fields)[:80]!r}"
                release.reject(None, table, "labels:unreadable", detail)
                continue
            fold = fields[mode].strip() if mode is not None and mode < len(fields) else ""
            rows.append(Row(reader.line_num, video_id, clip_id, text, label, fold))
    except csv.Error as error:
        damage = f"{table.name} cannot be read from line {reader.line_num} on: {error}"
        release.reject(None, table, "labels:unreadable", damage)
        return rows, damage
    return rows, ""


def _decoded(release: Release, table: Path, fallback_encoding: str) -> str:
    try:
        check_genuine(table)
        content = table.read_bytes()
    except OSError as error:
        raise DataError(f"{table} cannot be read: {error.strerror or error}") from error
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content.decode("utf-16", errors="replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        release.notes.append(
            f"{table.name} is not UTF-8 (byte {error.start}); it is read as {fallback_encoding}: look at a few texts"
        )
        return content.decode(fallback_encoding, errors="replace")


def _list_clips(raw: Path) -> dict[str, dict[str, Path]]:
    """The mp4s of every video folder: video id -> clip id -> file. One listing a folder: there are thousands."""
    found: dict[str, dict[str, Path]] = {}
    for video_id in _names(raw):
        if is_folder(raw / video_id):
            names = (name for name in _names(raw / video_id) if name.lower().endswith(".mp4"))
            found[video_id] = {Path(name).stem: raw / video_id / name for name in names}
    return found


def _names(folder: Path) -> list[str]:
    """Content of a folder, sorted, without hidden files; nothing where it may not be read."""
    try:
        return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except OSError:
        return []


def _by_number(names: Iterable[str]) -> dict[str, str]:
    """Number without leading zeros -> the one name that is written so."""
    numbers = [(name.lstrip("0") or "0", name) for name in names if re.fullmatch(r"[0-9]+", name)]
    counts = Counter(number for number, _ in numbers)
    return {number: name for number, name in numbers if counts[number] == 1}


def _name_on_disk(stated: str, names: Mapping[str, object], by_number: Mapping[str, str]) -> str:
    """The name of the file that a table means by `stated`, or `stated` where there is none."""
    if stated in names:
        return stated
    number = re.fullmatch(r"0*([0-9]+?)(?:\.0+)?", stated)
    return by_number.get(number[1], stated) if number else stated


def _number(text: str) -> float | None:
    """A label; NaN for an empty one, None for what is no finite number."""
    if text.lower() in ("", "nan"):
        return math.nan
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _reject_unnamed(
    release: Release, table: Path, files: Mapping[str, Mapping[str, Path]], seen: set[str], damage: str
) -> None:
    """Clips on disk that the table does not name."""
    for video_id, clips in files.items():
        for clip_id, file in clips.items():
            if f"{video_id}_{clip_id}" not in seen:
                reason = ("no_labels", damage) if damage else ("unlabelled", f"no row of it in {table.name}")
                release.reject(f"{video_id}_{clip_id}", file, *reason)


def _add_notes(release: Release, table: Path, counted: Counter[str], bound: float) -> None:
    if counted["renamed"]:
        release.notes.append(
            f"{counted['renamed']} ids of {table.name} differ from the files' names (1 or 1.0 for 0001): matched by "
            "number"
        )
    if counted["outside"]:
        release.notes.append(f"{counted['outside']} labels lay beyond {-bound:g} ... {bound:g} and are moved to it")
    if counted["without split"]:
        release.notes.append(f"{counted['without split']} rows of {table.name} state no split (train, valid or test)")
