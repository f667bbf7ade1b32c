"""Text -> speech with the prosody of an emotion: espeak-ng called through ctypes, then simple filters."""

import ctypes
import shutil
import tempfile
from pathlib import Path

import espeakng_loader
import numpy as np
from scipy.signal import resample_poly

from data_tools.errors import DataError
from data_tools.standin.cast import Voice
from data_tools.standin.expressions import Prosody

RATE_HZ = 16_000
_NEUTRAL_RMS = 0.06
# From espeak-ng's speak_lib.h.
_SYNCHRONOUS, _UTF8, _END_PAUSE = 2, 1, 0x1000
_RATE, _VOLUME, _PITCH, _RANGE, _WORD_GAP = 1, 2, 3, 4, 7
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class Synthesiser:
    """One espeak-ng in a known state.

    The library keeps counters of its own from one sentence to the next, even after its `Terminate`, so what was spoken
    earlier would change the bytes. Each instance therefore loads a private copy of the library: the same sentences in
    the same order give the same samples in any process.

    Raises:
        DataError: the library or its voices cannot be loaded.
    """

    def __init__(self) -> None:
        with tempfile.TemporaryDirectory(prefix="standin-") as folder:
            copy = Path(shutil.copy(espeakng_loader.get_library_path(), folder))
            try:
                self._espeak = ctypes.CDLL(str(copy))
            except OSError as error:
                raise DataError(f"espeak-ng cannot be loaded ({error}); install espeakng-loader again") from error
        voices = str(espeakng_loader.get_data_path()).encode()
        self._native_hz = self._espeak.espeak_Initialize(_SYNCHRONOUS, 0, voices, 0)
        if self._native_hz <= 0:
            raise DataError(f"espeak-ng finds no voices in {voices.decode()}; install espeakng-loader again")
        # Initialising seeds the noise of breathy voices with the time of day.
        self._espeak.espeak_ng_SetRandSeed(ctypes.c_long(1))
        self._parts: list[np.ndarray] = []
        self._callback = _CALLBACK(self._take)
        self._espeak.espeak_SetSynthCallback(self._callback)

    def say(self, text: str, voice: Voice, prosody: Prosody, rng: np.random.Generator) -> np.ndarray:
        """(S,) float64 in (-1, 1) at RATE_HZ, without silence at the ends. rng: for the breath noise.

        Raises:
            DataError: unknown voice, or no sound came out.
        """
        if self._espeak.espeak_SetVoiceByName(voice.name.encode()) != 0:
            raise DataError(f"espeak-ng has no voice {voice.name!r}; install espeakng-loader again")
        settings = {
            _RATE: prosody.words_per_minute * voice.rate,
            _VOLUME: 100,
            _PITCH: np.clip(prosody.pitch + voice.pitch, 0, 99),
            _RANGE: prosody.pitch_range,
            _WORD_GAP: prosody.gap_ms / 10,
        }
        for parameter, value in settings.items():
            self._espeak.espeak_SetParameter(parameter, round(float(value)), 0)
        self._parts.clear()
        line = text.encode() + b"\0"
        self._espeak.espeak_Synth(line, ctypes.c_size_t(len(line)), 0, 0, 0, _UTF8 | _END_PAUSE, None, None)
        self._espeak.espeak_Synchronize()
        spoken = np.concatenate(self._parts) if self._parts else np.zeros(0, np.int16)
        if not np.any(spoken):
            raise DataError(f"espeak-ng said nothing for {text!r} with voice {voice.name!r}")
        samples = resample_poly(_trimmed(spoken / 32768.0), RATE_HZ, self._native_hz)
        return _shaped(samples, prosody, rng)

    def _take(self, wave: ctypes._Pointer, count: int, _events: int) -> int:
        if wave and count > 0:
            self._parts.append(np.ctypeslib.as_array(wave, (count,)).copy())
        return 0


def _trimmed(samples: np.ndarray) -> np.ndarray:
    loud = np.flatnonzero(np.abs(samples) > 0.01)
    return samples[loud[0] : loud[-1] + 1] if len(loud) else samples


def _shaped(samples: np.ndarray, prosody: Prosody, rng: np.random.Generator) -> np.ndarray:
    """Voice quality and loudness of an emotion."""
    seconds = np.arange(len(samples)) / RATE_HZ
    if prosody.breath:
        envelope = np.sqrt(np.convolve(samples**2, np.ones(400) / 400, mode="same"))
        samples = (1 - prosody.breath) * samples + prosody.breath * envelope * rng.standard_normal(len(samples))
    samples = _tilted(samples, prosody.brightness_db)
    samples = samples * (1 - prosody.tremble * (0.5 + 0.5 * np.sin(2 * np.pi * 11 * seconds)))
    samples = samples * (_NEUTRAL_RMS * prosody.loudness / np.sqrt(np.mean(samples**2)))
    return np.tanh(samples)  # rounds off the rare peak above full scale


def _tilted(samples: np.ndarray, brightness_db: float) -> np.ndarray:
    """A straight line in dB over octaves from 250 Hz to 8 kHz: 0 at 500 Hz, `brightness_db` at 4 kHz."""
    hz = np.fft.rfftfreq(len(samples), 1 / RATE_HZ)
    octaves = np.log2(np.clip(hz, 250, 8000) / 500)
    return np.fft.irfft(np.fft.rfft(samples) * 10 ** (brightness_db * octaves / 3 / 20), len(samples))
