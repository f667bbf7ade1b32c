"""The clips of one dialogue: wavs, then mp4s in a single pass over each video, then a receipt that says it is done."""

import math
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_tools.corpora.release import STAGE
from data_tools.errors import DataError
from data_tools.letterbox import speaker_box
from data_tools.media.audio import AUDIO_RATE_HZ, audio_duration_s, read_audio, seekable_sound, write_wav
from data_tools.media.cut import END_SLACK_S, Cut, cut_video
from data_tools.media.frames import read_frames
from data_tools.media.source import ClipError, has_audio, probe
from data_tools.receipts import Dialogue, DialogueResult, Made, begin, write_receipt
from data_tools.records import Reject, Utterance

LENGTHS = "its pictures last {:.2f} s, its sound {:.2f} s"


class _UnusableError(Exception):
    """An utterance that cannot be cut: `reason`, a short code, and `detail`, a sentence."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


def make_clips(dialogue: Dialogue) -> DialogueResult:
    """Cut all utterances of a dialogue into clips/<dialogue>/; the receipt is written last.

    Each utterance gets a wav (16 kHz mono 16-bit PCM) of exactly its interval, or its own sound file whole, and
    an mp4 of its frames with that sound; one of them alone where it has no other, and `settings.needed` lacks that.

    Raises:
        DataError: the target cannot be written. Whatever is wrong with the sources becomes a reject.
    """
    begin(dialogue)
    result = DialogueResult()
    videos: dict[str, list[Utterance]] = defaultdict(list)
    for utterance in _write_wavs(dialogue, result):
        videos[utterance.source_video].append(utterance)
    for name, utterances in videos.items():
        if name and ("v" in dialogue.settings.needed or _has_picture(dialogue.root / name)):
            _cut(dialogue, dialogue.root / name, utterances, result)
        else:
            _keep_sounds(dialogue, utterances, result)
    write_receipt(dialogue, result)
    return result


def _write_wavs(dialogue: Dialogue, result: DialogueResult) -> list[Utterance]:
    """Write the sound of every utterance; those for which that went well, or that have none and need none."""
    usable = []
    with ExitStack() as opened:
        sounds = _Sounds(dialogue, opened)
        for utterance in dialogue.utterances:
            try:
                if math.isfinite(utterance.end_s):
                    _check_duration(dialogue, utterance.end_s - utterance.start_s)
                samples = _sound_of(dialogue, utterance, sounds, result)
                if samples is not None:
                    _check_duration(dialogue, len(samples) / AUDIO_RATE_HZ)
                    write_wav(dialogue.wav(utterance), samples)
                usable.append(utterance)
            except _UnusableError as problem:
                _reject(dialogue, result, utterance, (utterance.source_audio, problem.reason, problem.detail))
    return usable


def _sound_of(dialogue: Dialogue, utterance: Utterance, sounds: "_Sounds", result: DialogueResult) -> np.ndarray | None:
    """The sound of an utterance, (S,) float32; None where it has none, and needs none."""
    if not utterance.source_audio:
        return None
    notes: list[str] = []
    try:
        whole = utterance.audio_is_cut
        samples = _whole(dialogue, utterance, notes) if whole else sounds.interval(utterance, notes)
    except _UnusableError as problem:
        if problem.reason == "no_audio" and "a" not in dialogue.settings.needed:
            return None
        raise
    _add_notes(result, utterance.source_audio, notes)
    return samples


def _has_picture(video: Path) -> bool:
    """Return False if `video` is sound alone; one that cannot be opened is for `cut_video` to name."""
    try:
        return probe(video).has_video
    except DataError:
        return True


def _keep_sounds(dialogue: Dialogue, utterances: list[Utterance], result: DialogueResult) -> None:
    """Account for utterances without a picture: their wavs are all there is of them."""
    for utterance in utterances:
        wav = dialogue.wav(utterance)
        if wav.is_file():
            end_s = utterance.start_s + audio_duration_s(wav)
            result.made.append(Made(utterance.utterance_id, end_s, fps=0.0, absent="v"))
        else:
            source = utterance.source_video or utterance.source_audio
            detail = "it has neither a picture nor a sound"
            _reject(dialogue, result, utterance, (source, "no_audio", detail))


def _add_notes(result: DialogueResult, source: str, notes: list[str]) -> None:
    for note in (f"{source}: {note}" for note in notes):
        if note not in result.notes:
            result.notes.append(note)


def _cut(dialogue: Dialogue, video: Path, utterances: list[Utterance], result: DialogueResult) -> None:
    """Write the pictures out of one video; an utterance whose picture fails loses its wav too."""
    boxes = _boxes(video, utterances, result)
    wavs = [wav if wav.is_file() else None for wav in map(dialogue.wav, utterances)]
    cuts = [
        Cut(u.start_s, u.end_s, dialogue.clip(u), boxes.get(u.half or ""), wav)
        for u, wav in zip(utterances, wavs, strict=True)
    ]
    outcomes = cut_video(video, cuts, dialogue.settings.crf)
    for utterance, wav, outcome in zip(utterances, wavs, outcomes, strict=True):
        failure, detail = outcome.failure, outcome.detail
        if not failure and wav is None:
            failure, detail = _bad_duration(dialogue, outcome.end_s - utterance.start_s)
        elif not failure and math.isinf(utterance.end_s):
            lengths_s = outcome.end_s - utterance.start_s, audio_duration_s(dialogue.wav(utterance))
            failure, detail = _far_apart(*lengths_s)
            if not failure:
                _add_notes(result, utterance.source_video, _odd_lengths(video, *lengths_s))
        if failure:
            dialogue.clip(utterance).unlink(missing_ok=True)
            dialogue.wav(utterance).unlink(missing_ok=True)
            _reject(dialogue, result, utterance, (utterance.source_video, failure, detail))
        else:
            absent = "" if wav else "a"
            result.made.append(Made(utterance.utterance_id, outcome.end_s, outcome.fps, absent))


def _odd_lengths(video: Path, picture_s: float, sound_s: float) -> list[str]:
    """Notes on a file taken to its end: the data count, whatever its header says."""
    notes = []
    if abs(picture_s - sound_s) > END_SLACK_S:
        notes.append(LENGTHS.format(picture_s, sound_s))
    stated_s, found_s = probe(video).duration_s, max(picture_s, sound_s)
    if stated_s and abs(stated_s - found_s) > END_SLACK_S:
        notes.append(f"its header states {stated_s:.2f} s, it holds {found_s:.2f} s")
    return notes


def _far_apart(picture_s: float, sound_s: float) -> tuple[str | None, str]:
    """(reason, detail) where a file taken to its end has far more sound than pictures, or the other way round.

    A little more of one is usual. Twice as much says that the rest of the other is lost.
    """
    if abs(picture_s - sound_s) <= END_SLACK_S + min(picture_s, sound_s):
        return None, ""
    return "clip:length", LENGTHS.format(picture_s, sound_s)


def _boxes(video: Path, utterances: list[Utterance], result: DialogueResult) -> dict[str, tuple[int, int, int, int]]:
    """The region of each half that is asked for, from the video's first frame."""
    halves = sorted({utterance.half for utterance in utterances if utterance.half})
    if not halves:
        return {}
    try:
        _, frame = next(read_frames(video, every_ms=1000, square_pixels=False))
    except DataError:
        return {}  # cutting fails for the same reason, and reports it for each utterance
    boxes: dict[str, tuple[int, int, int, int]] = {}
    for half in halves:
        boxes[half], note = speaker_box(frame, half)
        if note and note not in result.notes:
            result.notes.append(note)
    return boxes


