"""Opening a media file that may be broken: limits, stream clocks and what the header says."""

import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from data_tools.errors import DataError
from data_tools.impostor import check_genuine
from data_tools.media.index import check_index, lacks_index

# Beyond these a file is refused, so that one odd header cannot take all the memory of a machine. The area is that of
# a 5K camera's picture (14 to 16 million pixels) with room to spare; 8K is beyond it.
MAX_SIDE_PX = 8192
MAX_AREA_PX = 4096 * 4096
MAX_DURATION_S = 4 * 3600.0

# Rates outside these are taken as not stated: containers without a rate of their own state their clock's. That many
# frames a second is also the most that a stream may hold; telephones reach 240.
MIN_FPS, MAX_FPS = Fraction(1, 100), Fraction(300)
# Rate taken where a video stream states none; 25 is what ffmpeg assumes too.
DEFAULT_FPS = Fraction(25)

# Width by height of a pixel: the longest in use is 2, of pictures that were stored at half their width.
MAX_PIXEL_SHAPE = Fraction(4)

# ffmpeg reads some 300 formats, and picks one by the content whatever the name says. Some of them are lists of other
# files and addresses (hls, dash, concat, sdp, image2), devices, or programs (lavfi), and many are hardly ever fuzzed.
# These hold their own data, and are what corpora come in; no others are opened. Their names are ffmpeg's.
FORMATS = (
    "aac", "aiff", "amr", "asf", "au", "avi", "caf", "dv", "flac", "flv", "matroska", "mov", "mp3", "mpeg", "mpegts",
    "ogg", "w64", "wav",
)  # fmt: skip
# The same reason: a local file is opened, and nothing that it names. Opening may decode some pictures already: up to
# this size, so that those which are too large can be named.
READ_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": ",".join(FORMATS), "max_pixels": str(MAX_SIDE_PX**2)}

# Macroblock trees, as x264 computes them with SIMD, read memory that was never written (seen at 360x640): the bytes
# change from run to run. Without them clips of still scenes are up to half larger.
STEADY_X264 = "mbtree=0"


_Kind = TypeVar("_Kind", bound=Stream)


class ClipError(DataError):
    """Output that cannot be written (full, read-only or gone): no fault of the source, so the work stops."""


@dataclass(frozen=True)
class MediaInfo:
    """Facts from the header of a media file; the streams themselves may be shorter.

    duration_s: 0.0 where the header has none. fps, width, height (as shown, pixels): 0 without a video stream.
    audio_rate_hz, channels: 0 without an audio stream. The codecs have ffmpeg's names; empty without a stream.
    """

    duration_s: float
    fps: float
    width: int
    height: int
    has_video: bool
    has_audio: bool
    audio_rate_hz: int
    channels: int
    video_codec: str
    audio_codec: str


def probe(path: Path) -> MediaInfo:
    """Read the header of `path` without decoding.

    Raises:
        DataError: no such file, empty, not media in one of FORMATS, or beyond a limit (MAX_SIDE_PX, MAX_AREA_PX,
            MAX_DURATION_S, MAX_INDEX_ENTRIES).
    """
    with open_media(path) as container:
        video = _default(_moving(container))
        audio = _default(_audible(container))
        return MediaInfo(
            duration_s=_duration_s(container),
            fps=float(frame_rate(video)) if video else 0.0,
            width=video.codec_context.width if video else 0,
            height=video.codec_context.height if video else 0,
            has_video=video is not None,
            has_audio=audio is not None,
            audio_rate_hz=(audio.codec_context.sample_rate or 0) if audio else 0,
            channels=audio.codec_context.channels if audio else 0,
            video_codec=video.codec_context.name if video else "",
            audio_codec=audio.codec_context.name if audio else "",
        )


def has_audio(path: Path) -> bool:
    """Return True if `path` has an audio stream. Raises DataError as `probe` does."""
    return probe(path).has_audio


@contextmanager
def open_media(path: Path, options: Mapping[str, str] = MappingProxyType({})) -> Iterator[InputContainer]:
    """`path` opened for reading; errors of opening and, inside the block, of decoding become DataError.

    options: of ffmpeg's reader, besides READ_OPTIONS.

    Raises:
        DataError: as `probe`, and for whatever the decoder cannot read inside the block.
    """
    check_file(path)
    try:
        container = av.open(local_url(path), options=READ_OPTIONS | dict(options), metadata_errors="replace")
    except av.error.FFmpegError as error:
        if lacks_index(path):
            raise DataError(f"{path} is incomplete (its index is missing); copy or download it again") from error
        raise DataError(
            f"{path} cannot be read as media: {error.strerror or error}; expected one of {', '.join(FORMATS)}"
        ) from error
    try:
        with container:
            _check_limits(path, container)
            yield container
    except av.error.FFmpegError as error:
        raise DataError(f"{path} cannot be read as media: {error.strerror or error}") from error


