"""Samples into batches: which utterances meet in which epoch, and the loader that reads them."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from data_tools.batch import Batch
from data_tools.dataset import collate

Tokenize = Callable[[list[str]], tuple[Tensor, Tensor]]


class EpochBatches(Sampler[list[int]]):
    """Batches of positions in an order that (seed, epoch) alone decide, so that a resumed epoch is the same epoch.

    Attributes:
        epoch: set it before each pass; epochs count from 1.
    """

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        self.count = count
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 1

    def __len__(self) -> int:
        return math.ceil(self.count / self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.count).tolist()
        for start in range(0, self.count, self.batch_size):
            yield order[start : start + self.batch_size]


def train_loader(dataset: Any, batches: EpochBatches, tokenize: Tokenize, workers: int = 0) -> DataLoader[Batch]:
    """Batches of `dataset` in the order of `batches`; texts are tokenized once a batch."""
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=partial(collate, tokenize=tokenize),
        num_workers=workers,
        persistent_workers=workers > 0,
        generator=_own_generator(),
    )


def ordered_loader(dataset: Any, batch_size: int, tokenize: Tokenize, workers: int = 0) -> DataLoader[Batch]:
    """Batches of `dataset` in its own order, each utterance once."""
    collate_fn = partial(collate, tokenize=tokenize)
    return DataLoader(
        dataset, batch_size=batch_size, collate_fn=collate_fn, num_workers=workers, generator=_own_generator()
    )


def _own_generator() -> torch.Generator:
    """A loader draws a number at the start of each pass; from torch's own generator that would shift all dropout."""
    return torch.Generator().manual_seed(0)
