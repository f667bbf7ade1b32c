"""From scores to yes or no: one threshold an emotion, chosen by F1 on a split that was not trained on."""

import numpy as np
from numpy.typing import NDArray

# In whole percent, so that 0.35 is the nearest float to 0.35 and not 7 * 0.05.
GRID = np.arange(5, 100, 5) / 100

DEFINITION = (
    "per emotion the value of 0.05, 0.10 ... 0.95 with the best F1 on the split named here; among equals the one "
    "nearest 0.5, then the smaller; an emotion is predicted where its score is at least its threshold"
)


def decide(scores: NDArray[np.floating], thresholds: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Predicted emotions: scores (n, E) in [0, 1] against thresholds (E,) -> (n, E) bool.

    Compared in float64, so that scores read back from a float32 column give the same answer.
    """
    return scores.astype(np.float64) >= thresholds


def choose(present: NDArray[np.bool_], scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """The threshold of `GRID` with the best F1 for each emotion, (E,); 0.5 where no threshold finds anything.

    present: (n, E) bool, the truth. scores: (n, E) in [0, 1].
    """
    predicted = scores.astype(np.float64)[None] >= GRID[:, None, None]  # (19, n, E)
    true_positives = (predicted & present).sum(1)
    # F1 = 2 TP / (positives + predicted positives); an empty denominator means that there was nothing to find.
    f1 = 2 * true_positives / np.maximum(present.sum(0) + predicted.sum(1), 1)
    distance = np.abs(GRID - 0.5)[:, None].round(6)
    best = f1 == f1.max(0)
    return GRID[np.where(best, distance, np.inf).argmin(0)]
