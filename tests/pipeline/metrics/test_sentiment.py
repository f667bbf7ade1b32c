import json

import numpy as np
import pytest
import scipy.stats
import torch
import torchmetrics.functional.regression as torchmetrics
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from pipeline.metrics.sentiment import (
    ALL_ZERO,
    FIVE,
    HAS0,
    NON0,
    POSITIVE,
    SAME_SCORE,
    SAME_TRUTH,
    SEVEN,
    SEVEN_AWAY,
    SIMS_FIVE,
    SIMS_THREE,
    SIMS_TWO,
    TOO_FEW,
    class_accuracy,
    class_f1,
    corr,
    mae,
    sentiment_report,
    sentiment_values,
    train_constants,
)

# Every pair differs in one thing: the sign, a zero in the truth, a zero in the score.
TRUTH = np.array([-2.0, -0.4, 0.0, 0.0, 0.6, 1.5], np.float32)
SCORE = np.array([-1.2, 0.2, -0.3, 0.4, 0.0, 2.6], np.float32)


def test_three_meanings_of_two_classes_by_hand():
    """Has0: right are -2, the second 0 (0 and above), 0.6 (0 is not negative), 1.5; Non0 drops both zeros and asks for
    more than 0; MulT's asks for more than 0 of all."""
    assert class_accuracy(HAS0, TRUTH, SCORE) == 4 / 6
    assert class_accuracy(NON0, TRUTH, SCORE) == 2 / 4
    assert class_accuracy(POSITIVE, TRUTH, SCORE) == 3 / 6


def test_their_f1s_by_hand():
    # Has0: truth - - + + + +, score - + - + + +. F1 of - is 2/4, of + is 6/8.
    assert class_f1(HAS0, TRUTH, SCORE) == pytest.approx(2 / 6 * 2 / 4 + 4 / 6 * 6 / 8)
    # Non0: truth - - + +, score - + - +.
    assert class_f1(NON0, TRUTH, SCORE) == pytest.approx(1 / 2)
    # MulT's: truth - - - - + +, score - + - + - +.
    assert class_f1(POSITIVE, TRUTH, SCORE) == pytest.approx(4 / 6 * 4 / 7 + 2 / 6 * 2 / 5)


def cmu_sdk_round(value):
    """The rule of CMU's SDK, case by case."""
    if value < -2:
        return -3
    if value < -1:
        return -2
    if value < 0:
        return -1
    if value == 0:
        return 0
    if value <= 1:
        return 1
    return 2 if value <= 2 else 3


def test_rounding_rules_at_the_ties():
    ties = np.array([-2.5, -1.5, -0.5, 0.0, 0.5, 1.5, 2.5], np.float32)
    assert (SEVEN.classify(ties) - 3).tolist() == [-2, -2, 0, 0, 0, 2, 2]
    assert (SEVEN_AWAY.classify(ties) - 3).tolist() == [-3, -2, -1, 0, 1, 2, 3]
    assert (FIVE.classify(ties) - 2).tolist() == [-2, -2, 0, 0, 0, 2, 2]
    far = np.array([-9.0, -3.0, 3.0, 9.0], np.float32)
    assert (SEVEN.classify(far) - 3).tolist() == (SEVEN_AWAY.classify(far) - 3).tolist() == [-3, -3, 3, 3]
    assert (FIVE.classify(far) - 2).tolist() == [-2, -2, 2, 2]


@given(st.floats(-4, 4, width=32))
def test_away_from_zero_is_the_rule_of_the_sdk(value):
    assert SEVEN_AWAY.classify(np.array([value], np.float32)).item() - 3 == cmu_sdk_round(value)


def test_the_rounding_rule_changes_the_score():
    """0.4 and 1.0: the same class away from zero, 0 and 1 when rounded to the nearest."""
    truth, score = np.array([1.0], np.float32), np.array([0.4], np.float32)
    assert (class_accuracy(SEVEN, truth, score), class_accuracy(SEVEN_AWAY, truth, score)) == (0, 1)


