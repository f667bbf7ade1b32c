"""Multi-label emotions: yes or no for each emotion, beside the majority of train.

present, predicted: (n, E) bool, n > 0, whether an utterance has each emotion.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.metrics.metric import Bools, Floats, Metric, mean_entry
from pipeline.metrics.single_label import weighted_f1

_MAJORITY = "always the answer, yes or no, that is more frequent in train"


def is_single_label(present: Bools) -> bool:
    """True where every utterance has exactly one emotion, so that the single-label metrics mean something."""
    return len(present) > 0 and bool((present.sum(1) == 1).all())


def binary_metrics(present: Bools, predicted: Bools) -> dict[str, list[float | None]]:
    """Accuracy, weighted accuracy and F1 of each emotion, all in [0, 1].

    Weighted accuracy is the (TP N / P + TN) / (2 N) of the papers on CMU-MOSEI: the mean of the two recalls. It is None
    where an emotion has no positives or no negatives, F1 where it has no positives.
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


def two_way_f1(present: Bools, predicted: Bools) -> list[float | None]:
    """Of each emotion the F1 of yes and of no, weighted by how often each is true, in [0, 1]; always defined.

    The F1 of MulT and what follows it. No to everything has about 0.8 on IEMOCAP's classes, so it says little of the
    positives.
    """
    return [
        weighted_f1(truth.astype(int), answer.astype(int), 2)
        for truth, answer in zip(present.T, predicted.T, strict=True)
    ]


def roc_auc(present: Bools, scores: Floats) -> list[float | None]:
    """Area under the ROC curve of each emotion, in [0, 1]; None where it has no positives or no negatives.

    scores: (n, E); of equal ones half counts as above.
    """
    from sklearn.metrics import roc_auc_score  # takes most of a second

    return [
        float(roc_auc_score(truth, score)) if truth.any() and not truth.all() else None
        for truth, score in zip(present.T, scores.T, strict=True)
    ]


# Functions: (present, scores (n, E), predicted) -> a value an emotion.
MULTI_LABEL = (
    Metric(
        "accuracy",
        "share of utterances on which yes or no for the emotion is right; mean over emotions",
        lambda present, _, predicted: binary_metrics(present, predicted)["accuracy"],
        baseline=_MAJORITY,
        report_title="accuracy",
        by_emotion=True,
    ),
    Metric(
        "weighted_accuracy",
        "(TPR + TNR) / 2 of the emotion; mean over emotions",
        lambda present, _, predicted: binary_metrics(present, predicted)["weighted_accuracy"],
        baseline="always the same answer: 0.5 whichever it is",
        report_title="weighted accuracy",
        by_emotion=True,
    ),
    Metric(
        "f1",
        "2 TP / (2 TP + FP + FN) of the emotion's positives; mean over emotions",
        lambda present, _, predicted: binary_metrics(present, predicted)["f1"],
        baseline="always yes (always no, the usual majority, has F1 0)",
        report_title="F1",
        by_emotion=True,
    ),
    Metric(
        "f1_two_way",
        "F1 of yes and of no, weighted by how often each is true (MulT's F1); mean over emotions",
        lambda present, _, predicted: two_way_f1(present, predicted),
        baseline=_MAJORITY,
    ),
    Metric(
        "roc_auc",
        "chance that a random utterance with the emotion scores above one without; mean over emotions",
        lambda present, scores, _: roc_auc(present, scores),
        baseline="the same score for all",
    ),
)


def multi_label_values(present: Bools, scores: Floats, predicted: Bools) -> dict[str, list[float | None]]:
    """Every multi-label metric by name, of each emotion."""
    return {metric.name: metric.function(present, scores, predicted) for metric in MULTI_LABEL}


def multi_label_report(
    emotions: Sequence[str], present: Bools, scores: Floats, predicted: Bools, train_share: Floats
) -> dict[str, Any]:
    """Every multi-label metric with its baseline, per emotion and as the mean, ready for JSON.

    scores: (n, E). train_share: (E,) share of train utterances with the emotion.
    """
    values, flat = multi_label_values(present, scores, predicted), np.zeros_like(scores)
    baselines = multi_label_values(present, flat, np.broadcast_to(train_share >= 0.5, present.shape))
    baselines["f1"] = binary_metrics(present, np.ones_like(present))["f1"]
    positives = present.sum(0).tolist()
    return {
        metric.name: mean_entry(metric, values[metric.name], baselines[metric.name], emotions, positives, len(present))
        for metric in MULTI_LABEL
    }
