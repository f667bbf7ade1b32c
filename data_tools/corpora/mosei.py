"""CMU-MOSEI: monologue videos cut into clips, several emotions at once, one row an annotator in the label files.

Two trees are in use: that of CMU_MOSEI.zip, and the one that MESM's code expects (without the `Full` and `Segmented`
levels). Both are tried, each part on its own.
"""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from data_tools.corpora.mosei_labels import EMOTION_COLUMNS, ClipLabels, read_labels
from data_tools.corpora.release import Release, check_emotions, find_root, is_file, read_lines, visible
from data_tools.errors import DataError
from data_tools.manifest import Utterance

_TRANSCRIPTS = ("Transcript/Segmented/Combined", "Transcript/Combined", "Transcript/Segmented")
_VIDEOS = ("Videos/Full/Combined", "Videos/Combined")
_WAVS = ("Audio/Full/WAV_16000", "Audio/WAV_16000")
_SEPARATOR = "___"


class _Segment(NamedTuple):
    clip: str
    start_s: float
    end_s: float
    text: str


def read_mosei(root: Path, emotions: Sequence[str]) -> Release:
    """Clips that have a transcript line and labels; an emotion is 1.0 where at least one annotator saw it.

    Sentiment is the mean over annotators, in [-3, 3]. The speaker and the dialogue are the video: who speaks is not
    in the release. A start before 0 (239 published clips have one) becomes 0.

    Raises:
        DataError: no release at `root`, an unknown emotion, or no label file with the columns that are needed.
    """
    check_emotions(emotions, tuple(EMOTION_COLUMNS), "mosei")
    looked_for = f"{_TRANSCRIPTS[0]} or {_TRANSCRIPTS[1]} with .txt files (the folder Raw of CMU_MOSEI.zip)"
    release = Release(
        find_root(root, lambda folder: _first(folder, _TRANSCRIPTS, ".txt") is not None, looked_for, "mosei")
    )
    labels = read_labels(release, emotions)
    lost = [reject.source for reject in release.rejects]
    folder = _first(release.root, _TRANSCRIPTS, ".txt")
    if folder is None:
        raise DataError(f"the transcripts of {release.root} went away while they were read")
    clamped, seen = 0, set()
    for video_id, path in visible(folder, ".txt").items():
        for segment in _read_transcript(release, path):
            utterance_id = f"{video_id}_{segment.clip}"
            if utterance_id in seen:
                release.reject(None, path, "duplicate", f"a second line of {utterance_id}: {segment.text[:80]!r}")
                continue
            seen.add(utterance_id)
            utterance = _utterance(release, path, segment, labels.get(utterance_id), lost)
            if utterance:
                release.add(utterance)
                clamped += segment.start_s < 0
    for utterance_id in sorted(set(labels) - seen):
        release.reject(utterance_id, folder, "no_transcript", "it has labels, but no transcript line")
    if clamped:
        release.notes.append(f"{clamped} intervals began before 0 s and begin at 0 s now")
    return release


def _utterance(
    release: Release, transcript: Path, segment: _Segment, labels: ClipLabels | None, lost: Sequence[str]
) -> Utterance | None:
    """The utterance of one transcript line; None after a reject. lost: label files that cannot be read."""
    video_id = transcript.stem
    utterance_id = f"{video_id}_{segment.clip}"
    video = _file(release.root, _VIDEOS, f"{video_id}.mp4")
    if labels is None and lost:
        problem = transcript, "no_labels", f"no row of this clip, and {lost[0]}, where one may be, cannot be read"
    elif labels is None:
        problem = transcript, "unlabelled", "no label file has a row of this clip"
    elif labels.problem:
        problem = labels.source, "labels:unreadable", labels.problem
    elif not max(segment.start_s, 0.0) < segment.end_s:
        problem = transcript, "interval:invalid", f"{segment.start_s} to {segment.end_s} is not an interval in seconds"
    elif not is_file(video):
        problem = video, "no_video", f"there is no {video.name}"
    else:
        wav = _file(release.root, _WAVS, f"{video_id}.wav")
        return Utterance(
            utterance_id=utterance_id,
            dialogue_id=video_id,
            speaker=video_id,
            session="",
            start_s=max(segment.start_s, 0.0),
            end_s=segment.end_s,
            text=segment.text,
            labels=labels.emotions,
            sentiment=labels.sentiment,
            source_video=release.relative(video),
            source_audio=release.relative(wav if is_file(wav) else video),
        )
    release.reject(utterance_id, *problem)
    return None


def _read_transcript(release: Release, path: Path) -> list[_Segment]:
    """Segments of one file in the order of time; lines of another form become rejects."""
    try:
        lines = read_lines(path)
    except OSError as error:
        release.reject(None, path, "transcript:unreadable", f"{path.name} cannot be read: {error.strerror or error}")
        return []
    segments = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        segment = _parse(line, path.stem)
        if segment:
            segments.append(segment)
        else:
            detail = f"line {number} is not `{path.stem}___clip___start___end___text`: {line[:80]!r}"
            release.reject(None, path, "transcript:unreadable", detail)
    if not any(line.strip() for line in lines):
        release.reject(None, path, "no_transcript", f"{path.name} is empty")
    return sorted(segments, key=lambda segment: (segment.start_s, segment.clip))


def _parse(line: str, video_id: str) -> _Segment | None:
    """One transcript line. The known id goes first, because ids contain `__`; the text may contain `___` itself."""
    prefix = video_id + _SEPARATOR
    fields = line.strip().removeprefix(prefix).split(_SEPARATOR, 3)
    if not line.strip().startswith(prefix) or len(fields) < 3 or not re.fullmatch(r"\d{1,6}", fields[0]):
        return None
    try:
        start_s, end_s = float(fields[1]), float(fields[2])
    except ValueError:
        return None
    if not (math.isfinite(start_s) and math.isfinite(end_s)):
        return None
    return _Segment(fields[0], start_s, end_s, "".join(fields[3:]).strip())


def _first(root: Path, folders: Sequence[str], suffix: str) -> Path | None:
    """The first of `folders` under `root` that holds a visible file with this suffix."""
    return next((root / folder for folder in folders if visible(root / folder, suffix)), None)


def _file(root: Path, folders: Sequence[str], name: str) -> Path:
    """`name` in the first of `folders` that has it; in the first folder where none has."""
    return next((root / folder / name for folder in folders if is_file(root / folder / name)), root / folders[0] / name)
