"""Sound to model input: waveform -> log-mel -> standardised 400 ms chunks. All audio constants live here."""

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F
from torchaudio.transforms import MelSpectrogram

from data_tools.media.audio import AUDIO_RATE_HZ

RATE_HZ = AUDIO_RATE_HZ  # 16 kHz, at which the clips' sound is kept
WINDOW_MS = 25
HOP_MS = 12.5
N_MELS = 128
CHUNK_MS = 400
# The paper's transform has n_fft = 400, the window itself; that leaves 4 of the 128 lowest filters without a bin.
DEFAULT_N_FFT = 1024

WINDOW_SAMPLES = RATE_HZ * WINDOW_MS // 1000
HOP_SAMPLES = int(RATE_HZ * HOP_MS / 1000)
CHUNK_FRAMES = int(CHUNK_MS / HOP_MS)
BLOCK_ROWS = 24_000  # five minutes
# Power below this is silence: 100 dB under the power of one full-scale tone's strongest bin, near float16's floor.
_POWER_FLOOR = 1e-6


@lru_cache(maxsize=4)
def _transform(n_fft: int) -> MelSpectrogram:
    return MelSpectrogram(
        sample_rate=RATE_HZ,
        n_fft=n_fft,
        win_length=WINDOW_SAMPLES,
        hop_length=HOP_SAMPLES,
        n_mels=N_MELS,
        power=2.0,
        center=True,
        pad_mode="constant",
    )


def log_mel(waveform: Tensor, n_fft: int = DEFAULT_N_FFT) -> Tensor:
    """Natural-log mel power, one row every 12.5 ms.

    waveform: (S,) float32 mono at 16 kHz, in [-1, 1].
    Returns (M, 128) float32 with M = ceil(S / 200); M = 0 for an empty waveform. Row m is centred on sample 200 m.
    Of a sound of any length `BLOCK_ROWS` rows are computed at a time: a spectrum takes 20 times as much as its sound.
    """
    rows = math.ceil(waveform.numel() / HOP_SAMPLES)
    made = [_rows(waveform, n_fft, start, min(start + BLOCK_ROWS, rows)) for start in range(0, rows, BLOCK_ROWS)]
    return torch.cat(made) if made else torch.zeros(0, N_MELS)


def _rows(waveform: Tensor, n_fft: int, start: int, end: int) -> Tensor:
    """Rows `start` to `end` of the log-mel, from the samples that they depend on."""
    around = math.ceil(n_fft / 2 / HOP_SAMPLES)
    first = max(0, start - around)
    power = _transform(n_fft)(waveform[first * HOP_SAMPLES : (end + around) * HOP_SAMPLES])
    return power[:, start - first : end - first].clamp_min(_POWER_FLOOR).log().T.contiguous()


def chunks(logmel: Tensor) -> Tensor:
    """The model's input: the utterance standardised as a whole, cut into 400 ms, the last chunk padded with zeros.

    One mean and one deviation over all bands and times keep spectral shape and dynamics and take away the gain of
    the microphone; padding with zero is then padding with the utterance's mean level, not with a loud constant.

    logmel: (M, 128) float. Returns (C, 1, 128, 32) float32 with C = ceil(M / 32).
    """
    values = logmel.float()
    count = math.ceil(len(values) / CHUNK_FRAMES)
    if count == 0:
        return torch.zeros(0, 1, N_MELS, CHUNK_FRAMES)
    deviation, mean = torch.std_mean(values, correction=0)
    # Digital silence has no deviation; it then stays zero instead of becoming noise.
    standard = (values - mean) / deviation.clamp_min(1e-2)
    padded = F.pad(standard, (0, 0, 0, count * CHUNK_FRAMES - len(values)))
    return padded.view(count, CHUNK_FRAMES, N_MELS).transpose(1, 2).unsqueeze(1).contiguous()
