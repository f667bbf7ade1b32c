"""IEMOCAP_full_release: five sessions, two actors a session, dialogues cut into labelled turns.

A dialogue's id begins with the session and the actor who WEARS THE MARKERS (Ses01F_...); that one sits left in the
picture. The letter of an utterance id's last field (..._M003) is the actor who SPEAKS.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from data_tools.corpora.release import Release, check_emotions, find_root, is_folder, read_lines, visible
from data_tools.errors import DataError
from data_tools.records import Utterance

# xxx: the raters had no majority.
LABEL_CODES = ("ang", "hap", "sad", "neu", "fru", "exc", "fea", "sur", "dis", "oth", "xxx")

_ID = re.compile(r"(?P<dialogue>Ses0(?P<session>[1-5])(?P<marker>[FM])_[A-Za-z0-9_]+)_(?P<speaker>[FM])[0-9]{3}")
_ID_WITHOUT_LABEL = re.compile(r"Ses0[1-5][FM]_[A-Za-z0-9_]+_[FM]XX\d+")
# [6.2901 - 8.2357]	Ses01F_impro01_F000	neu	[2.5000, 2.5000, 2.5000]
_LABEL_LINE = re.compile(r"\[\s*(-?\d+(?:\.\d+)?)\s*-\s*(-?\d+(?:\.\d+)?)\s*\]\s+(\S+)\s+(\w+)\s*(?:\[|$)")
# Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me.
_TRANSCRIPT_LINE = re.compile(r"\s*(Ses\S+)\s*\[[^\]]*\]\s*:(.*)")
_LINE_WITHOUT_ID = re.compile(r"\s*[FM]\s*:")


class _Dialogue(NamedTuple):
    """Paths of a dialogue's files, there or not. wav: the whole dialogue's sound; None where there is none.

    sentences: the folder of its sentence wavs. sounds: those that are in it, by utterance id.
    """

    labels: Path
    transcript: Path
    video: Path
    has_video: bool
    wav: Path | None
    sentences: Path
    sounds: dict[str, Path]


class _Turn(NamedTuple):
    start_s: float
    end_s: float
    utterance_id: str
    code: str


@dataclass
class _Task:
    """emotions, merge: as `read_iemocap` got them. seen: ids so far, of all dialogues.

    from_dialogue: utterances so far whose sound is an interval of the dialogue's wav.
    """

    emotions: Sequence[str]
    merge: Mapping[str, str]
    seen: set[str] = field(default_factory=set)
    from_dialogue: int = 0


def read_iemocap(root: Path, emotions: Sequence[str], merge: Mapping[str, str] | None = None) -> Release:
    """Utterances whose label is one of `emotions` (one-hot), the others as rejects `label:<code>`.

    The audio is the sentence wav, cut at the label's times; where that is missing, the same interval of the dialogue's
    wav, as the mean of its two channels (whose channel is whose is not established). The picture is the speaker's half
    of the dialogue's video.

    merge: a label -> the emotion that it counts as, e.g. {"exc": "hap"} for the four classes of speech papers.

    Raises:
        DataError: no release at `root`, an unknown emotion, or a `merge` that contradicts `emotions`.
    """
    check_emotions(emotions, LABEL_CODES, "iemocap")
    _check_merge(merge or {}, emotions)
    looked_for = "Session1/dialog (IEMOCAP_full_release)"
    release = Release(find_root(root, _is_root, looked_for, "iemocap"))
    task = _Task(emotions, merge or {})
    for session in sorted(release.root.glob("Session[1-5]")):
        for dialogue in _dialogues(session):
            _read_dialogue(release, dialogue, task)
    if task.from_dialogue:
        release.notes.append(
            f"{task.from_dialogue} utterances have no sentence wav: their sound is that of the dialogue's wav, "
            f"the mean of both channels"
        )
    return release


def _check_merge(merge: Mapping[str, str], emotions: Sequence[str]) -> None:
    """Raise DataError unless `merge` maps labels that are no emotion of the task to some that are."""
    if not isinstance(merge, Mapping):
        raise DataError(f"reader.merge is {merge!r}; expected a label and what it counts as, e.g. {{exc: hap}}")
    for label, emotion in merge.items():
        if label not in LABEL_CODES or emotion not in emotions:
            raise DataError(
                f"reader.merge has {label!r}: {emotion!r}; expected one of {', '.join(LABEL_CODES)}, and one of the "
                f"task's emotions {', '.join(emotions)}"
            )
        if label in emotions:
            raise DataError(f"reader.merge counts {label} as {emotion}, but {label} is in emotions; take it out there")


def _is_root(folder: Path) -> bool:
    return any(is_folder(folder / f"Session{number}" / "dialog") for number in range(1, 6))


def _dialogues(session: Path) -> list[_Dialogue]:
    """Every dialogue that at least one of its three files exists for."""
    dialog = session / "dialog"
    labels, transcripts = visible(dialog / "EmoEvaluation", ".txt"), visible(dialog / "transcriptions", ".txt")
    videos, wavs = visible(dialog / "avi" / "DivX", ".avi"), visible(dialog / "wav", ".wav")
    dialogues = []
    for name in sorted({*labels, *transcripts, *videos}):
        sentences = session / "sentences" / "wav" / name
        dialogues.append(
            _Dialogue(
                labels=labels.get(name, dialog / "EmoEvaluation" / f"{name}.txt"),
                transcript=transcripts.get(name, dialog / "transcriptions" / f"{name}.txt"),
                video=videos.get(name, dialog / "avi" / "DivX" / f"{name}.avi"),
                has_video=name in videos,
                wav=wavs.get(name),
                sentences=sentences,
                sounds=visible(sentences, ".wav"),
            )
        )
    return dialogues


def _read_dialogue(release: Release, dialogue: _Dialogue, task: _Task) -> None:
    """Every utterance of a dialogue becomes an utterance or one reject."""
    seen = task.seen
    turns, unreadable = _read_labels(release, dialogue.labels)
    texts = _read_transcript(release, dialogue.transcript)
    for turn in turns:
        if turn.utterance_id in seen:
            detail = f"a second label line of {turn.utterance_id}: [{turn.start_s} - {turn.end_s}] {turn.code}"
            release.reject(None, dialogue.labels, "duplicate", detail)
            continue
        parts = _ID.fullmatch(turn.utterance_id)
        if parts and parts["dialogue"] != dialogue.labels.stem:
            # A line and no utterance: that one is read with its own dialogue.
            detail = f"{turn.utterance_id!r} is not an id of {dialogue.labels.stem}"
            release.reject(None, dialogue.labels, "id:unknown", detail)
            continue
        seen.add(turn.utterance_id)
        utterance = _utterance(release, dialogue, turn, texts, task)
        if utterance:
            release.add(utterance)
    for utterance_id, detail in unreadable:
        named = None if utterance_id is None or utterance_id in seen else utterance_id
        release.reject(named, dialogue.labels, "labels:unreadable", detail)
        seen.update([named] if named else [])
    # Without any label line the file is damaged or gone, and its turns are lost; otherwise they never had a label.
    reason = "unlabelled" if turns or unreadable else "no_labels"
    for utterance_id in sorted(set(texts) - seen):
        seen.add(utterance_id)
        release.reject(utterance_id, dialogue.transcript, reason, f"no line of it in {dialogue.labels.name}")


def _utterance(
    release: Release, dialogue: _Dialogue, turn: _Turn, texts: dict[str, str], task: _Task
) -> Utterance | None:
    """The utterance of one label line; None after a reject."""
    parts = _ID.fullmatch(turn.utterance_id)
    code = task.merge.get(turn.code, turn.code)
    sentence = dialogue.sounds.get(turn.utterance_id)
    sound = sentence or dialogue.wav
    if parts is None:
        problem = dialogue.labels, "id:unknown", f"{turn.utterance_id!r} is not an id of {dialogue.labels.stem}"
    elif code not in task.emotions:
        problem = dialogue.labels, f"label:{turn.code}", f"the label {turn.code!r} is not in the task's emotions"
    elif not 0 <= turn.start_s < turn.end_s < math.inf:
        problem = dialogue.labels, "interval:invalid", f"[{turn.start_s} - {turn.end_s}] is not an interval in seconds"
    elif turn.utterance_id not in texts:
        problem = dialogue.transcript, "no_transcript", f"no line of it in {dialogue.transcript.name}"
    elif sound is None:
        wav = dialogue.sentences / f"{turn.utterance_id}.wav"
        detail = f"there is no {wav.name} in {dialogue.sentences.name}/, and no dialog/wav/{dialogue.labels.stem}.wav"
        problem = wav, "no_audio", detail
    elif not dialogue.has_video:
        problem = dialogue.video, "no_video", f"there is no {dialogue.video.name}"
    else:
        task.from_dialogue += sentence is None
        side: Literal["left", "right"] = "left" if parts["speaker"] == parts["marker"] else "right"
        return Utterance(
            utterance_id=turn.utterance_id,
            dialogue_id=parts["dialogue"],
            speaker=f"Ses0{parts['session']}{parts['speaker']}",
            session=parts["session"],
            start_s=turn.start_s,
            end_s=turn.end_s,
            text=texts[turn.utterance_id],
            labels={emotion: float(emotion == code) for emotion in task.emotions},
            sentiment=None,
            source_video=release.relative(dialogue.video),
            source_audio=release.relative(sound),
            audio_is_cut=sentence is not None,
            half=side,
        )
    release.reject(turn.utterance_id, *problem)
    return None


def _read_labels(release: Release, path: Path) -> tuple[list[_Turn], list[tuple[str | None, str]]]:
    """Turns of one EmoEvaluation file in the order of time (the file's own order is only almost that).

    Then (the id that it names or None, what is wrong) of each label line that cannot be read.
    """
    lines = _lines(release, path, "no_labels")
    turns: list[_Turn] = []
    unreadable: list[tuple[str | None, str]] = []
    for number, line in enumerate(lines, start=1):
        if not line.lstrip().startswith("["):
            continue  # the header (it begins with %), the raters' own lines (C-, A-) and blank ones
        match = _LABEL_LINE.match(line.lstrip())
        if match:
            turns.append(_Turn(float(match[1]), float(match[2]), match[3], match[4].lower()))
        else:
            named = _ID.search(line)
            detail = f"line {number} is not `[start - end] id label [V, A, D]`: {line[:80]!r}"
            unreadable.append((named[0] if named and named["dialogue"] == path.stem else None, detail))
    if lines and not turns:
        release.reject(None, path, "no_labels", f"{path.name} has no label line that can be read")
    return sorted(turns), unreadable


def _read_transcript(release: Release, path: Path) -> dict[str, str]:
    """Text by utterance id of this dialogue; lines of unlabelled turns (ids with XX, which may repeat) become rejects.

    A line of another dialogue is a line and no utterance: that one is read with its own dialogue.
    """
    texts: dict[str, str] = {}
    for number, line in enumerate(_lines(release, path, "no_transcript"), start=1):
        match = _TRANSCRIPT_LINE.fullmatch(line)
        if match and match[1].rpartition("_")[0] != path.stem:
            detail = f"line {number}: {match[1]!r} is not an id of {path.stem}"
            release.reject(None, path, "id:unknown", detail)
        elif match and _ID_WITHOUT_LABEL.fullmatch(match[1]):
            release.reject(match[1], path, "unlabelled", f"line {number}: ids with XX have no label and no sound")
        elif match and match[1] not in texts:
            texts[match[1]] = match[2].strip()
        elif match:
            release.reject(None, path, "transcript:duplicate", f"line {number}: a second text of {match[1]}")
        elif line.strip() and not _LINE_WITHOUT_ID.match(line):
            release.reject(
                None, path, "transcript:unreadable", f"line {number} is not `id [start-end]: text`: {line[:80]!r}"
            )
    return texts


def _lines(release: Release, path: Path, reason: str) -> list[str]:
    """Lines of a text file; none, after a reject that names the cause, where it is missing, empty or unreadable."""
    try:
        lines = read_lines(path)
    except OSError as error:
        release.reject(None, path, reason, f"{path.name} cannot be read: {error.strerror or error}")
        return []
    if not any(line.strip() for line in lines):
        release.reject(None, path, reason, f"{path.name} is empty")
        return []
    return lines
