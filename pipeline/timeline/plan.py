"""Segments of a film: by a transcript's times, by recognised words, by who speaks when, or none at all."""

import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from data_tools.corpora.release import is_file
from data_tools.errors import DataError
from data_tools.media.audio import AUDIO_RATE_HZ, audio_duration_s, read_intervals
from data_tools.media.source import MediaInfo
from data_tools.sequences.align import Word
from data_tools.speech.activity import Activity, voice_activity
from data_tools.speech.recognition import Recogniser
from data_tools.speech.segments import (
    MIN_S,
    Segment,
    cue_segments,
    has_times,
    join_words,
    joined,
    regular,
    with_words,
    worded_utterances,
)
from data_tools.speech.transcript import TRANSCRIPT_SUFFIXES, Cue, looks_like_a_file, read_transcript, words_of
from pipeline.settings import ConfigError

Segmentation = Literal["auto", "whole", "speech", "transcript"]
# A file that is no longer than this, and without times of its words, is one utterance.
WHOLE_S = 20.0
# Cues at one time, on the average over a film: more is no talk, and would take the memory of as many films.
MAX_TALK = 5
# Seconds of sound in memory while voice activity is looked for.
_BLOCK_S = 60.0


@dataclass(frozen=True)
class Plan:
    """Segments of a film.

    segments: None for the whole film as one utterance, whose words are `text` and, with times, `words`. by: `whole`,
    `transcript`, `words`, `speech`, or `time` where nobody speaks. length_s: of the film, 0 where it does not say.
    notes: what was left out and what had to be done otherwise, a sentence each. listened: a recogniser was asked.
    """

    segments: list[Segment] | None
    by: str
    length_s: float
    text: str = ""
    notes: list[str] = field(default_factory=list)
    words: tuple[Word, ...] = ()
    listened: bool = False


def plan(
    path: Path,
    info: MediaInfo,
    cues: list[Cue],
    segmentation: Segmentation,
    max_segment_s: float,
    recogniser: Recogniser | None = None,
) -> Generator[float, None, Plan]:
    """Half of the seconds of sound that were listened to so far; at the end, returned, the segments of the film.

    `auto` takes the times of the cues, else leaves a film of at most `WHOLE_S` whole, and one whose words have no
    times; else it looks for speech. cues: what is said in it; without times or with them, none where that is not known.
    recogniser: hears the words where there are no cues.

    Raises:
        ConfigError: `segmentation` needs times that the cues do not have.
        DataError: the sound cannot be read, or nobody speaks in a film without picture.
    """
    timed = has_times(cues)
    if segmentation == "transcript" and not timed:
        raise ConfigError(
            "--segments transcript needs the times of the words; give --transcript a file that has them (.srt, .vtt, "
            ".csv, .TextGrid, .eaf, .json), or take --segments speech"
        )
    if segmentation == "speech" and cues and not timed:
        raise ConfigError(
            "--segments speech cannot tell which words belong to which segment: this transcript has no times; give one "
            "that has, leave it out, or take --segments whole"
        )
    length_s = info.duration_s or (audio_duration_s(path) if info.has_audio else 0.0)
    if segmentation == "auto":
        segmentation = "transcript" if timed else "whole" if cues or length_s <= WHOLE_S else "speech"
    recogniser = None if cues or not info.has_audio else recogniser
    if segmentation == "whole":
        whole = Plan(None, segmentation, length_s, words_of(cues))
        return whole if recogniser is None else (yield from _with_its_words(whole, path, recogniser))
    if segmentation == "transcript":
        cues = join_words(cues, max_segment_s)
        segments, outside = cue_segments(cues, length_s or math.inf)
        notes = [f"{outside} of {len(cues)} cues lie outside of the film or have no length"] if outside else []
        if not segments:
            raise DataError(f"no cue of the transcript lies in {path}, which has {length_s:.2f} s: is it of this film?")
        cues_s = sum(segment.duration_s for segment in segments)
        if length_s and cues_s > MAX_TALK * length_s:
            raise DataError(
                f"the cues of the transcript last {cues_s:.0f} s in all, {path} {length_s:.0f} s: expected up to "
                f"{MAX_TALK} cues at a time; take --segments speech"
            )
        return Plan(segments, segmentation, length_s, notes=notes)
    made = yield from _by_speech(path, info, length_s, max_segment_s, recogniser)
    assert made.segments is not None
    return replace(made, segments=with_words(made.segments, cues)) if cues else made


