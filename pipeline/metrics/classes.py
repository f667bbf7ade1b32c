"""Metrics of answers that name one class each: truth, predicted (n,) numbers of classes, n > 0.

They serve single-label emotions, and sentiment once its numbers are put into classes.
"""

import numpy as np

from pipeline.metrics.metric import Classes, mean_defined


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
