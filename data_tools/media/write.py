"""Writing a new video from raw frames, through a pipe to one ffmpeg process."""

import os
import re
import subprocess
import threading
from collections.abc import Iterable
from contextlib import suppress
from fractions import Fraction
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import ffmpeg
import numpy as np

from data_tools.errors import DataError
from data_tools.files import atomic_path
from data_tools.media.source import READ_OPTIONS, STEADY_X264, check_file, local_url

X264_OPTIONS: dict[str, Any] = {"crf": 18, "preset": "veryfast", "x264-params": STEADY_X264}
_CODEC_OPTIONS: dict[str, dict[str, Any]] = {"mpeg4": {"qscale:v": 3, "mpeg_quant": 1}, "libx264": X264_OPTIONS}
_AUDIO_CODECS = {".avi": "pcm_s16le", ".mp4": "aac"}

# Names another ffmpeg than the packaged one; the oldest that knows every option used here (-display_rotation, setts).
FFMPEG_VARIABLE = "EMOTION_PIPELINE_FFMPEG"
OLDEST_FFMPEG = (6, 0)


def ffmpeg_exe() -> str:
    """Path of the ffmpeg program: the one inside imageio-ffmpeg, or the one that EMOTION_PIPELINE_FFMPEG names.

    An ffmpeg on the PATH is not looked for: each version encodes to other bytes, times and durations.

    Raises:
        DataError: the program that is named is missing, cannot be run, is not ffmpeg or is older than OLDEST_FFMPEG;
            or imageio-ffmpeg holds none for this machine.
    """
    named = os.environ.get(FFMPEG_VARIABLE)
    return _checked_ffmpeg(named) if named else _packaged_ffmpeg()


@lru_cache(maxsize=1)
def _packaged_ffmpeg() -> str:
    # Not get_ffmpeg_exe(): that one goes on to look in conda's folder and on the PATH.
    folder = files("imageio_ffmpeg") / "binaries"
    found = sorted(str(file) for file in folder.iterdir() if file.name.startswith("ffmpeg-"))
    if not found:
        raise DataError(
            f"imageio-ffmpeg was installed without its ffmpeg; install its wheel, or set {FFMPEG_VARIABLE} to the path "
            f"of an ffmpeg of version {_dotted(OLDEST_FFMPEG)} or later"
        )
    return found[-1]


@lru_cache(maxsize=8)
def _checked_ffmpeg(program: str) -> str:
    """`program` itself, once it has said that it is an ffmpeg of a version that is new enough."""
    expected = f"expected the path of an ffmpeg of version {_dotted(OLDEST_FFMPEG)} or later"
    try:
        answer = subprocess.run(
            [program, "-version"], capture_output=True, text=True, errors="replace", timeout=60, check=False
        )
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        why = getattr(error, "strerror", None) or error
        raise DataError(f"{FFMPEG_VARIABLE} is {program!r}, which cannot be run ({why}); {expected}") from error
    if answer.returncode or not answer.stdout.startswith("ffmpeg version"):
        raise DataError(f"{FFMPEG_VARIABLE} is {program!r}, which is not ffmpeg; {expected}")
    # "6.1.1-3ubuntu5", "n7.0"; builds of a day's source ("N-118193-g...", "2024-11-07-git-...") state no version.
    version = re.match(r"ffmpeg version n?(\d{1,3})\.(\d+)", answer.stdout)
    if version and (int(version[1]), int(version[2])) < OLDEST_FFMPEG:
        raise DataError(f"{FFMPEG_VARIABLE} is {program!r}, ffmpeg {version[1]}.{version[2]}; {expected}")
    return program


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def write_video(
    path: Path,
    frames: Iterable[np.ndarray],
    size: tuple[int, int],
    fps: Fraction | float,
    codec: Literal["mpeg4", "libx264"] = "libx264",
    *,
    tag: str | None = None,
    audio: Path | None = None,
) -> None:
    """Write `frames`, each (H, W, 3) uint8 RGB, at a constant rate; the same input gives the same bytes.

    The suffix of `path` chooses the container (.avi, .mp4, .mkv). size: (width, height) in pixels, both even.
    tag: the four letters that name the codec in the file, e.g. "DIVX".
    audio: a sound file that becomes the sound track (PCM in .avi, AAC elsewhere).

    Raises:
        DataError: a frame of another size or type, an odd size, no frame at all, no sound file, or ffmpeg refuses;
            nothing is left behind then.
    """
    width, height = size
    if width <= 0 or height <= 0 or width % 2 or height % 2:
        raise DataError(f"video size is {width}x{height}: both sides must be positive and even (yuv420p)")
    if audio is not None:
        check_file(audio)
    with atomic_path(path) as temporary:
        process = _start_ffmpeg(
            temporary, size, Fraction(fps).limit_denominator(100_000), codec=codec, tag=tag, audio=audio
        )
        said: list[bytes] = []
        # Read what ffmpeg says beside the writing: a full pipe on either side would stop both for ever.
        listener = threading.Thread(target=lambda: said.append(process.stderr.read()))
        listener.start()
        count, refused = 0, None
        try:
            for frame in frames:
                if frame.shape != (height, width, 3) or frame.dtype != np.uint8:
                    refused = f"frame {count} is {frame.dtype} {frame.shape}, expected uint8 {(height, width, 3)}"
                    break
                process.stdin.write(np.ascontiguousarray(frame).data)
                count += 1
        except BrokenPipeError:
            pass  # ffmpeg has ended; its exit status and words below say why
        except BaseException:
            process.kill()
            raise
        finally:
            with suppress(BrokenPipeError):
                process.stdin.close()
            status = process.wait()
            listener.join()
            process.stderr.close()
        if refused or not count:
            raise DataError(f"cannot write {path}: {refused or 'there are no frames'}")
        if status:
            words = b"".join(said).decode(errors="replace").strip()[-500:]
            raise DataError(f"cannot write {path}: ffmpeg ended with {status}: {words}")


def _start_ffmpeg(
    target: Path, size: tuple[int, int], fps: Fraction, *, codec: str, tag: str | None, audio: Path | None
) -> Any:
    inputs = [
        ffmpeg.input(
            "pipe:",
            format="rawvideo",
            pixel_format="rgb24",
            video_size=size,
            framerate=f"{fps.numerator}/{fps.denominator}",
            protocol_whitelist="pipe",
        )
    ]
    options: dict[str, Any] = {
        "vcodec": codec,
        "pix_fmt": "yuv420p",
        "threads": 1,
        "fflags": "+bitexact",
        "flags:v": "+bitexact",
        **_CODEC_OPTIONS[codec],
    }
    if tag:
        options["vtag"] = tag
    if audio is not None:
        inputs.append(ffmpeg.input(local_url(audio), **READ_OPTIONS).audio)
        options |= {"acodec": _AUDIO_CODECS.get(target.suffix, "aac"), "flags:a": "+bitexact"}
    return (
        ffmpeg.output(*inputs, local_url(target), **options)
        .global_args("-hide_banner", "-loglevel", "error", "-nostdin")
        .overwrite_output()
        .run_async(cmd=ffmpeg_exe(), pipe_stdin=True, pipe_stderr=True)
    )