def mmsa_class(value, edges):
    """Half-open intervals (low, high], as MMSA writes them out; its arrays and cuts are float32."""
    value = np.clip(np.float32(value), np.float32(-1), np.float32(1))
    edges = np.array(edges, np.float32)
    return next(i for i in range(len(edges) - 1) if edges[i] < value <= edges[i + 1])


@pytest.mark.parametrize(
    ("classing", "edges"),
    [
        (SIMS_TWO, [-1.01, 0.0, 1.01]),
        (SIMS_THREE, [-1.01, -0.1, 0.1, 1.01]),
        (SIMS_FIVE, [-1.01, -0.7, -0.1, 0.1, 0.7, 1.01]),
    ],
)
def test_classes_of_sims_are_half_open_intervals(classing, edges):
    values = [*edges[1:-1], *np.linspace(-1, 1, 11), -3.0, 3.0, *np.random.default_rng(0).uniform(-1, 1, 50)]
    found = classing.classify(np.array(values, np.float32)).tolist()
    assert found == [mmsa_class(value, edges) for value in values]
    assert max(found) < classing.classes


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(2, 40))
def test_the_same_as_scikit_learn_and_scipy(seed, n):
    draw = np.random.default_rng(seed)
    truth = (draw.integers(-15, 16, n) / 5).astype(np.float32)
    score = (truth + draw.normal(0, 1, n)).astype(np.float32)
    found = sentiment_values(truth, score, 3)
    assert found["mae"] == pytest.approx(sklearn.mean_absolute_error(truth, score), rel=1e-5)
    if np.ptp(truth):
        assert found["corr"] == pytest.approx(scipy.stats.pearsonr(truth, score).statistic, abs=1e-5)
        theirs = torchmetrics.pearson_corrcoef(torch.from_numpy(score).double(), torch.from_numpy(truth).double())
        assert found["corr"] == pytest.approx(theirs.item(), abs=1e-6)
    assert found["acc7"] == sklearn.accuracy_score(np.round(np.clip(truth, -3, 3)), np.round(np.clip(score, -3, 3)))
    assert found["acc5"] == sklearn.accuracy_score(np.round(np.clip(truth, -2, 2)), np.round(np.clip(score, -2, 2)))
    expected = sklearn.f1_score(truth >= 0, score >= 0, average="weighted", zero_division=0)
    assert found["f1_has0"] == pytest.approx(expected)
    counted = truth != 0
    if counted.any():
        expected = sklearn.f1_score(truth[counted] > 0, score[counted] > 0, average="weighted", zero_division=0)
        assert found["f1_non0"] == pytest.approx(expected)
        assert found["acc2_non0"] == sklearn.accuracy_score(truth[counted] > 0, score[counted] > 0)


def test_errors_and_correlation_are_of_unclipped_scores():
    truth, score = np.array([3.0, -3.0, 1.0], np.float32), np.array([7.0, -3.0, 1.0], np.float32)
    assert mae(truth, score) == pytest.approx(4 / 3)
    assert corr(truth, score) == pytest.approx(scipy.stats.pearsonr(truth, score).statistic)
    assert class_accuracy(SEVEN, truth, score) == 1


@pytest.mark.parametrize(
    ("truth", "score", "reason"),
    [
        ([1.0], [1.0], TOO_FEW),
        ([1.0, 1.0], [0.0, 1.0], SAME_TRUTH),
        ([0.0, 1.0], [0.3, 0.3], SAME_SCORE),
    ],
)
def test_a_correlation_that_is_undefined_says_why(truth, score, reason):
    truth, score = np.array(truth, np.float32), np.array(score, np.float32)
    report = sentiment_report(truth, score, 3, train_constants(truth))
    assert (report["corr"]["value"], report["corr"]["reason"]) == (None, reason)
    json.dumps(report, allow_nan=False)


def test_non_zero_metrics_of_zeros_are_undefined_and_say_why():
    zeros = np.zeros(3, np.float32)
    report = sentiment_report(zeros, np.array([0.1, 0.2, -1], np.float32), 3, train_constants(zeros))
    for name in ("acc2_non0", "f1_non0"):
        assert (report[name]["value"], report[name]["baseline"], report[name]["reason"]) == (None, None, ALL_ZERO)
        assert report[name]["utterances"] == 0
    assert report["acc2_has0"]["value"] == pytest.approx(2 / 3)
    json.dumps(report, allow_nan=False)


