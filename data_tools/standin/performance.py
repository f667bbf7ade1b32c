"""Spoken turns -> the face of every video frame: expression, talking, blinking and a head that is never still."""

from dataclasses import dataclass

import numpy as np

from data_tools.standin.expressions import Manner
from data_tools.standin.faces import MUSCLES, Face
from data_tools.standin.speech import RATE_HZ

_RAMP_S = 0.25
_BLINK = Face(lids=-2.5).vector()


@dataclass(frozen=True)
class Turn:
    """One stretch of speech of one person.

    start_s: seconds in the video. samples: (S,) at RATE_HZ. strength: factor of the expression.
    """

    start_s: float
    samples: np.ndarray
    manner: Manner
    strength: float

    @property
    def end_s(self) -> float:
        """Seconds in the video."""
        return self.start_s + len(self.samples) / RATE_HZ


def face_track(turns: list[Turn], count: int, fps: float, rng: np.random.Generator) -> np.ndarray:
    """(count, len(MUSCLES)) float64: one face vector a frame, neutral between the turns.

    An expression is complete from the first to the last moment of its turn; it comes and goes before and after.
    """
    seconds = np.arange(count) / fps
    shares = np.array([_share(turn, seconds) for turn in turns]).reshape(len(turns), count)
    shares /= np.maximum(1.0, shares.sum(axis=0))
    restless = 1 + np.array([turn.manner.restless - 1 for turn in turns]) @ shares
    track = _sway(seconds, rng) * restless[:, None]
    for share, turn in zip(shares, turns, strict=True):
        face = turn.strength * turn.manner.face.vector() + rng.normal(0, 0.4, len(MUSCLES)) * _JITTERED
        track += share[:, None] * face
        track += share[:, None] * _nodding(seconds, turn.manner.restless, rng)
        talking = turn.manner.talk * _loudness(turn, seconds)
        track[:, MUSCLES.index("open")] += share * talking
    for start in np.cumsum(rng.uniform(1.5, 5.0, size=int(seconds[-1] / 1.5) + 2) if count else []):
        near = np.clip(1 - np.abs(seconds - start) / 0.09, 0, 1)
        track += near[:, None] * _BLINK
    return track


_JITTERED = np.array([name not in ("teeth", "roll", "zoom", "lids") for name in MUSCLES], dtype=float)


def _share(turn: Turn, seconds: np.ndarray) -> np.ndarray:
    """1 during the turn, a ramp of `_RAMP_S` before and after it."""
    away = np.maximum(turn.start_s - seconds, seconds - turn.end_s)
    return np.clip(1 - away / _RAMP_S, 0, 1)


def _sway(seconds: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Slow wandering of the head: a few sines of random phase."""
    track = np.zeros((len(seconds), len(MUSCLES)))
    for name, reach in (("shift_x", 2.5), ("shift_y", 1.2), ("roll", 1.5), ("zoom", 0.012)):
        for hz in (0.11, 0.23, 0.41):
            track[:, MUSCLES.index(name)] += reach / 2 * np.sin(2 * np.pi * (hz * seconds + rng.random()))
    return track


def _nodding(seconds: np.ndarray, restless: float, rng: np.random.Generator) -> np.ndarray:
    """Movement that accompanies speech, faster and wider the more restless the manner is."""
    track = np.zeros((len(seconds), len(MUSCLES)))
    for name, reach in (("shift_x", 0.8), ("shift_y", 1.0), ("roll", 0.8)):
        hz = 0.8 + 0.4 * restless
        track[:, MUSCLES.index(name)] = reach * restless * np.sin(2 * np.pi * (hz * seconds + rng.random()))
    return track


def _loudness(turn: Turn, seconds: np.ndarray) -> np.ndarray:
    """Loudness of the turn at each video frame, 0 to 1.2, relative to its own loud moments."""
    power = np.convolve(turn.samples**2, np.ones(800) / 800, mode="same")
    level = np.sqrt(np.maximum(power, 0))
    level /= max(np.quantile(level, 0.95), 1e-6)
    return np.clip(np.interp(seconds - turn.start_s, np.arange(len(level)) / RATE_HZ, level, left=0, right=0), 0, 1.2)
