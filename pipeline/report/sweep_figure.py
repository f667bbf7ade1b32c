"""The picture of a sweep: score and multiply-adds over top-p."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.report.figures import figure_png

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
