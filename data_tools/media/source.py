"""Opening a media file that may be broken: limits, stream clocks and what the header says."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition
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
        video = _first_video(container)
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
    stream = _first_video(container)
    if stream is None:
        raise DataError(f"{path} has no video stream")
    stream.codec_context.thread_count = 1
    return stream


def frame_rate(stream: VideoStream) -> Fraction:
    """Average frames a second of a stream, never 0: the base rate, then DEFAULT_FPS, where none is stated."""
    return stream.average_rate or stream.base_rate or DEFAULT_FPS


def _first_video(container: InputContainer) -> VideoStream | None:
    """The first stream of moving pictures: the cover of a sound file is a video stream too."""
    moving = (s for s in container.streams.video if not s.disposition & Disposition.attached_pic)
    return next(moving, None)


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
