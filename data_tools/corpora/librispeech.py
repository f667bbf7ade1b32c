"""LibriSpeech: people read books aloud; words and sound, no picture and no emotion. For pretraining.

LibriSpeech/train-clean-100/103/1240/103-1240-0000.flac     subset/reader/chapter
LibriSpeech/train-clean-100/103/1240/103-1240.trans.txt     a line an utterance: id, a space, the words in capitals
LibriSpeech/SPEAKERS.TXT                                    columns between |, comments after ;
"""

import math
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from data_tools.corpora.release import Release, check_emotions, find_root, is_file, is_folder, read_lines, visible
from data_tools.errors import DataError
from data_tools.records import Utterance

Fold = Literal["train", "valid", "test"]

SUBSETS: dict[str, Fold] = {
    "train-clean-100": "train",
    "train-clean-360": "train",
    "train-other-500": "train",
    "dev-clean": "valid",
    "dev-other": "valid",
    "test-clean": "test",
    "test-other": "test",
}
_SPEAKERS = "SPEAKERS.TXT"
_CHAPTER = re.compile("[0-9]{1,9}")
_LINE = re.compile(r"([0-9]+-[0-9]+-[0-9]{4,})(?: (.*))?")


def read_librispeech(
    root: Path, emotions: Sequence[str], subsets: Sequence[str] | str | None = None, modalities: str = "av"
) -> Release:
    """Every utterance of the subsets that are there, as its whole flac; the dialogue is the chapter.

    subsets: those to take; None for all. Nothing is labelled, and the split is that of the subsets.

    Raises:
        DataError: no release at `root`, an unknown subset, archives that are not unpacked, emotions are asked for, or
            `modalities` asks for a picture.
    """
    check_emotions(emotions, (), "librispeech")
    if "v" in modalities:
        raise DataError(
            f"modalities is {modalities!r} for librispeech, which has no pictures; give --set modalities=ta"
        )
    asked = [subsets] if isinstance(subsets, str) else list(SUBSETS if subsets is None else subsets)
    if unknown := [name for name in asked if name not in SUBSETS]:
        raise DataError(f"subsets has {', '.join(map(str, unknown))}; expected a list of {', '.join(SUBSETS)}")
    release = Release(find_root(root, _is_root, "train-clean-100/ or another subset", "librispeech"))
    there = [name for name in SUBSETS if name in asked and is_folder(release.root / name)]
    _check_unpacked(release.root, asked)
    counts: Counter[str] = Counter()
    for subset in there:
        for chapter in _chapters(release, release.root / subset):
            counts[subset] += _read_chapter(release, chapter, SUBSETS[subset])
    readers = {utterance.speaker for utterance in release.utterances}
    sexes = _read_sexes(release.root / _SPEAKERS)
    release.facts = {
        "subset": dict(counts),
        "readers": dict(Counter(sexes.get(name, "not stated") for name in readers)),
    }
    if absent := [name for name in asked if name not in there]:
        release.notes.append(f"not there: {', '.join(absent)}")
    return release


def _is_root(folder: Path) -> bool:
    return any(is_folder(folder / name) for name in SUBSETS)


def _check_unpacked(root: Path, asked: Sequence[str]) -> None:
    """Refuse archives of subsets whose folders are not there."""
    names = {root / f"{name}.tar.gz" for name in asked if not is_folder(root / name)}
    packed = sorted(path for path in names | {root.parent / path.name for path in names} if is_file(path))
    if packed:
        # The archives hold the folder LibriSpeech themselves.
        commands = "; ".join(f"tar -xzf {shlex.quote(str(path))} -C {shlex.quote(str(root.parent))}" for path in packed)
        raise DataError(f"{len(packed)} archives of LibriSpeech are not unpacked, e.g. {packed[0]}; run `{commands}`")


def _chapters(release: Release, subset: Path) -> list[Path]:
    """The folders <reader>/<chapter> of a subset, sorted; what cannot be listed is a reject."""
    found = []
    for folder in _numbered(release, subset):
        found += _numbered(release, folder)
    return found


def _numbered(release: Release, folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if _CHAPTER.fullmatch(path.name) and is_folder(path))
    except OSError as error:
        release.reject(None, folder, "folder:unreadable", f"{folder.name} cannot be read: {error.strerror or error}")
        return []


def _read_chapter(release: Release, chapter: Path, fold: Fold) -> int:
    """Take in a chapter, and return how many utterances it has, usable or not."""
    reader = chapter.parent.name
    name = f"{reader}-{chapter.name}"
    sounds, path = visible(chapter, ".flac"), chapter / f"{name}.trans.txt"
    words = _read_words(release, path, name)
    for utterance_id in sorted(set(sounds) | set(words)):
        if utterance_id not in sounds:
            release.reject(utterance_id, path, "no_audio", f"there is no {utterance_id}.flac")
        elif utterance_id not in words:
            release.reject(utterance_id, sounds[utterance_id], "no_transcript", f"no line of it in {path.name}")
        else:
            release.add(
                Utterance(
                    utterance_id=utterance_id,
                    dialogue_id=name,
                    speaker=reader,
                    session="",
                    start_s=0.0,
                    end_s=math.inf,
                    text=words[utterance_id],
                    labels={},
                    sentiment=None,
                    source_video="",
                    source_audio=release.relative(sounds[utterance_id]),
                    audio_is_cut=True,
                    fold=fold,
                ),
                path,
            )
    return len(set(sounds) | set(words))


def _read_words(release: Release, path: Path, chapter: str) -> dict[str, str]:
    """Words by utterance, as they stand there."""
    words: dict[str, str] = {}
    try:
        lines = read_lines(path)
    except OSError as error:
        release.reject(None, path, "transcript:unreadable", f"{path.name} cannot be read: {error.strerror or error}")
        return words
    for number, line in enumerate(lines, start=1):
        found = _LINE.fullmatch(line.rstrip())
        if not line.strip():
            continue
        if found is None or not found[1].startswith(f"{chapter}-"):
            detail = f"line {number}: {line[:80]!r}, expected {chapter}-0000, a space and the words"
            release.reject(None, path, "transcript:unreadable", detail)
        elif found[1] in words:
            release.reject(None, path, "transcript:duplicate", f"line {number}: a second line of {found[1]}")
        else:
            words[found[1]] = found[2] or ""
    return words


def _read_sexes(path: Path) -> Mapping[str, str]:
    """F or M by reader; only to count the readers of a copy."""
    try:
        rows = [line.split("|") for line in read_lines(path) if not line.startswith(";")]
    except OSError:
        return {}
    return {row[0].strip(): row[1].strip() for row in rows if len(row) > 2 and row[1].strip() in ("F", "M")}
