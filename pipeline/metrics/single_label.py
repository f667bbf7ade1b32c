"""Single-label emotions: each utterance has exactly one, and the highest score is the answer."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.metrics.metric import Classes, Metric, entry, mean_defined, mean_entry


def accuracy(truth: Classes, predicted: Classes) -> float:
    """Share of right answers, in [0, 1]. Speech papers call it weighted accuracy (WA)."""
    return float((truth == predicted).mean())


def confusion(truth: Classes, predicted: Classes, classes: int) -> Classes:
    """(classes, classes) int64: how often each class, the row, was called each class, the column."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (truth, predicted), 1)
    return counts


def recalls(truth: Classes, predicted: Classes, classes: int) -> list[float | None]:
    """Of each class the share, in [0, 1], that was found; None where it does not occur."""
    counts = confusion(truth, predicted, classes)
    return [float(row[c] / row.sum()) if row.any() else None for c, row in enumerate(counts)]


def unweighted_accuracy(truth: Classes, predicted: Classes, classes: int) -> float | None:
    """Mean recall over the classes that occur, in [0, 1]: the UA of speech papers, scikit-learn's balanced accuracy."""
    return mean_defined(recalls(truth, predicted, classes))


def binary_accuracies(truth: Classes, predicted: Classes, classes: int) -> list[float]:
    """Of each class the share of answers, in [0, 1], that are right about being of the class or not."""
    return [float(((truth == c) == (predicted == c)).mean()) for c in range(classes)]


def f1_scores(truth: Classes, predicted: Classes, classes: int) -> list[float | None]:
    """Of each class 2 TP / (2 TP + FP + FN), in [0, 1]; None where it does not occur."""
    counts = confusion(truth, predicted, classes)
    return [
        float(2 * counts[c, c] / (counts[c].sum() + counts[:, c].sum())) if counts[c].any() else None
        for c in range(classes)
    ]


def macro_f1(truth: Classes, predicted: Classes, classes: int) -> float | None:
    """Mean F1 over the classes that occur in `truth`, in [0, 1].

    scikit-learn's also counts a 0 for a class that is only ever predicted, which makes two models' means differ in
    what they are means of.
    """
    return mean_defined(f1_scores(truth, predicted, classes))


def weighted_f1(truth: Classes, predicted: Classes, classes: int) -> float:
    """Mean F1 weighted by how often each class occurs in `truth`, in [0, 1]: the WAF of dialogue papers.

    MulT's code swaps the two arguments and so weighs by how often each class is predicted: another number.
    """
    scores = f1_scores(truth, predicted, classes)
    shares = np.bincount(truth, minlength=classes) / len(truth)
    return float(sum(share * score for share, score in zip(shares, scores, strict=True) if score is not None))


_BASELINE = "always the most frequent emotion of train"
# Functions: (truth, predicted, number of emotions) -> one value, or a value an emotion. The F1 of one emotion is its
# binary F1.
SINGLE_LABEL = (
    Metric(
        "accuracy",
        "share of utterances whose highest-scoring emotion is the true one (often called WA)",
        lambda truth, predicted, _: accuracy(truth, predicted),
        _BASELINE,
    ),
    Metric(
        "unweighted_accuracy",
        "recall of each emotion that occurs, by the highest-scoring emotion; their mean (UA)",
        recalls,
        _BASELINE,
        by_emotion=True,
    ),
    Metric(
        "weighted_f1",
        "F1 of each emotion, by the highest-scoring emotion, weighted by how often it is true (WAF)",
        weighted_f1,
        _BASELINE,
    ),
    Metric(
        "macro_f1",
        "F1 of each emotion that occurs, by the highest-scoring emotion; their mean",
        f1_scores,
        _BASELINE,
        by_emotion=True,
    ),
    Metric(
        "binary_accuracy",
        "share of utterances on which the highest-scoring emotion is right about this emotion, yes or no; mean over "
        "emotions",
        binary_accuracies,
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
        "utterances": confusion(truth, predicted, count).tolist(),
    }
    return report
