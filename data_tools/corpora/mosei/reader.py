"""CMU-MOSEI: monologue videos cut into clips, several emotions at once.

Three trees are in use: that of CMU_MOSEI.zip, the one that MESM's code expects (without the `Full` and `Segmented`
levels), and MMSA's of cut clips (see mmsa.py). In the first two each part is looked for on its own, as copies differ.
"""

import codecs
import math
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from data_tools.corpora.mmsa.clips import MmsaClip, is_mmsa, read_mmsa, whole_clip
from data_tools.corpora.mosei.clips import EMOTIONS, MAX_SENTIMENT, ClipLabels, LabelFiles, Segment
from data_tools.corpora.mosei.labels import read_labels
from data_tools.corpora.release import Release, check_emotions, find_root, is_file, read_lines, visible
from data_tools.records import Utterance

_TRANSCRIPTS = ("Transcript/Segmented/Combined", "Transcript/Combined", "Transcript/Segmented")
_VIDEOS = ("Videos/Full/Combined", "Videos/Combined")
_CLIPS = ("Videos/Segmented/Combined", "Videos/Segmented")
_WAVS = ("Audio/Full/WAV_16000", "Audio/WAV_16000")
_SEPARATOR = "___"


class _Media(NamedTuple):
    """Files by stem: full videos, cut clips, sounds of full videos."""

    videos: dict[str, Path]
    clips: dict[str, Path]
    wavs: dict[str, Path]


def read_mosei(root: Path, emotions: Sequence[str], labels: str = "auto") -> Release:
    """Clips with labels; an emotion is 1.0 where at least one annotator saw it.

    Sentiment is the mean over annotators, in [-3, 3]. The speaker and the dialogue are the video: who speaks is not
    in the release. A start before 0 (239 published clips have one) becomes 0. The notes name the tree and the labels.

    emotions: none for sentiment alone. labels: csv (the annotators' tables), csd (CMU_MOSEI_Labels.csd) or auto (the
    first of them that is there); MMSA's tree has its sentiment from label.csv in any case.

    Raises:
        DataError: no release at `root`, an unknown emotion, or no label file with the columns that are needed.
    """
    check_emotions(emotions, EMOTIONS, "mosei")
    looked_for = (
        f"{_TRANSCRIPTS[0]} or {_TRANSCRIPTS[1]} with .txt files (the folder Raw of CMU_MOSEI.zip), or label.csv and "
        "Raw/<video>/<clip>.mp4 (MMSA)"
    )
    release = Release(find_root(root, _is_root, looked_for, "mosei"))
    transcripts = _transcripts(release.root)
    if transcripts is None:
        _read_clips(release, emotions, labels)
    else:
        of_zip = transcripts != release.root / _TRANSCRIPTS[1]
        release.notes.append(f"the tree is that of {'CMU_MOSEI.zip' if of_zip else 'MESM, a rearranged CMU_MOSEI.zip'}")
        _read_transcripts(release, transcripts, read_labels(release, emotions, labels))
    return release


def _is_root(folder: Path) -> bool:
    if _transcripts(folder):
        return True
    return is_mmsa(folder, "mosei") and _transcripts(folder / "Raw") is None


def _transcripts(root: Path) -> Path | None:
    """The folder of the transcripts; None in MMSA's tree."""
    return next((root / folder for folder in _TRANSCRIPTS if visible(root / folder, ".txt")), None)


def _read_clips(release: Release, emotions: Sequence[str], kind: str) -> None:
    """MMSA's tree: text and sentiment from label.csv, emotions from another file, by video and clip."""
    release.notes.append("the tree is that of MMSA: cut clips and label.csv")
    way_out = "; or take the sentiment alone with `--dataset mosei-sentiment`: label.csv has no emotions"
    files = read_labels(release, emotions, kind, way_out) if emotions else None
    videos: dict[str, list[MmsaClip]] = defaultdict(list)
    for clip in read_mmsa(release, release.root, MAX_SENTIMENT):
        videos[clip.video_id].append(clip)
    for video_id, clips in sorted(videos.items()):
        found: dict[str, ClipLabels] = {}
        if files:
            sentiments = {clip.clip_id: clip.label for clip in clips}
            found = dict(files.by_order(video_id, clips[0].siblings, sentiments))
        for clip in clips:
            labels = found.get(clip.clip_id, ClipLabels())
            if labels.reason:
                release.reject(clip.utterance_id, labels.source or clip.file, labels.reason, labels.detail)
            else:
                release.add(whole_clip(release, clip, labels.emotions))
    unused = len(list(files.left_over())) if files else 0
    if unused:
        release.notes.append(f"{unused} labels of emotions belong to no clip of label.csv")


