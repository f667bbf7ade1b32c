"""Decoded sound put where its time stamps say, as players do: holes, overlaps and a clock that drifts."""

from collections.abc import Iterator

import numpy as np

# Stamps of usual files are off by a few milliseconds (rounding, jitter of captures): up to TOLERANCE_S samples stay as
# they are. From there to JUMP_S, a clock that has got there by and by drifts: the sound is stretched or squeezed until
# it fits to _FITS_S. One that has got there at once has lost samples or has too many, as beyond JUMP_S.
TOLERANCE_S = 0.02
JUMP_S = 0.05
_AT_ONCE_S = 0.01
_FITS_S = 0.001
# The error of a drifting clock is made good over this time: one that is wrong by 2 % stays 10 ms behind.
_STRETCH_S = 0.5
_BLOCK = 1 << 16


class SampleClock:
    """Counts the samples that were given out, and compares them with the time stamps of what comes next.

    A stamp is believed where the next one agrees: one alone that is off is jitter.
    """

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._count = 0
        self._off_s = 0.0
        self._drifts = False
        self._overlaps = False
        self._waiting: tuple[np.ndarray, float | None] | None = None

    def place(self, samples: np.ndarray, time_s: float | None) -> Iterator[np.ndarray]:
        """Take samples (C, S) float32 that belong to `time_s`; yield, in pieces, those that were taken before.

        time_s: seconds after the file's zero; None where the file does not say: they follow the last ones. Silence
        comes first where samples are missing; those that come twice are dropped.
        """
        if self._waiting is not None:
            yield from self._placed(*self._waiting, next_s=time_s)
        self._waiting = samples, time_s

    def finish(self) -> Iterator[np.ndarray]:
        """Yield the last samples."""
        if self._waiting is not None:
            yield from self._placed(*self._waiting, next_s=None)
            self._waiting = None

    def _placed(self, samples: np.ndarray, time_s: float | None, next_s: float | None) -> Iterator[np.ndarray]:
        late = 0 if time_s is None else round(time_s * self._rate_hz) - self._count
        if next_s is not None and self._count:
            late_next = round(next_s * self._rate_hz) - self._count - samples.shape[1]
            late = min(late, late_next, key=abs) if late * late_next > 0 else 0
        off_s = late / self._rate_hz
        if not self._count or self._has_jumped(off_s):
            for start in range(0, late, _BLOCK):
                yield self._counted(np.zeros((len(samples), min(_BLOCK, late - start)), np.float32))
            self._overlaps = -late > samples.shape[1]
            samples = samples[:, max(0, -late) :]
            off_s = 0.0
        elif self._is_drifting(abs(off_s)):
            samples = _stretched(samples, round(late * samples.shape[1] / (_STRETCH_S * self._rate_hz)))
        self._off_s = off_s
        if samples.shape[1]:
            yield self._counted(samples)

    def _has_jumped(self, off_s: float) -> bool:
        at_once = abs(off_s) > TOLERANCE_S and abs(off_s - self._off_s) > _AT_ONCE_S
        return at_once or self._overlaps or abs(off_s) > JUMP_S

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
