"""Multi-label emotion: yes or no for each emotion, by a threshold of its own."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_tools.dataset import UtteranceDataset
from data_tools.records import LABEL_PREFIX, PRESENT_FROM
from pipeline.metrics.emotions import MULTI_LABEL, is_single_label, multi_label_report, multi_label_values
from pipeline.metrics.metric import Bools, Floats, entry, mean_defined
from pipeline.metrics.single_label import single_label_report
from pipeline.tasks.task import EmotionTask, Values, present_of
from pipeline.training.loop import Pass
from pipeline.training.losses import MultiLabelBCE

# In whole percent, so that 0.35 is the nearest float to 0.35 and not 7 * 0.05.
GRID = np.arange(5, 100, 5) / 100

THRESHOLDS = (
    "per emotion the value of 0.05, 0.10 ... 0.95 with the best F1 on the split named here; among equals the one "
    "nearest 0.5, then the smaller; an emotion is predicted where its score is at least its threshold"
)


def decide(scores: NDArray[np.floating], thresholds: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Predicted emotions: scores (n, E) in [0, 1] against thresholds (E,) -> (n, E) bool.

    Compared in float64, so that scores read back from a float32 column give the same answer.
    """
    return scores.astype(np.float64) >= thresholds


def choose_thresholds(present: NDArray[np.bool_], scores: NDArray[np.floating]) -> NDArray[np.float64]:
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


LOSS = "binary cross-entropy, positives weighted by negatives / positives of train; mean over utterances and emotions"
LOSS_PLAIN = "binary cross-entropy, positives and negatives alike; mean over utterances and emotions"
LOSS_BASELINE = "every score 0.5"
PLAIN = "bce_plain"
FIXED = "0.5 for every emotion, as set before training; an emotion is predicted where its score is at least that"


class MultiLabel(EmotionTask):
    """See the head of this file. An utterance without any emotion counts: every answer to it is no."""

    metrics = MULTI_LABEL
    losses = ("bce", PLAIN)
    unlabelled = "no emotions"

    @staticmethod
    def labelled(dataset: UtteranceDataset) -> Bools:
        """All of them."""
        return np.ones(len(dataset), bool)

    @property
    def reading(self) -> str:
        """By a threshold of each emotion."""
        return FIXED if self._is_fixed else THRESHOLDS

    @property
    def _is_fixed(self) -> bool:
        return self.settings.thresholds == "fixed"

    @staticmethod
    def monitors(sentiment_range: int) -> tuple[str, ...]:  # noqa: ARG004
        """Means over emotions, at the thresholds that the epoch would get on valid."""
        return ("f1", *(metric.name for metric in MULTI_LABEL if metric.name != "f1"), "loss")

    def loss(self, device: torch.device) -> MultiLabelBCE:
        """Binary cross-entropy, weighted by train unless `loss` is `bce_plain`."""
        plain = self.settings.loss == PLAIN
        weights = [1.0 if plain else self.facts.pos_weight[name] for name in self.emotions]
        return MultiLabelBCE(torch.tensor(weights, device=device))

    def choose(self, validated: Pass) -> dict[str, float]:
        """By F1 of each emotion, or 0.5 for all where they are fixed."""
        if self._is_fixed:
            return dict.fromkeys(self.emotions, 0.5)
        chosen = choose_thresholds(_present(validated), self._probabilities(validated))
        return dict(zip(self.emotions, chosen.tolist(), strict=True))

    def values(self, found: Pass, thresholds: Mapping[str, float]) -> Values:
        """Means over emotions."""
        predicted = self._predicted(found, thresholds)
        return {"loss": found.loss} | _means(_present(found), self._probabilities(found), predicted)

    def values_of_truth(self, dataset: UtteranceDataset) -> Values:
        """As `values`."""
        present = present_of(dataset)
        return {"loss": 0.0} | _means(present, present.astype(np.float32), present)

    def report(self, found: Pass, thresholds: Mapping[str, float]) -> dict[str, dict[str, Any]]:
        """`multi_label`; and `single_label` where every utterance of the split has exactly one emotion."""
        present = _present(found)
        positives = np.array([self.facts.train_positives[name] for name in self.emotions])
        share = positives / self.facts.train_utterances
        scores, predicted = self._probabilities(found), self._predicted(found, thresholds)
        report = multi_label_report(self.emotions, present, scores, predicted, share)
        even = self.loss(found.labels.device).against(torch.zeros_like(found.logits), found.labels).item()
        words = LOSS_PLAIN if self.settings.loss == PLAIN else LOSS
        report["loss"] = entry(found.parts[self.settings.loss], even, words, LOSS_BASELINE, len(present))
        protocols = {"multi_label": report}
        if is_single_label(present):
            truth, answer = present.argmax(1), found.logits.numpy().argmax(1)
            protocols["single_label"] = single_label_report(self.emotions, truth, answer, int(positives.argmax()))
        return protocols

    def columns(self, found: Pass, thresholds: Mapping[str, float]) -> dict[str, np.ndarray]:
        """label_, score_ and predicted_ for each emotion."""
        predicted = self._predicted(found, thresholds)
        return emotion_columns(self.emotions, found.labels.numpy(), self._probabilities(found), predicted)

    def scores(self, logits: Tensor) -> Tensor:
        """In [0, 1], each emotion for itself."""
        return logits.sigmoid()

    def answer(self, logits: Tensor, thresholds: Mapping[str, float]) -> tuple[dict[str, float], list[str]]:
        """Every emotion whose score reaches its threshold."""
        by_name = dict(zip(self.emotions, self.scores(logits).tolist(), strict=True))
        return by_name, self.predicted(by_name, thresholds)

    def predicted(self, scores: Mapping[str, float], thresholds: Mapping[str, float]) -> list[str]:
        """Every emotion whose score reaches its threshold."""
        return [name for name, score in scores.items() if score >= thresholds[name]]

    def _probabilities(self, found: Pass) -> Floats:
        scores: Floats = self.scores(found.logits).numpy()
        return scores

    def _predicted(self, found: Pass, thresholds: Mapping[str, float]) -> Bools:
        return decide(self._probabilities(found), np.array([thresholds[name] for name in self.emotions]))


def emotion_columns(emotions: list[str], labels: Floats, scores: Floats, predicted: Bools) -> dict[str, np.ndarray]:
    """Columns of predictions.parquet from (n, E) arrays."""
    parts = ((LABEL_PREFIX, labels), ("score_", scores), ("predicted_", predicted))
    return {prefix + name: values[:, e] for prefix, values in parts for e, name in enumerate(emotions)}


def _present(found: Pass) -> Bools:
    present: Bools = found.labels.numpy() >= PRESENT_FROM
    return present


def _means(present: Bools, scores: Floats, predicted: Bools) -> Values:
    return {name: mean_defined(each) for name, each in multi_label_values(present, scores, predicted).items()}
