"""Speaking faces: faces followed through a clip, and the motion of each one's mouth beside the changes of the sound."""

import math
from collections import defaultdict
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise

import cv2
import numpy as np

from data_tools.faces.detector import Candidates
from data_tools.faces.path import centre_jumps
from data_tools.media.audio import AUDIO_RATE_HZ

# Longer side of the grey pictures in which mouths are watched, in pixels.
GREY_PX = 640
# The sound may follow the mouth by up to 0.12 s, or come before it by up to 0.04 s.
_LAGS_S = np.arange(-1, 4) * 0.04
# Half of the window over which the loudness is taken.
_WINDOW_S = 0.02
# Seconds of watched motion, and pictures a second of it, below which nothing is said of a face.
_LEAST_S, _LEAST_FPS = 1.0, 12.0
# A face speaks from this correlation on: the first over the root of the seconds watched, never less than the second.
# docs/data.md has how often others reach it.
_LEAST, _FLOOR = 0.5, 0.15
# The correlation must be larger than that of any other face of the time by this.
_MARGIN = 0.1
# Two samples show one face: moved by less than this many widths, and its width changed by less than this factor.
_MOVED, _GROWN = 0.5, 1.6
# Samples that a face may be missing between two that show it.
_MISSING = 1
# Mean difference of two neighbouring pictures, in levels of 255, from which there is a cut between them.
_CUT_LEVELS = 15.0
# Smaller faces, by the distance from eyes to mouth in grey pixels, are not watched.
_LEAST_PX = 4.0
# (width, height) of the patches that are compared.
_MOUTH, _EYES = (14, 9), (24, 11)

Grey = tuple[float, np.ndarray]


@dataclass(frozen=True)
class Watched:
    """A sampled frame of a clip, and the grey pictures since the one before it.

    frame: (H, W, 3) uint8 RGB; None at the clip's end. time_s: in the clip. greys: (time_s, (h, w) uint8) each, in the
    order of time, up to `time_s`.
    """

    frame: np.ndarray | None
    time_s: float
    greys: list[Grey]


def watched(
    items: Generator[tuple[int, float, np.ndarray | None], None, None],
) -> Iterator[tuple[int, float, Watched]]:
    """Frames and grey pictures as `read_frames_within` yields them -> each frame with the grey ones before it."""
    greys: dict[int, list[Grey]] = defaultdict(list)
    with closing(items):
        for number, time_s, picture in items:
            if picture is not None and picture.ndim == 2:
                greys[number].append((time_s, picture))
            else:
                yield number, time_s, Watched(picture, time_s, greys.pop(number, []))


@dataclass
class _Track:
    """One face from sample to sample. members: (sample, place among its candidates); times_s, motion: of its mouth."""

    box: np.ndarray
    landmarks: np.ndarray
    members: list[tuple[int, int]]
    times_s: list[float] = field(default_factory=list)
    motion: list[float] = field(default_factory=list)

    @property
    def last(self) -> int:
        """The last sample that shows the face."""
        return self.members[-1][0]

    def overlaps(self, other: "_Track") -> bool:
        """Return True if both are there at one time."""
        return self.members[0][0] <= other.last and other.members[0][0] <= self.last


