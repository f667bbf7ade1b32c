"""Kept sites over what they were kept of: Figures 3, 4 and 6 of the MESM paper (Dai et al. 2021)."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from data_tools.mel import CHUNK_FRAMES, CHUNK_MS, N_MELS
from pipeline.report.figures import enlarge, figure_png, mel_image, mel_sites, show_kept

# A 48-pixel crop is drawn this many times as large, so that the sites' borders are sharp.
_TIMES = 3
# Figure 4 shows the highest tenth of the mel-spectrogram alone.
_HIGHEST = 0.1


def faces_png(faces: np.ndarray, times_s: Sequence[float], kept: Sequence[np.ndarray]) -> bytes:
    """One row a face: the crop, and what is kept of it after each attention layer, as PNG.

    faces: (n, 48, 48, 3) uint8 RGB, n >= 1. times_s: (n,), when each was seen. kept: a layer each, (n, h, w) bool.
    """
    columns = 1 + len(kept)
    figure = Figure(figsize=(1.7 * columns, 1.6 * len(faces) + 0.3), layout="constrained")
    grid = figure.subplots(len(faces), columns, squeeze=False)
    for row, (face, time_s) in enumerate(zip(faces, times_s, strict=True)):
        crop = enlarge(face, _TIMES)
        _picture(grid[row, 0], crop, f"{time_s:.1f} s")
        for layer, sites in enumerate(kept, start=1):
            _picture(grid[row, layer], show_kept(crop, sites[row]), _title(layer, sites[row]))
    return figure_png(figure)


def mel_png(chunks: np.ndarray, kept: Sequence[np.ndarray]) -> bytes:
    """One under the other: the mel-spectrogram, its highest tenth, and what is kept after each attention layer, as PNG.

    chunks: (C, 1, 128, 32), C >= 1. kept: a layer each, (C, h, w) bool.
    """
    sound = mel_image(chunks)
    pictures = [("log-mel", sound), ("its highest 10 %", show_kept(sound, highest(chunks)))]
    pictures += [(_title(n, sites), show_kept(sound, mel_sites(sites))) for n, sites in enumerate(kept, start=1)]
    seconds = len(chunks) * CHUNK_MS / 1000
    figure = Figure(figsize=(min(11.0, 2.5 + seconds), 1.3 * len(pictures) + 0.5), layout="constrained")
    for axes, (title, picture) in zip(figure.subplots(len(pictures), 1, sharex=True), pictures, strict=True):
        axes.imshow(picture, extent=(0, seconds, 0, N_MELS), aspect="auto", interpolation="nearest")
        axes.set_title(title, fontsize=8, loc="left")
        axes.set_ylabel("mel band", fontsize=7)
        axes.tick_params(labelsize=7)
    axes.set_xlabel("seconds", fontsize=7)
    return figure_png(figure)


def highest(chunks: np.ndarray) -> np.ndarray:
    """(128, 32 C) bool, laid out as `mel_image` does: the tenth of the sites of (C, 1, 128, 32) with most energy."""
    bands = np.concatenate(list(chunks[:, 0]), axis=1)[::-1]
    assert bands.shape == (N_MELS, CHUNK_FRAMES * len(chunks))
    return bands >= np.quantile(bands, 1 - _HIGHEST)


def _title(layer: int, sites: np.ndarray) -> str:
    return f"after attention {layer}: {sites.mean():.0%}"


def _picture(axes: Axes, image: np.ndarray, title: str) -> None:
    axes.imshow(image, interpolation="nearest")
    axes.set_title(title, fontsize=8)
    axes.set_axis_off()
