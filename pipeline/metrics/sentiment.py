"""Sentiment as a number: errors, correlation, and accuracies of the classes that the field puts the numbers into.

truth, predicted: (n,) float, n > 0, in the corpus' range, [-3, 3] or [-1, 1]; predictions may lie beyond it. Papers
disagree about classes and rounding under one name, so every variant has a name of its own here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from pipeline.metrics.metric import Bools, Classes, Floats, Metric, entry
from pipeline.metrics.single_label import accuracy, weighted_f1


@dataclass(frozen=True)
class Classing:
    """Classes that numbers are put into.

    classify: (n,) float -> (n,) int64 classes, numbered from 0. words: the same for a person, with who does it so.
    counts: from the truth, (n,) bool, which utterances count; None for all.
    """

    classify: Callable[[Floats], Classes]
    words: str
    classes: int
    counts: Callable[[Floats], Bools] | None = None

    def classify_both(self, truth: Floats, predicted: Floats) -> tuple[Classes, Classes]:
        """Classes of truth and prediction, of the utterances that count."""
        kept = slice(None) if self.counts is None else self.counts(truth)
        return self.classify(truth[kept]), self.classify(predicted[kept])


def half_to_even(values: Floats, limit: int) -> Classes:
    """Clipped to [-limit, limit] and rounded, 0.5 to 0 and 1.5 to 2, as numpy does; + limit, so 0 is the lowest."""
    return np.round(np.clip(values, -limit, limit)).astype(np.int64) + limit


def away_from_zero(values: Floats, limit: int) -> Classes:
    """Clipped and rounded away from zero, (0, 1] to 1 and (1, 2] to 2, as in CMU's SDK; + limit."""
    clipped = np.clip(values, -limit, limit)
    return (np.sign(clipped) * np.ceil(np.abs(clipped))).astype(np.int64) + limit


def between(values: Floats, cuts: tuple[float, ...]) -> Classes:
    """Number of `cuts` below each value: classes (-inf, c1], (c1, c2] ...

    In float32, as MMSA compares: there a label of 0.1 is not above the cut 0.1.
    """
    return np.searchsorted(np.array(cuts, np.float32), values.astype(np.float32), side="left")


HAS0 = Classing(lambda v: (v >= 0).astype(np.int64), "negative and non-negative, all utterances (MMSA's Has0)", 2)
NON0 = Classing(
    lambda v: (v > 0).astype(np.int64),
    "negative and positive, utterances of sentiment 0 left out (MMSA's Non0)",
    2,
    counts=lambda truth: truth != 0,
)
POSITIVE = Classing(lambda v: (v > 0).astype(np.int64), "non-positive and positive, all utterances", 2)
SEVEN = Classing(lambda v: half_to_even(v, 3), "-3 to 3, clipped and rounded half to even (MulT, MMSA, EMT)", 7)
SEVEN_AWAY = Classing(lambda v: away_from_zero(v, 3), "-3 to 3, rounded away from zero (CMU's SDK)", 7)
FIVE = Classing(lambda v: half_to_even(v, 2), "-2 to 2, clipped and rounded half to even (MulT, MMSA, EMT)", 5)
SIMS_TWO = Classing(lambda v: between(v, (0.0,)), "up to 0 and above (CH-SIMS in MMSA)", 2)
SIMS_THREE = Classing(lambda v: between(v, (-0.1, 0.1)), "cut at -0.1 and 0.1 (CH-SIMS in MMSA)", 3)
SIMS_FIVE = Classing(
    lambda v: between(v, (-0.7, -0.1, 0.1, 0.7)), "cut at -0.7, -0.1, 0.1 and 0.7 (CH-SIMS in MMSA)", 5
)

ALL_ZERO = "every utterance of this split has sentiment 0"
TOO_FEW = "one utterance has no correlation"
SAME_TRUTH = "every utterance of this split has the same sentiment"
SAME_SCORE = "every utterance of this split has the same score"


def mae(truth: Floats, predicted: Floats) -> float:
    """Mean absolute error, unclipped, from 0 up; lower is better."""
    return float(np.abs(truth.astype(np.float64) - predicted.astype(np.float64)).mean())


def why_no_corr(truth: Floats, predicted: Floats) -> str | None:
    """Reason why `corr` is undefined; None where it is defined."""
    if len(truth) < 2:
        return TOO_FEW
    if np.ptp(truth) == 0:
        return SAME_TRUTH
    return SAME_SCORE if np.ptp(predicted) == 0 else None


def corr(truth: Floats, predicted: Floats) -> float | None:
    """Pearson's correlation in [-1, 1], unclipped scores; None where one side is constant or n is 1."""
    if why_no_corr(truth, predicted):
        return None
    return float(np.corrcoef(truth.astype(np.float64), predicted.astype(np.float64))[0, 1])


def class_accuracy(classing: Classing, truth: Floats, predicted: Floats) -> float | None:
    """Share of utterances that count whose number falls into the right class, in [0, 1]; None where none counts."""
    right, found = classing.classify_both(truth, predicted)
    return accuracy(right, found) if len(right) else None


def class_f1(classing: Classing, truth: Floats, predicted: Floats) -> float | None:
    """F1 of the classes weighted by how often each is true, in [0, 1]; None where no utterance counts."""
    right, found = classing.classify_both(truth, predicted)
    return weighted_f1(right, found, classing.classes) if len(right) else None


def clipped(function: Callable[[Floats, Floats], float | None], truth: Floats, predicted: Floats) -> float | None:
    """`function` of predictions that are clipped to [-1, 1], as those of CH-SIMS are published."""
    return function(truth, np.clip(predicted, -1, 1))


