"""Sound of a file as mono samples, and the other way round."""

import math
import re
import wave
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Literal

import av
import numpy as np
import soundfile
from av.audio.stream import AudioStream
from av.container import InputContainer

from data_tools.errors import DataError
from data_tools.files import atomic_path
from data_tools.media.mix import mix
from data_tools.media.packets import packets
from data_tools.media.sample_clock import SampleClock
from data_tools.media.source import (
    MAX_DURATION_S,
    ClipError,
    audio_stream,
    check_file,
    clock_streams,
    open_media,
    zero_s,
)

AUDIO_RATE_HZ = 16_000
# Beyond these a sound is refused, as a video is beyond its limits. The rates are those of speech, from half a
# telephone's to a studio's; 2 ** 30 samples (a channel) are 6.2 hours at 48 kHz, and fit into a 16-bit wav.
MIN_RATE_HZ, MAX_RATE_HZ = 4_000, 192_000
MAX_CHANNELS = 64
MAX_SAMPLES = 2**30

_BLOCK = 1 << 16
_WAV = re.compile(rb"(RIFF|RIFX|RF64)....WAVE", re.DOTALL)
# A piece of a wav begins with four letters and its length. Four letters that may follow the samples.
_LETTERS = re.compile(rb"[A-Za-z0-9_ -]{4}")
_MAX_PIECES = 1000

WRONG_LENGTH = "its header states another length than its audio has: it was read to the end of the file"


def read_audio(
    path: Path,
    rate_hz: int = AUDIO_RATE_HZ,
    start_s: float = 0.0,
    end_s: float | None = None,
    *,
    stream: int | None = None,
    notes: list[str] | None = None,
) -> np.ndarray:
    """The sound of any media file, or of its interval [start_s, end_s): (S,) float32 in [-1, 1], one channel.

    Every sample lies where its time stamp says, on the clock that the file's pictures have too: holes are silent, what
    overlaps is dropped, a clock that drifts is followed. Two channels become one by `data_tools.media.mix`; more are
    first mixed down to two, as players do it. A wav is read from `start_s` on, so an interval of a long file costs no
    more than itself; other files are decoded from the beginning. The result is shorter than asked where the file ends
    before `end_s`.

    stream: number of the audio stream among those of the file, from 0; None for the one that players take.
    notes: gets a sentence for whatever had to be done to the sound.

    Raises:
        DataError: no such file, no audio stream (of this number), nothing in the interval, an undecodable stream, or
            beyond a limit (MAX_DURATION_S of what is read, MIN_RATE_HZ, MAX_RATE_HZ, MAX_CHANNELS, MAX_SAMPLES).
    """
    check_file(path)
    said: list[str] = []
    try:
        channels, source_hz = _read_wav(path, start_s, end_s, stream)
    except soundfile.LibsndfileError:
        channels, source_hz = _read_with_av(path, start_s, end_s, stream)
        if _length_is_wrong(path):
            said.append(WRONG_LENGTH)
    samples, how = mix(channels)
    if how:
        said.append(how)
    if notes is not None:
        notes += said
    if len(samples) == 0:
        raise DataError(
            f"{path} has no sound from {start_s:.3f} s to {'its end' if end_s is None else f'{end_s:.3f} s'}"
        )
    return _checked(path, samples, source_hz, rate_hz)


def read_intervals(
    path: Path, intervals: Iterable[tuple[float, float]], rate_hz: int = AUDIO_RATE_HZ
) -> Iterator[np.ndarray]:
    """The sound of each interval [start_s, end_s) of a file, as `read_audio` gives it, in one decoding pass.

    Packets that cannot be decoded are left out, as in `read_frames`: the sound around them still counts.

    intervals: rising by start_s; they may overlap, and there may be no end of them. Where the file has no sound the
    result is (0,). Memory holds the longest interval, not the file.

    Raises:
        DataError: as `read_audio`, when the sound that it concerns is reached.
    """
    check_file(path)
    try:
        with _open_wav(path, None) as file:
            source_hz = file.samplerate
        pieces = _wav_pieces(path, intervals)
    except soundfile.LibsndfileError:
        chunks = _decode(path, None, skips_damage=True)
        first = next(chunks, None)
        source_hz = AUDIO_RATE_HZ if first is None else first[1]
        pieces = _cut_out(
            chain([] if first is None else [first[0]], (chunk for chunk, _ in chunks)), source_hz, intervals
        )
    for channels in pieces:
        samples, _ = mix(channels)
        yield _checked(path, samples, source_hz, rate_hz) if len(samples) else samples


def _wav_pieces(path: Path, intervals: Iterable[tuple[float, float]]) -> Iterator[np.ndarray]:
    for start_s, end_s in intervals:
        try:
            yield _read_wav(path, start_s, None if math.isinf(end_s) else end_s, None)[0]
        except soundfile.LibsndfileError as error:
            raise DataError(f"{path} cannot be read: {error}") from error


