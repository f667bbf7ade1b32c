"""RAVDESS: 24 actors speak, and 23 sing, two statements in eight emotions; the name of a file says everything.

    Actor_01/01-01-05-01-02-01-01.mp4     modality-channel-emotion-intensity-statement-repetition-actor

Modality 01 is picture and sound, 02 the same recording without sound, 03 the same without picture (.wav). Folders may
lie in others, as programs that unpack zips make them, or all files in one.
"""

import math
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from data_tools.corpora.named_files import list_files, pick_named
from data_tools.corpora.release import Release, check_emotions, find_root, is_folder
from data_tools.errors import DataError
from data_tools.records import Utterance

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
SUNG = EMOTIONS[:6]
STATEMENTS = {"01": "Kids are talking by the door.", "02": "Dogs are sitting by the door."}
CHANNELS = {"speech": ("01",), "song": ("02",), "both": ("01", "02")}

_BOTH, _PICTURE, _SOUND = "01", "02", "03"
_SUFFIXES = {_BOTH: ".mp4", _PICTURE: ".mp4", _SOUND: ".wav"}
_FORM = "modality-channel-emotion-intensity-statement-repetition-actor, each with two known digits"
_NAME = re.compile("0[1-3]-0[12]-0[1-8]-0[12]-0[12]-0[12]-(?:0[1-9]|1[0-9]|2[0-4])")
_ACTOR = re.compile("actor_(?:0[1-9]|1[0-9]|2[0-4])", re.IGNORECASE)
# Folders that hold a part of the release: those that some programs make of a zip, and those that people make.
_UNZIPPED = re.compile(r"(?:video|audio)_(?:speech|song)_actors?_.*", re.IGNORECASE)
_SORTED = re.compile(r"(?:ravdess[ _-]?)?(?:speech|song)", re.IGNORECASE)
_ZIP = re.compile(r"video_(speech|song)_actor_([0-9]{2})", re.IGNORECASE)


def read_ravdess(root: Path, emotions: Sequence[str], channel: str = "speech", modalities: str = "av") -> Release:
    """Every performance as its file with picture and sound (01-...); labels are the intended emotions, one-hot.

    Where there is none, the one without sound (02-...) or without picture (03-...) is taken if `modalities` asks for
    no sound or no picture; the id stays that of the performance, 01-...

    The speaker is the actor, and so is the dialogue: a split that keeps dialogues whole is one by actors. Its emotion
    is one of `emotions`, the others are rejects `label:<emotion>`; with no emotions all are taken.

    channel: `speech`, `song` (without disgust and surprise), or `both`.

    Raises:
        DataError: no release at `root`, zips that are not unpacked, an unknown emotion or channel.
    """
    check_emotions(emotions, EMOTIONS, "ravdess")
    if channel not in CHANNELS:
        raise DataError(f"channel is {channel!r} for ravdess; expected one of {', '.join(CHANNELS)}")
    release = Release(find_root(root, _is_root, "Actor_01 ... Actor_24", "ravdess"))
    if not emotions:
        emotions = release.emotions = SUNG if channel == "song" else EMOTIONS
    files = list_files(release.root)
    performances = _performances(release, files)
    _check_unpacked(files, performances, channel)
    _add_notes(release, performances, channel, modalities)
    wanted = {name: performances[name] for name in sorted(performances) if name[:2] in CHANNELS[channel]}
    release.facts = _facts(wanted)
    for name, found in wanted.items():
        _take(release, name, found, emotions, modalities)
    return release


def _is_root(folder: Path) -> bool:
    """Return True if `folder` is the release, and not one actor or one zip of it."""
    if _ACTOR.fullmatch(folder.name) or _UNZIPPED.fullmatch(folder.name):
        return False
    inside = _inside(folder)
    parts = [path for path in inside if _UNZIPPED.fullmatch(path.name) or _SORTED.fullmatch(path.name)]
    return any(map(_is_part, inside)) or any(_is_part(path) for part in parts for path in _inside(part))


def _is_part(path: Path) -> bool:
    """Return True if `path` is an actor's folder, a file of the release, or one of its zips."""
    suffix = path.suffix.lower()
    if suffix in (".mp4", ".wav"):
        return _NAME.fullmatch(path.stem) is not None
    return bool(_ZIP.fullmatch(path.stem) if suffix == ".zip" else _ACTOR.fullmatch(path.name) and is_folder(path))