def f1_by_predicted(classing: Classing, truth: Floats, predicted: Floats) -> float | None:
    """As `class_f1`, weighted by how often each class is predicted; None where no utterance counts."""
    right, found = classing.classify_both(truth, predicted)
    return weighted_f1(found, right, classing.classes) if len(right) else None


_MEAN = "always the mean sentiment of train"


@dataclass(frozen=True)
class SentimentMetric(Metric):
    """A metric of sentiment. Its function: (truth, predicted) -> one value.

    limits: the ends of the scales that it is for. classing: the classes of an accuracy or F1, whose baseline is the
    class that is most frequent in train.
    """

    limits: tuple[int, ...] = (1, 3)
    classing: Classing | None = None


def _accuracy(name: str, classing: Classing, limit: int) -> SentimentMetric:
    return _of_classes(name, "share of utterances in the right class", class_accuracy, classing, limit)


def _f1(name: str, classing: Classing, limit: int) -> SentimentMetric:
    return _of_classes(name, "F1 of each class, weighted by how often it is true", class_f1, classing, limit)


_SWAPPED = (
    "F1 of each class, weighted by how often it is predicted, as MulT's code prints it: its arguments are swapped"
)


def _of_classes(
    name: str, says: str, function: Callable[[Classing, Floats, Floats], float | None], classing: Classing, limit: int
) -> SentimentMetric:
    return SentimentMetric(
        name,
        f"{says}; classes: {classing.words}",
        partial(function, classing),
        "always the class that is most frequent in train",
        limits=(limit,),
        classing=classing,
    )


SENTIMENT = (
    SentimentMetric("mae", "mean absolute error", mae, _MEAN, lower_is_better=True),
    SentimentMetric("corr", "Pearson's correlation of truth and score", corr, _MEAN + ", for which it is undefined"),
    _accuracy("acc2_has0", HAS0, 3),
    _f1("f1_has0", HAS0, 3),
    _accuracy("acc2_non0", NON0, 3),
    _f1("f1_non0", NON0, 3),
    _of_classes("f1_non0_by_predicted", _SWAPPED, f1_by_predicted, NON0, 3),
    _accuracy("acc2_positive", POSITIVE, 3),
    _f1("f1_positive", POSITIVE, 3),
    _accuracy("acc5", FIVE, 3),
    _accuracy("acc7", SEVEN, 3),
    _accuracy("acc7_away_from_zero", SEVEN_AWAY, 3),
    SentimentMetric(
        "mae_clipped",
        "mean absolute error of scores clipped to [-1, 1] (as published for CH-SIMS)",
        partial(clipped, mae),
        _MEAN,
        lower_is_better=True,
        limits=(1,),
    ),
    SentimentMetric(
        "corr_clipped",
        "Pearson's correlation of truth and score clipped to [-1, 1] (as published for CH-SIMS)",
        partial(clipped, corr),
        _MEAN + ", for which it is undefined",
        limits=(1,),
    ),
    _accuracy("acc2_sims", SIMS_TWO, 1),
    _f1("f1_sims", SIMS_TWO, 1),
    _accuracy("acc3_sims", SIMS_THREE, 1),
    _accuracy("acc5_sims", SIMS_FIVE, 1),
)


def sentiment_metrics(limit: int) -> list[SentimentMetric]:
    """The metrics of a corpus whose sentiments are in [-limit, limit], limit 1 or 3."""
    return [metric for metric in SENTIMENT if limit in metric.limits]


def sentiment_values(truth: Floats, predicted: Floats, limit: int) -> dict[str, float | None]:
    """Every metric of sentiment in [-limit, limit] by name, limit 1 or 3."""
    return {metric.name: metric.function(truth, predicted) for metric in sentiment_metrics(limit)}


def train_constants(truth: Floats) -> dict[str, float]:
    """The baselines' constant answers, from the sentiments of train, (n,), n > 0.

    `mean`, and for each accuracy's classes, by the accuracy's name, a sentiment of the class that is most frequent;
    of equally frequent ones the lowest.
    """
    constants = {"mean": float(truth.mean(dtype=np.float64))}
    for metric in SENTIMENT:
        classing = metric.classing
        if classing is None or metric.name.startswith("f1"):
            continue
        counted = truth if classing.counts is None else truth[classing.counts(truth)]
        if len(counted):
            found = classing.classify(counted)
            constants[metric.name] = float(counted[found == np.bincount(found).argmax()][0])
    return constants


def sentiment_report(truth: Floats, predicted: Floats, limit: int, constants: dict[str, float]) -> dict[str, Any]:
    """Every metric of sentiment in [-limit, limit] with its baseline, ready for JSON.

    constants: of `train_constants`.
    """
    by_classing = {metric.classing: constants[metric.name] for metric in SENTIMENT if metric.name in constants}
    report = {}
    for metric in sentiment_metrics(limit):
        # Where nothing of train counts, its mean is all that is known.
        constant = by_classing.get(metric.classing, constants["mean"])
        baseline = metric.function(truth, np.full_like(truth, constant))
        counts = metric.classing.counts if metric.classing else None
        counted = len(truth) if counts is None else int(counts(truth).sum())
        value = metric.function(truth, predicted)
        report[metric.name] = entry(value, baseline, metric.definition, metric.baseline, counted)
        if value is None:
            report[metric.name]["reason"] = _why_undefined(metric, truth, predicted)
    return report


def _why_undefined(metric: SentimentMetric, truth: Floats, predicted: Floats) -> str | None:
    if metric.classing is not None:
        return ALL_ZERO
    return why_no_corr(truth, np.clip(predicted, -1, 1) if metric.name == "corr_clipped" else predicted)
