"""Sound as sequences: pitch, cepstrum and chroma as CH-SIMS has them, or a summary of the stored log-mel.

`acoustic`: 33 values a step, by librosa. 0: natural logarithm of the fundamental frequency in Hz, 0 where the step is
unvoiced (no voice is at 1 Hz, so it needs no flag beside it). 1 to 20: mel cepstrum. 21 to 32: constant-Q chroma.
Pitch is by pYIN, with candidates 0.3 semitones apart: librosa's 0.1 takes five times as long, and plain YIN, which is
ten times faster, doesn't tell voice from noise.

`mel_summary`: 256 values a step: mean and deviation over time of each of the 128 log-mel bands.
"""

import warnings

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from data_tools import mel
from data_tools.sequences.numba_cache import ensure_numba_cache
from data_tools.sequences.steps import Floats, Steps

ensure_numba_cache()
import librosa  # noqa: E402

N_MFCC, N_CHROMA = 20, 12
ACOUSTIC_SIZE = 1 + N_MFCC + N_CHROMA
MEL_SIZE = 2 * mel.N_MELS

# 128 ms, as in librosa's defaults at 16 kHz; voices reach from a deep man's to a shouting woman's.
WINDOW_SAMPLES = 2048
F0_WINDOW_SAMPLES = 1024
F0_MIN_HZ, F0_MAX_HZ = 65.0, 600.0
F0_RESOLUTION_SEMITONES = 0.3
# librosa's chroma needs a signal that is longer than this, its lowest filter; shorter ones are padded with silence.
_SHORTEST = 8192


def acoustic(waveform: Floats, step_ms: float) -> Steps:
    """log F0, 20 MFCC and 12 chroma of every step.

    waveform: (S,) float32 mono at 16 kHz. step_ms: rounded to whole samples, H of them.
    Returns ceil(S / H) steps of 33 values; step k is centred on sample k H and stands for half a step on both sides,
    the last one for all that is left.
    """
    hop = hop_samples(step_ms)
    count = -(-len(waveform) // hop)
    if count == 0:
        return Steps(np.zeros((0, ACOUSTIC_SIZE), np.float32), np.zeros((0, 2), np.float32))
    padded = np.pad(waveform, (0, max(0, _SHORTEST - len(waveform))))
    parts = [f(padded, hop)[:, :count] for f in (log_f0, mfcc, chroma)]
    centres = np.arange(count) * hop
    edges = np.stack([centres - hop / 2, centres + hop / 2], axis=1)
    edges[0, 0], edges[-1, 1] = 0, len(waveform)
    edges /= mel.RATE_HZ
    return Steps(np.ascontiguousarray(np.concatenate(parts).T, np.float32), edges.astype(np.float32))


def hop_samples(step_ms: float) -> int:
    """Samples from one step to the next."""
    return max(1, round(step_ms * mel.RATE_HZ / 1000))


def log_f0(waveform: Floats, hop: int) -> Floats:
    """(1, 1 + S // hop): logarithm of the fundamental frequency, 0 where unvoiced."""
    with np.errstate(divide="ignore"):  # pYIN takes the logarithm of chances that are 0
        frequency, voiced, _ = librosa.pyin(
            waveform,
            sr=mel.RATE_HZ,
            fmin=F0_MIN_HZ,
            fmax=F0_MAX_HZ,
            frame_length=F0_WINDOW_SAMPLES,
            hop_length=hop,
            resolution=F0_RESOLUTION_SEMITONES,
            fill_na=1.0,
        )
    return np.where(voiced, np.log(frequency), 0.0)[None].astype(np.float32)


def mfcc(waveform: Floats, hop: int) -> Floats:
    """(20, 1 + S // hop), as `librosa.feature.mfcc`.

    The bands are summed here: in librosa's own product the last bits depend on the number of threads.
    """
    power = np.abs(librosa.stft(waveform, n_fft=WINDOW_SAMPLES, hop_length=hop)) ** 2
    bands = np.einsum("bf,ft->bt", librosa.filters.mel(sr=mel.RATE_HZ, n_fft=WINDOW_SAMPLES), power)
    return librosa.feature.mfcc(S=librosa.power_to_db(bands), n_mfcc=N_MFCC)


def chroma(waveform: Floats, hop: int) -> Floats:
    """(12, 1 + S // hop), each step over its largest; 0 in silence. Tuned to 440 Hz: speech has no tuning to find."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="n_fft=.* is too large", category=UserWarning)
        return librosa.feature.chroma_cqt(y=waveform, sr=mel.RATE_HZ, hop_length=hop, tuning=0.0)


def mel_summary(logmel: Tensor, step_ms: float) -> Steps:
    """Mean and deviation over time of the log-mel bands, in steps of `step_ms`; the last one may be shorter.

    logmel: (M, 128), a row every 12.5 ms. step_ms: rounded to whole rows, R of them. Returns ceil(M / R) steps.
    """
    rows = max(1, round(step_ms / mel.HOP_MS))
    count = -(-len(logmel) // rows)
    if count == 0:
        return Steps(np.zeros((0, MEL_SIZE), np.float32), np.zeros((0, 2), np.float32))
    # The last step is filled up and the filling weighed with 0: no loop over steps.
    fill = count * rows - len(logmel)
    values = F.pad(logmel.double(), (0, 0, 0, fill)).view(count, rows, mel.N_MELS)
    weight = F.pad(torch.ones(len(logmel), dtype=torch.float64), (0, fill)).view(count, rows, 1)
    weight = weight / weight.sum(1, keepdim=True)
    mean = (values * weight).sum(1)
    variance = ((values - mean.unsqueeze(1)).square() * weight).sum(1)
    edges = np.minimum(np.stack([np.arange(count), np.arange(1, count + 1)], axis=1) * rows, len(logmel))
    return Steps(
        torch.cat([mean, variance.sqrt()], dim=1).float().numpy(),
        (edges * mel.HOP_MS / 1000).astype(np.float32),
    )
