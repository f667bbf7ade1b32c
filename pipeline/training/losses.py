"""Training loss: that of the task, and the further losses that a model returns by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from data_tools.batch import Batch
from data_tools.records import PRESENT_FROM
from models.output import Output
from pipeline.settings import ConfigError

TaskLoss = Callable[[Tensor, Batch], Tensor]


def positive_weights(labels: Tensor) -> Tensor:
    """`pos_weight` of each emotion: negatives / positives among `labels`, (n, E) in [0, 1] -> (E,) float32.

    An emotion that nobody has, or that everybody has, gets 1: the first would be infinite (and the loss NaN), the
    second 0, which would take away the only loss that the emotion has.
    """
    return weights_by_count((labels >= PRESENT_FROM).sum(0), len(labels))


def weights_by_count(positives: Tensor, total: int) -> Tensor:
    """`positive_weights` of emotions that so many of `total` utterances have, (E,)."""
    positives = positives.to(torch.float64)
    negatives = total - positives
    one_sided = (positives == 0) | (negatives == 0)
    return torch.where(one_sided, 1.0, negatives / positives.clamp(min=1)).float()


@dataclass(frozen=True)
class MultiLabelBCE:
    """Binary cross-entropy of every emotion, its positives weighted; the mean over B and E (MESM, section 4).

    pos_weight: (E,) float32 on the device of the logits.
    """

    pos_weight: Tensor

    def __call__(self, logits: Tensor, batch: Batch) -> Tensor:
        """The loss of `logits` (B, E) against the batch's labels: a scalar."""
        return self.against(logits, batch.labels)

    def against(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of `logits` against `labels`, both (B, E). Half precision is lifted to float32 first."""
        return F.binary_cross_entropy_with_logits(logits.float(), labels, pos_weight=self.pos_weight)


def balanced_weights(positives: Tensor) -> Tensor:
    """Weight of each class, n / (E positives), from its (E,) counts in train -> (E,) float32.

    The mean weight over train is 1, as scikit-learn's "balanced". A class that nobody has gets 1: no loss reaches it.
    """
    counts = positives.to(torch.float64)
    weights = counts.sum() / (len(counts) * counts.clamp(min=1))
    return torch.where(counts == 0, 1.0, weights).float()


@dataclass(frozen=True)
class CrossEntropy:
    """Cross-entropy of the one true class, each utterance weighted by its class; the mean over B.

    Divided by the number of utterances and not by the sum of their weights, so that batches of one step add up.
    weights: (E,) float32 on the device of the logits.
    """

    weights: Tensor

    def __call__(self, logits: Tensor, batch: Batch) -> Tensor:
        """The loss of `logits` (B, E) against the batch's labels, of which one each is present: a scalar."""
        return self.against(logits, batch.labels.argmax(1))

    def against(self, logits: Tensor, truth: Tensor) -> Tensor:
        """The loss of `logits` (B, E) against the numbers of the true classes, (B,) int64."""
        return (F.cross_entropy(logits.float(), truth, reduction="none") * self.weights[truth]).mean()


@dataclass(frozen=True)
class Distance:
    """Distance of the one score from the sentiment: mean absolute (`l1`, as EMT and MulT) or mean squared (`mse`)."""

    kind: Literal["l1", "mse"]

    def __call__(self, logits: Tensor, batch: Batch) -> Tensor:
        """The loss of `logits` (B, 1) against the batch's sentiment, which has no NaN: a scalar."""
        return self.against(logits[:, 0], batch.sentiment)

    def against(self, scores: Tensor, sentiment: Tensor) -> Tensor:
        """The loss of `scores` against `sentiment`, both (B,). Half precision is lifted to float32 first."""
        return (F.l1_loss if self.kind == "l1" else F.mse_loss)(scores.float(), sentiment)


@dataclass(frozen=True)
class Loss:
    """total: scalar to minimise. parts: the unweighted losses it is made of, by name."""

    total: Tensor
    parts: dict[str, Tensor]


@dataclass(frozen=True)
class Objective:
    """The task's loss plus the model's own ones, each times its weight.

    name, task: the task's loss and what it is called in the log.
    weights: of the losses in `Output.losses`, by name; 1 where none is given.
    """

    name: str
    task: TaskLoss
    weights: Mapping[str, float] = field(default_factory=dict)

    def __call__(self, output: Output, batch: Batch) -> Loss:
        """Raises ConfigError where a weight is given for a loss that the model doesn't return."""
        unknown = sorted(set(self.weights) - set(output.losses))
        if unknown:
            known = ", ".join(sorted(output.losses)) or "none"
            raise ConfigError(f"loss_weights names {', '.join(unknown)}; the further losses of this model: {known}")
        task = self.task(output.logits, batch)
        further = dict(output.losses)
        for name, views in output.also_scored.items():
            further[name] = further[name] + torch.stack([self.task(logits, batch) for logits in views]).mean()
        total = task
        for name, value in further.items():
            total = total + self.weights.get(name, 1.0) * value
        return Loss(total, {self.name: task, **further})
