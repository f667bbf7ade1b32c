import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from pipeline.metrics.emotions import binary_metrics, is_single_label, multi_label_report, roc_auc, two_way_f1
from pipeline.metrics.metric import EVERYBODY, NOBODY


def test_hand_counted():
    # TP 2, FN 1, FP 1, TN 4 of 8 utterances.
    present = np.array([[1], [1], [1], [0], [0], [0], [0], [0]], bool)
    predicted = np.array([[1], [1], [0], [1], [0], [0], [0], [0]], bool)
    found = binary_metrics(present, predicted)
    assert found["accuracy"] == [6 / 8]
    assert found["weighted_accuracy"] == [pytest.approx((2 / 3 + 4 / 5) / 2)]
    assert found["f1"] == [4 / 6]


def test_weighted_accuracy_is_the_formula_of_the_field():
    """(TP N / P + TN) / (2 N), as the papers on MOSEI print it."""
    draw = np.random.default_rng(0)
    present, predicted = draw.random((50, 1)) < 0.3, draw.random((50, 1)) < 0.4
    p, n = present.sum(), (~present).sum()
    tp, tn = (present & predicted).sum(), (~present & ~predicted).sum()
    assert binary_metrics(present, predicted)["weighted_accuracy"] == [pytest.approx((tp * n / p + tn) / (2 * n))]


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.integers(2, 40))
def test_the_same_as_scikit_learn(seed, n):
    draw = np.random.default_rng(seed)
    present, scores = draw.random((n, 3)) < draw.random(3), draw.random((n, 3)).round(1)
    predicted = scores >= 0.5
    found = binary_metrics(present, predicted) | {"roc_auc": roc_auc(present, scores)}
    for e in range(3):
        truth, answer = present[:, e], predicted[:, e]
        assert found["accuracy"][e] == pytest.approx(sklearn.accuracy_score(truth, answer))
        if truth.any():
            assert found["f1"][e] == pytest.approx(sklearn.f1_score(truth, answer, zero_division=0))
        if truth.any() and not truth.all():
            assert found["weighted_accuracy"][e] == pytest.approx(sklearn.balanced_accuracy_score(truth, answer))
            pairs = scores[truth, e][:, None] - scores[~truth, e][None]
            assert found["roc_auc"][e] == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())


def test_what_a_split_cannot_tell_is_none_with_a_reason():
    present = np.array([[0, 1, 1], [0, 1, 0]], bool)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = multi_label_report(["none", "all", "some"], present, np.full((2, 3), 0.4), present, np.zeros(3))
    json.dumps(report, allow_nan=False)
    for metric in ("weighted_accuracy", "roc_auc"):
        per_emotion = report[metric]["per_emotion"]
        assert [per_emotion[e]["value"] is None for e in ("none", "all", "some")] == [True, True, False]
        assert [per_emotion[e].get("reason") for e in ("none", "all", "some")] == [NOBODY, EVERYBODY, None]
        assert report[metric]["value"] == per_emotion["some"]["value"]
        assert "none, all" in report[metric]["reason"]
    f1 = report["f1"]
    assert (f1["per_emotion"]["none"]["value"], f1["per_emotion"]["all"]["value"], f1["value"]) == (None, 1.0, 1.0)
    assert report["accuracy"]["value"] == 1.0
    assert "reason" not in report["accuracy"]


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_two_way_f1_is_scikit_learns_weighted_one(seed, n):
    draw = np.random.default_rng(seed)
    present, predicted = draw.random((n, 3)) < draw.random(3), draw.random((n, 3)) < draw.random(3)
    expected = [
        sklearn.f1_score(truth, answer, average="weighted", zero_division=0)
        for truth, answer in zip(present.T, predicted.T, strict=True)
    ]
    assert two_way_f1(present, predicted) == pytest.approx(expected)


def test_two_way_f1_flatters_no_to_everything():
    """One of ten has the emotion: F1 of no is 18/19, nine tenths of the weight."""
    present = np.arange(10)[:, None] == 0
    assert two_way_f1(present, np.zeros_like(present)) == [pytest.approx(0.9 * 18 / 19)]
    # Swapped, as MulT's code calls it, the weight is all on no, and the number another one.
    assert two_way_f1(np.zeros_like(present), present) == [pytest.approx(18 / 19)]


def test_f1_without_positives_is_undefined_whatever_is_predicted():
    present = np.zeros((3, 2), bool)
    predicted = np.array([[1, 0], [0, 0], [0, 0]], bool)
    assert binary_metrics(present, predicted)["f1"] == [None, None]


def test_multi_label_baselines_hand_counted():
    # Train: the first emotion is rare, the second frequent. Test: 1 of 4 and 3 of 4 have them.
    present = np.array([[1, 1], [0, 1], [0, 1], [0, 0]], bool)
    report = multi_label_report(["rare", "common"], present, np.zeros((4, 2)), ~present, np.array([0.1, 0.8]))
    base = {name: [entry["baseline"] for entry in r["per_emotion"].values()] for name, r in report.items()}
    assert base["accuracy"] == [3 / 4, 3 / 4]
    assert base["weighted_accuracy"] == [0.5, 0.5]
    assert base["f1_two_way"] == [pytest.approx(3 / 4 * 6 / 7)] * 2
    assert base["f1"] == [2 / (1 + 4), 6 / (3 + 4)]
    assert base["roc_auc"] == [0.5, 0.5]
    assert report["f1"]["baseline"] == pytest.approx((2 / 5 + 6 / 7) / 2)
    assert [entry["value"] for entry in report["accuracy"]["per_emotion"].values()] == [0, 0]
    assert {entry["utterances"] for entry in report.values()} == {4}
    assert all(entry["definition"] and entry["baseline_definition"] for entry in report.values())


def test_single_label_needs_exactly_one_emotion_each():
    assert is_single_label(np.eye(3, dtype=bool))
    assert not is_single_label(np.array([[1, 1], [1, 0]], bool))
    assert not is_single_label(np.array([[0, 0], [1, 0]], bool))
    assert not is_single_label(np.zeros((0, 2), bool))
