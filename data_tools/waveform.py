"""The sound itself, for models whose speech encoder reads it."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data_tools.media.audio import AUDIO_RATE_HZ, read_audio


def waveform(sound: Path | np.ndarray | None) -> Tensor:
    """(S, 1) float32 at 16 kHz, mean 0 and deviation 1 as HuBERT was trained; silence stays 0; no sound, no samples.

    sound: a file, or (S,) float32 at 16 kHz.

    Raises:
        DataError: the sound cannot be read.
    """
    if sound is None or (not isinstance(sound, Path) and not len(sound)):
        return torch.zeros(0, 1)
    samples = torch.from_numpy(read_audio(sound, AUDIO_RATE_HZ) if isinstance(sound, Path) else sound)
    deviation, mean = torch.std_mean(samples, correction=0)
    return ((samples - mean) / (deviation + 1e-7)).unsqueeze(1)
