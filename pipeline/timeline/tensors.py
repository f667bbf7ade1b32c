"""Tensors of a film as a whole, or of each of its segments in one decoding pass, and what is absent in them."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from data_tools import mel
from data_tools.blank import (
    FLAT_LEVELS,
    SILENT_DBFS,
    deviation_levels,
    flat_picture,
    flat_sentence,
    level_dbfs,
    silence,
    silent_sentence,
)
from data_tools.errors import DataError
from data_tools.faces.crop import LARGEST, FaceCrops, crop_mixed
from data_tools.faces.detector import FaceDetector
from data_tools.faces.mouth import Watched, watched
from data_tools.media.audio import read_intervals
from data_tools.media.cut import END_SLACK_S
from data_tools.media.frames import read_frames_within
from data_tools.media.source import MediaInfo, probe
from data_tools.read_ahead import read_ahead
from data_tools.speech.segments import Segment
from data_tools.store import EMPTY, SampleTensors
from pipeline.clip_tensors import FaceSettings, MelSettings, as_tensors, extract_features

NO_STREAM = "the file has no such stream"


@dataclass(frozen=True)
class Taken:
    """Tensors of a film or segment.

    absent: what it lacks, a sentence each; the tensors of that are empty. sound: a file, or (S,) float32 at 16 kHz;
    None where there is none. no_face_share: of the sampled frames, in [0, 1]; None without frames.
    """

    features: SampleTensors
    absent: list[str]
    sound: Path | np.ndarray | None
    no_face_share: float | None


@dataclass(frozen=True)
class Extractor:
    """Films into tensors: the detector and settings of a run."""

    detector: FaceDetector
    faces: FaceSettings
    mel: MelSettings

    def whole(self, path: Path) -> Taken:
        """The tensors of a file as one utterance; a damaged stream counts as absent beside a sound one.

        Raises:
            DataError: neither picture nor sound can be read.
        """
        info = probe(path)
        parts = {"picture": EMPTY, "sound": EMPTY}
        why: dict[str, str] = {}
        nothing_in: dict[str, str] = {}
        for kind, there in (("picture", info.has_video), ("sound", info.has_audio)):
            if not there:
                why[kind] = NO_STREAM
                continue
            try:
                video, audio = (path, None) if kind == "picture" else (None, path)
                voice = path if info.has_audio else None
                parts[kind] = extract_features(video, audio, self.detector, self.faces, self.mel, voice)
                # The reason for which `preprocess` would reject a picture as blank or a sound as silent.
                empty = (
                    flat_picture(path, parts[kind], self.faces.sample_every_ms) if video is not None else silence(path)
                )
                if empty:
                    nothing_in[kind] = empty
            except DataError as error:
                why[kind] = str(error)
        if len(why) == 2:
            raise DataError(f"{path} has neither picture nor sound that can be read ({'; '.join(why.values())})")
        return self._taken(parts["picture"], parts["sound"].logmel, why | nothing_in, path)

    def each(self, path: Path, info: MediaInfo, segments: Sequence[Segment]) -> Iterator[tuple[int, Taken | None]]:
        """(Place in `segments`, tensors) of each segment when it has passed; None where it has no picture and no sound.

        The picture is decoded once, and the sound once beside it. A segment gets the frames and the samples that a clip
        cut out at its times would have, and a face path of its own. Where a stream is damaged, the segments up to there
        have it. Memory holds the segments that are open at one time.
        """
        intervals = [(segment.start_s, segment.end_s) for segment in segments]
        pictures = _Pictures(path if info.has_video else None, intervals, self.faces)
        sounds = _Sounds(path if info.has_audio else None, intervals)
        with closing(pictures.crops(self.detector, sounds)) as cut:
            for number, crops in cut:
                seen, picture = pictures.seen.pop(number, _Seen()), EMPTY
                why: dict[str, str] = {}
                if not len(crops.scores):
                    why["picture"] = pictures.problem or "the film shows none in this time"
                else:
                    picture = as_tensors(crops, seen.times_s, EMPTY.logmel)
                    if not (crops.scores > 0).any() and seen.levels <= FLAT_LEVELS:
                        why["picture"] = flat_sentence(seen.levels)
                sound = sounds.take(number)
                if not len(sound):
                    why["sound"] = sounds.problem or "the film has none in this time"
                elif (dbfs := level_dbfs(sound)) < SILENT_DBFS:
                    why["sound"] = silent_sentence(dbfs)
                if not len(crops.scores) and not len(sound):
                    yield number, None
                    continue
                logmel = mel.log_mel(torch.from_numpy(sound), self.mel.n_fft).half()
                yield number, self._taken(picture, logmel, why, sound)

    def _taken(
        self, picture: SampleTensors, logmel: torch.Tensor, why: dict[str, str], sound: Path | np.ndarray
    ) -> Taken:
        """Picture and sound put together. why: the reason for which one of them is left out."""
        frames = len(picture.faces)
        faceless = int((picture.face_score == 0).sum())
        absent = [f"no {kind}: {reason}" for kind, reason in why.items()]
        features = replace(EMPTY if "picture" in why else picture, logmel=EMPTY.logmel if "sound" in why else logmel)
        if "picture" not in why and faceless == frames:
            absent.append(f"no face: none found in {frames} sampled frames")
        if "picture" not in why and features.chosen_by == LARGEST:
            absent.append(
                "no speaking face: of several faces none has a mouth that moves with the voice, the largest was taken"
            )
        if not why:
            absent += _ends_early(features, self.faces.sample_every_ms / 1000)
        heard = sound if len(features.logmel) else None
        return Taken(features, absent, heard, faceless / frames if frames else None)


@dataclass
class _Seen:
    """Times of a segment's frames so far, and the largest deviation within one of them, in levels of 255."""

    times_s: list[float] = field(default_factory=list)
    levels: float = 0.0


