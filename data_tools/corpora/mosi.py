"""CMU-MOSI: monologue videos cut into numbered segments, each with the mean sentiment of five raters.

    Raw/Video/{Full,Segmented}/<video>.mp4, <video>_<n>.mp4              n from 1
    Raw/Audio/WAV_16000/{Full,Segmented}/<video>.wav, <video>_<n>.wav
    Raw/Transcript/Segmented/<video>.annotprocessed                      <n>_DELIM_<TEXT IN CAPITALS>
    Labels/OpinionLevelSentiment.csv                                     start,end,video,n,label; there is no header
    Labels/CMU_MOSI_Opinion_Labels.csd                                   of the SDK, where that table is missing

Or MMSA's layout (see mmsa.py), in which the segments are cut already and a split is stated.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from data_tools.corpora.csd import read_csd
from data_tools.corpora.mmsa.clips import TABLE, is_mmsa, read_mmsa, whole_clip
from data_tools.corpora.release import Release, check_emotions, find_root, is_file, read_lines, visible
from data_tools.errors import DataError
from data_tools.records import Utterance

# A2Zadeh/CMU-MultimodalSDK issue 37: cut in the wrong places, or with the words of their neighbours.
KNOWN_BAD = frozenset({
    ("2WGyTLYerpo", 43), ("2WGyTLYerpo", 44), ("9qR7uwkblbs", 32), ("9qR7uwkblbs", 33), ("BI97DNYfe5I", 17),
    ("BI97DNYfe5I", 18), ("BI97DNYfe5I", 19), ("BI97DNYfe5I", 20), ("BI97DNYfe5I", 21), ("VCslbP0mgZI", 1),
    ("W8NXH0Djyww", 1), ("W8NXH0Djyww", 2),
})  # fmt: skip

_TRANSCRIPTS = "Transcript/Segmented"
_CSV, _CSD = "OpinionLevelSentiment.csv", "CMU_MOSI_Opinion_Labels.csd"
_BOUND = 3.0
_NUMBER = re.compile(r"0*([0-9]{1,6})(?:\.0+)?")
_TRANSCRIPT_LINE = re.compile(r"\s*0*([0-9]{1,6})_DELIM_(.*)", re.DOTALL)


class _Opinion(NamedTuple):
    """The label of a segment, or in `problem` a reason and a sentence why it has none."""

    start_s: float
    end_s: float
    sentiment: float
    problem: tuple[str, str] | None = None


class _Media(NamedTuple):
    """Files of the release by stem."""

    videos: dict[str, Path]
    segments: dict[str, Path]
    wavs: dict[str, Path]
    segment_wavs: dict[str, Path]


# Video id -> segment number -> label or text.
_Opinions = dict[str, dict[int, _Opinion]]
_Texts = dict[str, dict[int, str]]


def read_mosi(root: Path, emotions: Sequence[str], known_bad: str = "reject") -> Release:
    """Labelled segments, cut out of the full videos, or taken whole where there is only the segmented one.

    Sentiment is in [-3, 3]; the speaker and the dialogue are the video. Texts stay in capitals.

    emotions: none, the corpus has only sentiment. known_bad: `reject` or `keep` the segments of KNOWN_BAD.

    Raises:
        DataError: no release at `root`, emotions are asked for, another value of `known_bad`, no label file, or one
            that cannot be read.
    """
    check_emotions(emotions, (), "mosi")
    if known_bad not in ("reject", "keep"):
        raise DataError(f"known_bad is {known_bad!r} for mosi; expected reject or keep")
    looked_for = f"Raw/{_TRANSCRIPTS} with .annotprocessed files, or MMSA's {TABLE} with Raw/"
    release = Release(find_root(root, _is_root, looked_for, "mosi"))
    if is_mmsa(release.root, "mosi"):
        clips = [whole_clip(release, clip, {}) for clip in read_mmsa(release, release.root, _BOUND)]
    else:
        clips = list(_read_original(release))
    for clip in clips:
        if known_bad == "reject" and _place(clip.utterance_id) in KNOWN_BAD:
            detail = "CMU-MultimodalSDK issue 37: its cut or its words are wrong; known_bad: keep takes it all the same"
            release.reject(clip.utterance_id, release.root / clip.source_video, "known:bad_segment", detail)
        else:
            release.add(clip)
    return release


def _place(utterance_id: str) -> tuple[str, int]:
    video_id, _, number = utterance_id.rpartition("_")
    found = _NUMBER.fullmatch(number)
    return video_id, int(found[1]) if found else 0


def _is_root(folder: Path) -> bool:
    """Return True if `folder` has MMSA's layout, or transcripts in itself or in Raw/, and the labels where it can."""
    if is_mmsa(folder, "mosi"):
        return True
    raw = _raw(folder)
    labels_above = folder.name == "Raw" and not _label_files(folder) and _label_files(folder.parent)
    return raw is not None and not (raw == folder and labels_above)


