"""Samples into batches: which utterances meet in which epoch, and the loader that reads them."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from data_tools.batch import Batch
from data_tools.dataset import UtteranceDataset, collate
from pipeline.training.processes import Ranks

Tokenize = Callable[[list[str]], tuple[Tensor, Tensor]]

ALONE = Ranks()
# Batches among which utterances are sorted by length. With more, the same utterances would meet in every epoch; with
# fewer, lengths differ more. See docs/training.md.
WINDOW = 16


class EpochBatches(Sampler[list[int]]):
    """Batches of positions in an order that (seed, epoch) alone decide, so that a resumed epoch is the same epoch.

    lengths: (count,) steps of each utterance. With it, each `WINDOW` batches' worth of the shuffled utterances is
    sorted by length before it is cut into batches, and the batches are shuffled: an utterance meets others of its
    length, in each epoch other ones. None: any utterances meet.
    ranks: which share of every batch this process gets.

    Attributes:
        epoch: set it before each pass; epochs count from 1.
    """

    def __init__(
        self, count: int, batch_size: int, seed: int, lengths: NDArray[np.int64] | None = None, ranks: Ranks = ALONE
    ) -> None:
        self.count = count
        self.batch_size = batch_size
        self.seed = seed
        self.lengths = lengths
        self.ranks = ranks
        self.epoch = 1

    def __len__(self) -> int:
        return math.ceil(self.count / self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        yield from map(self.ranks.own, self.whole())

    def sizes(self) -> list[int]:
        """Utterances of each batch of this epoch, those of all processes together."""
        return [len(batch) for batch in self.whole()]

    def whole(self) -> list[list[int]]:
        """All batches of this epoch, before they are shared out."""
        draw = np.random.default_rng([self.seed, self.epoch])
        order = draw.permutation(self.count)
        if self.lengths is None:
            return _cut(order.tolist(), self.batch_size)
        window = WINDOW * self.batch_size
        parts = [order[start : start + window] for start in range(0, self.count, window)]
        by_length = [part[np.argsort(self.lengths[part], kind="stable")] for part in parts]
        batches = [batch for part in by_length for batch in _cut(part.tolist(), self.batch_size)]
        return [batches[i] for i in draw.permutation(len(batches))]


class OrderedBatches(Sampler[list[int]]):
    """Batches of positions 0, 1, 2 ..., each once, of which this process gets its share."""

    def __init__(self, count: int, batch_size: int, ranks: Ranks = ALONE) -> None:
        self._batches = _cut(list(range(count)), batch_size)
        self.ranks = ranks

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[int]]:
        yield from map(self.ranks.own, self._batches)

    def sizes(self) -> list[int]:
        """As `EpochBatches.sizes`."""
        return [len(batch) for batch in self._batches]


def _cut(positions: list[int], size: int) -> list[list[int]]:
    return [positions[start : start + size] for start in range(0, len(positions), size)]


def lengths_of(dataset: UtteranceDataset) -> NDArray[np.int64]:
    """(n,) steps of each utterance, all modalities together: what its work and its padding grow with."""
    return np.sum(list(dataset.counts().values()), axis=0, dtype=np.int64)


def padding_share(lengths: NDArray[np.int64], batches: Sequence[Sequence[int]]) -> float:
    """The share of steps that are nothing but padding where each batch is padded to its longest utterance."""
    padded = sum(len(batch) * int(lengths[list(batch)].max()) for batch in batches)
    real = sum(int(lengths[list(batch)].sum()) for batch in batches)
    return 1 - real / max(padded, 1)


def train_loader(
    dataset: Any, batches: Sampler[list[int]], tokenize: Tokenize, workers: int = 0, pin: bool = False
) -> DataLoader[Batch]:
    """Batches of `dataset` in the order of `batches`; texts are tokenized once a batch.

    workers: processes that read. pin: into memory that CUDA copies from without waiting.
    """
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=partial(collate, tokenize=tokenize),
        num_workers=workers,
        persistent_workers=workers > 0,
        generator=_own_generator(),
        pin_memory=pin,
    )


def ordered_loader(dataset: Any, batch_size: int, tokenize: Tokenize, workers: int = 0) -> DataLoader[Batch]:
    """Batches of `dataset` in its own order, each utterance once."""
    return train_loader(dataset, OrderedBatches(len(dataset), batch_size), tokenize, workers)


def _own_generator() -> torch.Generator:
    """A loader draws a number at the start of each pass; from torch's own generator that would shift all dropout."""
    return torch.Generator().manual_seed(0)