def _cut_out(
    chunks: Iterator[np.ndarray], rate_hz: int, intervals: Iterable[tuple[float, float]]
) -> Iterator[np.ndarray]:
    """(C, S) of each interval out of chunks that follow each other from the file's zero on."""
    kept: deque[tuple[int, np.ndarray]] = deque()  # with the place of their first sample
    at, width = 0, 1
    for start_s, end_s in intervals:
        first, last = round(start_s * rate_hz), math.inf if math.isinf(end_s) else round(end_s * rate_hz)
        while kept and kept[0][0] + kept[0][1].shape[1] <= first:
            kept.popleft()
        while at < last and (chunk := next(chunks, None)) is not None:
            at, width = at + chunk.shape[1], len(chunk)
            if at > first:
                kept.append((at - chunk.shape[1], chunk))
        parts = [chunk[:, max(0, first - place) : max(0, min(last, at) - place)] for place, chunk in kept]
        yield np.concatenate(parts, axis=1) if parts else np.zeros((width, 0), np.float32)


def audio_duration_s(path: Path, stream: int | None = None) -> float:
    """Seconds of sound in `path`: of a wav by its size, of other files by decoding. stream: as in `read_audio`.

    Raises:
        DataError: as `read_audio`.
    """
    check_file(path)
    try:
        with _open_wav(path, stream) as file:
            return file.frames / file.samplerate
    except soundfile.LibsndfileError:
        count, rate_hz = 0, 1
        for chunk, rate in _decode(path, stream):
            count, rate_hz = count + chunk.shape[1], rate
        return count / rate_hz


def write_wav(path: Path, samples: np.ndarray, rate_hz: int = AUDIO_RATE_HZ) -> None:
    """Write (S,) float32 samples in [-1, 1] as a mono 16-bit PCM wav, whole or not at all; louder ones are clipped.

    Raises:
        DataError: the target cannot be written.
    """
    with atomic_path(path) as temporary, _wav_writer(temporary, rate_hz, 1) as file:
        file.writeframes(_pcm(samples))


def _wav_writer(path: Path, rate_hz: int, channels: int) -> wave.Wave_write:
    """A 16-bit wav to be filled. The standard library's: on a full disk it raises OSError, soundfile asserts."""
    file = wave.open(str(path), "wb")  # noqa: SIM115 - the caller closes it
    file.setnchannels(channels)
    file.setsampwidth(2)
    file.setframerate(rate_hz)
    return file


def _pcm(samples: np.ndarray) -> bytes:
    return np.round(np.clip(samples, -1.0, 32767 / 32768) * 32768).astype("<i2").tobytes()


@contextmanager
def seekable_sound(
    path: Path, temporary: Path, stream: int | None = None, notes: list[str] | None = None
) -> Iterator[Path]:
    """A file with the sound of `path` from which `read_audio` takes intervals cheaply.

    That is `path` itself where it is a wav; else its sound is decoded once, in little memory, into the 16-bit wav
    `temporary` of one or two channels, which is gone after the block. stream, notes: as in `read_audio`.

    Raises:
        DataError: as `read_audio`, or `temporary` cannot be written.
    """
    check_file(path)
    try:
        with _open_wav(path, stream):
            pass
    except soundfile.LibsndfileError:
        pass
    else:
        yield path
        return
    if notes is not None and _length_is_wrong(path):
        notes.append(WRONG_LENGTH)
    try:
        _decode_to_wav(path, temporary, stream)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _decode_to_wav(path: Path, target: Path, stream: int | None) -> None:
    chunks = _decode(path, stream)
    try:
        first, rate_hz = next(chunks)
    except StopIteration:
        raise DataError(f"{path} has an audio stream without sound") from None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _wav_writer(target, rate_hz, len(first)) as file:
            file.writeframes(_pcm(first.T))
            for chunk, _ in chunks:
                file.writeframes(_pcm(chunk.T))
    except OSError as error:
        raise ClipError(f"cannot write {target}: {error}; check permissions and free space") from error