class MouthMotion:
    """The faces of one clip: followed from sample to sample, their mouths watched in the grey pictures in between.

    The motion of a mouth between two grey pictures is log(1 + d) of its patch less that of one round the eyes, where
    d is the mean absolute difference in levels of 255: a head or a camera that moves counts for little. Patches are cut
    where the landmarks are, which are taken to move evenly from one sample to the next. Pictures are forgotten once
    they are compared. A face that is alone is not watched: there is nothing to choose then.
    """

    def __init__(self) -> None:
        self._tracks: list[_Track] = []
        self._samples = 0
        self._shot_from = 0  # the first sample of the present shot
        self._time_s = 0.0
        self._before: list[Grey] = []
        self._several = False  # does the last sample show several faces?

    def add(self, sample: Watched, found: Candidates) -> None:
        """Follow the faces to the next sample."""
        assert sample.frame is not None
        number, now_s = self._samples, sample.time_s
        greys = [*self._before, *sample.greys]
        if _has_cut(greys):
            self._shot_from = number
        going_on = self._matches(found)
        scale = _scale(sample.frame.shape, greys)
        for index, box in enumerate(found.boxes):
            landmarks = found.landmarks[index] * scale
            track = going_on.get(index)
            if track is None:
                track = _Track(box, landmarks, [])
                self._tracks.append(track)
            elif track.last == number - 1 and (self._several or len(found.boxes) > 1):
                self._watch(track, landmarks, greys, now_s)
            track.members.append((number, index))
            track.box, track.landmarks = box, landmarks
        self._samples, self._time_s, self._before = number + 1, now_s, greys[-1:]
        self._several = len(found.boxes) > 1

    def end(self, greys: list[Grey]) -> None:
        """Watch the faces of the last sample to the end of the clip, where they were."""
        greys = [*self._before, *greys]
        if self._several and not _has_cut(greys):
            for track in self._tracks:
                if track.last == self._samples - 1:
                    self._watch(track, track.landmarks, greys, greys[-1][0] if greys else 0.0)

    def speaking(self, sound: np.ndarray) -> list[set[int]]:
        """Of each sample the candidates that speak; none anywhere where no face stands out.

        A face speaks if the motion of its mouth correlates with the change of the sound's loudness (the root of its
        RMS, from one grey picture to the next), at the best of some lags, by at least 0.5 / sqrt(seconds watched) (0.15
        from 11 s on), and by 0.1 more than that of every other face that is there at the time.

        sound: (S,) float32 of the clip at 16 kHz; (0,) where there is none.
        """
        speaking: list[set[int]] = [set() for _ in range(self._samples)]
        scores = [_correlation(track, sound) for track in self._tracks]
        for track, score in zip(self._tracks, scores, strict=True):
            seconds = _seconds(track)
            if seconds < _LEAST_S or score < max(_LEAST / np.sqrt(seconds), _FLOOR):
                continue
            others = (
                value
                for other, value in zip(self._tracks, scores, strict=True)
                if other is not track and other.overlaps(track)
            )
            if score >= max(others, default=0.0) + _MARGIN:
                for sample, index in track.members:
                    speaking[sample].add(index)
        return speaking

    def _matches(self, found: Candidates) -> dict[int, _Track]:
        """Place of a new face -> the track that it goes on, the nearest pairs first."""
        oldest = max(self._shot_from, self._samples - 1 - _MISSING)
        tracks = [track for track in self._tracks if track.last >= oldest]
        if not tracks or not len(found.boxes):
            return {}
        boxes = np.stack([track.box for track in tracks])
        moved = centre_jumps(boxes, found.boxes)
        widths = [np.maximum(each[:, 2] - each[:, 0], 1.0) for each in (boxes, found.boxes)]
        grown = np.exp(np.abs(np.log(widths[0][:, None] / widths[1][None])))
        pairs = np.argwhere((moved < _MOVED) & (grown < _GROWN))
        matches: dict[int, _Track] = {}
        for row, index in sorted(pairs.tolist(), key=lambda pair: float(moved[pair[0], pair[1]])):
            if index not in matches and not any(tracks[row] is track for track in matches.values()):
                matches[index] = tracks[row]
        return matches

    def _watch(self, track: _Track, landmarks: np.ndarray, greys: list[Grey], now_s: float) -> None:
        """Add the motion of a mouth from the last sample to this one. landmarks: (5, 2) in grey pixels, now."""
        first, last = (np.stack([points[:2].mean(0), points[3:].mean(0)]) for points in (track.landmarks, landmarks))
        before: tuple[np.ndarray, np.ndarray] | None = None
        for time_s, grey in greys:
            share = min(max((time_s - self._time_s) / max(now_s - self._time_s, 1e-6), 0.0), 1.0)
            patches = _patches(grey, *(first + share * (last - first)).ravel().tolist())
            if patches is not None and before is not None:
                mouth, eyes = (
                    cv2.norm(new, old, cv2.NORM_L1) / new.size for new, old in zip(patches, before, strict=True)
                )
                track.times_s.append(time_s)
                track.motion.append(math.log1p(mouth) - math.log1p(eyes))
            before = patches


