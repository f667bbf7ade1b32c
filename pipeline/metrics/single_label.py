"""Single-label emotions: each utterance has exactly one, and the highest score is the answer."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pipeline.metrics import classes
from pipeline.metrics.values import Classes, entry, mean_entry

SINGLE_LABEL = {
    "accuracy": "share of utterances whose highest-scoring emotion is the true one (often called WA)",
    "unweighted_accuracy": "recall of each emotion that occurs, by the highest-scoring emotion; their mean (UA)",
    "weighted_f1": "F1 of each emotion, by the highest-scoring emotion, weighted by how often it is true (WAF)",
    "macro_f1": "F1 of each emotion that occurs, by the highest-scoring emotion; their mean",
    "binary_accuracy": "share of utterances on which the highest-scoring emotion is right about this emotion, yes or "
    "no; mean over emotions",
}
BASELINE = "always the most frequent emotion of train"
# Those that are means over emotions. The F1 of one emotion is its binary F1.
PER_EMOTION: dict[str, Callable[[Classes, Classes, int], Sequence[float | None]]] = {
    "unweighted_accuracy": classes.recalls,
    "macro_f1": classes.f1_scores,
    "binary_accuracy": classes.binary_accuracies,
}


def single_label_values(truth: Classes, predicted: Classes, emotions: int) -> dict[str, float | None]:
    """Every single-label metric by name; truth, predicted: (n,) number of the emotion, n > 0."""
    return {
        "accuracy": classes.accuracy(truth, predicted),
        "unweighted_accuracy": classes.unweighted_accuracy(truth, predicted, emotions),
        "weighted_f1": classes.weighted_f1(truth, predicted, emotions),
        "macro_f1": classes.macro_f1(truth, predicted, emotions),
        "binary_accuracy": float(np.mean(classes.binary_accuracies(truth, predicted, emotions))),
    }


def single_label_report(
    emotions: Sequence[str], truth: Classes, predicted: Classes, train_majority: int
) -> dict[str, Any]:
    """Every single-label metric with its baseline, ready for JSON; `accuracy` holds the confusion matrix too.

    truth, predicted: (n,) number of the emotion, n > 0. train_majority: number of the most frequent one in train.
    """
    count = len(emotions)
    constant = np.full_like(truth, train_majority)
    values, baselines = (single_label_values(truth, answer, count) for answer in (predicted, constant))
    positives = np.bincount(truth, minlength=count).tolist()
    report = {
        name: entry(values[name], baselines[name], definition, BASELINE, len(truth))
        for name, definition in SINGLE_LABEL.items()
    }
    for name, of_each in PER_EMOTION.items():
        found, of_constant = (of_each(truth, answer, count) for answer in (predicted, constant))
        report[name] = mean_entry(found, of_constant, SINGLE_LABEL[name], BASELINE, emotions, positives, len(truth))
    report["accuracy"]["confusion"] = {
        "emotions": list(emotions),
        "rows": "the true emotion; columns: the highest-scoring one",
        "utterances": classes.confusion(truth, predicted, count).tolist(),
    }
    return report
