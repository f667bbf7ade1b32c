"""Damage to what a loader gives: in training, with the undamaged batch beside it, and in evaluation."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import models
from data_tools.batch import Batch
from data_tools.damage import Blank, add_noise, drop_modalities, drop_steps, subsets
from models.base import Model
from models.layers.frontends import FACE_DEVIATION, FACE_MEAN
from pipeline.training.batches import EpochBatches
from pipeline.training.loop import Batches
from pipeline.training.settings import DamageSettings

# UCRN's probability of noise (section 4.4).
NOISE = 0.5

Damage = Callable[[Batch], Batch]


class Damaged:
    """The batches of a loader, each damaged. Like the loader it can be gone through again."""

    def __init__(self, batches: Batches, damage: Damage) -> None:
        self.batches = batches
        self.damage = damage

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        yield from map(self.damage, self.batches)


def blank_of(model: Model) -> Blank:
    """Values that stand for missing input of `model`.

    Raises:
        ModelError: the tokenizer of its text encoder has no unknown token.
    """
    tokenizer = models.tokenizer_for(model)
    return Blank(tokenizer.unknown, tokenizer.special, FACE_MEAN, FACE_DEVIATION)


def damaged_for_training(batches: Batches, settings: DamageSettings, model: Model, order: EpochBatches) -> Damaged:
    """`batches`, each damaged for the epoch of `order`, with the batch as it was beside it."""
    blank, present = blank_of(model), subsets(model.config.modalities)

    def damage(batch: Batch) -> Batch:
        return replace(_damaged(batch, settings, present, blank, order.epoch), complete=batch)

    return Damaged(batches, damage)


def _damaged(batch: Batch, settings: DamageSettings, present: list[str], blank: Blank, epoch: int) -> Batch:
    if settings.protocol == "modalities":
        return drop_modalities(batch, present, settings.seed, blank, epoch)
    rate = NOISE if settings.rate is None else settings.rate
    if settings.protocol == "random" or isinstance(rate, tuple):
        return drop_steps(batch, rate, settings.seed, blank, epoch)
    return add_noise(batch, rate, settings.seed, blank, epoch)
