"""Sound, mel-spectrogram and sampled frames of one utterance on one axis of seconds, as numbers for a drawing."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from data_tools import mel
from pipeline.report.figures import data_uri, jpeg, mel_colors

WIDTH_PX = 1080.0
WAVE_PX = 56.0
# Quieter sound than this is drawn as quiet: the noise of silence isn't blown up to full height.
_FULL_HEIGHT = 0.02
_MAX_COLUMNS = 2160
_MAX_TICKS = 14
_STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 3600)


@dataclass(frozen=True)
class Timeline:
    """Everything across is in pixels of an axis of WIDTH_PX that begins at 0 s.

    end_s: where the axis ends. ticks: (x, seconds as text). wave: points of a polygon round the sound, y from 0 to
    WAVE_PX, empty where there is no sound. mel: a picture, low bands at the bottom; None where there is none. mel_x,
    mel_width: where it lies. frames: (x, whether a face was found, None where nobody looked) of each sampled frame.
    """

    end_s: float
    ticks: list[tuple[float, str]]
    wave: str
    mel: str | None
    mel_x: float
    mel_width: float
    frames: list[tuple[float, bool | None]]


def make_timeline(
    samples: np.ndarray, logmel: np.ndarray | None, frames: Sequence[tuple[float, bool | None]], end_s: float
) -> Timeline:
    """Lay out one utterance.

    samples: (S,) float32 at `mel.RATE_HZ`, may be empty. logmel: (M, 128), see `data_tools.mel.log_mel`.
    frames: (seconds, whether a face was found) of the sampled ones.
    end_s: the utterance's length; the axis is longer where the sound is.
    """
    end_s = max(end_s, len(samples) / mel.RATE_HZ, *(time_s for time_s, _ in frames), 1e-3)
    scale = WIDTH_PX / end_s
    hop_s = mel.HOP_MS / 1000
    rows = 0 if logmel is None else len(logmel)
    return Timeline(
        end_s=end_s,
        ticks=[(t * scale, f"{t:g}") for t in _ticks(end_s)],
        wave=_polygon(samples, len(samples) / mel.RATE_HZ * scale),
        mel=_mel_picture(logmel) if logmel is not None and rows else None,
        mel_x=-hop_s / 2 * scale,  # row m is centred on m * hop
        mel_width=rows * hop_s * scale,
        frames=[(time_s * scale, found) for time_s, found in frames],
    )


def _ticks(end_s: float) -> list[float]:
    step = next((s for s in _STEPS_S if end_s / s <= _MAX_TICKS), _STEPS_S[-1])
    return [round(k * step, 1) for k in range(int(end_s / step + 1e-6) + 1)]


def _polygon(samples: np.ndarray, width: float) -> str:
    """The largest sample of every half pixel from left to right, then the smallest ones back."""
    if not len(samples):
        return ""
    columns = min(len(samples), max(1, round(2 * width)))
    first = np.arange(columns) * len(samples) // columns
    high = np.maximum(np.maximum.reduceat(samples, first), 0)
    low = np.minimum(np.minimum.reduceat(samples, first), 0)
    unit = WAVE_PX / 2 / max(float(np.abs(samples).max()), _FULL_HEIGHT)
    x = (np.arange(columns) + 0.5) * width / columns
    points = [
        *zip(x, WAVE_PX / 2 - high * unit, strict=True),
        *zip(x[::-1], WAVE_PX / 2 - low[::-1] * unit, strict=True),
    ]
    return " ".join(f"{across:.1f},{down:.1f}" for across, down in points)


def _mel_picture(logmel: np.ndarray) -> str:
    bands = np.ascontiguousarray(logmel.T, dtype=np.float32)
    size = (min(bands.shape[1], _MAX_COLUMNS), len(bands))
    return data_uri(jpeg(mel_colors(cv2.resize(bands, size, interpolation=cv2.INTER_AREA)), 80))
