"""MER2023, MER2024 and MER2025: clips of Chinese films, each one utterance of one person, some of them labelled.

    MER2023   train/<name>.avi, test1/ test2/ test3/; train-label.csv, test1-label.csv ...
    MER2024   video-labeled/<name>.mp4, video-unlabeled-with-test2noise/; label-disdim.csv, label-transcription.csv
    MER2025   video/<name>.mp4, audio/<name>.wav; track1_train_disdim.csv, subtitle_chieng.csv

Label tables have the columns name, discrete (the emotion) and mostly valence.
"""

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from data_tools.corpora.release import Release, check_emotions, find_root, is_file, is_folder
from data_tools.corpora.release_table import numbered_rows, read_release_table
from data_tools.errors import DataError
from data_tools.records import Utterance

# In the authors' order.
EMOTIONS = ("neutral", "angry", "happy", "sad", "worried", "surprise")
PARTS = ("train", "test1", "test2", "test3")

_VIDEOS, _SOUNDS = (".mp4", ".avi", ".mkv", ".mov"), (".wav",)
# Tables of texts, and the columns that hold them by language.
_TEXTS = ("subtitle_chieng.csv", "label-transcription.csv", "transcription.csv")
_COLUMNS = {"zh": ("chinese", "sentence", "text"), "en": ("english",)}
# What Chinese tables are in that are not UTF-8.
_ENCODING = "gb18030"
_UNLABELLED = ("reject", "keep")


@dataclass(frozen=True)
class _Part:
    """A part of the release. folder: of its videos. table: of its labels. others: folders of unlabelled videos.

    sounds: a folder with the sound of each video; None where the videos have it.
    """

    name: str
    folder: str
    table: str
    fold: Literal["", "train", "test"] = ""
    others: tuple[str, ...] = ()
    sounds: str | None = None


_2023 = {
    name: _Part(name, name, f"{name}-label.csv", "train" if name == "train" else "test") for name in PARTS
}  # fmt: skip
_2024 = _Part("labelled", "video-labeled", "label-disdim.csv", others=("video-unlabeled-with-test2noise",))
_2025 = _Part("track 1", "video", "track1_train_disdim.csv", sounds="audio")


def read_mer2023(
    root: Path, emotions: Sequence[str], parts: Sequence[str] = PARTS, language: str = "zh", unlabelled: str = "reject"
) -> Release:
    """Every labelled clip of `parts` as a whole; `train` is the release's train, the others its test.

    See `read_mer2025` for the rest.

    Raises:
        DataError: as there; an unknown part.
    """
    asked = [parts] if isinstance(parts, str) else list(parts)
    if unknown := [name for name in asked if name not in PARTS]:
        raise DataError(f"parts has {', '.join(map(str, unknown))} for mer2023; expected some of {', '.join(PARTS)}")
    return _read("mer2023", root, emotions, [_2023[name] for name in asked], language, unlabelled)


def read_mer2024(root: Path, emotions: Sequence[str], language: str = "zh", unlabelled: str = "reject") -> Release:
    """Every labelled clip as a whole. See `read_mer2025`."""
    return _read("mer2024", root, emotions, [_2024], language, unlabelled)


def read_mer2025(root: Path, emotions: Sequence[str], language: str = "zh", unlabelled: str = "reject") -> Release:
    """Every labelled clip as a whole; its emotion one-hot, its valence as sentiment; dialogue and speaker are the clip.

    With no emotions all six are taken.
    language: of the texts, zh or en. unlabelled: clips without a row, which are most: `reject` or `keep` them, with no
    emotion.

    Raises:
        DataError: no release at `root`, an unknown emotion or option, or a table that cannot be read or lacks a column.
    """
    return _read("mer2025", root, emotions, [_2025], language, unlabelled)


def _read(
    dataset: str, root: Path, emotions: Sequence[str], parts: Sequence[_Part], language: str, unlabelled: str
) -> Release:
    check_emotions(emotions, EMOTIONS, dataset)
    for option, value, known in (("language", language, _COLUMNS), ("unlabelled", unlabelled, _UNLABELLED)):
        if value not in known:
            raise DataError(f"{option} is {value!r} for {dataset}; expected one of {', '.join(known)}")
    looked_for = " or ".join(f"{part.table} and {part.folder}/" for part in parts)
    release = Release(find_root(root, lambda folder: _is_root(folder, parts), looked_for, dataset))
    release.emotions = tuple(emotions or EMOTIONS)
    texts = _read_texts(release, language)
    without = 0
    for part in parts:
        without += _read_part(release, part, texts, unlabelled == "keep")
    if without:
        release.notes.append(f"{without} clips have no text: `pipeline transcribe` recognises words")
    return release


def _is_root(folder: Path, parts: Sequence[_Part]) -> bool:
    return any(is_file(folder / part.table) and is_folder(folder / part.folder) for part in parts)


