import json
import warnings

import numpy as np
import pytest
import torch
import torchmetrics.functional.classification as torchmetrics
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from pipeline.metrics.metric import NOBODY, mean_defined
from pipeline.metrics.single_label import (
    SINGLE_LABEL,
    accuracy,
    binary_accuracies,
    confusion,
    f1_scores,
    macro_f1,
    recalls,
    single_label_report,
    unweighted_accuracy,
    weighted_f1,
)

TRUTH, ANSWER = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 3, 0])


def test_hand_counted():
    assert accuracy(TRUTH, ANSWER) == 3 / 6
    assert confusion(TRUTH, ANSWER, 4).tolist() == [[2, 1, 0, 0], [0, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert recalls(TRUTH, ANSWER, 4) == [2 / 3, 1 / 2, 0, None]
    assert unweighted_accuracy(TRUTH, ANSWER, 4) == pytest.approx((2 / 3 + 1 / 2) / 3)
    assert f1_scores(TRUTH, ANSWER, 4) == [4 / 6, 2 / 4, 0, None]
    assert macro_f1(TRUTH, ANSWER, 4) == pytest.approx((4 / 6 + 2 / 4) / 3)
    assert weighted_f1(TRUTH, ANSWER, 4) == pytest.approx((3 * 4 / 6 + 2 * 2 / 4) / 6)
    assert binary_accuracies(TRUTH, ANSWER, 4) == [4 / 6, 4 / 6, 5 / 6, 5 / 6]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(2, 6))
def test_the_same_as_scikit_learn_and_torchmetrics(seed, n, classes):
    draw = np.random.default_rng(seed)
    truth, answer = draw.integers(0, classes, n), draw.integers(0, classes, n)
    labels, occurring = np.arange(classes), np.unique(truth)
    assert accuracy(truth, answer) == pytest.approx(sklearn.accuracy_score(truth, answer))
    np.testing.assert_array_equal(
        confusion(truth, answer, classes), sklearn.confusion_matrix(truth, answer, labels=labels)
    )
    rest = {"labels": occurring, "average": "macro", "zero_division": 0}
    assert unweighted_accuracy(truth, answer, classes) == pytest.approx(sklearn.recall_score(truth, answer, **rest))
    assert macro_f1(truth, answer, classes) == pytest.approx(sklearn.f1_score(truth, answer, **rest))
    expected = sklearn.f1_score(truth, answer, average="weighted", zero_division=0)
    assert weighted_f1(truth, answer, classes) == pytest.approx(expected)
    theirs = torchmetrics.multiclass_f1_score(
        torch.from_numpy(answer), torch.from_numpy(truth), num_classes=classes, average="weighted"
    )
    assert weighted_f1(truth, answer, classes) == pytest.approx(theirs.item(), abs=1e-6)
    for c in range(classes):
        one = sklearn.accuracy_score(truth == c, answer == c)
        assert binary_accuracies(truth, answer, classes)[c] == pytest.approx(one)


def test_swapped_arguments_would_be_another_number():
    """F1s are 4/5 and 2/3 either way, their weights 3:1 by the truth and 2:2 by the answers."""
    truth, answer = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])
    assert weighted_f1(truth, answer, 2) == pytest.approx(3 / 4 * 4 / 5 + 1 / 4 * 2 / 3)
    assert weighted_f1(answer, truth, 2) == pytest.approx(1 / 2 * 4 / 5 + 1 / 2 * 2 / 3)


def test_one_utterance_and_one_class():
    one = np.array([1])
    assert (accuracy(one, one), weighted_f1(one, one, 2), unweighted_accuracy(one, one, 2)) == (1, 1, 1)
    assert (accuracy(one, 1 - one), weighted_f1(one, 1 - one, 2), macro_f1(one, 1 - one, 2)) == (0, 0, 0)
    same = np.zeros(5, int)
    assert (unweighted_accuracy(same, same, 3), macro_f1(same, same, 3)) == (1, 1)


def test_a_constant_answer_has_the_recall_of_chance():
    truth = np.array([0, 0, 0, 1, 2])
    assert unweighted_accuracy(truth, np.zeros(5, int), 3) == pytest.approx(1 / 3)
    assert accuracy(truth, np.zeros(5, int)) == 3 / 5


def test_means_are_over_what_is_defined():
    assert mean_defined([0.5, None, 1.0]) == 0.75
    assert mean_defined([None, None]) is None


def test_the_report_against_scikit_learn_and_by_hand():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = single_label_report(["a", "b", "c", "d"], TRUTH, ANSWER, train_majority=1)
    assert list(report) == [metric.name for metric in SINGLE_LABEL]
    assert report["accuracy"]["value"] == sklearn.accuracy_score(TRUTH, ANSWER) == 3 / 6
    assert report["unweighted_accuracy"]["value"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert report["weighted_f1"]["value"] == pytest.approx((3 * 4 / 6 + 2 * 2 / 4) / 6)
    assert report["binary_accuracy"]["value"] == pytest.approx((4 + 4 + 5 + 5) / 6 / 4)
    assert report["accuracy"]["baseline"] == 2 / 6
    assert report["unweighted_accuracy"]["baseline"] == pytest.approx(1 / 3)
    # Always b: 2 of 6 are, so its F1 is 4/8 and has a third of the weight.
    assert report["weighted_f1"]["baseline"] == pytest.approx(1 / 3 * 4 / 8)
    assert report["macro_f1"]["baseline"] == pytest.approx(4 / 8 / 3)
    assert report["macro_f1"]["per_emotion"]["a"] == {"value": 4 / 6, "baseline": 0, "positives": 3}
    assert report["unweighted_accuracy"]["per_emotion"]["d"] == {
        "value": None,
        "baseline": None,
        "positives": 0,
        "reason": NOBODY,
    }
    assert report["accuracy"]["confusion"]["utterances"][0] == [2, 1, 0, 0]
    assert {entry["utterances"] for entry in report.values()} == {6}
    json.dumps(report, allow_nan=False)