@contextmanager
def _open_wav(path: Path, stream: int | None) -> Iterator[soundfile.SoundFile]:
    """`path` opened by libsndfile. That reads 25 formats more, some of which name other files: ffmpeg gets those.

    Raises:
        soundfile.LibsndfileError: not a wav, a damaged one, one of more than two channels, or one whose header states
            a wrong length: ffmpeg gets those too.
        DataError: beyond a limit, or the file cannot be read.
    """
    try:
        with path.open("rb", buffering=0) as file:
            if not _WAV.match(file.read(12)):
                raise soundfile.LibsndfileError(1, f"{path} is not a wav: ")
            file.seek(0)
            if stream or _length_is_wrong(path):
                raise soundfile.LibsndfileError(1, f"{path} states a wrong length: ")
            with soundfile.SoundFile(file.fileno(), closefd=False) as sound:
                _check_limits(path, sound.samplerate, sound.channels)
                if sound.channels > 2:
                    raise soundfile.LibsndfileError(1, f"{path} has more than two channels: ")
                yield sound
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _length_is_wrong(path: Path) -> bool:
    """Return True if `path` is a wav with audio beyond the length that its header states.

    A recorder writes the length last: one that was cut off leaves 0, or that of a while before. What follows the
    samples in a sound file are pieces of four letters and a length each. A header that states more than there is
    needs no care: all readers stop at the end.
    """
    try:
        with path.open("rb") as file:
            start = file.read(12)
            if not _WAV.match(start):
                return False
            kind, size = start[:4], path.stat().st_size
            order: Literal["big", "little"] = "big" if kind == b"RIFX" else "little"
            at, samples_end = 12, None
            for _ in range(_MAX_PIECES):
                file.seek(at)
                head = file.read(8)
                if len(head) < 8:
                    return False
                if samples_end is not None and not _LETTERS.fullmatch(head[:4]):
                    return True
                length = int.from_bytes(head[4:], order)
                if head[:4] == b"data":
                    if kind not in (b"RIFF", b"RIFX") or at + 8 + length >= size:
                        return False  # RF64 states its length elsewhere
                    if not length:
                        return True
                    samples_end = at + 8 + length
                at += 8 + length + length % 2
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    return False


def _read_wav(path: Path, start_s: float, end_s: float | None, stream: int | None) -> tuple[np.ndarray, int]:
    with _open_wav(path, stream) as file:
        rate_hz = file.samplerate
        if file.frames > MAX_DURATION_S * rate_hz and end_s is None:
            raise _too_long(path, file.frames / rate_hz)
        first = min(round(start_s * rate_hz), file.frames)
        last = file.frames if end_s is None else min(round(end_s * rate_hz), file.frames)
        file.seek(first)
        return file.read(max(0, last - first), dtype="float32", always_2d=True).T, rate_hz


def _read_with_av(path: Path, start_s: float, end_s: float | None, stream: int | None) -> tuple[np.ndarray, int]:
    kept: list[np.ndarray] = []
    at, rate_hz = 0, AUDIO_RATE_HZ
    for chunk, rate in _decode(path, stream):
        rate_hz = rate
        first = round(start_s * rate)
        last = None if end_s is None else round(end_s * rate)
        if last is not None and at >= last:
            break
        kept.append(chunk[:, max(0, first - at) : None if last is None else last - at])
        at += chunk.shape[1]
    return np.concatenate(kept, axis=1) if kept else np.zeros((1, 0), np.float32), rate_hz


def _decode(path: Path, number: int | None, skips_damage: bool = False) -> Iterator[tuple[np.ndarray, int]]:
    """Chunks (C, S) float32 of one or two channels, and their rate, from the file's zero on without a gap.

    skips_damage: packets that cannot be decoded are silent, instead of an error.
    """
    options = {"ignore_length": "1"} if _length_is_wrong(path) else {}
    with open_media(path, options) as container:
        stream = audio_stream(path, container, number)
        rate_hz = stream.codec_context.sample_rate
        _check_limits(path, rate_hz, stream.codec_context.channels)
        count = 0
        for chunk in _chunks(container, stream, rate_hz, skips_damage):
            count += chunk.shape[1]
            if count > MAX_DURATION_S * rate_hz or count > MAX_SAMPLES:
                raise _too_long(path, count / rate_hz)
            yield chunk, rate_hz


def _chunks(container: InputContainer, stream: AudioStream, rate_hz: int, skips_damage: bool) -> Iterator[np.ndarray]:
    clock = SampleClock(rate_hz)
    zero = zero_s(container)
    layout = "mono" if stream.codec_context.channels == 1 else "stereo"
    planar, shape = None, None
    for packet in packets(container, stream, clock_streams(container)):
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            if not skips_damage:
                raise
            continue
        for frame in frames:
            assert isinstance(frame, av.AudioFrame)
            if planar is None or shape != _shape(frame):
                # It takes frames of one kind only.
                planar = av.AudioResampler(format="fltp", layout=layout, rate=rate_hz)
            shape = _shape(frame)
            time_s = None if frame.time is None else frame.time - zero
            for number, part in enumerate(planar.resample(frame)):
                yield from clock.place(part.to_ndarray(), None if number else time_s)
    yield from clock.finish()


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


def _checked(path: Path, samples: np.ndarray, source_hz: int, rate_hz: int) -> np.ndarray:
    """Samples at `rate_hz`, in [-1, 1]."""
    if not np.isfinite(samples).all():
        raise DataError(f"{path} holds samples that are not numbers (NaN or infinite)")
    return np.clip(_resample(samples, source_hz, rate_hz), -1.0, 1.0)


def _resample(samples: np.ndarray, source_hz: int, rate_hz: int) -> np.ndarray:
    if source_hz == rate_hz:
        return samples
    common = math.gcd(source_hz, rate_hz)
    from scipy.signal import resample_poly  # half a second, which most commands do not need

    return resample_poly(samples, rate_hz // common, source_hz // common).astype(np.float32)
