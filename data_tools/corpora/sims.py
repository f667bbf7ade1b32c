"""CH-SIMS: Chinese films and shows, one mp4 an utterance, with sentiment and a split of the release's own.

    Raw/video_0001/0001.mp4                   in both layouts
    label.csv                                 MMSA's layout
    metadata/sentiment/label_M.csv            the original one: labels, here and in label_T, label_A and label_V
    metadata/Translation.csv                  texts, Chinese and English
    metadata/{train,val,test}_index.csv       places of rows in label_M.csv, from 0

CH-SIMS v2 (the supervised part, v2s) has MMSA's layout with the table called meta.csv:

    meta.csv, Raw/aqgy3_0001/00001.mp4

Only the label of the whole utterance (M) is read: what raters said of its text (T), sound (A) or picture (V) alone is
not.
"""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from data_tools.corpora.mmsa.clips import TABLE, Row, is_mmsa, match_clips, read_mmsa, whole_clip
from data_tools.corpora.release import Release, check_emotions, find_root, is_file, is_folder
from data_tools.corpora.release_table import numbered_rows, read_release_table
from data_tools.corpora.tables import Table
from data_tools.errors import DataError

_RAW = "Raw"
_V2_TABLES = ("meta.csv", TABLE)
_LABELS = "metadata/sentiment/label_M.csv"
_TEXTS = "metadata/Translation.csv"
_INDEXES = {"train": "train_index.csv", "valid": "val_index.csv", "test": "test_index.csv"}
_LANGUAGES = {"zh": "Chinese", "en": "English"}
_BOUND = 1.0
# What Chinese tables are in that are not UTF-8.
_ENCODING = "gb18030"
_NUMBER = re.compile(r"0*([0-9]{1,9})(?:\.0+)?")


def read_sims(root: Path, emotions: Sequence[str], language: str = "zh") -> Release:
    """Every labelled clip as a whole; sentiment in [-1, 1], the speaker and the dialogue are the video.

    emotions: none, the corpus has only sentiment. language: of the texts, zh or en; en is in the original layout alone.

    Raises:
        DataError: no release at `root`, emotions are asked for, another language, or a table that cannot be read or
            lacks a column.
    """
    check_emotions(emotions, (), "sims")
    if language not in _LANGUAGES:
        raise DataError(f"language is {language!r} for sims; expected one of {', '.join(_LANGUAGES)}")
    looked_for = f"{_RAW}/ with {TABLE} or {_LABELS}"
    release = Release(
        find_root(root, lambda folder: is_mmsa(folder, "sims") or _is_original(folder), looked_for, "sims")
    )
    original = _is_original(release.root)
    if is_mmsa(release.root, "sims") and not (original and language == "en"):
        if language == "en":
            raise DataError(
                f"{release.root / TABLE} has Chinese texts only; English ones are in {_TEXTS} of the original layout"
            )
        for clip in read_mmsa(release, release.root, _BOUND, _ENCODING):
            release.add(whole_clip(release, clip, {}))
    else:
        _read_original(release, _LANGUAGES[language])
    return release


def read_sims_v2(root: Path, emotions: Sequence[str]) -> Release:
    """Every labelled clip of CH-SIMS v2 as a whole; sentiment in [-1, 1], the speaker and the dialogue are the video.

    Raises:
        DataError: no release at `root`, emotions are asked for, or a table that cannot be read or lacks a column.
    """
    check_emotions(emotions, (), "sims-v2")
    looked_for = f"{_RAW}/ with {' or '.join(_V2_TABLES)}"
    release = Release(find_root(root, lambda folder: is_mmsa(folder, "sims", _V2_TABLES), looked_for, "sims-v2"))
    table = next(name for name in _V2_TABLES if is_file(release.root / name))
    for clip in read_mmsa(release, release.root, _BOUND, _ENCODING, table):
        release.add(whole_clip(release, clip, {}))
    return release


def _is_original(folder: Path) -> bool:
    return is_file(folder / _LABELS) and is_folder(folder / _RAW)


def _read_original(release: Release, language: str) -> None:
    labels = read_release_table(release, release.root / _LABELS, ("video_id", "clip_id", "label"), _ENCODING)
    path = release.root / _TEXTS
    texts = _read_texts(release, path, language)
    modes = _read_modes(release, labels)
    rows = []
    for number, cells in numbered_rows(labels):
        video_id, clip_id, label = (cells[name].strip() for name in ("video_id", "clip_id", "label"))
        if video_id and clip_id:
            text = texts.get((video_id, _plain(clip_id)), "")
            rows.append(Row(number, video_id, clip_id, text, label, modes.get(number, "")))
        else:
            detail = f"line {number} has no video_id or no clip_id"
            release.reject(None, release.root / _LABELS, "labels:unreadable", detail)
    for clip in match_clips(release, release.root / _LABELS, rows, release.root / _RAW, _BOUND):
        if clip.text:
            release.add(whole_clip(release, clip, {}))
        else:
            detail = f"no {language} text of {clip.video_id}, {clip.clip_id} in {path.name}"
            release.reject(clip.utterance_id, path, "no_transcript", detail)


def _read_texts(release: Release, path: Path, language: str) -> dict[tuple[str, str], str]:
    """Text by video id and plain clip id."""
    texts: dict[tuple[str, str], str] = {}
    table = read_release_table(release, path, ("video_id", "clip_id", language), _ENCODING)
    for number, cells in numbered_rows(table):
        key = cells["video_id"].strip(), _plain(cells["clip_id"].strip())
        if key in texts:
            release.reject(None, path, "transcript:duplicate", f"line {number}: a second text of {key[0]}, {key[1]}")
        else:
            texts[key] = cells[language].strip()
    return texts


def _read_modes(release: Release, labels: Table) -> dict[int, str]:
    """The split by line of the label table; a row in none or in two of the lists has none."""
    # The lists count rows, good ones and bad ones, and no empty lines.
    lines = sorted([*labels.rows.index, *(number for number, _ in labels.bad)])
    modes: dict[int, str] = {}
    twice: Counter[int] = Counter()
    for mode, name in _INDEXES.items():
        path = release.root / "metadata" / name
        if not is_file(path):
            release.notes.append(f"there is no metadata/{name}: the clips of {mode} state no split")
            continue
        table = read_release_table(release, path, ("index",), _ENCODING)
        for number, cells in numbered_rows(table):
            found = _NUMBER.fullmatch(cells["index"].strip())
            if found and int(found[1]) < len(lines):
                line = lines[int(found[1])]
                twice[line] += modes.setdefault(line, mode) != mode
            else:
                detail = f"line {number}: {cells['index']!r} is no place in label_M.csv (0 to {len(lines) - 1})"
                release.reject(None, path, "split:unreadable", detail)
    both = [line for line, count in twice.items() if count]
    if both:
        release.notes.append(f"{len(both)} rows of label_M.csv are in two of the index files: they state no split")
    return {line: mode for line, mode in modes.items() if not twice[line]}


def _plain(number: str) -> str:
    """A number without leading zeros and without the `.0` of a spreadsheet; other text as it is."""
    found = _NUMBER.fullmatch(number)
    return found[1] if found else number
