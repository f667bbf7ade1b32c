import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from pipeline.tasks.multi_label import GRID, choose_thresholds, decide


def slow_choice(present, scores):
    """Every threshold tried by scikit-learn, the best kept; nearest 0.5 and then the smaller among equals."""
    best = []
    for truth, score in zip(present.T, scores.T, strict=True):
        found = []
        for percent in range(5, 100, 5):
            f1 = f1_score(truth, score.astype(float) >= percent / 100, zero_division=0)
            found.append((-round(f1, 12), abs(percent - 50), percent))
        best.append(min(found)[2] / 100)
    return best


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.floats(0, 1))
def test_the_same_choice_as_brute_force(seed, n, share):
    draw = np.random.default_rng(seed)
    present, scores = draw.random((n, 3)) < share, draw.random((n, 3)).round(2).astype(np.float32)
    assert choose_thresholds(present, scores).tolist() == slow_choice(present, scores)


def test_the_grid_is_nineteen_values_of_whole_twentieths():
    assert GRID.tolist() == [percent / 100 for percent in range(5, 100, 5)]


def test_an_emotion_that_nobody_has_keeps_one_half():
    assert choose_thresholds(np.zeros((4, 1), bool), np.array([[0.1], [0.4], [0.6], [0.9]])).tolist() == [0.5]


def test_of_equal_thresholds_the_nearest_to_one_half_then_the_smaller_wins():
    # Perfect between 0.2 and 0.4: 0.4 is nearest. Perfect only at 0.45 and 0.55, were 0.5 not worse: the smaller.
    assert choose_thresholds(np.array([[False], [True]]), np.array([[0.18], [0.42]])).tolist() == [0.4]
    present = np.array([[True], [False], [False], [True], [True]])
    scores = np.array([[0.47], [0.46], [0.52], [0.6], [0.7]])
    f1 = {t: f1_score(present[:, 0], scores[:, 0] >= t) for t in (0.45, 0.5, 0.55)}
    assert max(f1, key=f1.get) == 0.55
    assert choose_thresholds(present, scores).tolist() == [0.55]


def test_scores_on_the_threshold_count_and_survive_a_float32_column(tmp_path):
    scores = np.array([[0.35], [0.34999], [0.5]], dtype=np.float32)
    thresholds = np.array([0.35])
    answer = decide(scores, thresholds)
    assert answer[:, 0].tolist() == [bool(np.float64(s) >= 0.35) for s in scores[:, 0]]
    pd.DataFrame({"score": scores[:, 0]}).to_parquet(tmp_path / "p.parquet")
    back = pd.read_parquet(tmp_path / "p.parquet")[["score"]].to_numpy()
    assert (decide(back, thresholds) == answer).all()
    assert decide(np.array([[0.5]]), np.array([0.5])).all()
