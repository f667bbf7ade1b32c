"""Decoded sound put where its time stamps say, as players do: holes, overlaps and a clock that drifts."""

from collections.abc import Iterator

import numpy as np

# Stamps of usual files are off by a few milliseconds (rounding, jitter of captures): up to here samples stay as they
# are. Up to JUMP_S the clock drifts: the sound is stretched or squeezed from then on until it fits to _FITS_S. Beyond
# JUMP_S samples are missing, or there are too many.
TOLERANCE_S = 0.02
JUMP_S = 0.05
_FITS_S = 0.001
# The error of a drifting clock is made good over this time: one that is wrong by 2 % stays 10 ms behind.
_STRETCH_S = 0.5
_BLOCK = 1 << 16


class SampleClock:
    """Counts the samples that were given out, and compares them with the time stamps of what comes next."""

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._count = 0
        self._drifts = False

    def place(self, samples: np.ndarray, time_s: float | None) -> Iterator[np.ndarray]:
        """Samples (C, S) float32 that belong to `time_s` seconds after the file's zero -> those to give out, in pieces.

        Silence comes first where samples are missing; those that come twice are dropped. time_s: None where the file
        does not say: they follow the last ones.
        """
        late = 0 if time_s is None else round(time_s * self._rate_hz) - self._count
        if late > JUMP_S * self._rate_hz or (late > 0 and not self._count):
            for start in range(0, late, _BLOCK):
                yield self._counted(np.zeros((len(samples), min(_BLOCK, late - start)), np.float32))
        elif late < -JUMP_S * self._rate_hz or (late < 0 and not self._count):
            samples = samples[:, -late:]
        elif self._is_drifting(abs(late) / self._rate_hz):
            samples = _stretched(samples, round(late * samples.shape[1] / (_STRETCH_S * self._rate_hz)))
        if samples.shape[1]:
            yield self._counted(samples)

    def _is_drifting(self, off_s: float) -> bool:
        self._drifts = off_s > (_FITS_S if self._drifts else TOLERANCE_S)
        return self._drifts

    def _counted(self, samples: np.ndarray) -> np.ndarray:
        self._count += samples.shape[1]
        return samples


def _stretched(samples: np.ndarray, more: int) -> np.ndarray:
    """(C, S) -> (C, S + more): the same sound, a little slower or faster."""
    count = samples.shape[1]
    if not more or count < 2 or count + more < 2:
        return samples
    at = np.linspace(0, count - 1, count + more)
    return np.stack([np.interp(at, np.arange(count), channel) for channel in samples]).astype(np.float32)
