"""Decoding a video stream frame by frame, each with the time at which a player shows it."""

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import av
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from data_tools.errors import DataError
from data_tools.media.packets import packets
from data_tools.media.source import MAX_DURATION_S, MAX_FPS, check_size, clock_streams, frame_rate, zero_s

# Label times have four decimals; two times closer than this are the same.
SAME_S = 1e-4
# Between two frames that state one time.
_STEP_S = float(1 / (4 * MAX_FPS))


class Shown(NamedTuple):
    """A frame, and the seconds since the file's zero at which it is shown; damaged: its picture is not whole."""

    time_s: float
    frame: VideoFrame
    damaged: bool


def decoded(path: Path, container: InputContainer, stream: VideoStream) -> Iterator[Shown | None]:
    """Every frame in the order of showing, times strictly rising; None where something could not be decoded.

    Raises:
        DataError: beyond the limits of `data_tools.media.source`, whatever the header said: a frame's size (a stream
            may change it on the way), its time, or the number of frames up to then.
    """
    clock = _SlotClock(stream) if container.format.name == "avi" else _StampClock(stream)
    count = 0
    zero = zero_s(container)
    for packet in packets(container, stream, clock_streams(container)):
        clock.arrives(packet)
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            clock.lost()
            yield None
            continue
        for frame in frames:
            check_size(path, frame.width, frame.height)
            shown = Shown(clock.time_s(frame) - zero, frame, frame.is_corrupt)
            count += 1
            _check_clock(path, shown.time_s, count)
            yield shown


def before_is_first(start_s: float, before_s: float, after_s: float, frame_s: float) -> bool:
    """Return True if of two frames round `start_s` the one before opens what begins there: nearer, or the next is far.

    frame_s: from one frame to the next as a rule.
    """
    if after_s <= start_s + SAME_S:
        return False
    return start_s - before_s < after_s - start_s or after_s - start_s > frame_s / 2 + SAME_S


class _StampClock:
    """Times from the frames' own stamps; a missing one is one nominal frame later than the last."""

    def __init__(self, stream: VideoStream) -> None:
        self._frame_s = float(1 / frame_rate(stream))
        self._last_s: float | None = None

    def arrives(self, packet: av.Packet) -> None:
        """A packet is about to be decoded."""

    def lost(self) -> None:
        """A packet could not be decoded."""

    def time_s(self, frame: VideoFrame) -> float:
        """Seconds of the next frame."""
        return self._rising(self._stamp(frame))

    def _stamp(self, frame: VideoFrame) -> float | None:
        if frame.pts is None or frame.time_base is None:
            return None
        return float(frame.pts * frame.time_base)

    def _rising(self, stamp_s: float | None) -> float:
        if self._last_s is None:
            self._last_s = stamp_s or 0.0
        elif stamp_s is None:
            self._last_s += self._frame_s
        else:
            # Hardly later: MPEG files repeat a stamp now and then, and the ones after it are right again.
            self._last_s = max(stamp_s, self._last_s + _STEP_S)
        return self._last_s


class _SlotClock(_StampClock):
    """Times of an AVI file, which has no stamps: the n-th frame shown belongs to the n-th stored packet.

    What the decoder makes up instead is late by the depth of its reordering, and out of order with some B-frames,
    as DivX files have them. A packet's place already counts the empty ones before it, which repeat a picture.
    """

    def __init__(self, stream: VideoStream) -> None:
        super().__init__(stream)
        self._slots: deque[float] = deque()
        self._depth = 0
        self._has_lost = False

    def arrives(self, packet: av.Packet) -> None:
        """Remember the place of a packet that holds a picture."""
        if packet.size and packet.dts is not None and packet.time_base is not None:
            self._slots.append(float(packet.dts * packet.time_base))

    def lost(self) -> None:
        """Some slots will get no frame; which ones shows at the next key frame."""
        self._has_lost = True

    def _stamp(self, frame: VideoFrame) -> float | None:
        if self._has_lost and frame.key_frame:
            while len(self._slots) > self._depth + 1:
                self._slots.popleft()
            self._has_lost = False
        slot_s = self._slots.popleft() if self._slots else None
        if not self._has_lost:
            self._depth = len(self._slots)
        return slot_s


def _check_clock(path: Path, time_s: float, count: int) -> None:
    if time_s > MAX_DURATION_S:
        raise DataError(f"{path} has a picture at {time_s:.0f} s; the limit is {MAX_DURATION_S:.0f} s: cut it up")
    # One second more, for streams that begin with a burst.
    if count > MAX_FPS * (max(time_s, 0.0) + 1):
        raise DataError(f"{path} has {count} pictures up to {time_s:.2f} s; the limit is {MAX_FPS} a second")
