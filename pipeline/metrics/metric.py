"""The record of a metric, and its entry in metrics.json."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Floats = NDArray[np.floating]
Classes = NDArray[np.integer]

NOBODY = "no utterance of this split has it"
EVERYBODY = "every utterance of this split has it"


@dataclass(frozen=True)
class Metric:
    """All that the program knows of one metric; each task has a tuple of them.

    name: in metrics.json, in log.csv and for the setting `monitor`. definition: for a person.
    function: from truth and answers, as the task's module says, to a value an emotion, of which the mean counts, or to
        one value; None where the split cannot tell.
    baseline: the answer that the metric's baseline is the value of, in words.
    report_title: heading of its column on the report's page; empty for none. by_emotion: it has a table by emotion on
        the page of a comparison.
    """

    name: str
    definition: str
    function: Callable[..., Any]
    baseline: str
    lower_is_better: bool = False
    report_title: str = ""
    by_emotion: bool = False


def mean_defined(values: Sequence[float | None]) -> float | None:
    """The mean over those that are defined; None where none is."""
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None


def entry(
    value: float | None, baseline: float | None, definition: str, baseline_definition: str, utterances: int
) -> dict[str, Any]:
    """One metric for JSON. utterances: how many it counts."""
    return {
        "value": value,
        "baseline": baseline,
        "definition": definition,
        "baseline_definition": baseline_definition,
        "utterances": utterances,
    }


def mean_entry(
    metric: Metric,
    values: Sequence[float | None],
    baselines: Sequence[float | None],
    emotions: Sequence[str],
    positives: Sequence[int],
    utterances: int,
) -> dict[str, Any]:
    """One metric for JSON that is a mean over emotions, with the value of each of them.

    values, baselines: one an emotion; None where the split cannot tell, which gets a reason.
    positives: utterances with the emotion, of `utterances`.
    """
    per_emotion: dict[str, Any] = {}
    for emotion, value, baseline, count in zip(emotions, values, baselines, positives, strict=True):
        per_emotion[emotion] = {"value": value, "baseline": baseline, "positives": count}
        if value is None:
            per_emotion[emotion]["reason"] = EVERYBODY if count else NOBODY
    found = entry(mean_defined(values), mean_defined(baselines), metric.definition, metric.baseline, utterances)
    found["per_emotion"] = per_emotion
    undefined = [emotion for emotion, value in zip(emotions, values, strict=True) if value is None]
    if undefined:
        found["reason"] = (
            f"undefined for {', '.join(undefined)}, the mean is over the {len(values) - len(undefined)} others"
        )
    return found