def _raw(root: Path) -> Path | None:
    """The folder of transcripts and videos: Raw, or the root itself."""
    return next((f for f in (root / "Raw", root) if visible(f / _TRANSCRIPTS, ".annotprocessed")), None)


def _label_files(root: Path) -> list[Path]:
    """The label files that are there, the better one first."""
    places = [folder / level for folder in (root, root / "Raw") for level in ("Labels", "")]
    return [place / name for name in (_CSV, _CSD) for place in places if is_file(place / name)]


def _read_original(release: Release) -> Iterator[Utterance]:
    raw = _raw(release.root)
    if raw is None:
        raise DataError(f"the transcripts of {release.root} went away while they were read")
    labels = _label_files(release.root)
    if not labels:
        raise DataError(
            f"no labels: looked for {_CSV} and {_CSD} in {release.root}, in Raw/ and in Labels/ of both; not every zip "
            "has them: copy one there, or use MMSA's copy of the corpus"
        )
    transcripts = visible(raw / _TRANSCRIPTS, ".annotprocessed")
    texts = {video_id: _read_transcript(release, path) for video_id, path in transcripts.items()}
    read = _read_csv if labels[0].name == _CSV else _read_csd
    opinions = read(release, labels[0], texts)
    release.notes.append(f"the labels are those of {release.relative(labels[0])}")
    media = _Media(
        videos=visible(raw / "Video" / "Full", ".mp4"),
        segments=visible(raw / "Video" / "Segmented", ".mp4"),
        wavs=visible(raw / "Audio" / "WAV_16000" / "Full", ".wav"),
        segment_wavs=visible(raw / "Audio" / "WAV_16000" / "Segmented", ".wav"),
    )
    for video_id in sorted(set(opinions) | set(texts)):
        own_opinions, own_texts = opinions.get(video_id, {}), texts.get(video_id, {})
        for number in sorted(set(own_opinions) | set(own_texts)):
            utterance_id = f"{video_id}_{number}"
            opinion, text = own_opinions.get(number), own_texts.get(number)
            has_media = video_id in media.videos or utterance_id in media.segments
            if opinion is None:
                problem = transcripts[video_id], "unlabelled", f"no row of it in {labels[0].name}"
            elif opinion.problem:
                problem = (labels[0], *opinion.problem)
            elif text is None:
                problem = raw / _TRANSCRIPTS, "no_transcript", f"no line of it in {video_id}.annotprocessed"
            elif not has_media:
                problem = raw / "Video", "no_video", f"neither Full/{video_id}.mp4 nor Segmented/{utterance_id}.mp4"
            else:
                yield _utterance(release, (video_id, number), opinion, text, media)
                continue
            release.reject(utterance_id, *problem)
    named = {f"{video_id}_{number}" for known in (opinions, texts) for video_id in known for number in known[video_id]}
    unnamed = len(set(media.segments) - named)
    if unnamed:
        release.notes.append(f"{unnamed} files of Video/Segmented/ have neither a label nor a text and are not used")


def _utterance(release: Release, place: tuple[str, int], opinion: _Opinion, text: str, media: _Media) -> Utterance:
    video_id, number = place
    utterance_id = f"{video_id}_{number}"
    is_cut = video_id not in media.videos
    if is_cut:
        video = media.segments[utterance_id]
        sound = media.segment_wavs.get(utterance_id, video)
    else:
        video = media.videos[video_id]
        sound = media.wavs.get(video_id, video)
    return Utterance(
        utterance_id=utterance_id,
        dialogue_id=video_id,
        speaker=video_id,
        session="",
        start_s=0.0 if is_cut else opinion.start_s,
        end_s=math.inf if is_cut else opinion.end_s,
        text=text,
        labels={},
        sentiment=opinion.sentiment,
        source_video=release.relative(video),
        source_audio=release.relative(sound),
        audio_is_cut=is_cut,
        stated_s=opinion.end_s - opinion.start_s if is_cut else None,
    )


