"""Changes to what a loader gives: damage, with the undamaged batch beside it in training, and absent modalities."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

import models
from data_tools.absent import Flags, draw_absent, leave_out, leave_out_all
from data_tools.batch import Batch
from data_tools.damage import Blank, add_noise, drop_modalities, drop_steps, subsets
from models.base import MODALITIES, Model
from models.layers.frontends import FACE_DEVIATION, FACE_MEAN
from pipeline.training.batches import EpochBatches
from pipeline.training.loop import Batches
from pipeline.training.settings import DamageSettings

# UCRN's probability of noise (section 4.4).
NOISE = 0.5

Change = Callable[[Batch], Batch]


class Changed:
    """The batches of a loader, each changed. Like the loader it can be gone through again."""

    def __init__(self, batches: Batches, change: Change) -> None:
        self.batches = batches
        self.change = change

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        yield from map(self.change, self.batches)


def blank_of(model: Model) -> Blank:
    """Values that stand for missing input of `model`.

    Raises:
        ModelError: the tokenizer of its text encoder has no unknown token.
    """
    tokenizer = models.tokenizer_for(model)
    return Blank(tokenizer.unknown, tokenizer.special, FACE_MEAN, FACE_DEVIATION)


def damaged_for_training(batches: Batches, settings: DamageSettings, model: Model, order: EpochBatches) -> Changed:
    """`batches`, each damaged for the epoch of `order`, with the batch as it was beside it."""
    blank, present = blank_of(model), subsets(model.config.modalities)

    def damage(batch: Batch) -> Batch:
        return replace(_damaged(batch, settings, present, blank, order.epoch), complete=batch)

    return Changed(batches, damage)


def damaged_for_validation(batches: Batches, settings: DamageSettings, model: Model) -> Changed:
    """`batches`, each damaged as in epoch 0, which no training has: the same in every epoch."""
    blank, present = blank_of(model), subsets(model.config.modalities)
    return Changed(batches, lambda batch: _damaged(batch, settings, present, blank, epoch=0))


def empty_text(model: Model) -> tuple[Tensor, Tensor]:
    """Tokens and mask of the empty text, (1, L) both, padded to the longest text that `model` reads."""
    tokens, mask = models.tokenizer_for(model)(["", "a " * model.config.max_tokens])
    return tokens[:1], mask[:1]


class ModalityDropout:
    """Leaves modalities out of the utterances of a batch; see data_tools/absent.py.

    order: with the chance of the settings, other ones in each of its epochs. None: to validate on, always the same
    ones, with a chance of a half, so that the best epoch is one that does without each of them.

    Attributes:
        probability: of each modality, in (0, 1). letters: the model's modalities. empty: of `empty_text`.
    """

    def __init__(self, model: Model, seed: int, order: EpochBatches | None) -> None:
        self.probability = model.config.modality_dropout if order is not None else 0.5
        self.letters = model.config.modalities
        self.empty = empty_text(model)
        self._seed, self._order = seed, order

    def absent(self, ids: Sequence[str], present: Mapping[str, Flags]) -> dict[str, Flags]:
        """(B,) bool by letter: the modalities to leave out in this epoch. present: those that there are."""
        epoch = 0 if self._order is None else self._order.epoch
        return draw_absent(ids, present, self.probability, self._seed, epoch)

    def __call__(self, batch: Batch) -> Batch:
        """The batch, on the CPU, without them."""
        absent = self.absent(batch.ids, {letter: batch.present(letter).numpy() for letter in self.letters})
        return leave_out(batch, {letter: torch.from_numpy(gone) for letter, gone in absent.items()}, self.empty)


def leaves_out(model: Model) -> bool:
    """Return True if the model's settings ask for modality dropout, and it has several modalities."""
    return model.config.modality_dropout > 0 and len(model.config.modalities) > 1


def modality_dropout(model: Model, seed: int, order: EpochBatches | None) -> ModalityDropout | None:
    """The dropout that the model's settings ask for, if any; in training only where the model `drops_input`.

    order: as for ModalityDropout.
    """
    wanted = leaves_out(model) and (model.drops_input or order is None)
    return ModalityDropout(model, seed, order) if wanted else None


def subset_changes(model: Model) -> dict[str, Change]:
    """For each proper subset of the model's modalities, by its letters, the change that leaves out all others.

    Empty where the model was not trained to do without any.
    """
    if not leaves_out(model):
        return {}
    letters, empty = in_order(model.config.modalities), empty_text(model)
    return {
        present: partial(leave_out_all, letters=set(letters) - set(present), empty=empty)
        for present in subsets(letters)[:-1]
    }


def in_order(modalities: str) -> str:
    """Modality letters in the order t, a, v."""
    return "".join(letter for letter in MODALITIES if letter in modalities)


def _damaged(batch: Batch, settings: DamageSettings, present: list[str], blank: Blank, epoch: int) -> Batch:
    if settings.protocol == "modalities":
        return drop_modalities(batch, present, settings.seed, blank, epoch)
    rate = NOISE if settings.rate is None else settings.rate
    if settings.protocol == "random" or isinstance(rate, tuple):
        return drop_steps(batch, rate, settings.seed, blank, epoch)
    return add_noise(batch, rate, settings.seed, blank, epoch)