def _check_duration(dialogue: Dialogue, duration_s: float) -> None:
    reason, detail = _bad_duration(dialogue, duration_s)
    if reason:
        raise _UnusableError(reason, detail)


def _bad_duration(dialogue: Dialogue, duration_s: float) -> tuple[str | None, str]:
    """(reason, detail) of an utterance that is too short or too long."""
    settings = dialogue.settings
    if duration_s < settings.min_duration_s:
        return "interval:short", f"it lasts {duration_s:.3f} s; min_duration_s is {settings.min_duration_s}"
    if duration_s > settings.max_duration_s:
        return "interval:long", f"it lasts {duration_s:.1f} s; max_duration_s is {settings.max_duration_s}"
    return None, ""


def _whole(dialogue: Dialogue, utterance: Utterance, notes: list[str]) -> np.ndarray:
    """All sound of a file that holds this utterance alone; one of another length is damaged or another utterance.

    Not more than a second beyond the longest that is allowed: a small file may unfold to hours.
    """
    file = dialogue.root / utterance.source_audio
    is_video = utterance.source_audio == utterance.source_video
    try:
        if is_video and not has_audio(file):
            raise _UnusableError("no_audio", f"{file.name} has no sound track")
        samples = read_audio(
            file, end_s=dialogue.settings.max_duration_s + 1, stream=utterance.audio_stream, notes=notes
        )
    except DataError as error:
        raise _UnusableError("video:unreadable" if is_video else "audio:unreadable", str(error)) from error
    found_s, interval_s = len(samples) / AUDIO_RATE_HZ, utterance.end_s - utterance.start_s
    stated_s = utterance.stated_s
    if math.isfinite(interval_s) and abs(found_s - interval_s) > END_SLACK_S:
        raise _UnusableError(
            "audio:length", f"{file.name} lasts {found_s:.2f} s, the label's interval {interval_s:.2f} s"
        )
    # A clip that was cut by others seldom fits its label to the frame; one of another sentence is far off.
    if stated_s is not None and abs(found_s - stated_s) > END_SLACK_S + stated_s:
        raise _UnusableError("clip:length", f"{file.name} lasts {found_s:.2f} s, the release says {stated_s:.2f} s")
    return samples


