"""MELD: scenes of the series Friends, one mp4 an utterance, in the release's own train, dev and test parts.

    MELD.Raw/train_splits/dia0_utt0.mp4                    or one level deeper, MELD.Raw/train/train_splits/
    MELD.Raw/dev_splits_complete/, output_repeated_splits_test/
    MELD.Raw/train_sent_emo.csv, dev_..., test_...         there, or up to two levels deeper

Dialogues are numbered anew in each part, so ids begin with its name here: train_dia0_utt0.
"""

import math
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from data_tools.corpora.release import Release, check_emotions, find_root, is_file, is_folder
from data_tools.corpora.release_table import numbered_rows, read_release_table
from data_tools.corpora.tables import Table
from data_tools.errors import DataError
from data_tools.records import Utterance

EMOTIONS = ("neutral", "joy", "surprise", "anger", "sadness", "disgust", "fear")
# The release has three classes and no strength: the numbers are their order.
SENTIMENTS = {"negative": -1.0, "neutral": 0.0, "positive": 1.0}


class _Part(NamedTuple):
    """A split of the release: its name in file names, ours, and the folder with its clips."""

    name: str
    fold: Literal["train", "valid", "test"]
    clips: str

    @property
    def table(self) -> str:
        return f"{self.name}_sent_emo.csv"

    @property
    def archive(self) -> str:
        return f"{self.name}.tar.gz"


_PARTS = (
    _Part("train", "train", "train_splits"),
    _Part("dev", "valid", "dev_splits_complete"),
    _Part("test", "test", "output_repeated_splits_test"),
)
_CLIP_FOLDERS = tuple(part.clips for part in _PARTS)
_WHOLE_ARCHIVE = "MELD.Raw.tar.gz"
_LEVELS = 2
_COLUMNS = ("Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID")

_NUMBER = re.compile(r"0*([0-9]{1,6})(?:\.0+)?")
_CLIP = re.compile(r"dia(?:0|[1-9][0-9]{0,5})_utt(?:0|[1-9][0-9]{0,5})")
_TIME = re.compile(r"([0-9]{1,2}):([0-9]{1,2}):([0-9]{1,2})[,.]([0-9]{1,3})")
# Windows-1252 dashes and quotes that somebody read as Latin-1.
_CONTROL = re.compile("[\x80-\x9f]")


def read_meld(root: Path, emotions: Sequence[str]) -> Release:
    """Utterances whose emotion is one of `emotions` (one-hot), the others as rejects `label:<emotion>`.

    With no emotions all are taken, for their sentiment: -1.0 negative, 0.0 neutral, 1.0 positive. Picture and sound
    are the whole mp4; the length that StartTime and EndTime state goes with it, to find clips that hold another scene.
    Texts are as in the csv.

    Raises:
        DataError: no release at `root`, archives that are not unpacked, no csv, one that is none or lacks a column,
            or an unknown emotion.
    """
    check_emotions(emotions, EMOTIONS, "meld")
    looked_for = f"{_PARTS[0].clips}/ or {_PARTS[0].archive} (MELD.Raw)"
    release = Release(find_root(root, _is_root, looked_for, "meld"))
    folders = list(_folders(release.root))
    _check_unpacked(folders)
    if not any(_find(folders, part.table) for part in _PARTS):
        names = ", ".join(part.table for part in _PARTS)
        raise DataError(
            f"no labels: looked for {names} in {release.root} and {_LEVELS} levels below; copy them there "
            "(they are in data/MELD of MELD's repository)"
        )
    for part in _PARTS:
        _read_part(release, part, folders, emotions)
    return release


def _is_root(folder: Path) -> bool:
    """Return True if `folder` is MELD.Raw, and not just its folder train, dev or test."""
    is_level = folder.name in [part.name for part in _PARTS]
    return _holds(folder) and not (is_level and _holds(folder.parent))


def _holds(folder: Path) -> bool:
    return is_file(folder / _WHOLE_ARCHIVE) or any(
        is_folder(folder / level / part.clips) or is_file(folder / level / part.archive)
        for part in _PARTS
        for level in ("", part.name)
    )


def _folders(root: Path) -> Iterator[Path]:
    """`root` and the folders below it, the nearest first, but none of thousands of clips."""
    level = [root]
    for _ in range(_LEVELS + 1):
        yield from level
        inside = [path for parent in level if parent.name not in _CLIP_FOLDERS for path in _visible(parent)]
        # macOS' archiver adds a second tree with the same names and nothing in it.
        level = [path for path in inside if is_folder(path) and path.name != "__MACOSX"]


