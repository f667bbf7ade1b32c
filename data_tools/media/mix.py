"""One channel out of two, so that nobody who speaks in only one of them, or in opposite ones, is lost."""

import numpy as np

# The mean of two channels is 6 dB below a sound that is in one of them alone, 3 dB below two independent ones.
# A channel this far below the other one is empty beside it; a mean this far below the louder one has lost its sound.
EMPTY_DB = 30.0
CANCELLED_DB = 10.0

ONE_CHANNEL = "one of its two audio channels is empty: the other one is taken alone"
CANCELLING = "its two audio channels cancel each other: the louder one is taken alone"


def mix(channels: np.ndarray) -> tuple[np.ndarray, str]:
    """(C, S) float32, C 1 or 2 -> (S,) float32 and a sentence; that is empty where the mean of the channels was taken.

    The louder channel is taken alone where the other one is empty, or where their mean cancels what both hold.
    """
    if len(channels) == 1:
        return channels[0], ""
    mean = channels.mean(axis=0, dtype=np.float32)
    powers = [_power(channel) for channel in channels]
    # Of two that are as loud, the first one: rounding must not decide.
    loud = 1 if powers[1] > 1.01 * powers[0] else 0
    if not powers[loud]:
        return mean, ""
    if powers[1 - loud] <= powers[loud] * 10 ** (-EMPTY_DB / 10):
        return channels[loud], ONE_CHANNEL
    if _power(mean) <= powers[loud] * 10 ** (-CANCELLED_DB / 10):
        return channels[loud], CANCELLING
    return mean, ""


def _power(samples: np.ndarray) -> float:
    """Variance of (S,) samples: a constant offset is not heard."""
    return float(np.var(samples, dtype=np.float64)) if len(samples) else 0.0
