"""CREMA-D: 91 actors say twelve sentences in six emotions; raters say what they heard, saw, or both.

    VideoFlash/1001_IEO_HAP_LO.flv        actor_sentence_emotion_level
    AudioWAV/1001_IEO_HAP_LO.wav, AudioMP3/...
    processedResults/summaryTable.csv     votes of raters
    SentenceFilenames.csv, VideoDemographics.csv

Files are found by their names in any folder, so copies whose videos somebody has converted are read too.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from data_tools.corpora.named_files import list_files, pick_named
from data_tools.corpora.release import Release, check_emotions, find_root, is_file, is_folder
from data_tools.corpora.release_table import numbered_rows, read_release_table
from data_tools.errors import DataError
from data_tools.records import Utterance

EMOTIONS = ("anger", "disgust", "fear", "happy", "neutral", "sad")
SENTENCES = {
    "IEO": "It's eleven o'clock.",
    "TIE": "That is exactly what happened.",
    "IOM": "I'm on my way to the meeting.",
    "IWW": "I wonder what this is about.",
    "TAI": "The airplane is almost full.",
    "MTI": "Maybe tomorrow it will be cold.",
    "IWL": "I would like a new alarm clock.",
    "ITH": "I think I have a doctor's appointment.",
    "DFA": "Don't forget a jacket.",
    "ITS": "I think I've seen this before.",
    "TSI": "The surface is slick.",
    "WSI": "We'll stop in a couple of minutes.",
}
# The release's own list of faults: an error picture or no sound, no duration, a minute of several displays.
KNOWN_BAD = frozenset({"1076_MTI_SAD_XX", "1076_MTI_NEU_XX", "1064_TIE_SAD_XX", "1064_IEO_DIS_MD"})

VOTES_TABLE, NAMES_TABLE, ACTORS_TABLE = "summaryTable.csv", "SentenceFilenames.csv", "VideoDemographics.csv"
_COLUMNS = {"voice": "VoiceVote", "face": "FaceVote", "multimodal": "MultiModalVote"}
_INTENDED = dict(zip(("ANG", "DIS", "FEA", "HAP", "NEU", "SAD"), EMOTIONS, strict=True))
_VOTES = dict(zip("ADFHNS", EMOTIONS, strict=True))

_FORM = "actor_sentence_emotion_level, e.g. 1001_IEO_HAP_LO"
_NAME = re.compile(rf"[0-9]{{4}}_(?:{'|'.join(SENTENCES)})_(?:{'|'.join(_INTENDED)})_(?:XX|LO|MD|HI)")
# Of several files of one display the first kind is taken.
_VIDEOS, _SOUNDS = (".flv", ".mp4", ".mkv", ".avi", ".mov"), (".wav", ".mp3")
_FOLDERS = ("videoflash", "audiowav", "audiomp3")
_TABLE_FOLDERS = ("processedresults", "finishedresponses")


class _Label(NamedTuple):
    """The emotions of a display, several where raters were in a tie, or in `problem` a reason and a sentence."""

    emotions: tuple[str, ...] = ()
    problem: tuple[str, str] | None = None


def read_crema_d(
    root: Path,
    emotions: Sequence[str],
    labels: str = "intended",
    ties: str = "reject",
    known_bad: str = "reject",
    modalities: str = "av",
) -> Release:
    """Every display as a whole video with the sound of its wav; the speaker and the dialogue are the actor.

    A display without a video is its sound alone, where `modalities` asks for no picture.

    Displays whose emotion is none of `emotions` are rejects `label:<emotion>`; with no emotions all six are taken.

    labels: `intended`, what the actor was asked for; or what most raters voted for who had only the `voice`, only the
    `face`, or both, `multimodal`.
    ties: of votes: `reject` them as `label:tie`, or `keep` them with every emotion of the tie.
    known_bad: `reject` or `keep` the displays of KNOWN_BAD.

    Raises:
        DataError: no release at `root`, an unknown emotion or option, or a table that is asked for and missing, cannot
            be read or lacks a column.
    """
    check_emotions(emotions, EMOTIONS, "crema-d")
    for option, value, known in (
        ("labels", labels, ("intended", *_COLUMNS)),
        ("ties", ties, ("reject", "keep")),
        ("known_bad", known_bad, ("reject", "keep")),
    ):
        if value not in known:
            raise DataError(f"{option} is {value!r} for crema-d; expected one of {', '.join(known)}")
    looked_for = "VideoFlash/ and AudioWAV/ with files such as 1001_IEO_HAP_LO.flv"
    release = Release(find_root(root, _is_root, looked_for, "crema-d"))
    emotions = emotions or EMOTIONS
    release.emotions = tuple(emotions)
    files = list_files(release.root)
    media = pick_named(release, files, _NAME, (*_VIDEOS, *_SOUNDS), _FORM)
    listed = _read_names(release, files)
    voted = {} if labels == "intended" else _read_votes(release, files, _COLUMNS[labels])
    names = sorted({name for name, _ in media} | set(listed) | set(voted))
    release.facts = _facts(release, files, names, labels)
    sounds: Counter[str] = Counter()
    for name in names:
        label = _Label((_INTENDED[name.split("_")[2]],)) if labels == "intended" else voted.get(name)
        source = next((media[name, kind] for kind in (*_VIDEOS, *_SOUNDS) if (name, kind) in media), listed.get(name))
        problem = _problem(name, label, emotions, ties == "keep", known_bad == "keep")
        video = next((media[name, kind] for kind in _VIDEOS if (name, kind) in media), None)
        sound = next((media[name, kind] for kind in _SOUNDS if (name, kind) in media), video)
        if problem is not None:
            release.reject(name, source or release.root, *problem)
        elif video is None and (sound is None or "v" in modalities):
            there = " and ".join(kind for kind in _SOUNDS if (name, kind) in media)
            detail = f"there is no {name}.flv" + (f", only its {there}" if there else "")
            release.reject(name, source or release.root, "no_video", detail)
        else:
            sounds[sound.suffix.lower() if sound else ""] += 1
            release.add(_utterance(release, name, label.emotions if label else (), emotions, (video, sound)))
    _add_notes(release, sounds, ties)
    return release


def _is_root(folder: Path) -> bool:
    """Return True if `folder` is the release, and not just one of its folders."""
    if folder.name.lower() in (*_FOLDERS, *_TABLE_FOLDERS):
        return False
    try:
        inside = list(folder.iterdir())
    except OSError:
        return False
    return is_file(folder / NAMES_TABLE) or any(
        is_folder(path) if path.name.lower() in _FOLDERS else _is_media(path) for path in inside
    )


def _is_media(path: Path) -> bool:
    return path.suffix.lower() in (*_VIDEOS, *_SOUNDS) and _NAME.fullmatch(path.stem.upper()) is not None


def _find_table(release: Release, files: Sequence[Path], name: str) -> Path | None:
    found = [path for path in files if path.name.lower() == name.lower()]
    for path in found[1:]:
        release.notes.append(f"{release.relative(path)} is another {name} and is not used")
    return found[0] if found else None


def _read_names(release: Release, files: Sequence[Path]) -> dict[str, Path]:
    """The displays that the release lists, and the table that does; none where it is not there."""
    path = _find_table(release, files, NAMES_TABLE)
    if path is None:
        return {}
    names: dict[str, Path] = {}
    for number, row in numbered_rows(read_release_table(release, path, ("Filename",), "cp1252")):
        name = row["Filename"].strip().upper()
        if _NAME.fullmatch(name):
            names[name] = path
        else:
            release.reject(None, path, "id:unknown", f"line {number}: {name!r} is not called {_FORM}")
    return names


def _read_votes(release: Release, files: Sequence[Path], column: str) -> dict[str, _Label]:
    path = _find_table(release, files, VOTES_TABLE)
    if path is None:
        raise DataError(
            f"no votes: looked for {VOTES_TABLE} in {release.root} and below it; copy it there (it is in "
            "processedResults/ of CREMA-D's repository), or take what the actors intended: --set 'reader={labels: "
            "intended}'"
        )
    votes: dict[str, _Label] = {}
    for number, row in numbered_rows(read_release_table(release, path, ("FileName", column), "cp1252")):
        name, vote = row["FileName"].strip().upper(), row[column].strip().upper()
        letters = vote.split(":")
        if not _NAME.fullmatch(name):
            release.reject(None, path, "id:unknown", f"line {number}: {name!r} is not called {_FORM}")
        elif name in votes:
            release.reject(None, path, "duplicate", f"line {number}: a second row of {name}")
        elif not set(letters) <= set(_VOTES):
            detail = f"line {number}: {column} is {vote!r}, expected letters of {'/'.join(_VOTES)} joined by colons"
            votes[name] = _Label(problem=("labels:unreadable", detail))
        else:
            votes[name] = _Label(tuple(_VOTES[letter] for letter in sorted(set(letters))))
    return votes


def _problem(
    name: str, label: _Label | None, emotions: Sequence[str], keep_ties: bool, keep_bad: bool
) -> tuple[str, str] | None:
    """Reason and sentence why a display is not used whatever its files are."""
    if label is None:
        return "unlabelled", f"no row of it in {VOTES_TABLE}"
    if label.problem:
        return label.problem
    named = " and ".join(label.emotions)
    if len(label.emotions) > 1 and not keep_ties:
        return "label:tie", f"as many raters voted for {named}; ties: keep takes it with all of them"
    if not set(label.emotions) & set(emotions):
        return f"label:{label.emotions[0]}", f"{named} is not in the task's emotions"
    if name in KNOWN_BAD and not keep_bad:
        return "known:bad_segment", "its video is faulty, as the release says; known_bad: keep takes it all the same"
    return None


def _utterance(
    release: Release, name: str, shown: Sequence[str], emotions: Sequence[str], files: tuple[Path | None, Path | None]
) -> Utterance:
    actor, sentence, *_ = name.split("_")
    video, audio = (release.relative(path) if path else "" for path in files)
    return Utterance(
        utterance_id=name,
        dialogue_id=actor,
        speaker=actor,
        session="",
        start_s=0.0,
        end_s=math.inf,
        text=SENTENCES[sentence],
        labels={known: float(known in shown) for known in emotions},
        sentiment=None,
        source_video=video,
        source_audio=audio,
        audio_is_cut=True,
    )


def _facts(release: Release, files: Sequence[Path], names: Sequence[str], labels: str) -> dict[str, dict[str, int]]:
    parts = [name.split("_") for name in names]
    facts = {
        "sentence": dict(Counter(part[1] for part in parts)),
        "level": dict(Counter(part[3] for part in parts)),
    }
    if labels != "intended":
        facts["intended"] = dict(Counter(_INTENDED[part[2]] for part in parts))
    actors = {part[0] for part in parts}
    facts["actors"] = dict(Counter(_read_sexes(release, files).get(actor, "not stated") for actor in actors))
    return facts


def _read_sexes(release: Release, files: Sequence[Path]) -> Mapping[str, str]:
    """Sex by actor as the release states it; only to count the actors of a copy."""
    path = _find_table(release, files, ACTORS_TABLE)
    if path is None:
        return {}
    rows = numbered_rows(read_release_table(release, path, ("ActorID", "Sex"), "cp1252"))
    return {row["ActorID"].strip(): row["Sex"].strip().lower() or "not stated" for _, row in rows}


def _add_notes(release: Release, sounds: Mapping[str, int], ties: str) -> None:
    others = {kind: count for kind, count in sounds.items() if kind != ".wav"}
    if others:
        listed = ", ".join(f"{count} {kind}" for kind, count in sorted(others.items()))
        release.notes.append(f"there is no wav of some displays; their sound is taken from {listed}")
    tied = sum(sum(utterance.labels.values()) > 1 for utterance in release.utterances)
    if tied and ties == "keep":
        release.notes.append(f"{tied} displays have more than one emotion: train with --set task=multi-label")
