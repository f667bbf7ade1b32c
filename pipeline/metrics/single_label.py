"""Single-label emotions: each utterance has exactly one, and the highest score is the answer."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.metrics import classes
from pipeline.metrics.metric import Classes, Metric, entry, mean_defined, mean_entry

_BASELINE = "always the most frequent emotion of train"
# Functions: (truth, predicted, number of emotions) -> one value, or a value an emotion. The F1 of one emotion is its
# binary F1.
SINGLE_LABEL = (
    Metric(
        "accuracy",
        "share of utterances whose highest-scoring emotion is the true one (often called WA)",
        lambda truth, predicted, _: classes.accuracy(truth, predicted),
        _BASELINE,
    ),
    Metric(
        "unweighted_accuracy",
        "recall of each emotion that occurs, by the highest-scoring emotion; their mean (UA)",
        classes.recalls,
        _BASELINE,
        by_emotion=True,
    ),
    Metric(
        "weighted_f1",
        "F1 of each emotion, by the highest-scoring emotion, weighted by how often it is true (WAF)",
        classes.weighted_f1,
        _BASELINE,
    ),
    Metric(
        "macro_f1",
        "F1 of each emotion that occurs, by the highest-scoring emotion; their mean",
        classes.f1_scores,
        _BASELINE,
        by_emotion=True,
    ),
    Metric(
        "binary_accuracy",
        "share of utterances on which the highest-scoring emotion is right about this emotion, yes or no; mean over "
        "emotions",
        classes.binary_accuracies,
        _BASELINE,
    ),
)


def single_label_values(truth: Classes, predicted: Classes, emotions: int) -> dict[str, float | None]:
    """Every single-label metric by name; truth, predicted: (n,) number of the emotion, n > 0."""
    found = {metric.name: metric.function(truth, predicted, emotions) for metric in SINGLE_LABEL}
    return {name: mean_defined(value) if isinstance(value, list) else value for name, value in found.items()}


def single_label_report(
    emotions: Sequence[str], truth: Classes, predicted: Classes, train_majority: int
) -> dict[str, Any]:
    """Every single-label metric with its baseline, ready for JSON; `accuracy` holds the confusion matrix too.

    truth, predicted: (n,) number of the emotion, n > 0. train_majority: number of the most frequent one in train.
    """
    count = len(emotions)
    constant = np.full_like(truth, train_majority)
    positives = np.bincount(truth, minlength=count).tolist()
    report = {}
    for metric in SINGLE_LABEL:
        value, baseline = (metric.function(truth, answer, count) for answer in (predicted, constant))
        if isinstance(value, list):
            report[metric.name] = mean_entry(metric, value, baseline, emotions, positives, len(truth))
        else:
            report[metric.name] = entry(value, baseline, metric.definition, metric.baseline, len(truth))
    report["accuracy"]["confusion"] = {
        "emotions": list(emotions),
        "rows": "the true emotion; columns: the highest-scoring one",
        "utterances": classes.confusion(truth, predicted, count).tolist(),
    }
    return report