def _opinion(start_s: float, end_s: float, sentiment: float) -> _Opinion:
    problem = None
    if not (math.isfinite(end_s) and 0 <= start_s < end_s):
        problem = "interval:invalid", f"{start_s} to {end_s} is not an interval in seconds"
    elif not abs(sentiment) <= _BOUND:
        problem = "labels:unreadable", f"the label {sentiment} is not in -{_BOUND:g} ... {_BOUND:g}"
    return _Opinion(start_s, end_s, sentiment, problem)


def _read_csv(release: Release, path: Path, _: _Texts) -> _Opinions:
    """start,end,video,n,label in each line, without a header."""
    opinions: _Opinions = {}
    try:
        lines = read_lines(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    for line_number, line in enumerate(lines, start=1):
        cells = [cell.strip().strip('"') for cell in line.split(",")]
        if not line.strip():
            continue
        try:
            start_s, end_s, sentiment = (float(cells[place]) for place in (0, 1, 4))
            number = _NUMBER.fullmatch(cells[3])
        except (ValueError, IndexError):
            number = None
        if number is None or len(cells) != 5 or not cells[2]:
            detail = f"line {line_number} is not start,end,video,number,label: {line[:80]!r}"
            release.reject(None, path, "labels:unreadable", detail)
        elif int(number[1]) in opinions.get(cells[2], {}):
            detail = f"line {line_number}: a second row of {cells[2]}_{number[1]}"
            release.reject(None, path, "duplicate", detail)
        else:
            opinions.setdefault(cells[2], {})[int(number[1])] = _opinion(start_s, end_s, sentiment)
    if not opinions:
        raise DataError(f"{path} has no line that is start,end,video,number,label; copy it again")
    return opinions


def _read_csd(release: Release, path: Path, texts: Mapping[str, Mapping[int, str]]) -> _Opinions:
    """Row i of a video is its segment i + 1; segments that the authors took back have a row of no length.

    Nothing in the file names the segments: where their number is not that of the transcript's, none can be trusted.
    """
    csd = read_csd(path)
    opinions: _Opinions = {}
    for video_id, why in csd.problems.items():
        release.reject(None, path, "labels:unreadable", f"{video_id}: {why}")
        lost = _Opinion(math.nan, math.nan, math.nan, ("labels:unreadable", why))
        opinions[video_id] = dict.fromkeys(texts.get(video_id, {}), lost)
    for video_id, features in csd.features.items():
        lines = max(texts.get(video_id, {}), default=0)
        rows = zip(features, csd.intervals[video_id], strict=True)
        opinions[video_id] = {
            number: _opinion(float(interval[0]), float(interval[1]), float(values[0]) if len(values) else math.nan)
            for number, (values, interval) in enumerate(rows, start=1)
        }
        if lines not in (0, len(features)):
            why = f"{len(features)} rows of {video_id}, {lines} segments in its transcript: which is which is not known"
            opinions[video_id] = {
                number: opinion._replace(problem=("labels:ambiguous", why))
                for number, opinion in opinions[video_id].items()
            }
    return opinions


def _read_transcript(release: Release, path: Path) -> dict[int, str]:
    """Text by segment number; lines of another form become rejects."""
    try:
        lines = read_lines(path)
    except OSError as error:
        release.reject(None, path, "transcript:unreadable", f"{path.name} cannot be read: {error.strerror or error}")
        return {}
    texts: dict[int, str] = {}
    for line_number, line in enumerate(lines, start=1):
        found = _TRANSCRIPT_LINE.fullmatch(line)
        if found and int(found[1]) in texts:
            detail = f"line {line_number}: a second text of {path.stem}_{found[1]}"
            release.reject(None, path, "transcript:duplicate", detail)
        elif found:
            texts[int(found[1])] = found[2].strip()
        elif line.strip():
            detail = f"line {line_number} is not <n>_DELIM_<TEXT>: {line[:80]!r}"
            release.reject(None, path, "transcript:unreadable", detail)
    return texts