def _visible(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError:
        return []


def _find(folders: Sequence[Path], name: str) -> list[Path]:
    """Every `name`, file or folder, in one of `folders`."""
    return [folder / name for folder in folders if is_file(folder / name) or is_folder(folder / name)]


def _check_unpacked(folders: Sequence[Path]) -> None:
    packed = [archive for part in _PARTS if not _find(folders, part.clips) for archive in _find(folders, part.archive)]
    if not any(_find(folders, name) for name in _CLIP_FOLDERS) and not packed:
        packed = _find(folders, _WHOLE_ARCHIVE)
    if packed:
        quoted = [(shlex.quote(str(path)), shlex.quote(str(path.parent))) for path in packed]
        commands = "; ".join(f"tar -xzf {archive} -C {folder}" for archive, folder in quoted)
        raise DataError(f"archives of MELD that are not unpacked: {', '.join(map(str, packed))}; run `{commands}`")


def _read_part(release: Release, part: _Part, folders: Sequence[Path], emotions: Sequence[str]) -> None:
    """Every row of the part's csv becomes an utterance or a reject, every clip without a row a reject."""
    tables, places = _find(folders, part.table), _find(folders, part.clips)
    if not tables and not places:
        release.notes.append(f"{part.name}: not there, neither {part.table} nor {part.clips}/")
        return
    clips = _list_clips(release, part, places[0]) if places else {}
    table = read_release_table(release, tables[0], _COLUMNS, "cp1252") if tables else None
    what = f"{len(table.rows)} rows in {release.relative(tables[0])}" if table else f"no {part.table}"
    where = f"{len(clips)} clips in {release.relative(places[0])}/" if places else f"no {part.clips}/"
    release.notes.append(f"{part.name}: {what}, {where}")
    for path in tables[1:] + places[1:]:
        release.notes.append(f"{release.relative(path)} is another {path.name} and is not used")
    named = _read_rows(release, part, tables[0], table, clips, emotions) if table else set()
    for name in sorted(set(clips) - named):
        reason = ("unlabelled", f"no row of it in {part.table}") if table else ("no_labels", f"no {part.table}")
        release.reject(f"{part.name}_{name}", clips[name], *reason)


def _list_clips(release: Release, part: _Part, folder: Path) -> dict[str, Path]:
    """The mp4s by stem. Those of other names are counted in notes: macOS' `._*`, test's `final_videos_testdia*`."""
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror or error}") from error
    clips = {name[:-4]: folder / name for name in names if name.lower().endswith(".mp4") and _CLIP.fullmatch(name[:-4])}
    others = [name for name in names if name[:-4] not in clips]
    for start, what in (("._", "hidden files of macOS"), ("final_videos_test", "second cuts")):
        some = [name for name in others if name.startswith(start)]
        others = [name for name in others if name not in some]
        if some:
            release.notes.append(f"{part.name}: {len(some)} {what} ({start}*) are not used")
    if others:
        release.notes.append(f"{part.name}: {len(others)} files are not dia<D>_utt<U>.mp4, e.g. {others[0]!r}")
    return clips


def _read_rows(
    release: Release, part: _Part, path: Path, table: Table, clips: Mapping[str, Path], emotions: Sequence[str]
) -> set[str]:
    """Take in the rows of a csv; the clips that they name, by stem."""
    seen: set[str] = set()
    counted: Counter[str] = Counter()
    for number, row in numbered_rows(table):
        dialogue, turn = _NUMBER.fullmatch(row["Dialogue_ID"].strip()), _NUMBER.fullmatch(row["Utterance_ID"].strip())
        if dialogue is None or turn is None:
            detail = f"line {number}: {row['Dialogue_ID']!r} and {row['Utterance_ID']!r} are not two numbers"
            release.reject(None, path, "labels:unreadable", detail)
            continue
        name = f"dia{dialogue[1]}_utt{turn[1]}"
        if name in seen:
            release.reject(None, path, "duplicate", f"line {number}: a second row of {name}")
            continue
        seen.add(name)
        emotion, sentiment = row["Emotion"].strip().lower(), row["Sentiment"].strip().lower()
        if (emotions and emotion not in EMOTIONS) or sentiment not in SENTIMENTS:
            detail = f"line {number}: emotion {row['Emotion']!r}, sentiment {row['Sentiment']!r}"
            release.reject(f"{part.name}_{name}", path, "labels:unreadable", detail)
        elif emotions and emotion not in emotions:
            detail = f"the emotion {emotion!r} is not in the task's emotions"
            release.reject(f"{part.name}_{name}", path, f"label:{emotion}", detail)
        elif name not in clips:
            detail = f"line {number}: there is no {part.clips}/{name}.mp4"
            release.reject(f"{part.name}_{name}", path, "no_video", detail)
        else:
            stated_s = _stated_s(row)
            counted["without times"] += stated_s is None
            counted["control"] += bool(_CONTROL.search(row["Utterance"]))
            file = release.relative(clips[name])
            release.add(
                Utterance(
                    utterance_id=f"{part.name}_{name}",
                    dialogue_id=f"{part.name}_dia{dialogue[1]}",
                    speaker=_speaker(row["Speaker"]),
                    session="",
                    start_s=0.0,
                    end_s=math.inf,
                    text=row["Utterance"].strip(),
                    labels={known: float(known == emotion) for known in emotions},
                    sentiment=SENTIMENTS[sentiment],
                    source_video=file,
                    source_audio=file,
                    audio_is_cut=True,
                    fold=part.fold,
                    stated_s=stated_s,
                )
            )
    _add_notes(release, part, counted)
    return seen


def _speaker(name: str) -> str:
    """A name as one word, for `--split speaker:The_Casting_Director`."""
    return re.sub(r"\W+", "_", name).strip("_") or "unknown"


def _stated_s(row: Mapping[str, str]) -> float | None:
    """EndTime - StartTime in seconds, None where the row has no such times."""
    ends = [_TIME.fullmatch(row.get(column, "").strip()) for column in ("StartTime", "EndTime")]
    if ends[0] is None or ends[1] is None:
        return None
    start_ms, end_ms = (
        ((int(t[1]) * 60 + int(t[2])) * 60 + int(t[3])) * 1000 + int(t[4].ljust(3, "0")) for t in ends if t
    )
    return (end_ms - start_ms) / 1000 if end_ms > start_ms else None


def _add_notes(release: Release, part: _Part, counted: Counter[str]) -> None:
    if counted["without times"]:
        release.notes.append(
            f"{part.name}: {counted['without times']} rows state no StartTime before an EndTime: the length of their "
            "clips is not checked"
        )
    if counted["control"]:
        release.notes.append(
            f"{part.name}: {counted['control']} texts hold control characters (Windows-1252 quotes and dashes, read as "
            "Latin-1 before the release); they are kept as they are"
        )
