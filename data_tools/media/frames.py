"""Frames of a video at a fixed spacing, and on request small grey pictures at the video's own rate."""

import math
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from av.video.frame import VideoFrame

from data_tools.errors import DataError
from data_tools.media.decode import SAME_S, Shown, before_is_first, decoded
from data_tools.media.orientation import orientation, upright
from data_tools.media.source import check_size, frame_rate, open_media, pixel_shape, video_stream

# Time stamps of some containers are whole milliseconds: a frame this little before its moment still counts.
_ROUNDING_S = 1e-3
# Grey pictures are at least this far apart: 25 and 30 a second all count, of 50 and 60 every second one.
_GREY_S = 0.03


def read_frames(
    path: Path, every_ms: int, square_pixels: bool = True, grey_px: int | None = None
) -> Iterator[tuple[float, np.ndarray]]:
    """The first frame at or after 0, every_ms, 2 * every_ms ...; at least one, each frame at most once.

    Yields (seconds since the file's zero, picture (H, W, 3) uint8 RGB, upright as a player shows it). That zero is the
    one that `read_audio` counts from: where pictures begin later than sound, the first one's time says so. One frame is
    held at a time, and only the frames that are yielded are converted to RGB. Packets that cannot be decoded are left
    out: the frames around them still count.

    square_pixels: a picture of pixels that are not square (DV, HDV) is drawn out, so that faces keep their shape;
    False for the pixels as they are stored.
    grey_px: also yields, before the frame of its time, the frames in between (at most 33 a second) as grey pictures
    (h, w) uint8, upright, with at most this many pixels on the longer side.

    Raises:
        DataError: not a readable video, a frame beyond the size limit, or no frame at all.
    """
    if every_ms <= 0:
        raise DataError(f"every_ms is {every_ms}: expected a positive number of milliseconds")
    empty, sampler, greys = True, _Sampler(every_ms), _Spaced(grey_px)
    with open_media(path) as container:
        stream = video_stream(path, container)
        for shown in decoded(path, container, stream):
            if shown is None:
                continue
            time_s, empty = max(0.0, shown.time_s), False
            if grey_px and greys.takes(time_s):
                yield time_s, _grey(shown.frame, grey_px)
            if sampler.takes(time_s):
                yield time_s, _upright(path, shown, pixel_shape(stream) if square_pixels else Fraction(1))
    if empty:
        raise DataError(f"{path} has a video stream without a single frame that can be decoded")


def read_frames_within(
    path: Path, intervals: Sequence[tuple[float, float]], every_ms: int, grey_px: int | None = None
) -> Generator[tuple[int, float, np.ndarray | None], None, None]:
    """The frames that `read_frames` gives of clips that `cut_video` cuts at these times, in one decoding pass.

    intervals: (start_s, end_s) in the file, in any order; they may overlap.
    Yields (place of the interval in `intervals`, seconds since it began, picture (H, W, 3) uint8 RGB), and once for
    each interval (place, its length, None) when it has passed; one that the file's pictures do not reach has no other.
    Two frames are held at a time. grey_px: as in `read_frames`.

    Raises:
        DataError: as `read_frames`, when what it concerns is reached.
    """
    waiting = deque(sorted(range(len(intervals)), key=lambda number: intervals[number]))
    opened: dict[int, tuple[float, _Sampler, _Spaced]] = {}
    before: Shown | None = None
    with open_media(path) as container:
        stream = video_stream(path, container)
        shape, frame_s = pixel_shape(stream), float(1 / frame_rate(stream))
        for shown in decoded(path, container, stream):
            if shown is None:
                continue
            for number in [n for n in opened if intervals[n][1] <= shown.time_s + SAME_S]:
                del opened[number]
                yield _passed(intervals, number)
            while waiting and intervals[waiting[0]][0] <= shown.time_s + SAME_S:
                number = waiting.popleft()
                start_s, end_s = intervals[number]
                zero_s = shown.time_s if shown.time_s - start_s <= frame_s / 2 + SAME_S else start_s
                sampler = _Sampler(every_ms)
                if before and before_is_first(start_s, before.time_s, shown.time_s, frame_s):
                    # A frame that stays on display for long is shown from the interval's start on.
                    near = start_s - before.time_s <= frame_s / 2 + SAME_S
                    zero_s = before.time_s if near else start_s
                    sampler.takes(0.0)
                    yield number, 0.0, _upright(path, before, shape)
                elif end_s <= shown.time_s + SAME_S and shown.time_s - start_s <= frame_s:
                    # Shorter than a frame, and this is the only one there is.
                    yield number, 0.0, _upright(path, shown, shape)
                if end_s <= shown.time_s + SAME_S:
                    yield _passed(intervals, number)
                else:
                    opened[number] = zero_s, sampler, _Spaced(grey_px)
            yield from _wanted(opened, path, shown, shape, grey_px)
            if not opened and not waiting:
                return
            before = shown
    for number in (*opened, *waiting):
        yield _passed(intervals, number)


