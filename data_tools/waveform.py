"""The sound itself, for models whose speech encoder reads it."""

from pathlib import Path

import torch
from torch import Tensor

from data_tools.media.audio import AUDIO_RATE_HZ, read_audio


def waveform(path: Path | None) -> Tensor:
    """(S, 1) float32 at 16 kHz, mean 0 and deviation 1 as HuBERT was trained; silence stays 0; no file, no samples.

    Raises:
        DataError: the sound cannot be read.
    """
    if path is None:
        return torch.zeros(0, 1)
    samples = torch.from_numpy(read_audio(path, AUDIO_RATE_HZ))
    deviation, mean = torch.std_mean(samples, correction=0)
    return ((samples - mean) / (deviation + 1e-7)).unsqueeze(1)
