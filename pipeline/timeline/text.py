"""Scores in words."""

from collections.abc import Mapping
from typing import Any


def shown_score(score: float, task: str) -> str:
    """A score for people; a sentiment with its sign."""
    return f"{score:+.3f}" if task == "sentiment" else f"{score:.3f}"


def predicted_scores(segment: Mapping[str, Any], task: str) -> str:
    """The predicted emotions of a segment with their scores, the highest first; the sentiment where there are none."""
    names = list(segment["scores"]) if task == "sentiment" else segment["predicted"]
    ordered = sorted(names, key=lambda name: -segment["scores"][name])
    return ", ".join(f"{name} {shown_score(segment['scores'][name], task)}" for name in ordered)