def _wanted(
    opened: Mapping[int, tuple[float, "_Sampler", "_Spaced"]],
    path: Path,
    shown: Shown,
    shape: Fraction,
    grey_px: int | None,
) -> Iterator[tuple[int, float, np.ndarray]]:
    """(Place of the interval, seconds since it began, picture) for those that want this frame; converted once."""
    picture: np.ndarray | None = None
    grey: np.ndarray | None = None
    for number, (zero_s, sampler, greys) in opened.items():
        time_s = shown.time_s - zero_s
        if grey_px and greys.takes(time_s):
            grey = _grey(shown.frame, grey_px) if grey is None else grey
            yield number, time_s, grey
        if sampler.takes(time_s):
            picture = _upright(path, shown, shape) if picture is None else picture
            yield number, time_s, picture


def _passed(intervals: Sequence[tuple[float, float]], number: int) -> tuple[int, float, None]:
    start_s, end_s = intervals[number]
    return number, end_s - start_s, None


class _Sampler:
    """Takes the first frame at or after 0, every_ms, 2 * every_ms ..."""

    def __init__(self, every_ms: int) -> None:
        self._every_ms, self._due_ms = every_ms, 0

    def takes(self, time_s: float) -> bool:
        """Return True if the frame shown at `time_s` is wanted; times rise."""
        if time_s + _ROUNDING_S < self._due_ms / 1000:
            return False
        self._due_ms = (int((time_s + _ROUNDING_S) * 1000) // self._every_ms + 1) * self._every_ms
        return True


class _Spaced:
    """Takes frames that are at least `_GREY_S` apart; none without a size."""

    def __init__(self, grey_px: int | None) -> None:
        self._due_s = -math.inf if grey_px else math.inf

    def takes(self, time_s: float) -> bool:
        """Return True if the frame shown at `time_s` is wanted; times rise."""
        if time_s + _ROUNDING_S < self._due_s:
            return False
        self._due_s = time_s + _GREY_S
        return True


def _grey(frame: VideoFrame, longer_px: int) -> np.ndarray:
    """(h, w) uint8: the brightness of `frame`, upright, shrunk by a whole number, in pixels as they are stored."""
    if frame.format.name.startswith("yuv") and frame.format.components[0].bits == 8 and frame.format.is_planar:
        plane = frame.planes[0]
        rows: Any = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
    else:
        rows = frame.to_ndarray(format="gray")
    bright = rows[: frame.height, : frame.width]
    by = -(-max(bright.shape) // longer_px)
    if by > 1:
        size = max(1, bright.shape[1] // by), max(1, bright.shape[0] // by)
        small = cv2.resize(bright, size, interpolation=cv2.INTER_LINEAR)
    else:
        small = bright.copy()  # the decoder takes its memory back
    return upright(small, orientation(frame))


def _upright(path: Path, shown: Shown, shape: Fraction) -> np.ndarray:
    return upright(_picture(path, shown.frame, shape), orientation(shown.frame))


def _picture(path: Path, frame: VideoFrame, shape: Fraction) -> np.ndarray:
    """The pixels of `frame`, made square by drawing out the side that is too short: none are lost."""
    if shape == 1:
        return frame.to_ndarray(format="rgb24")
    wide = shape > 1
    width = round(frame.width * shape) if wide else frame.width
    height = frame.height if wide else round(frame.height / shape)
    check_size(path, width, height)
    return frame.reformat(width, height, "rgb24", interpolation="BICUBIC").to_ndarray()
