"""What all metrics share: types, means over what is defined, and how one value stands in metrics.json."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Floats = NDArray[np.floating]
Classes = NDArray[np.integer]

NOBODY = "no utterance of this split has it"
EVERYBODY = "every utterance of this split has it"


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
    values: Sequence[float | None],
    baselines: Sequence[float | None],
    definition: str,
    baseline_definition: str,
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
    found = entry(mean_defined(values), mean_defined(baselines), definition, baseline_definition, utterances)
    found["per_emotion"] = per_emotion
    undefined = [emotion for emotion, value in zip(emotions, values, strict=True) if value is None]
    if undefined:
        found["reason"] = (
            f"undefined for {', '.join(undefined)}, the mean is over the {len(values) - len(undefined)} others"
        )
    return found
