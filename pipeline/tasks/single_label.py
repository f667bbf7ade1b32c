"""Single-label emotion: every utterance has exactly one, and the highest score is the answer."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_tools.dataset import UtteranceDataset
from pipeline.metrics.metric import Bools, Classes, entry
from pipeline.metrics.single_label import SINGLE_LABEL, single_label_report, single_label_values
from pipeline.tasks.multi_label import emotion_columns
from pipeline.tasks.task import EmotionTask, Values, present_of
from pipeline.training.loop import Pass
from pipeline.training.losses import CrossEntropy, balanced_weights

BALANCED = "balanced_cross_entropy"
LOSS = "cross-entropy of the true emotion; mean over utterances"
LOSS_BALANCED = "cross-entropy of the true emotion, weighted by n / (E positives) of train; mean over utterances"
LOSS_BASELINE = "the same score for all emotions"


class SingleLabel(EmotionTask):
    """See the head of this file. An utterance with no emotion of the task, or several, is left out."""

    metrics = SINGLE_LABEL
    losses = ("cross_entropy", BALANCED)
    unlabelled = "not exactly one emotion"

    @staticmethod
    def labelled(dataset: UtteranceDataset) -> Bools:
        """Those with exactly one emotion."""
        exactly_one: Bools = present_of(dataset).sum(1) == 1
        return exactly_one

    @property
    def reading(self) -> str:
        """There is nothing to choose."""
        return "no thresholds: the emotion with the highest score is predicted"

    @staticmethod
    def monitors(sentiment_range: int) -> tuple[str, ...]:  # noqa: ARG004
        """Unweighted accuracy first: the classes of IEMOCAP are of unequal size."""
        rest = tuple(metric.name for metric in SINGLE_LABEL if metric.name != "unweighted_accuracy")
        return ("unweighted_accuracy", *rest, "loss")

    def loss(self, device: torch.device) -> CrossEntropy:
        """Cross-entropy, of equal weights unless `loss` is `balanced_cross_entropy`."""
        counts = torch.tensor([self.facts.train_positives[name] for name in self.emotions])
        balanced = self.settings.loss == BALANCED
        return CrossEntropy((balanced_weights(counts) if balanced else torch.ones(len(counts))).to(device))

    def choose(self, validated: Pass) -> dict[str, float]:  # noqa: ARG002
        """None."""
        return {}

    def values(self, found: Pass, thresholds: Mapping[str, float]) -> Values:  # noqa: ARG002
        """As they stand in the report."""
        return {"loss": found.loss} | single_label_values(_truth(found), _answers(found), self.outputs)

    def values_of_truth(self, dataset: UtteranceDataset) -> Values:
        """All are defined."""
        truth = present_of(dataset).argmax(1)
        return {"loss": 0.0} | single_label_values(truth, truth, self.outputs)

    def report(self, found: Pass, thresholds: Mapping[str, float]) -> dict[str, dict[str, Any]]:  # noqa: ARG002
        """`single_label`."""
        truth = _truth(found)
        majority = int(np.argmax([self.facts.train_positives[name] for name in self.emotions]))
        report = single_label_report(self.emotions, truth, _answers(found), majority)
        even = self.loss(found.labels.device).against(torch.zeros_like(found.logits), torch.from_numpy(truth)).item()
        words = LOSS_BALANCED if self.settings.loss == BALANCED else LOSS
        report["loss"] = entry(found.parts[self.settings.loss], even, words, LOSS_BASELINE, len(truth))
        return {"single_label": report}

    def columns(self, found: Pass, thresholds: Mapping[str, float]) -> dict[str, np.ndarray]:  # noqa: ARG002
        """label_, score_ and predicted_ for each emotion; one of the last is true."""
        predicted = _answers(found)[:, None] == np.arange(self.outputs)
        return emotion_columns(self.emotions, found.labels.numpy(), self.scores(found.logits).numpy(), predicted)

    def scores(self, logits: Tensor) -> Tensor:
        """In [0, 1]; those of an utterance sum to 1."""
        return logits.softmax(-1)

    def answer(
        self,
        logits: Tensor,
        thresholds: Mapping[str, float],  # noqa: ARG002
    ) -> tuple[dict[str, float], list[str]]:
        """The one emotion with the highest score."""
        by_name = dict(zip(self.emotions, self.scores(logits).tolist(), strict=True))
        return by_name, [self.emotions[int(logits.argmax())]]

    def predicted(
        self,
        scores: Mapping[str, float],
        thresholds: Mapping[str, float],  # noqa: ARG002
    ) -> list[str]:
        """The one emotion with the highest score."""
        return [max(scores, key=lambda name: scores[name])]


def _truth(found: Pass) -> Classes:
    # Exactly one label of an utterance is half or more, so it is the largest.
    truth: Classes = found.labels.numpy().argmax(1)
    return truth


def _answers(found: Pass) -> Classes:
    answers: Classes = found.logits.numpy().argmax(1)
    return answers
