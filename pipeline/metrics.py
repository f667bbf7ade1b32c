"""What a run is worth: each metric with its definition in words and the majority baseline beside it.

No metric is ever NaN: where a split cannot tell (nobody in it has the emotion), the value is None and `reason`
says why. Whether a metric is defined depends on the truth alone, so that two models are always compared on the same.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

Bools = NDArray[np.bool_]
Floats = NDArray[np.floating]

MULTI_LABEL = {
    "accuracy": "share of utterances on which yes or no for the emotion is right; mean over emotions",
    "weighted_accuracy": "(TPR + TNR) / 2 of the emotion; mean over emotions",
    "f1": "2 TP / (2 TP + FP + FN) of the emotion's positives; mean over emotions",
    "roc_auc": "chance that a random utterance with the emotion scores above one without; mean over emotions",
}
MULTI_LABEL_BASELINE = {
    "accuracy": "always the answer, yes or no, that is more frequent in train",
    "weighted_accuracy": "always the same answer: 0.5 whichever it is",
    "f1": "always yes (always no, the usual majority, has F1 0)",
    "roc_auc": "the same score for all",
}
SINGLE_LABEL = {
    "accuracy": "share of utterances whose highest-scoring emotion is the true one (often called WA)",
    "unweighted_accuracy": "recall of each emotion that occurs, by the highest-scoring emotion; their mean (UA)",
}
SINGLE_LABEL_BASELINE = {
    "accuracy": "always the most frequent emotion of train",
    "unweighted_accuracy": "always the most frequent emotion of train",
}
NOBODY = "no utterance of this split has it"
EVERYBODY = "every utterance of this split has it"


def is_single_label(present: Bools) -> bool:
    """Whether every utterance has exactly one emotion, so that the single-label metrics mean something."""
    return len(present) > 0 and bool((present.sum(1) == 1).all())


def binary_metrics(present: Bools, predicted: Bools) -> dict[str, list[float | None]]:
    """Accuracy, weighted accuracy and F1 of each emotion; present, predicted: (n, E) bool, n > 0.

    Weighted accuracy is None where an emotion has no positives or no negatives, F1 where it has no positives.
    """
    n = len(present)
    positives, negatives = present.sum(0), n - present.sum(0)
    tp, fp = (present & predicted).sum(0), (~present & predicted).sum(0)
    fn, tn = positives - tp, negatives - fp
    values: dict[str, list[float | None]] = {"accuracy": [], "weighted_accuracy": [], "f1": []}
    for e in range(present.shape[1]):
        both = positives[e] > 0 and negatives[e] > 0
        values["accuracy"].append(float(tp[e] + tn[e]) / n)
        values["weighted_accuracy"].append(float(tp[e] / positives[e] + tn[e] / negatives[e]) / 2 if both else None)
        values["f1"].append(2 * float(tp[e]) / float(2 * tp[e] + fp[e] + fn[e]) if positives[e] else None)
    return values


def roc_auc(present: Bools, scores: Floats) -> list[float | None]:
    """Area under the ROC curve of each emotion; None where it has no positives or no negatives."""
    return [
        float(roc_auc_score(truth, score)) if truth.any() and not truth.all() else None
        for truth, score in zip(present.T, scores.T, strict=True)
    ]


def mean_defined(values: Sequence[float | None]) -> float | None:
    """The mean over those that are defined; None where none is."""
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None


def multi_label_report(
    emotions: Sequence[str], present: Bools, scores: Floats, predicted: Bools, train_share: Floats
) -> dict[str, Any]:
    """Every multi-label metric with its baseline, per emotion and as the mean, ready for JSON.

    present, predicted: (n, E) bool. scores: (n, E). train_share: (E,) share of train utterances with the emotion.
    """
    majority = np.broadcast_to(train_share >= 0.5, present.shape)
    values = binary_metrics(present, predicted) | {"roc_auc": roc_auc(present, scores)}
    constant = binary_metrics(present, majority)
    always_yes = binary_metrics(present, np.ones_like(present))
    baselines = {
        "accuracy": constant["accuracy"],
        "weighted_accuracy": constant["weighted_accuracy"],
        "f1": always_yes["f1"],
        "roc_auc": roc_auc(present, np.zeros_like(scores)),
    }
    positives = present.sum(0).tolist()
    return {
        name: _entry(
            values[name], baselines[name], definition, MULTI_LABEL_BASELINE[name], emotions, positives, present
        )
        for name, definition in MULTI_LABEL.items()
    }


def _entry(
    values: list[float | None],
    baselines: list[float | None],
    definition: str,
    baseline_definition: str,
    emotions: Sequence[str],
    positives: list[int],
    present: Bools,
) -> dict[str, Any]:
    per_emotion: dict[str, Any] = {}
    for emotion, value, baseline, count in zip(emotions, values, baselines, positives, strict=True):
        per_emotion[emotion] = {"value": value, "baseline": baseline, "positives": count}
        if value is None:
            per_emotion[emotion]["reason"] = EVERYBODY if count else NOBODY
    undefined = [emotion for emotion, value in zip(emotions, values, strict=True) if value is None]
    entry = {
        "value": mean_defined(values),
        "baseline": mean_defined(baselines),
        "definition": definition,
        "baseline_definition": baseline_definition,
        "utterances": len(present),
        "per_emotion": per_emotion,
    }
    if undefined:
        entry["reason"] = (
            f"undefined for {', '.join(undefined)}, the mean is over the {len(values) - len(undefined)} others"
        )
    return entry


def single_label_report(
    emotions: Sequence[str], truth: NDArray[np.integer], predicted: NDArray[np.integer], train_majority: int
) -> dict[str, Any]:
    """Accuracy and unweighted accuracy of single-label answers, ready for JSON.

    truth, predicted: (n,) index of the emotion, n > 0. train_majority: index of the most frequent one in train.
    """
    constant = np.full_like(truth, train_majority)
    occurring = [e for e in range(len(emotions)) if (truth == e).any()]

    def recalls(answer: NDArray[np.integer]) -> dict[int, float]:
        return {e: float((answer[truth == e] == e).mean()) for e in occurring}

    found, base = recalls(predicted), recalls(constant)
    values = {"accuracy": float((predicted == truth).mean()), "unweighted_accuracy": mean_defined([*found.values()])}
    baselines = {"accuracy": float((constant == truth).mean()), "unweighted_accuracy": mean_defined([*base.values()])}
    report: dict[str, Any] = {
        name: {
            "value": values[name],
            "baseline": baselines[name],
            "definition": definition,
            "baseline_definition": SINGLE_LABEL_BASELINE[name],
            "utterances": len(truth),
        }
        for name, definition in SINGLE_LABEL.items()
    }
    report["unweighted_accuracy"]["per_emotion"] = {
        emotion: {"value": found[e], "baseline": base[e], "positives": int((truth == e).sum())}
        if e in found
        else {"value": None, "baseline": None, "positives": 0, "reason": NOBODY}
        for e, emotion in enumerate(emotions)
    }
    return report
