"""The interface of a task: the utterances that have its label, the loss, the reading of answers and their metrics."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from data_tools.dataset import UtteranceDataset
from data_tools.records import LABEL_PREFIX, PRESENT_FROM
from pipeline.metrics.metric import Bools, Metric
from pipeline.run_data import DataFacts
from pipeline.training.loop import Pass
from pipeline.training.losses import TaskLoss
from pipeline.training.settings import TrainSettings

Values = dict[str, float | None]


class Task(ABC):
    """One question to a model, built as `TaskClass(settings, facts)` from settings that
    `pipeline.tasks.resolve.resolve_settings` made.

    Attributes:
        metrics: the records of its metrics. losses: names of the losses to choose from, the default first.
        unlabelled: why an utterance is left out, in words.
    """

    metrics: ClassVar[Sequence[Metric]]
    losses: ClassVar[tuple[str, ...]]
    unlabelled: ClassVar[str]

    def __init__(self, settings: TrainSettings, facts: DataFacts) -> None:
        self.settings = settings
        self.facts = facts
        self.emotions = facts.emotions

    @staticmethod
    @abstractmethod
    def labelled(dataset: UtteranceDataset) -> Bools:
        """(n,) bool, the utterances that have the label of the task."""

    @staticmethod
    @abstractmethod
    def monitors(sentiment_range: int) -> tuple[str, ...]:
        """Names that the best epoch can be chosen by, the default first; `loss` is one of them."""

    @property
    @abstractmethod
    def reading(self) -> str:
        """Rule by which scores become answers, in words, for thresholds.json."""

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Scores of one utterance."""

    @property
    @abstractmethod
    def why_outputs(self) -> str:
        """Origin of that number, for an error message."""

    @abstractmethod
    def loss(self, device: torch.device) -> TaskLoss:
        """Training loss of the task."""

    @abstractmethod
    def choose(self, validated: Pass) -> dict[str, float]:
        """The threshold of each emotion, from the answers on valid; empty where the task has none."""

    @abstractmethod
    def values(self, found: Pass, thresholds: Mapping[str, float]) -> Values:
        """Every score of one pass by name, `loss` among them; None where undefined."""

    @abstractmethod
    def values_of_truth(self, dataset: UtteranceDataset) -> Values:
        """The scores of an answer that is always right: None exactly where the split cannot tell."""

    @abstractmethod
    def report(self, found: Pass, thresholds: Mapping[str, float]) -> dict[str, dict[str, Any]]:
        """Protocol -> metric -> value, baseline, definitions and count, ready for JSON."""

    @abstractmethod
    def columns(self, found: Pass, thresholds: Mapping[str, float]) -> dict[str, np.ndarray]:
        """The columns of predictions.parquet after id and split: labels, scores, answers."""

    @abstractmethod
    def scores(self, logits: Tensor) -> Tensor:
        """The model's numbers (n, outputs) as people read them."""

    @abstractmethod
    def answer(self, logits: Tensor, thresholds: Mapping[str, float]) -> tuple[dict[str, float], list[str]]:
        """Scores by name, and the predicted emotions, of one utterance's logits (outputs,)."""

    @abstractmethod
    def predicted(self, scores: Mapping[str, float], thresholds: Mapping[str, float]) -> list[str]:
        """The emotions that scores by name, as `answer` gives them, stand for."""

    def lower_is_better(self, monitor: str) -> bool:
        """True where the best epoch is the one with the smallest value."""
        return monitor == "loss" or any(metric.lower_is_better for metric in self.metrics if metric.name == monitor)

    def monitored(self, values: Values) -> float:
        """The value of `settings.monitor`.

        A correlation is undefined where a model gives one score to all, which can happen in any epoch: it counts as
        the worst, -1. For all others it follows from the truth, and was checked before the first epoch.
        """
        value = values[self.settings.monitor]
        return -1.0 if value is None else value


class EmotionTask(Task):
    """A task with one score an emotion."""

    @property
    def outputs(self) -> int:
        """One an emotion."""
        return len(self.emotions)

    @property
    def why_outputs(self) -> str:
        """Names the emotions."""
        return f"{self.settings.data} has {len(self.emotions)} emotions ({', '.join(self.emotions)})"


def present_of(dataset: UtteranceDataset) -> Bools:
    """(n, E) bool: which emotions the utterances have."""
    return dataset.table[[LABEL_PREFIX + name for name in dataset.emotions]].to_numpy(np.float32) >= PRESENT_FROM