def _read_transcripts(release: Release, folder: Path, files: LabelFiles) -> None:
    """The trees with full videos: every transcript line is a clip."""
    root = release.root
    media = _Media(_files(root, _VIDEOS, ".mp4"), _files(root, _CLIPS, ".mp4"), _files(root, _WAVS, ".wav"))
    early = cut = 0
    for video_id, path in visible(folder, ".txt").items():
        segments = _read_transcript(release, path)
        labels = files.by_times(video_id, segments)
        for segment in segments:
            utterance = _utterance(release, path, segment, labels[segment.clip], media)
            if utterance:
                release.add(utterance)
                early += segment.start_s < 0
                cut += utterance.audio_is_cut
    for left in files.left_over():
        release.reject(*left)
    if early:
        release.notes.append(f"{early} intervals began before 0 s and begin at 0 s now")
    if cut:
        release.notes.append(f"{cut} utterances are clips that the release cut itself: their full video is missing")


def _utterance(
    release: Release, transcript: Path, segment: Segment, labels: ClipLabels, media: _Media
) -> Utterance | None:
    """The utterance of one transcript line; None after a reject."""
    video_id = transcript.stem
    utterance_id = f"{video_id}_{segment.clip}"
    start_s = max(segment.start_s, 0.0)
    video = media.videos.get(video_id)
    picture = video or media.clips.get(utterance_id)
    if labels.reason:
        problem = labels.source or transcript, labels.reason, labels.detail
    elif not start_s < segment.end_s:
        problem = transcript, "interval:invalid", f"{segment.start_s} to {segment.end_s} is not an interval in seconds"
    elif picture is None:
        missing = release.root / _VIDEOS[0] / f"{video_id}.mp4"
        problem = missing, "no_video", f"there is no {missing.name}, nor {utterance_id}.mp4 in {_CLIPS[0]}"
    else:
        sound = media.wavs.get(video_id, picture) if video else picture
        return Utterance(
            utterance_id=utterance_id,
            dialogue_id=video_id,
            speaker=video_id,
            session="",
            start_s=start_s if video else 0.0,
            end_s=segment.end_s if video else math.inf,
            text=segment.text,
            labels=labels.emotions,
            sentiment=labels.sentiment,
            source_video=release.relative(picture),
            source_audio=release.relative(sound),
            audio_is_cut=video is None,
            stated_s=None if video else segment.end_s - segment.start_s,
        )
    release.reject(utterance_id, *problem)
    return None


def _read_transcript(release: Release, path: Path) -> list[Segment]:
    """Segments of one file in the order of time, each clip once; lines of another form become rejects."""
    try:
        lines = [(n, part) for n, line in enumerate(read_lines(path), start=1) for part in _unwrapped(line)]
    except OSError as error:
        release.reject(None, path, "transcript:unreadable", f"{path.name} cannot be read: {error.strerror or error}")
        return []
    segments: dict[str, Segment] = {}
    for number, line in lines:
        segment = _parse(line, path.stem)
        if segment is None and line.strip():
            detail = f"line {number} is not `{path.stem}___clip___start___end___text`: {line[:80]!r}"
            release.reject(None, path, "transcript:unreadable", detail)
        elif segment and segment.clip in segments:
            detail = f"a second line of {path.stem}_{segment.clip}: {segment.text[:80]!r}"
            release.reject(None, path, "duplicate", detail)
        elif segment:
            segments[segment.clip] = segment
    if not any(line.strip() for _, line in lines):
        release.reject(None, path, "no_transcript", f"{path.name} is empty")
    return sorted(segments.values(), key=lambda segment: (segment.start_s, segment.clip))


def _unwrapped(line: str) -> list[str]:
    """The lines in a line that is Python's way to write bytes (b'...'), as some copies have them; else the line."""
    plain = _without_bytes_mark(line.strip())
    return re.split(r"\r\n|\r|\n", plain) if plain is not None else [line]


def _without_bytes_mark(text: str) -> str | None:
    """Text that b'...' stands for; None for any other text."""
    inner = re.fullmatch(r"b(['\"])(.*)\1", text, re.DOTALL)
    if not inner or not inner[2].isascii():
        return None
    try:
        return codecs.decode(inner[2], "unicode_escape").encode("latin-1").decode(errors="replace")
    except UnicodeError:
        return None


def _parse(line: str, video_id: str) -> Segment | None:
    """One transcript line. The known id goes first, because ids contain `__`; the text may contain `___` itself."""
    prefix = video_id + _SEPARATOR
    fields = line.strip().removeprefix(prefix).split(_SEPARATOR, 3)
    if not line.strip().startswith(prefix) or len(fields) < 3 or not re.fullmatch(r"[0-9]{1,6}", fields[0]):
        return None
    try:
        start_s, end_s = float(fields[1]), float(fields[2])
    except ValueError:
        return None
    if not (math.isfinite(start_s) and math.isfinite(end_s)):
        return None
    text = "".join(fields[3:]).strip()
    decoded = _without_bytes_mark(text)
    return Segment(fields[0], start_s, end_s, text if decoded is None else decoded.strip())


def _files(root: Path, folders: Sequence[str], suffix: str) -> dict[str, Path]:
    """Files by stem in all of `folders`; the first folder that has one wins. One listing a folder: there are many."""
    found: dict[str, Path] = {}
    for folder in folders:
        for stem, path in visible(root / folder, suffix).items():
            if stem not in found and is_file(path):
                found[stem] = path
    return found