def _with_its_words(whole: Plan, path: Path, recogniser: Recogniser) -> Generator[float, None, Plan]:
    """The plan for a film as one utterance, with the words that are heard in it."""
    notes: list[str] = []
    try:
        words = yield from _heard(path, voice_activity(_blocks(path, notes)), recogniser, notes)
    except DataError:  # that the sound is missing is said where it is scored
        words = []
    return replace(whole, text=joined(words), notes=notes, words=tuple(words), listened=True)


def _by_speech(
    path: Path, info: MediaInfo, length_s: float, max_segment_s: float, recogniser: Recogniser | None
) -> Generator[float, None, Plan]:
    problem, notes = "the file has no sound", list[str]()
    listened = recogniser is not None
    if info.has_audio:
        problem, words = "nobody speaks in its sound", list[Word]()
        try:
            activity = voice_activity(_blocks(path, notes))
            if recogniser is not None:
                words = yield from _heard(path, activity, recogniser, notes)
            found, dropped = worded_utterances(activity, words, max_segment_s)
        except DataError as error:
            if not info.has_video:
                raise
            found, dropped, problem = [], 0, str(error)
        if dropped:
            notes.append(f"{dropped} sounds of speech shorter than {MIN_S:g} s were left out")
        if found:
            return Plan(found, "words" if words else "speech", length_s, notes=notes, listened=listened)
    if not info.has_video or not length_s:
        raise DataError(f"no speech was found in {path} ({problem}); take --segments whole for an answer all the same")
    notes.append(f"no speech: {problem}, so it is cut into parts of at most {max_segment_s:g} s")
    return Plan(regular(length_s, max_segment_s), "time", length_s, notes=notes, listened=listened)


def _heard(
    path: Path, activity: Activity, recogniser: Recogniser, notes: list[str]
) -> Generator[float, None, list[Word]]:
    """Half of the seconds that were listened to so far; at the end, returned, the words; notes: gets why no further."""
    words: list[Word] = []
    try:
        for heard_s, some in recogniser.words(activity, partial(read_intervals, path)):
            words += some
            yield heard_s / 2
    except DataError as error:
        notes.append(f"no words were recognised after {words[-1].end_s if words else 0:.0f} s: {error}")
    return words


def _blocks(path: Path, notes: list[str]) -> Iterator[np.ndarray]:
    """The sound of a film in blocks, (S,) float32 at 16 kHz each, as far as it can be read; notes: gets why no further.

    Raises:
        DataError: there is none that can be read.
    """
    seconds = 0.0
    intervals = ((at * _BLOCK_S, (at + 1) * _BLOCK_S) for at in range(2**31))
    try:
        for block in read_intervals(path, intervals):
            if not len(block):
                break
            seconds += len(block) / AUDIO_RATE_HZ
            yield block
    except DataError as error:
        if not seconds:
            raise
        notes.append(f"nothing was looked for after {seconds:.0f} s: {error}")
    if not seconds:
        raise DataError(f"{path} has an audio stream without sound")


def cues_of(transcript: str, tiers: Sequence[str] = ()) -> list[Cue]:
    """The cues of a transcript: of a text one without times, of a file those that it has.

    tiers: those of a TextGrid or eaf file that hold the words; see `tier_cues` for none.

    What looks like a file (by its ending, or a slash in it and no blanks) or is one is never taken for the words.

    Raises:
        ConfigError: the file is missing, of a kind that is not read, or damaged.
    """
    path = Path(transcript)
    is_there = is_file(path)
    if not is_there and not looks_like_a_file(transcript):
        return [Cue(0.0, math.inf, _encodable(transcript))] if transcript.strip() else []
    if not is_there:
        raise ConfigError(
            f"there is no transcript {transcript!r}; give one of {', '.join(TRANSCRIPT_SUFFIXES)}, or the words "
            "themselves (with a blank in them, if there is a slash)"
        )
    try:
        cues = read_transcript(path, remedy="save it as UTF-8", tiers=tiers)
        return [replace(cue, text=_encodable(cue.text)) for cue in cues]
    except DataError as error:
        raise ConfigError(f"--transcript: {error}") from error


def _encodable(text: str) -> str:
    """The text without halves of characters, which JSON can hold and no file can."""
    return text.encode("utf-8", "replace").decode("utf-8")