def _list_media(release: Release, folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """Files of a folder by stem, without hidden ones; of several with one name the first kind of `suffixes`."""
    if not is_folder(folder):
        return {}
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if not entry.name.startswith("."))
    except OSError as error:
        release.reject(None, folder, "folder:unreadable", f"{folder.name} cannot be read: {error.strerror or error}")
        return {}
    found: dict[str, Path] = {}
    for suffix in reversed(suffixes):
        found |= {Path(name).stem: folder / name for name in names if name.lower().endswith(suffix)}
    return found


def _read_texts(release: Release, language: str) -> dict[str, str]:
    """Text by clip, of the first table of texts that is there; the note says which."""
    path = next((release.root / name for name in _TEXTS if is_file(release.root / name)), None)
    if path is None:
        return {}
    table = read_release_table(release, path, ("name",), _ENCODING)
    column = next((name for name in _COLUMNS[language] if name in table.rows.columns), None)
    if column is None:
        listed = ", ".join(table.rows.columns)
        raise DataError(f"{path} has no column {' or '.join(_COLUMNS[language])}; its columns are {listed[:200]}")
    release.notes.append(f"texts are those of {path.name}, column {column}")
    return {row["name"].strip(): row[column].strip() for _, row in numbered_rows(table)}


def _read_part(release: Release, part: _Part, texts: Mapping[str, str], keep_unlabelled: bool) -> int:
    """Take in the clips of a part, and return how many of them have no text."""
    videos = _list_media(release, release.root / part.folder, _VIDEOS)
    others = {
        name: path
        for folder in part.others
        for name, path in _list_media(release, release.root / folder, _VIDEOS).items()
    }
    sounds = _list_media(release, release.root / part.sounds, _SOUNDS) if part.sounds else {}
    path = release.root / part.table
    rows = _read_labels(release, path) if is_file(path) else {}
    counts = Counter({"labelled": len(rows), "without a row": len((videos | others).keys() - rows.keys())})
    release.notes.append(
        f"{part.name}: {counts['labelled']} rows in {part.table}, {counts['without a row']} clips without a row"
        + ("" if is_file(path) else f"; there is no {part.table}")
    )
    without = 0
    for name in sorted(rows.keys() | videos.keys() | others.keys()):
        video = videos.get(name) or others.get(name)
        line, emotion, valence = rows.get(name, (0, "", ""))
        if name not in rows and not keep_unlabelled:
            reason = ("unlabelled", f"no row of it in {part.table}") if rows else ("no_labels", f"no {part.table}")
            release.reject(name, video or path, *reason)
        elif emotion and emotion not in EMOTIONS:
            release.reject(name, path, "labels:unreadable", f"line {line}: the emotion is {emotion!r:.80}")
        elif emotion and emotion not in release.emotions:
            release.reject(name, path, f"label:{emotion}", f"line {line}: {emotion!r} is not in the task's emotions")
        elif name in rows and not emotion and not keep_unlabelled:
            release.reject(name, path, "unlabelled", f"line {line}: the cell discrete is empty")
        elif video is None:
            release.reject(name, path, "no_video", f"line {line}: there is no {part.folder}/{name} with a known ending")
        else:
            without += not texts.get(name)
            sentiment = _valence(release, path, name, line, valence)
            release.add(
                _utterance(release, part, (name, emotion, texts.get(name, "")), sentiment, (video, sounds.get(name)))
            )
    return without


def _read_labels(release: Release, path: Path) -> dict[str, tuple[int, str, str]]:
    """(line, emotion, valence) by clip, the last two as they stand there, in small letters."""
    rows: dict[str, tuple[int, str, str]] = {}
    for line, cells in numbered_rows(read_release_table(release, path, ("name", "discrete"), _ENCODING)):
        name = cells["name"].strip()
        if not name:
            release.reject(None, path, "labels:unreadable", f"line {line} has no name")
        elif name in rows:
            release.reject(None, path, "duplicate", f"line {line}: a second row of {name}")
        else:
            rows[name] = line, cells["discrete"].strip().lower(), cells.get("valence", "").strip().lower()
    return rows


def _valence(release: Release, path: Path, name: str, line: int, text: str) -> float | None:
    """The valence of a clip; None where it has none, with a reject of the cell where it is no number."""
    if text in ("", "nan", "none", "-"):
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isfinite(value):
        return value
    release.reject(None, path, "labels:unreadable", f"line {line}: the valence of {name} is {text!r:.80}, no number")
    return None


def _utterance(
    release: Release,
    part: _Part,
    about: tuple[str, str, str],
    sentiment: float | None,
    files: tuple[Path, Path | None],
) -> Utterance:
    """about: name, emotion and text. files: the video, and its sound where that is a file of its own."""
    name, emotion, text = about
    video, sound = release.relative(files[0]), files[1]
    return Utterance(
        utterance_id=name,
        dialogue_id=name,
        speaker=name,
        session="",
        start_s=0.0,
        end_s=math.inf,
        text=text,
        labels={known: float(known == emotion) for known in release.emotions},
        sentiment=sentiment,
        source_video=video,
        source_audio=release.relative(sound) if sound else video,
        audio_is_cut=True,
        fold=part.fold,
    )