def check_file(path: Path) -> None:
    """Look at `path` before anything else opens it: opening a pipe or a device could wait for ever.

    Raises:
        DataError: not a file, an empty one, one that may not be read, a pointer or a web page in place of the real
            one, or one with a header that `check_index` refuses.
    """
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise DataError(f"{path} is a folder, a pipe or a device; expected a media file")
        check_genuine(path)
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise DataError(f"no media file {path}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    if about.st_size == 0:
        raise DataError(f"{path} is an empty file (0 bytes); copy it again from the release")
    check_index(path)


def local_url(path: Path) -> str:
    """`path` as ffmpeg names a local file: a leading `-` or a `:` in the name means nothing special then."""
    return f"file:{path}"


def video_stream(path: Path, container: InputContainer) -> VideoStream:
    """The video stream that players take, set to one decoder thread: work is spread over processes instead.

    Raises:
        DataError: there is none.
    """
    stream = _default(_moving(container))
    if stream is None:
        raise DataError(f"{path} has no video stream that can be decoded")
    stream.codec_context.thread_count = 1
    # A stream may change its size on the way: this is asked before the memory for a picture is.
    stream.codec_context.options = {"max_pixels": str(MAX_AREA_PX)}
    return stream


def frame_rate(stream: VideoStream) -> Fraction:
    """Average frames a second, MIN_FPS to MAX_FPS; where none is stated the base rate, and then DEFAULT_FPS."""
    stated = (stream.average_rate, stream.base_rate)
    return next((rate for rate in stated if rate and MIN_FPS <= rate <= MAX_FPS), DEFAULT_FPS)


def pixel_shape(stream: VideoStream) -> Fraction:
    """Width by height of a pixel as it is shown, before any turn; 1 where none, or an impossible one, is stated."""
    shape = stream.sample_aspect_ratio
    return shape if shape and 1 / MAX_PIXEL_SHAPE <= shape <= MAX_PIXEL_SHAPE else Fraction(1)


def audio_stream(path: Path, container: InputContainer, number: int | None = None) -> AudioStream:
    """The audio stream that players take, or the one of this number among all of them, from 0.

    Raises:
        DataError: there is none (of this number) that can be decoded.
    """
    if number is None:
        stream = _default(_audible(container))
        if stream is None:
            raise DataError(f"{path} has no audio stream that can be decoded")
        return stream
    streams = container.streams.audio
    if not 0 <= number < len(streams) or not streams[number].codec_context:
        there = f"its audio streams are 0 to {len(streams) - 1}" if streams else "it has no audio stream"
        raise DataError(f"{path} has no audio stream {number} that can be decoded: {there}; name one of them or none")
    return streams[number]


def clock_streams(container: InputContainer) -> list[Stream]:
    """The streams whose stamps decide where one recording ends and the next one begins: those that players take."""
    return [stream for stream in (_default(_moving(container)), _default(_audible(container))) if stream is not None]


def zero_s(container: InputContainer) -> float:
    """The stamp in seconds that is the zero of a file: the earliest of all its streams, as players have it."""
    return (container.start_time or 0) / av.time_base


def _default(streams: Sequence[_Kind]) -> _Kind | None:
    """The first stream that is flagged as the default one; without a flag the first of all, as players choose."""
    flagged = (stream for stream in streams if stream.disposition & Disposition.default)
    return next(flagged, streams[0] if streams else None)


def _audible(container: InputContainer) -> list[AudioStream]:
    """The streams of sound that there is a decoder for."""
    return [s for s in container.streams.audio if s.codec_context]


def _moving(container: InputContainer) -> list[VideoStream]:
    """The streams of moving pictures with a decoder: the cover of a sound file is a video stream too."""
    moving = (s for s in container.streams.video if not s.disposition & Disposition.attached_pic)
    return [s for s in moving if s.codec_context]


def _check_limits(path: Path, container: InputContainer) -> None:
    if _duration_s(container) > MAX_DURATION_S:
        raise DataError(f"{path} lasts {_duration_s(container):.0f} s; the limit is {MAX_DURATION_S:.0f} s: cut it up")
    for stream in container.streams.video:
        if stream.codec_context:
            check_size(path, stream.codec_context.width, stream.codec_context.height)


def check_size(path: Path, width: int, height: int) -> None:
    """Raise DataError where a picture is beyond MAX_SIDE_PX or MAX_AREA_PX."""
    if max(width, height) > MAX_SIDE_PX or width * height > MAX_AREA_PX:
        raise DataError(
            f"{path} is {width}x{height} pixels; the limit is {MAX_SIDE_PX} a side and {MAX_AREA_PX} in all: scale it"
        )


def _duration_s(container: InputContainer) -> float:
    if container.duration is not None:
        return max(0.0, container.duration / av.time_base)
    known = [float(s.duration * s.time_base) for s in container.streams if s.duration and s.time_base]
    return max(known, default=0.0)