def test_counts_stand_beside_the_scores():
    report = sentiment_report(TRUTH, SCORE, 3, train_constants(TRUTH))
    assert {name: entry["utterances"] for name, entry in report.items() if entry["utterances"] != 6} == {
        "acc2_non0": 4,
        "f1_non0": 4,
        "f1_non0_by_predicted": 4,
    }
    values = sentiment_values(TRUTH, SCORE, 3)
    assert {name: entry["value"] for name, entry in report.items()} == values
    assert all(entry["definition"] and entry["baseline_definition"] for entry in report.values())


def test_which_metrics_there_are_follows_from_the_range():
    wide, narrow = (set(sentiment_values(TRUTH, SCORE, limit)) for limit in (3, 1))
    assert wide & narrow == {"mae", "corr"}
    assert narrow - wide == {"acc2_sims", "acc3_sims", "acc5_sims", "f1_sims", "mae_clipped", "corr_clipped"}
    two = {f"{kind}_{name}" for kind in ("acc2", "f1") for name in ("has0", "non0", "positive")}
    assert wide - narrow == two | {"f1_non0_by_predicted", "acc5", "acc7", "acc7_away_from_zero"}


def test_baselines_by_hand():
    """Train: 3 of 5 are negative, most often -1 when rounded; its mean is -0.5."""
    train = np.array([-1.2, -0.8, -1.4, 0.0, 0.9], np.float32)
    constants = train_constants(train)
    report = sentiment_report(TRUTH, SCORE, 3, constants)
    base = {name: entry["baseline"] for name, entry in report.items()}
    assert constants["mean"] == pytest.approx(-0.5)
    assert base["mae"] == pytest.approx((1.5 + 0.1 + 0.5 + 0.5 + 1.1 + 2.0) / 6, rel=1e-5)
    assert base["corr"] is None
    assert base["acc2_has0"] == 2 / 6  # always negative
    assert base["acc2_non0"] == 2 / 4
    assert base["acc2_positive"] == 4 / 6
    assert base["f1_positive"] == pytest.approx(4 / 6 * 8 / 10)
    assert base["acc7"] == 0  # always -1: nobody is
    assert base["acc7_away_from_zero"] == 1 / 6  # -1.2 and -1.4 are -2, as -2.0 is


def test_published_sims_scores_are_of_clipped_predictions():
    draw = np.random.default_rng(0)
    truth, predicted = draw.uniform(-1, 1, 40).astype(np.float32), draw.normal(0, 2, 40).astype(np.float32)
    values = sentiment_values(truth, predicted, 1)
    inside = np.array([max(-1.0, min(1.0, value)) for value in predicted])
    assert values["mae_clipped"] == pytest.approx(np.mean([abs(t - p) for t, p in zip(truth, inside, strict=True)]))
    assert values["corr_clipped"] == pytest.approx(np.corrcoef(truth, inside)[0, 1])
    assert values["mae"] > values["mae_clipped"]
    # All scores beyond the scale are one score, and have no correlation.
    report = sentiment_report(truth, np.full(40, 3, np.float32) + truth.clip(0), 1, {"mean": 0.0})
    assert (report["corr_clipped"]["value"], report["corr_clipped"]["reason"]) == (None, SAME_SCORE)
    assert report["corr"]["value"] is not None


def test_mults_f1_is_scikit_learns_with_its_arguments_swapped():
    draw = np.random.default_rng(1)
    truth, predicted = draw.integers(-3, 4, 60).astype(np.float32), draw.normal(0.5, 2, 60).astype(np.float32)
    kept = truth != 0
    expected = sklearn.f1_score(predicted[kept] > 0, truth[kept] > 0, average="weighted")
    values = sentiment_values(truth, predicted, 3)
    assert values["f1_non0_by_predicted"] == pytest.approx(expected)
    assert values["f1_non0_by_predicted"] != pytest.approx(values["f1_non0"])