def _inside(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _performances(release: Release, files: Sequence[Path]) -> dict[str, dict[str, Path]]:
    """Files by what three of them share, the name without its modality, and by that modality."""
    found: dict[str, dict[str, Path]] = {}
    others, elsewhere = [], []
    for (name, suffix), path in pick_named(release, files, _NAME, (".mp4", ".wav"), _FORM).items():
        modality, channel, emotion, intensity, *_, actor = name.split("-")
        if suffix != _SUFFIXES[modality]:
            others.append(path)
        elif channel == "02" and int(emotion) > len(SUNG):
            release.reject(None, path, "id:unknown", f"nobody sings {EMOTIONS[int(emotion) - 1]!r} in RAVDESS")
        elif (emotion, intensity) == ("01", "02"):
            release.reject(None, path, "id:unknown", "there is no strong neutral in RAVDESS")
        else:
            if _ACTOR.fullmatch(path.parent.name) and path.parent.name[-2:] != actor:
                elsewhere.append(path)
            found.setdefault(name[3:], {})[modality] = path
    if others:
        release.notes.append(
            f"{len(others)} files are not used, as 01 and 02 are .mp4 and 03 is .wav in the release, "
            f"e.g. {release.relative(others[0])}"
        )
    if elsewhere:
        release.notes.append(
            f"{len(elsewhere)} files lie in another actor's folder: their names hold, e.g. "
            f"{release.relative(elsewhere[0])}"
        )
    return found


def _check_unpacked(files: Sequence[Path], performances: Mapping[str, Mapping[str, Path]], channel: str) -> None:
    there = {(name[:2], name[-2:]) for name, found in performances.items() if _BOTH in found}
    packed = []
    for path in files:
        zipped = _ZIP.fullmatch(path.stem) if path.suffix.lower() == ".zip" else None
        code = {"speech": "01", "song": "02"}[zipped[1].lower()] if zipped else ""
        if zipped and code in CHANNELS[channel] and (code, zipped[2]) not in there:
            packed.append(path)
    if packed:
        commands = "; ".join(f"unzip -n {shlex.quote(str(p))} -d {shlex.quote(str(p.parent))}" for p in packed)
        raise DataError(f"{len(packed)} zips of RAVDESS are not unpacked, e.g. {packed[0]}; run `{commands}`")


def _add_notes(release: Release, performances: Mapping[str, Mapping[str, Path]], channel: str, modalities: str) -> None:
    for name, (code,) in (("speech", CHANNELS["speech"]), ("song", CHANNELS["song"])):
        of_channel = [found for performance, found in performances.items() if performance.startswith(code)]
        if not of_channel:
            continue
        count = Counter(modality for found in of_channel for modality in found)
        note = f"{name}: {len(of_channel)} performances, {count[_BOTH]} of them with picture and sound (01)"
        alone = Counter(
            _PICTURE if files[0] else _SOUND
            for found in of_channel
            if _BOTH not in found and (files := _files_of(found, modalities))
        )
        if alone:
            note += f"; of others {alone[_PICTURE]} are taken without sound (02), {alone[_SOUND]} without picture (03)"
        count -= alone
        if count[_PICTURE] or count[_SOUND]:
            note += (
                f"; {count[_PICTURE]} files without sound (02) and {count[_SOUND]} without picture (03) are the same "
                "performances again and are not used"
            )
        if code not in CHANNELS[channel]:
            note += f"; {name} is not asked for (--set 'reader={{channel: both}}' takes it too)"
        release.notes.append(note)


def _facts(performances: Mapping[str, object]) -> dict[str, dict[str, int]]:
    parts = [name.split("-") for name in performances]
    return {
        "intensity": dict(Counter({"01": "normal", "02": "strong"}[part[2]] for part in parts)),
        "statement": dict(Counter({"01": "kids", "02": "dogs"}[part[3]] for part in parts)),
        "repetition": dict(Counter({"01": "first", "02": "second"}[part[4]] for part in parts)),
        "actors": dict(Counter("male" if int(actor) % 2 else "female" for actor in {part[5] for part in parts})),
    }


def _take(release: Release, name: str, found: Mapping[str, Path], emotions: Sequence[str], modalities: str) -> None:
    """Take in the performance `name`, six numbers, or reject it."""
    channel, emotion_code, _, statement, _, actor = name.split("-")
    utterance_id, emotion = f"{_BOTH}-{name}", EMOTIONS[int(emotion_code) - 1]
    if emotion not in emotions:
        detail = f"the emotion {emotion!r} is not in the task's emotions"
        release.reject(utterance_id, next(iter(found.values())), f"label:{emotion}", detail)
    elif (files := _files_of(found, modalities)) is None:
        there = " and ".join(path.name for path in found.values())
        archive = f"Video_{'Speech' if channel == '01' else 'Song'}_Actor_{actor}.zip"
        detail = f"there is no {utterance_id}.mp4, only {there}; it is in {archive}"
        source = next(iter(found.values()))
        release.reject(utterance_id, source, "no_audio" if _PICTURE in found else "no_video", detail)
    else:
        video, sound = (release.relative(path) if path else "" for path in files)
        release.add(
            Utterance(
                utterance_id=utterance_id,
                dialogue_id=f"Actor_{actor}",
                speaker=f"Actor_{actor}",
                session="",
                start_s=0.0,
                end_s=math.inf,
                text=STATEMENTS[statement],
                labels={known: float(known == emotion) for known in emotions},
                sentiment=None,
                source_video=video,
                source_audio=sound,
                audio_is_cut=True,
            )
        )


def _files_of(found: Mapping[str, Path], modalities: str) -> tuple[Path | None, Path | None] | None:
    """Files of picture and sound of a performance, None for one that it lacks; None where it needs that one."""
    if _BOTH in found:
        return found[_BOTH], found[_BOTH]
    if "a" not in modalities and _PICTURE in found:
        return found[_PICTURE], None
    return (None, found[_SOUND]) if "v" not in modalities and _SOUND in found else None
