"""A film in a form that browsers play: the file itself where they do, else an mp4 or m4a made of it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ffmpeg
from av.container import InputContainer
from av.stream import Stream

from data_tools.errors import DataError
from data_tools.files import atomic_path
from data_tools.media.plain import run_ffmpeg
from data_tools.media.source import READ_OPTIONS, audio_stream, local_url, open_media, video_stream
from data_tools.media.write import X264_OPTIONS

# Browsers go by the name of a local file: its ending -> (ffmpeg's name of the container, codecs of picture and sound).
_MP4 = ("mov", {"h264", "av1"}, {"aac", "mp3"})
_PLAYED: dict[str, tuple[str, set[str], set[str]]] = {
    ".mp4": _MP4,
    ".m4v": _MP4,
    ".webm": ("matroska", {"vp8", "vp9", "av1"}, {"opus", "vorbis"}),
    ".m4a": ("mov", set(), {"aac", "mp3"}),
    ".mp3": ("mp3", set(), {"mp3"}),
    ".ogg": ("ogg", set(), {"opus", "vorbis"}),
    ".flac": ("flac", set(), {"flac"}),
    ".wav": ("wav", set(), {"pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_f32le"}),
}
# Eight bits and quarter colour: what the decoders in graphics cards and phones have in common.
_PIXELS = {"yuv420p", "yuvj420p"}
# Decoders that are not called as the codec is.
_CODECS = {"mp3float": "mp3", "libdav1d": "av1", "libvpx": "vp8", "libvpx-vp9": "vp9"}
# Their time stamps are whole, so that packets may be copied from them.
_TRUSTED = {"mov", "matroska"}
# A new picture has at most the area of 1280x720, and even sides.
_SIDE = "max(2,trunc({side}*min(1,sqrt(921600/(iw*ih)))/2)*2)"
_CRF = 25


@dataclass(frozen=True)
class _Streams:
    """Numbers and codecs of the streams that players take; None and "" where there is none.

    has_length: the file says how long it is; in what browsers record, which does not, they cannot jump.
    """

    container: str
    has_length: bool
    video: int | None
    video_codec: str
    pixels: str
    audio: int | None
    audio_codec: str

    @property
    def picture_is_played(self) -> bool:
        return self.video is None or self.pixels in _PIXELS


def write_playable(source: Path, folder: Path, name: str) -> Path:
    """A file in `folder` that browsers play `source` from: `name` and an ending, written whole or not at all.

    A file that browsers play as it is stays itself where it lies in `folder`, and else becomes a hard link, or a copy
    on another file system. Of any other one, streams that they play are copied packet by packet and the rest is
    encoded: H.264 of at most 1280x720 pixels' area, AAC with 96 kbit/s.

    Raises:
        DataError: `source` cannot be read as media or has neither picture nor sound, `folder` cannot be written to, or
            ffmpeg refuses; its words are in the message.
    """
    streams = _streams(source)
    if _plays(source, streams):
        if source.resolve().parent == folder.resolve():
            return folder / source.resolve().name
        target = folder / f"{name}{source.suffix.lower()}"
        _link_or_copy(source, target)
        return target
    target = folder / f"{name}{'.m4a' if streams.video is None else '.mp4'}"
    film = ffmpeg.input(local_url(source), **READ_OPTIONS)
    trusted = streams.container in _TRUSTED
    parts: list[Any] = []
    options: dict[str, Any] = {"map_metadata": -1, "sn": None, "dn": None}
    if streams.video is not None:
        picture = film[str(streams.video)]
        if trusted and streams.video_codec == "h264" and streams.picture_is_played:
            options["vcodec"] = "copy"
        else:
            picture = picture.filter("scale", _SIDE.format(side="iw"), _SIDE.format(side="ih"))
            options |= X264_OPTIONS | {"vcodec": "libx264", "pix_fmt": "yuv420p", "crf": _CRF}
        parts.append(picture)
    if streams.audio is not None:
        parts.append(film[str(streams.audio)])
        if trusted and streams.audio_codec in ("aac", "mp3"):
            options["acodec"] = "copy"
        else:
            options |= {"acodec": "aac", "audio_bitrate": "96k", "ac": 2, "ar": 48_000}
    with atomic_path(target) as temporary:
        command = ffmpeg.output(*parts, local_url(temporary), format="mp4", **options)
        run_ffmpeg(command, f"cannot make a file of {source} that browsers play")
    return target


def _plays(path: Path, streams: _Streams) -> bool:
    container, pictures, sounds = _PLAYED.get(path.suffix.lower(), ("", set(), set()))
    return (
        streams.container == container
        and streams.has_length
        and (streams.video is None or streams.video_codec in pictures)
        and (streams.audio is None or streams.audio_codec in sounds)
        and streams.picture_is_played
    )


def _streams(path: Path) -> _Streams:
    with open_media(path) as container:
        name = container.format.name.split(",")[0]
        video, audio = _stream(video_stream, path, container), _stream(audio_stream, path, container)
        if video is None and audio is None:
            raise DataError(f"{path} has neither picture nor sound that can be decoded")
        return _Streams(
            container=name,
            has_length=container.duration is not None,
            video=video and video.index,
            video_codec=_codec(video) if video else "",
            pixels=(video.codec_context.pix_fmt or "") if video else "",
            audio=audio and audio.index,
            audio_codec=_codec(audio) if audio else "",
        )


def _stream(choose: Any, path: Path, container: InputContainer) -> Any:
    try:
        return choose(path, container)
    except DataError:
        return None


def _codec(stream: Stream) -> str:
    name: str = stream.codec_context.name
    return _CODECS.get(name, name)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        with _linked(source.resolve(), target) as link:
            link.replace(target)
    except OSError:  # another file system, or one without links, or somebody else's file
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)


@contextmanager
def _linked(source: Path, target: Path) -> Iterator[Path]:
    """A hard link beside `target`. Not by `atomic_path`: that sets permissions, which a link shares with its source."""
    link = target.with_name(f".{target.stem}.{os.getpid()}.tmp{target.suffix}")
    link.unlink(missing_ok=True)
    os.link(source, link)
    try:
        yield link
    finally:
        link.unlink(missing_ok=True)  # it is still there where `target` was a link to the same file already
