"""Work of one ffmpeg process alone: a plain pass over videos, which cutting is measured against, and loops."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ffmpeg

from data_tools.errors import DataError
from data_tools.files import atomic_path
from data_tools.media.source import READ_OPTIONS, check_file, has_audio, local_url
from data_tools.media.write import X264_OPTIONS, ffmpeg_exe


@dataclass(frozen=True)
class PlainPass:
    """One video to be encoded anew: `source` -> `target`, an .mp4.

    box: (left, top, width, height) in source pixels, None for the whole picture. intervals_s: the (start, end) that
    are kept, one after the other, overlaps once; None for everything. sound: encode the sound too, where there is one.
    """

    source: Path
    target: Path
    box: tuple[int, int, int, int] | None = None
    intervals_s: Sequence[tuple[float, float]] | None = None
    sound: bool = False


def transcode(passes: Sequence[PlainPass], crf: int) -> str:
    """Decode all sources, from beginning to end, and encode what is wanted of them, in one ffmpeg process.

    The settings are the clips': H.264 (veryfast, yuv420p), AAC with 64 kbit/s, mono, 16 kHz. ffmpeg takes as many
    threads as it likes. Returns the command as a person would type it.

    Raises:
        DataError: no such file, or ffmpeg refuses; its words are in the message. No target is left then.
    """
    for each in passes:
        check_file(each.source)
    with ExitStack() as opened:
        targets = [opened.enter_context(atomic_path(each.target)) for each in passes]
        outputs = [_output(each, target, crf) for each, target in zip(passes, targets, strict=True)]
        return run_ffmpeg(ffmpeg.merge_outputs(*outputs), f"cannot transcode {passes[0].source}")


def loop_video(source: Path, target: Path, seconds: float) -> None:
    """Write `source` again and again, its packets as they are, until `target` lasts `seconds`, or a few frames more.

    Raises:
        DataError: as `transcode`.
    """
    check_file(source)
    with atomic_path(target) as temporary:
        looped = ffmpeg.input(local_url(source), stream_loop=-1, **READ_OPTIONS)
        run_ffmpeg(looped.output(local_url(temporary), c="copy", t=seconds), f"cannot loop {source}")


def _output(each: PlainPass, target: Path, crf: int) -> Any:
    source = ffmpeg.input(local_url(each.source), **READ_OPTIONS)
    picture, sound = source.video, source.audio
    options: dict[str, Any] = X264_OPTIONS | {"vcodec": "libx264", "pix_fmt": "yuv420p", "crf": crf}
    if each.intervals_s is not None:
        wanted = "+".join(f"between(t,{start_s:.4f},{end_s:.4f})" for start_s, end_s in each.intervals_s)
        picture = picture.filter("select", wanted).filter("setpts", "N/FRAME_RATE/TB")
        sound = sound.filter("aselect", wanted).filter("asetpts", "N/SR/TB")
    if each.box is not None:
        picture = picture.crop(*each.box)
    if not (each.sound and has_audio(each.source)):
        return ffmpeg.output(picture, local_url(target), **options)
    options |= {"acodec": "aac", "audio_bitrate": "64k", "ac": 1, "ar": 16_000}
    return ffmpeg.output(picture, sound, local_url(target), **options)


def run_ffmpeg(command: Any, failure: str) -> str:
    """Run a command of ffmpeg-python to its end and return it as a person would type it.

    Raises:
        DataError: ffmpeg refuses; the message is `failure` and its words.
    """
    command = command.overwrite_output().global_args("-loglevel", "error", "-nostdin")
    try:
        command.run(cmd=ffmpeg_exe(), capture_stderr=True)
    except ffmpeg.Error as error:
        words = error.stderr.decode(errors="replace").strip()[-500:]
        raise DataError(f"{failure}: {words}") from error
    return " ".join(["ffmpeg", *command.get_args()])