class _Sounds:
    """Intervals of the dialogue's long sound files, each opened, or decoded into a temporary wav, once."""

    def __init__(self, dialogue: Dialogue, opened: ExitStack) -> None:
        self.dialogue, self.opened = dialogue, opened
        self.files: dict[tuple[str, int | None], _Sound | _UnusableError] = {}

    def interval(self, utterance: Utterance, notes: list[str]) -> np.ndarray:
        """The sound of one utterance, (S,) float32; `notes` gets what had to be done to it."""
        wanted = utterance.source_audio, utterance.audio_stream
        if wanted not in self.files:
            self.files[wanted] = self._open(*wanted, utterance.source_video)
        file = self.files[wanted]
        if isinstance(file, _UnusableError):
            raise file
        notes += file.notes
        end_s = file.duration_s if math.isinf(utterance.end_s) else utterance.end_s
        if utterance.start_s >= file.duration_s or end_s > file.duration_s + END_SLACK_S:
            raise _UnusableError(
                "interval:outside", f"the interval ends after the sound, which lasts {file.duration_s:.2f} s"
            )
        try:
            # Where the sound was decoded, `path` holds that one stream alone.
            stream = utterance.audio_stream if file.path == self.dialogue.root / utterance.source_audio else None
            return read_audio(file.path, AUDIO_RATE_HZ, utterance.start_s, end_s, stream=stream, notes=notes)
        except DataError as error:
            raise _UnusableError("audio:unreadable", str(error)) from error

    def _open(self, name: str, stream: int | None, video: str) -> "_Sound | _UnusableError":
        source = self.dialogue.root / name
        notes: list[str] = []
        try:
            if name == video and not has_audio(source):
                return _UnusableError("no_audio", f"there is no wav, and {source.name} has no sound track")
            # Counted, not called after the file: a dialogue may have two videos of one name, from two folders.
            temporary = self.dialogue.folder / f".{len(self.files)}.sound.tmp.wav"
            path = self.opened.enter_context(seekable_sound(source, temporary, stream, notes))
            return _Sound(path, audio_duration_s(path, stream if path == source else None), notes)
        except ClipError:
            raise
        except DataError as error:
            kind = "video" if name == video else "audio"
            return _UnusableError(f"{kind}:unreadable", str(error))


class _Sound(NamedTuple):
    """A file to take intervals from, how long its sound lasts, and what had to be done to it."""

    path: Path
    duration_s: float
    notes: list[str]


def _reject(dialogue: Dialogue, result: DialogueResult, utterance: Utterance, why: tuple[str, str, str]) -> None:
    source, reason, detail = why
    # Paths of this machine have no place in the data folder: the same release gives the same bytes anywhere.
    detail = detail.replace(f"{dialogue.root}/", "")
    result.rejects.append(Reject(utterance.utterance_id, source, STAGE, reason, detail))
