"""Pictures for reports: training curves, mel-spectrograms, and kept sites drawn over what they were kept of."""

import base64
import io
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Sites that were not kept are darkened to this share of their light.
_DIMMED = 0.25


def spread(count: int, shown: int) -> list[int]:
    """Up to `shown` of the numbers 0 to count - 1, evenly spread, the first and the last among them."""
    return sorted({round(float(i)) for i in np.linspace(0, count - 1, min(count, shown))})


def data_uri(picture: bytes) -> str:
    """A PNG or JPEG as an address that holds the picture itself, so that a page is one file."""
    kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64," + base64.b64encode(picture).decode("ascii")


def png(image: np.ndarray) -> bytes:
    """(H, W, 3) uint8 RGB as PNG."""
    return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()


def jpeg(image: np.ndarray, quality: int = 85) -> bytes:
    """(H, W, 3) uint8 RGB as JPEG: a photograph in a tenth of a PNG's bytes. quality: 0 to 100."""
    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def figure_png(figure: Figure) -> bytes:
    """A matplotlib figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def enlarge(image: np.ndarray, times: int) -> np.ndarray:
    """(H, W, 3) -> (H times, W times, 3), pixels kept square and sharp."""
    return image.repeat(times, axis=0).repeat(times, axis=1)


def mel_image(chunks: np.ndarray) -> np.ndarray:
    """Chunks (C, 1, 128, 32) side by side as (128, 32 C, 3) uint8 RGB; low bands at the bottom, time to the right."""
    if len(chunks) == 0:
        return np.zeros((128, 32, 3), np.uint8)
    return mel_colors(np.concatenate(list(chunks[:, 0]), axis=1))


def mel_colors(bands: np.ndarray) -> np.ndarray:
    """Log-mel (H bands, W times) as (H, W, 3) uint8 RGB, dark to bright from its 1st to its 99th percentile.

    Low bands are at the bottom.
    """
    low, high = np.percentile(bands, [1, 99])
    scaled = np.clip((bands[::-1] - low) / max(high - low, 1e-6), 0, 1)
    return (colormaps["magma"](scaled)[:, :, :3] * 255).astype(np.uint8)


def mel_sites(kept: np.ndarray) -> np.ndarray:
    """Kept sites (C, h, w) of the chunks laid out as `mel_image` lays out the chunks: (h, w C)."""
    return np.concatenate(list(kept), axis=1)[::-1] if len(kept) else np.zeros((1, 1), bool)


def show_kept(image: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """The image with every site that was not kept darkened.

    image: (H, W, 3) uint8. kept: (h, w) bool, each site covering H/h x W/w pixels.
    """
    height, width = image.shape[:2]
    mask = cv2.resize(kept.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)[:, :, None]
    return np.where(mask == 1, image, image * _DIMMED).astype(np.uint8)


def curves_png(logs: Mapping[str, pd.DataFrame], score: str) -> bytes:
    """Loss (train dashed, valid solid) and a score on valid of each run over its epochs, as PNG.

    logs: run name -> the run's log.csv. score: a metric by its name in metrics.json, e.g. f1.
    """
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    losses, scores = figure.subplots(1, 2)
    for number, (name, log) in enumerate(logs.items()):
        color = f"C{number}"
        losses.plot(log["epoch"], log["train_loss"], "--", color=color, label=f"{name} train")
        losses.plot(log["epoch"], log["valid_loss"], color=color, label=f"{name} valid")
        scores.plot(log["epoch"], log[f"valid_{score}"], color=color, label=f"{name} valid")
    losses.set(xlabel="epoch", ylabel="loss")
    scores.set(xlabel="epoch", ylabel=f"{score} on valid")
    if score not in ("mae", "corr"):  # all others are shares
        scores.set(ylim=(0, 1))
    for axes in (losses, scores):
        axes.legend(frameon=False, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    return figure_png(figure)


def missing_png(rates: list[float], metrics: Mapping[str, list[tuple[float, float] | None]]) -> bytes:
    """Each metric over the missing rate as PNG, with the spread over seeds as a band.

    rates: (n,), rising. metrics: name -> n pairs (mean, spread), None where it is undefined.
    """
    across = min(4, len(metrics))
    down = -(-len(metrics) // across)
    figure = Figure(figsize=(3 * across, 2.4 * down), layout="constrained")
    for number, (name, values) in enumerate(metrics.items(), start=1):
        axes = figure.add_subplot(down, across, number)
        means, spreads = np.array([value or (np.nan, np.nan) for value in values]).T
        axes.fill_between(rates, means - spreads, means + spreads, alpha=0.25, linewidth=0)
        axes.plot(rates, means, marker=".")
        axes.set(xlabel="missing rate")
        axes.set_title(name, fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    return figure_png(figure)


def missing_models_png(rates: list[float], models: Mapping[str, Mapping[str, Any]], metrics: list[str]) -> bytes:
    """Each metric over the missing rate, a line with its spread for each model, as PNG.

    models: name -> {"curves": metric -> rate as text -> {"mean", "spread"}}. metrics: those that are drawn.
    """
    across = min(3, len(metrics))
    down = -(-len(metrics) // across)
    figure = Figure(figsize=(4 * across, 3 * down), layout="constrained")
    for number, metric in enumerate(metrics, start=1):
        axes = figure.add_subplot(down, across, number)
        for name, found in models.items():
            scores = [found["curves"][metric][f"{rate:g}"] for rate in rates]
            means, spreads = np.array([_pair(score) for score in scores]).T
            axes.errorbar(rates, means, spreads, marker="o", markersize=3, capsize=2, label=name)
        axes.set(xlabel="missing rate")
        axes.set_title(metric, fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        if number == 1:
            axes.legend(frameon=False, fontsize=7)
    return figure_png(figure)


_GIGA = 1e9


def sweep_png(found: Mapping[str, Any]) -> bytes:
    """Score, multiply-adds of the towers, and these as a share of FE2E's, each over top_p, as PNG.

    found: "metric", "points" and "paper" of sweep.json. A model without a top_p is a horizontal line. The share is
    drawn where FE2E is one of the models; the paper's counts are of another sample, so only their shares are drawn.
    """
    has_reference = any(point["of_fe2e"] is not None for point in found["points"])
    figure = Figure(figsize=(11 if has_reference else 7.5, 3.4), layout="constrained")
    panels = figure.subplots(1, 3 if has_reference else 2)
    for number, name in enumerate(dict.fromkeys(point["model"] for point in found["points"])):
        points = [point for point in found["points"] if point["model"] == name]
        color = f"C{number}"
        _draw(panels[0], points, name, color, [_pair(point["score"]) for point in points])
        counts = [(point["done"]["towers"] / _GIGA, point["done"]["towers_spread"] / _GIGA) for point in points]
        _draw(panels[1], points, name, color, counts)
        if has_reference:
            _draw(panels[2], points, name, color, [(point["of_fe2e"], 0.0) for point in points])
    panels[0].set(ylabel=f"{found['metric']['name']} on test")
    panels[1].set(ylabel="1e9 multiply-adds, towers", ylim=(0, None))
    if has_reference:
        published = {float(top_p): share for top_p, share in found["paper"]["of_fe2e"].items()}
        panels[2].plot(list(published), list(published.values()), "kx", label="paper, MESM")
        panels[2].set(ylabel="share of FE2E's", ylim=(0, None))
    for axes in panels:
        axes.set(xlabel="top_p", xlim=(0, 1.05))
        axes.legend(frameon=False, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    return figure_png(figure)


def _pair(score: Mapping[str, Any]) -> tuple[float, float]:
    undefined = score["mean"] is None
    return (np.nan, np.nan) if undefined else (score["mean"], score["spread"])


def _draw(axes: Axes, points: list[dict[str, Any]], name: str, color: str, values: list[tuple[float, float]]) -> None:
    """Values (mean, spread) of the points: over top_p, or of the one point of a model without it as a line."""
    if points[0]["top_p"] is None:
        ((mean, spread),) = values
        axes.axhline(mean, linestyle="--", color=color, label=name)
        axes.axhspan(mean - spread, mean + spread, color=color, alpha=0.15, linewidth=0)
        return
    means, spreads = np.array(values).T
    axes.errorbar([point["top_p"] for point in points], means, spreads, marker="o", capsize=3, color=color, label=name)