class _Pictures:
    """The sampled frames of a film's segments, decoded ahead in a thread.

    seen: facts about the frames of each segment that is not finished. problem: why there are no more, if so.
    """

    def __init__(self, path: Path | None, intervals: Sequence[tuple[float, float]], faces: FaceSettings) -> None:
        self._path, self._intervals, self._faces = path, intervals, faces
        self.seen: dict[int, _Seen] = {}
        self.problem = NO_STREAM if path is None else ""

    def crops(self, detector: FaceDetector, sounds: "_Sounds") -> Generator[tuple[int, FaceCrops], None, None]:
        """(Number, faces) of each segment when it has passed; none where there are no frames."""
        with closing(self._frames()) as frames:
            yield from crop_mixed(
                frames,
                detector,
                margin_px=self._faces.margin_px,
                batch_frames=self._faces.batch_frames,
                sound_of=sounds.look if self._faces.choice == "speaking" else None,
            )

    def _frames(self) -> Generator[tuple[int, Watched], None, None]:
        left = dict.fromkeys(sorted(range(len(self._intervals)), key=lambda number: self._intervals[number]))
        if self._path is not None:
            try:
                with closing(read_ahead([self._read], 1, self._faces.batch_frames)) as items:
                    for number, time_s, item in items:
                        if (frame := item.frame) is None:
                            del left[number]
                        else:
                            seen = self.seen.setdefault(number, _Seen())
                            seen.times_s.append(time_s)
                            seen.levels = max(seen.levels, deviation_levels(frame))
                        yield number, item
            except DataError as error:
                self.problem = str(error)
        for number in left:
            yield number, Watched(None, 0.0, [])

    def _read(self) -> Generator[tuple[int, float, Watched], None, None]:
        assert self._path is not None
        faces = self._faces
        yield from watched(read_frames_within(self._path, self._intervals, faces.sample_every_ms, faces.grey_px))


class _Sounds:
    """The sound of a film's segments, decoded as far as it was asked for. problem: why there is no more, if so."""

    def __init__(self, path: Path | None, intervals: Sequence[tuple[float, float]]) -> None:
        order = sorted(range(len(intervals)), key=lambda number: intervals[number])
        self.problem = NO_STREAM if path is None else ""
        self._ready: dict[int, np.ndarray] = {}
        self._coming = (
            zip(order, read_intervals(path, [intervals[n] for n in order]), strict=True) if path else iter(())
        )

    def take(self, number: int) -> np.ndarray:
        """(S,) float32 at 16 kHz, which is then forgotten; (0,) where the film has no sound."""
        samples = self.look(number)
        self._ready.pop(number, None)
        return samples

    def look(self, number: int) -> np.ndarray:
        """As `take`, and kept."""
        while number not in self._ready and not self.problem:
            try:
                coming, samples = next(self._coming)
            except DataError as error:
                self.problem = str(error)
            else:
                self._ready[coming] = samples
        return self._ready.get(number, np.zeros(0, np.float32))


def _ends_early(features: SampleTensors, step_s: float) -> list[str]:
    """One sentence where picture or sound ends long before the other."""
    picture_s, sound_s = float(features.face_time_s[-1]), len(features.logmel) * mel.HOP_SAMPLES / mel.RATE_HZ
    if sound_s < picture_s - END_SLACK_S:
        return [f"no sound after {sound_s:.2f} s: the pictures go on to {picture_s:.2f} s or more"]
    if picture_s + step_s < sound_s - END_SLACK_S:
        return [f"no picture after {picture_s + step_s:.2f} s: the sound goes on to {sound_s:.2f} s"]
    return []
