"""Sentiment as a number: one score, from negative to positive, in the corpus' own range."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_tools.dataset import UtteranceDataset
from pipeline.metrics.metric import Bools, Floats, entry
from pipeline.metrics.sentiment import SENTIMENT, sentiment_metrics, sentiment_report, sentiment_values
from pipeline.tasks.task import Task, Values
from pipeline.training.loop import Pass
from pipeline.training.losses import Distance

LOSS = {"l1": "mean absolute error", "mse": "mean squared error"}
LOSS_BASELINE = "always the mean sentiment of train"


class Sentiment(Task):
    """See the head of this file. An utterance without a sentiment is left out."""

    metrics = SENTIMENT
    losses = ("l1", "mse")
    unlabelled = "no sentiment"

    @staticmethod
    def labelled(dataset: UtteranceDataset) -> Bools:
        """Those with a sentiment."""
        return dataset.table["sentiment"].notna().to_numpy()

    @property
    def reading(self) -> str:
        """There is nothing to choose."""
        return "no thresholds: the score is the sentiment"

    @staticmethod
    def monitors(sentiment_range: int) -> tuple[str, ...]:
        """Those of the corpus' range."""
        return (*(metric.name for metric in sentiment_metrics(sentiment_range)), "loss")

    @property
    def outputs(self) -> int:
        """The one score."""
        return 1

    @property
    def why_outputs(self) -> str:
        """Says that it is one."""
        return f"the sentiment of {self.settings.data} is one number"

    def loss(self, device: torch.device) -> Distance:  # noqa: ARG002
        """The mean absolute or squared error."""
        return Distance("mse" if self.settings.loss == "mse" else "l1")

    def choose(self, validated: Pass) -> dict[str, float]:  # noqa: ARG002
        """None."""
        return {}

    def values(self, found: Pass, thresholds: Mapping[str, float]) -> Values:  # noqa: ARG002
        """As they stand in the report."""
        return {"loss": found.loss} | sentiment_values(found.sentiment.numpy(), _scores(found), self._range)

    def values_of_truth(self, dataset: UtteranceDataset) -> Values:
        """None where the correlation, or an accuracy that leaves zeros out, has nothing to tell from."""
        truth = dataset.table["sentiment"].to_numpy(np.float32)
        return {"loss": 0.0} | sentiment_values(truth, truth, self._range)

    def report(self, found: Pass, thresholds: Mapping[str, float]) -> dict[str, dict[str, Any]]:  # noqa: ARG002
        """`sentiment`."""
        report = sentiment_report(found.sentiment.numpy(), _scores(found), self._range, self.facts.sentiment)
        mean = torch.full_like(found.sentiment, self.facts.sentiment["mean"])
        baseline = self.loss(mean.device).against(mean, found.sentiment).item()
        kind = self.settings.loss
        report["loss"] = entry(found.parts[kind], baseline, LOSS[kind], LOSS_BASELINE, len(found.ids))
        return {"sentiment": report}

    def columns(self, found: Pass, thresholds: Mapping[str, float]) -> dict[str, np.ndarray]:  # noqa: ARG002
        """sentiment and predicted_sentiment."""
        return {"sentiment": found.sentiment.numpy(), "predicted_sentiment": _scores(found)}

    def scores(self, logits: Tensor) -> Tensor:
        """As they are, unclipped."""
        return logits

    def answer(
        self,
        logits: Tensor,
        thresholds: Mapping[str, float],  # noqa: ARG002
    ) -> tuple[dict[str, float], list[str]]:
        """The sentiment; no emotions."""
        return {"sentiment": float(logits)}, []

    def predicted(self, scores: Mapping[str, float], thresholds: Mapping[str, float]) -> list[str]:  # noqa: ARG002
        """No emotions."""
        return []

    @property
    def _range(self) -> int:
        return int(self.settings.sentiment_range)


def _scores(found: Pass) -> Floats:
    scores: Floats = found.logits[:, 0].numpy()
    return scores