def _scale(shape: tuple[int, ...], greys: list[Grey]) -> np.ndarray:
    """(2,) x, y: grey pixels a pixel of the sampled frame."""
    if not greys:
        return np.ones(2, np.float32)
    height, width = greys[-1][1].shape
    return np.array([width / shape[1], height / shape[0]], np.float32)


def _patches(
    grey: np.ndarray, eyes_x: float, eyes_y: float, mouth_x: float, mouth_y: float
) -> tuple[np.ndarray, np.ndarray] | None:
    """The patch of the lips and the one round the eyes, uint8; None of a face that is too small.

    Places are the middle between the eyes and that between the corners of the mouth, in grey pixels.
    """
    right, down = mouth_x - eyes_x, mouth_y - eyes_y
    length = math.hypot(right, down)
    if not length >= _LEAST_PX:
        return None
    return (
        _patch(grey, mouth_x + 0.1 * right, mouth_y + 0.1 * down, 0.75 * length, _MOUTH),
        _patch(grey, eyes_x + 0.1 * right, eyes_y + 0.1 * down, 1.3 * length, _EYES),
    )


def _patch(grey: np.ndarray, x: float, y: float, width: float, size: tuple[int, int]) -> np.ndarray:
    """The upright patch round (x, y), `width` grey pixels wide; interpolated, so that it moves evenly."""
    step = width / size[0]
    place = np.array([[step, 0.0, x - step * (size[0] - 1) / 2], [0.0, step, y - step * (size[1] - 1) / 2]])
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(grey, place, size, flags=how, borderMode=cv2.BORDER_REPLICATE)


def _has_cut(greys: list[Grey]) -> bool:
    """Return True if the film goes on with another shot somewhere in these pictures, or with another size."""
    if len({grey.shape for _, grey in greys}) > 1:
        return True
    small = [cv2.resize(grey, (32, 18), interpolation=cv2.INTER_LINEAR) for _, grey in greys]
    return any(cv2.norm(new, old, cv2.NORM_L1) > _CUT_LEVELS * new.size for old, new in pairwise(small))


def _seconds(track: _Track) -> float:
    """Seconds for which the mouth was watched; 0 where the pictures are too few for their time."""
    steps = np.diff(track.times_s)
    usual = float(np.median(steps)) if len(steps) else 1.0
    return len(track.times_s) * usual if usual <= 1 / _LEAST_FPS else 0.0


def _correlation(track: _Track, sound: np.ndarray) -> float:
    """Pearson's correlation of mouth motion and change of loudness, at the best lag; 0 where one of them is still."""
    if _seconds(track) < _LEAST_S or not len(sound):
        return 0.0
    times_s, motion = np.array(track.times_s), np.array(track.motion)
    step_s = float(np.median(np.diff(times_s)))
    power = np.concatenate([[0.0], np.cumsum(np.square(sound, dtype=np.float64))])
    found = [0.0]
    for lag_s in _LAGS_S:
        after, before = (_loudness(power, times_s + lag_s - back_s) for back_s in (0.0, step_s))
        change = np.abs(np.sqrt(after) - np.sqrt(before))
        inside = times_s + lag_s <= len(sound) / AUDIO_RATE_HZ
        if inside.sum() > 2 and min(motion[inside].std(), change[inside].std()) > 1e-9:
            found.append(float(np.corrcoef(motion[inside], change[inside])[0, 1]))
    return max(found)


def _loudness(power: np.ndarray, times_s: np.ndarray) -> np.ndarray:
    """RMS of the sound round each time. power: (S + 1,) sums of the squares of all samples before each."""
    ends = [np.clip(np.round((times_s + half) * AUDIO_RATE_HZ), 0, len(power) - 1) for half in (-_WINDOW_S, _WINDOW_S)]
    first, last = (end.astype(int) for end in ends)
    return np.sqrt(np.maximum(power[last] - power[first], 0.0) / (2 * _WINDOW_S * AUDIO_RATE_HZ))
