"""Opening a media file that may be broken: limits, stream clocks and what the header says."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from data_tools.errors import DataError

# Beyond these a file is refused, so that one odd header cannot take all the memory of a machine.
MAX_SIDE_PX = 8192
MAX_DURATION_S = 4 * 3600.0

# Rate taken where a video stream states none; 25 is what ffmpeg assumes too.
DEFAULT_FPS = Fraction(25)


class ClipError(DataError):
    """What comes out cannot be written (full, read-only or gone): no fault of the source, so the work stops."""


@dataclass(frozen=True)
class MediaInfo:
    """What the header of a media file says; the streams themselves may be shorter.

    duration_s: 0.0 where the header has none. fps, width, height (as shown, pixels): 0 without a video stream.
    audio_rate_hz: 0 without an audio stream.
    """

    duration_s: float
    fps: float
    width: int
    height: int
    has_video: bool
    has_audio: bool
    audio_rate_hz: int


def probe(path: Path) -> MediaInfo:
    """Read the header of `path` without decoding.

    Raises:
        DataError: no such file, empty, not media, or beyond MAX_SIDE_PX or MAX_DURATION_S.
    """
    with open_media(path) as container:
        video = next(iter(container.streams.video), None)
        audio = next(iter(container.streams.audio), None)
        return MediaInfo(
            duration_s=_duration_s(container),
            fps=float(frame_rate(video)) if video else 0.0,
            width=video.codec_context.width if video else 0,
            height=video.codec_context.height if video else 0,
            has_video=video is not None,
            has_audio=audio is not None,
            audio_rate_hz=(audio.codec_context.sample_rate or 0) if audio else 0,
        )


def has_audio(path: Path) -> bool:
    """Whether `path` has an audio stream. Raises DataError as `probe` does."""
    return probe(path).has_audio


@contextmanager
def open_media(path: Path) -> Iterator[InputContainer]:
    """`path` opened for reading; errors of opening and, inside the block, of decoding become DataError.

    Raises:
        DataError: as `probe`, and for whatever the decoder cannot read inside the block.
    """
    if not path.is_file():
        raise DataError(f"no media file {path}")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is an empty file (0 bytes); copy it again from the release")
    try:
        with av.open(local_url(path), options={"protocol_whitelist": "file"}, metadata_errors="replace") as container:
            _check_limits(path, container)
            yield container
    except av.error.FFmpegError as error:
        raise DataError(f"{path} cannot be read as media: {error.strerror or error}") from error


def local_url(path: Path) -> str:
    """`path` as ffmpeg names a local file: a leading `-` or a `:` in the name means nothing special then."""
    return f"file:{path}"


def video_stream(path: Path, container: InputContainer) -> VideoStream:
    """The first video stream, set to one decoder thread: work is spread over processes instead.

    Raises:
        DataError: there is none.
    """
    stream = next(iter(container.streams.video), None)
    if stream is None:
        raise DataError(f"{path} has no video stream")
    stream.codec_context.thread_count = 1
    return stream


def frame_rate(stream: VideoStream) -> Fraction:
    """Average frames a second of a stream, never 0: the base rate, then DEFAULT_FPS, where none is stated."""
    return stream.average_rate or stream.base_rate or DEFAULT_FPS


class FrameClock:
    """Time of each decoded frame in seconds of the container's clock.

    A frame without a time stamp (old AVI files have them) comes one nominal frame after the one before it.
    """

    def __init__(self, stream: VideoStream) -> None:
        self.frame_s = float(1 / frame_rate(stream))
        self._last_s: float | None = None

    def time_s(self, frame: VideoFrame) -> float:
        """Seconds of `frame`; call once a frame, in decoding order."""
        if frame.pts is not None and frame.time_base is not None:
            self._last_s = float(frame.pts * frame.time_base)
        else:
            self._last_s = 0.0 if self._last_s is None else self._last_s + self.frame_s
        return self._last_s


def check_frame(path: Path, frame: VideoFrame) -> None:
    """Refuse a frame beyond MAX_SIDE_PX: a stream may change its size on the way.

    Raises:
        DataError: names both sides.
    """
    if max(frame.width, frame.height) > MAX_SIDE_PX:
        raise DataError(f"{path} has frames of {frame.width}x{frame.height} pixels; the limit is {MAX_SIDE_PX} a side")


def _check_limits(path: Path, container: InputContainer) -> None:
    if _duration_s(container) > MAX_DURATION_S:
        raise DataError(f"{path} lasts {_duration_s(container):.0f} s; the limit is {MAX_DURATION_S:.0f} s: cut it up")
    for stream in container.streams.video:
        size = (stream.codec_context.width, stream.codec_context.height)
        if max(size) > MAX_SIDE_PX:
            raise DataError(f"{path} is {size[0]}x{size[1]} pixels; the limit is {MAX_SIDE_PX} a side")


def _duration_s(container: InputContainer) -> float:
    if container.duration is not None:
        return max(0.0, container.duration / av.time_base)
    known = [float(s.duration * s.time_base) for s in container.streams if s.duration and s.time_base]
    return max(known, default=0.0)
