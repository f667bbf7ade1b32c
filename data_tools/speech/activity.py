"""Voice activity: when somebody speaks in a sound, by silero-vad."""

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from data_tools.media.audio import AUDIO_RATE_HZ
from data_tools.threads import one_thread

# Samples that the network reads at a time.
WINDOW = 512
WINDOW_S = WINDOW / AUDIO_RATE_HZ


@dataclass(frozen=True)
class Activity:
    """Speech in a sound.

    spans: (start_s, end_s) of speech, rising and disjoint, within the sound; pauses of less than 0.1 s are part of it.
    probability: (W,) float32, of speech in each `WINDOW_S` seconds. duration_s: of the sound.
    """

    spans: list[tuple[float, float]]
    probability: np.ndarray
    duration_s: float


def voice_activity(blocks: Iterable[np.ndarray]) -> Activity:
    """Speech in a sound that comes in blocks, (S,) float32 mono at 16 kHz each, one right after the other.

    The same sound gives the same answer however it is cut into blocks and on any number of threads. One block is held
    at a time; of the rest 4 bytes for each 32 ms are kept.
    """
    with one_thread(), warnings.catch_warnings():
        # Loading a TorchScript file is called deprecated; this is how the network comes. The import sets torch to one
        # thread for the whole process, which ends with this block.
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        import silero_vad

        network = silero_vad.load_silero_vad()
        found: list[float] = []
        samples = 0
        with torch.inference_mode():
            for window, count in _windows(blocks):
                found.append(network(torch.from_numpy(window), AUDIO_RATE_HZ).item())
                samples += count
    spans = silero_vad.get_speech_timestamps_from_probs(
        found, sampling_rate=AUDIO_RATE_HZ, audio_length_samples=samples
    )
    return Activity(
        [(span["start"] / AUDIO_RATE_HZ, span["end"] / AUDIO_RATE_HZ) for span in spans],
        np.array(found, np.float32),
        samples / AUDIO_RATE_HZ,
    )


def _windows(blocks: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, int]]:
    """(512,) float32 each and how many of them are the sound's; the last one is filled up with zeros."""
    rest = np.zeros(0, np.float32)
    for block in blocks:
        rest = np.concatenate([rest, block])
        whole = len(rest) // WINDOW
        for window in rest[: whole * WINDOW].reshape(whole, WINDOW):
            yield window, WINDOW
        rest = rest[whole * WINDOW :].copy()
    if len(rest):
        yield np.pad(rest, (0, WINDOW - len(rest))), len(rest)
