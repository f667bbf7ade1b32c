"""Sound of a file as mono samples, and the other way round."""

import re
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from math import gcd
from pathlib import Path

import av
import numpy as np
import soundfile
from av.audio.stream import AudioStream
from av.container import InputContainer

from data_tools.errors import DataError
from data_tools.files import atomic_path
from data_tools.media.source import MAX_DURATION_S, ClipError, check_file, first_audio, open_media

AUDIO_RATE_HZ = 16_000
# Beyond these a sound is refused, as a video is beyond its limits. The rates are those of speech, from half a
# telephone's to a studio's; 2 ** 30 samples (a channel) are 6.2 hours at 48 kHz, and fit into a 16-bit wav.
MIN_RATE_HZ, MAX_RATE_HZ = 4_000, 192_000
MAX_CHANNELS = 64
MAX_SAMPLES = 2**30

_BLOCK = 1 << 16
_WAV = re.compile(rb"(RIFF|RIFX|RF64)....WAVE", re.DOTALL)


def read_audio(
    path: Path, rate_hz: int = AUDIO_RATE_HZ, start_s: float = 0.0, end_s: float | None = None
) -> np.ndarray:
    """The sound of any media file, or of its interval [start_s, end_s): (S,) float32 in [-1, 1], mean of channels.

    A wav is read from `start_s` on, so an interval of a long file costs no more than itself; other files are decoded
    from the beginning. The result is shorter than asked where the file ends before `end_s`.

    Raises:
        DataError: no such file, no audio stream, nothing in the interval, an undecodable stream, or beyond a limit
            (MAX_DURATION_S of what is read, MIN_RATE_HZ, MAX_RATE_HZ, MAX_CHANNELS, MAX_SAMPLES).
    """
    check_file(path)
    try:
        samples, source_hz = _read_wav(path, start_s, end_s)
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
    """Seconds of sound in `path`: of a wav by its size, of other files by decoding.

    Raises:
        DataError: as `read_audio`.
    """
    check_file(path)
    try:
        with _open_wav(path) as file:
            return file.frames / file.samplerate
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

    That is `path` itself where it is a wav; else its sound is decoded once, in little memory, into the mono
    16-bit wav `temporary`, which is gone after the block.

    Raises:
        DataError: as `read_audio`, or `temporary` cannot be written.
    """
    check_file(path)
    try:
        with _open_wav(path):
            pass
    except soundfile.LibsndfileError:
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


@contextmanager
def _open_wav(path: Path) -> Iterator[soundfile.SoundFile]:
    """`path` opened by libsndfile. That reads 25 formats more, some of which name other files: ffmpeg gets those.

    Raises:
        soundfile.LibsndfileError: not a wav, or a damaged one.
        DataError: beyond a limit, or the file cannot be read.
    """
    try:
        with path.open("rb", buffering=0) as file:
            if not _WAV.match(file.read(12)):
                raise soundfile.LibsndfileError(1, f"{path} is not a wav: ")
            file.seek(0)
            with soundfile.SoundFile(file.fileno(), closefd=False) as sound:
                _check_limits(path, sound.samplerate, sound.channels)
                yield sound
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _read_wav(path: Path, start_s: float, end_s: float | None) -> tuple[np.ndarray, int]:
    with _open_wav(path) as file:
        rate_hz = file.samplerate
        if file.frames > MAX_DURATION_S * rate_hz and end_s is None:
            raise _too_long(path, file.frames / rate_hz)
        first = min(round(start_s * rate_hz), file.frames)
        last = file.frames if end_s is None else min(round(end_s * rate_hz), file.frames)
        file.seek(first)
        # Block by block: of many channels only the mean is ever held as a whole.
        blocks = file.blocks(_BLOCK, frames=max(0, last - first), dtype="float32", always_2d=True)
        kept = [block.mean(axis=1, dtype=np.float32) for block in blocks]
    return _joined(kept), rate_hz


def _read_with_av(path: Path, start_s: float, end_s: float | None) -> tuple[np.ndarray, int]:
    kept: list[np.ndarray] = []
    at, rate_hz = 0, AUDIO_RATE_HZ
    for chunk, rate in _decode(path):
        rate_hz = rate
        first = round(start_s * rate)
        last = None if end_s is None else round(end_s * rate)
        if last is not None and at >= last:
            break
        kept.append(chunk[max(0, first - at) : None if last is None else last - at])
        at += len(chunk)
    return _joined(kept), rate_hz


def _joined(chunks: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(chunks) if chunks else np.zeros(0, np.float32)


def _decode(path: Path) -> Iterator[tuple[np.ndarray, int]]:
    """Chunks (S,) float32 of the mean channel, and their rate; silence stands in where the sound starts late."""
    with open_media(path) as container:
        stream = first_audio(container)
        if stream is None:
            raise DataError(f"{path} has no audio stream that can be decoded")
        rate_hz = stream.codec_context.sample_rate
        _check_limits(path, rate_hz, stream.codec_context.channels)
        count = 0
        for chunk in _chunks(container, stream, rate_hz):
            count += len(chunk)
            if count > MAX_DURATION_S * rate_hz or count > MAX_SAMPLES:
                raise _too_long(path, count / rate_hz)
            yield chunk, rate_hz


def _chunks(container: InputContainer, stream: AudioStream, rate_hz: int) -> Iterator[np.ndarray]:
    planar, shape = av.AudioResampler(format="fltp", rate=rate_hz), None
    for frame in container.decode(stream):
        if shape is None and frame.time is not None:
            late = round((frame.time - (container.start_time or 0) / av.time_base) * rate_hz)
            for start in range(0, late, _BLOCK):
                yield np.zeros(min(_BLOCK, late - start), np.float32)
        if shape not in (None, _shape(frame)):
            planar = av.AudioResampler(format="fltp", rate=rate_hz)  # it takes frames of one kind only
        shape = _shape(frame)
        for part in planar.resample(frame):
            yield part.to_ndarray().mean(axis=0, dtype=np.float32)


def _shape(frame: av.AudioFrame) -> tuple[object, ...]:
    return frame.format.name, frame.layout.name, frame.sample_rate


def _check_limits(path: Path, rate_hz: int, channels: int) -> None:
    if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
        raise DataError(f"{path} has {rate_hz} samples a second; expected {MIN_RATE_HZ} to {MAX_RATE_HZ}")
    if channels > MAX_CHANNELS:
        raise DataError(f"{path} has {channels} channels; the limit is {MAX_CHANNELS}")


def _too_long(path: Path, seconds: float) -> DataError:
    return DataError(
        f"{path} has {seconds:.0f} s of sound or more; the limits are {MAX_DURATION_S:.0f} s and {MAX_SAMPLES} samples"
    )


def _resample(samples: np.ndarray, source_hz: int, rate_hz: int) -> np.ndarray:
    if source_hz == rate_hz:
        return samples
    common = gcd(source_hz, rate_hz)
    from scipy.signal import resample_poly  # half a second, which most commands do not need

    return resample_poly(samples, rate_hz // common, source_hz // common).astype(np.float32)
