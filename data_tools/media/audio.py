"""Sound of a file as mono samples, and the other way round."""

import wave
from collections.abc import Iterator
from contextlib import contextmanager
from math import gcd
from pathlib import Path

import av
import numpy as np
import soundfile
from scipy.signal import resample_poly

from data_tools.errors import DataError
from data_tools.files import atomic_path
from data_tools.media.source import MAX_DURATION_S, ClipError, open_media

AUDIO_RATE_HZ = 16_000
_MAX_RATE_HZ = 384_000


def read_audio(
    path: Path, rate_hz: int = AUDIO_RATE_HZ, start_s: float = 0.0, end_s: float | None = None
) -> np.ndarray:
    """The sound of any media file, or of its interval [start_s, end_s): (S,) float32 in [-1, 1], mean of channels.

    Uncompressed and FLAC files are read from `start_s` on, so an interval of a long file costs no more than itself;
    other codecs are decoded from the beginning. The result is shorter than asked where the file ends before `end_s`.

    Raises:
        DataError: no such file, no audio stream, nothing in the interval, or an undecodable stream.
    """
    if not path.is_file():
        raise DataError(f"no audio file {path}")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is an empty file (0 bytes); copy it again from the release")
    try:
        samples, source_hz = _read_with_soundfile(path, start_s, end_s)
    except soundfile.LibsndfileError:
        samples, source_hz = _read_with_av(path, start_s, end_s)
    if len(samples) == 0:
        raise DataError(
            f"{path} has no sound from {start_s:.3f} s to {'its end' if end_s is None else f'{end_s:.3f} s'}"
        )
    if not np.isfinite(samples).all():
        raise DataError(f"{path} holds samples that are not numbers (NaN or infinite)")
    return np.clip(_resample(samples, source_hz, rate_hz), -1.0, 1.0)


def audio_duration_s(path: Path) -> float:
    """Seconds of sound in `path`: counted by the header of an uncompressed file, by decoding for other codecs.

    Raises:
        DataError: as `read_audio`.
    """
    try:
        return soundfile.info(str(path)).duration
    except soundfile.LibsndfileError:
        count, rate_hz = 0, 1
        for chunk, rate in _decode(path):
            count, rate_hz = count + len(chunk), rate
        return count / rate_hz


def write_wav(path: Path, samples: np.ndarray, rate_hz: int = AUDIO_RATE_HZ) -> None:
    """Write (S,) float32 samples in [-1, 1] as a mono 16-bit PCM wav, whole or not at all; louder ones are clipped.

    Raises:
        DataError: the target cannot be written.
    """
    with atomic_path(path) as temporary, _wav_writer(temporary, rate_hz) as file:
        file.writeframes(_pcm(samples))


def _wav_writer(path: Path, rate_hz: int) -> wave.Wave_write:
    """A mono 16-bit wav to be filled. The standard library's: on a full disk it raises OSError, soundfile asserts."""
    file = wave.open(str(path), "wb")  # noqa: SIM115 - the caller closes it
    file.setnchannels(1)
    file.setsampwidth(2)
    file.setframerate(rate_hz)
    return file


def _pcm(samples: np.ndarray) -> bytes:
    return np.round(np.clip(samples, -1.0, 32767 / 32768) * 32768).astype("<i2").tobytes()


@contextmanager
def seekable_sound(path: Path, temporary: Path) -> Iterator[Path]:
    """A file with the sound of `path` from which `read_audio` takes intervals cheaply.

    That is `path` itself where it is uncompressed; else its sound is decoded once, in little memory, into the mono
    16-bit wav `temporary`, which is gone after the block.

    Raises:
        DataError: as `read_audio`, or `temporary` cannot be written.
    """
    try:
        soundfile.info(str(path))
    except (soundfile.LibsndfileError, OSError):
        pass
    else:
        yield path
        return
    try:
        _decode_to_wav(path, temporary)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _decode_to_wav(path: Path, target: Path) -> None:
    chunks = _decode(path)
    try:
        first, rate_hz = next(chunks)
    except StopIteration:
        raise DataError(f"{path} has an audio stream without sound") from None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _wav_writer(target, rate_hz) as file:
            file.writeframes(_pcm(first))
            for chunk, _ in chunks:
                file.writeframes(_pcm(chunk))
    except OSError as error:
        raise ClipError(f"cannot write {target}: {error}; check permissions and free space") from error


def _read_with_soundfile(path: Path, start_s: float, end_s: float | None) -> tuple[np.ndarray, int]:
    with soundfile.SoundFile(str(path)) as file:
        rate_hz = file.samplerate
        if file.frames > MAX_DURATION_S * rate_hz and end_s is None:
            raise DataError(f"{path} lasts {file.frames / rate_hz:.0f} s; the limit is {MAX_DURATION_S:.0f} s")
        first = min(round(start_s * rate_hz), file.frames)
        last = file.frames if end_s is None else min(round(end_s * rate_hz), file.frames)
        file.seek(first)
        samples = file.read(max(0, last - first), dtype="float32", always_2d=True)
    return samples.mean(axis=1, dtype=np.float32), rate_hz


def _read_with_av(path: Path, start_s: float, end_s: float | None) -> tuple[np.ndarray, int]:
    kept: list[np.ndarray] = []
    at, rate_hz = 0, AUDIO_RATE_HZ
    for chunk, rate in _decode(path):
        rate_hz = rate
        first = round(start_s * rate)
        last = round((MAX_DURATION_S if end_s is None else end_s) * rate)
        if at >= last:
            break
        kept.append(chunk[max(0, first - at) : last - at])
        at += len(chunk)
    return (np.concatenate(kept) if kept else np.zeros(0, np.float32)), rate_hz


def _decode(path: Path) -> Iterator[tuple[np.ndarray, int]]:
    """Chunks (S,) float32 of the mean channel, and their rate; silence stands in where the sound starts late."""
    with open_media(path) as container:
        stream = next(iter(container.streams.audio), None)
        if stream is None:
            raise DataError(f"{path} has no audio stream")
        rate_hz = stream.codec_context.sample_rate
        if not 0 < rate_hz <= _MAX_RATE_HZ:
            raise DataError(f"{path} states an audio rate of {rate_hz} Hz; expected 1 to {_MAX_RATE_HZ}")
        planar = av.AudioResampler(format="fltp", rate=rate_hz)
        started = False
        for frame in container.decode(stream):
            if not started and frame.time is not None:
                late_s = frame.time - (container.start_time or 0) / av.time_base
                yield np.zeros(max(0, round(late_s * rate_hz)), np.float32), rate_hz
            started = True
            for part in planar.resample(frame):
                yield part.to_ndarray().mean(axis=0, dtype=np.float32), rate_hz


def _resample(samples: np.ndarray, source_hz: int, rate_hz: int) -> np.ndarray:
    if source_hz == rate_hz:
        return samples
    common = gcd(source_hz, rate_hz)
    return resample_poly(samples, rate_hz // common, source_hz // common).astype(np.float32)
