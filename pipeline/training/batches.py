"""Samples into batches: the utterances that meet in an epoch, the loader, and splits held in memory."""

import math
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from data_tools.absent import Flags
from data_tools.batch import WAVEFORM, Batch
from data_tools.dataset import UtteranceDataset, collate
from data_tools.mel import CHUNK_MS
from pipeline.settings import ConfigError
from pipeline.training.device import Ranks
from pipeline.training.packed import pack, sent

Tokenize = Callable[[list[str]], tuple[Tensor, Tensor]]

ALONE = Ranks()
# Batches among which utterances are sorted by length. With more, the same utterances would meet in every epoch; with
# fewer, lengths differ more. See docs/training.md.
WINDOW = 16


# A face and a mel chunk take memory for whole maps in a tower; of a step of features so many cost as much.
FEATURE_STEPS = 64


@dataclass(frozen=True)
class StepLimit:
    """The largest batch that is computed at once. steps: (n,) of each utterance of a split. most: of a batch."""

    steps: NDArray[np.int64]
    most: int

    @classmethod
    def from_dataset(cls, dataset: UtteranceDataset, most: int) -> "StepLimit":
        """Count faces and chunks, `most` of a batch; of extracted features FEATURE_STEPS times as many steps."""
        return cls(lengths_of(dataset), most if dataset.features is None else most * FEATURE_STEPS)

    def parts(self, batch: list[int]) -> list[list[int]]:
        """The batch, cut where the next utterance would be too much; an utterance is never cut."""
        steps = self.steps[batch]
        if int(steps.sum()) <= self.most or len(batch) == 1:
            return [batch]
        parts: list[list[int]] = []
        room = 0
        for position, own in zip(batch, steps.tolist(), strict=True):
            if not parts or own > room:
                parts.append([])
                room = self.most
            parts[-1].append(position)
            room -= own
        return parts


def _cut_up(batches: list[list[int]], limit: StepLimit | None) -> list[list[list[int]]]:
    """The parts of each batch."""
    return [[batch] if limit is None else limit.parts(batch) for batch in batches]


class EpochBatches(Sampler[list[int]]):
    """Batches of positions in an order that (seed, epoch) alone decide, so that a resumed epoch is the same epoch.

    lengths: (count,) steps of each utterance. With it, each `WINDOW` batches' worth of the shuffled utterances is
    sorted by length before it is cut into batches, and the batches are shuffled: an utterance meets others of its
    length, in each epoch other ones. None: any utterances meet.
    ranks: which share of every batch this process gets. limit: batches of more steps come in parts; None for no limit.

    Attributes:
        epoch: set it before each pass; epochs count from 1.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        seed: int,
        lengths: NDArray[np.int64] | None = None,
        ranks: Ranks = ALONE,
        limit: StepLimit | None = None,
    ) -> None:
        self.count = count
        self.batch_size = batch_size
        self.seed = seed
        self.lengths = lengths
        self.ranks = ranks
        self.limit = limit
        self.epoch = 1

    def __len__(self) -> int:
        return math.ceil(self.count / self.batch_size) if self.limit is None else sum(self.parts())

    def __iter__(self) -> Iterator[list[int]]:
        yield from map(self.ranks.own, self._parts())

    def sizes(self) -> list[int]:
        """Utterances of each batch or part of this epoch, those of all processes together."""
        return [len(part) for part in self._parts()]

    def parts(self) -> list[int]:
        """Parts of each batch of this epoch, 1 where it is computed at once."""
        return [len(parts) for parts in _cut_up(self.whole(), self.limit)]

    def _parts(self) -> list[list[int]]:
        return [part for parts in _cut_up(self.whole(), self.limit) for part in parts]

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
    """Batches of positions 0, 1, 2 ..., each once, of which this process gets its share. limit: as for EpochBatches."""

    def __init__(self, count: int, batch_size: int, ranks: Ranks = ALONE, limit: StepLimit | None = None) -> None:
        batches = _cut(list(range(count)), batch_size)
        self._batches = [part for parts in _cut_up(batches, limit) for part in parts]
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
        multiprocessing_context=_context() if workers else None,
        persistent_workers=workers > 0,
        generator=_own_generator(),
        pin_memory=pin,
    )


def _context() -> multiprocessing.context.BaseContext:
    """Way to start the processes that read.

    Not by a fork of this one, as torch does it up to Python 3.13: with threads of Ray in it the new one may crash.
    """
    context = multiprocessing.get_context("forkserver")
    if threading.current_thread() is threading.main_thread():
        context.set_forkserver_preload([__name__])
    return context


def ordered_loader(
    dataset: Any, batch_size: int, tokenize: Tokenize, workers: int = 0, limit: StepLimit | None = None
) -> DataLoader[Batch]:
    """Batches of `dataset` in its own order, each utterance once."""
    return train_loader(dataset, OrderedBatches(len(dataset), batch_size, limit=limit), tokenize, workers)


def _own_generator() -> torch.Generator:
    """A loader draws a number at the start of each pass; from torch's own generator that would shift all dropout."""
    return torch.Generator().manual_seed(0)


Wish = Literal["auto"] | bool

# The rest is for weights and activations on a GPU, and for everything else that runs on a CPU.
_SHARE = {"cuda": 0.5, "cpu": 0.25}
_FACE_BYTES = 3 * 48 * 48
_CHUNK_BYTES = 128 * 32 * 4
_WAVEFORM_BYTES = 16 * CHUNK_MS * 4


def is_to_be_held(splits: list[UtteranceDataset], device: torch.device, wish: Wish, workers: int) -> bool:
    """Return True if the splits go into the memory of `device` as a whole.

    wish: `auto` for yes where they take at most a half of a GPU's free memory, a quarter of a CPU's, and where
    nobody asked for `workers` to read.

    Raises:
        ConfigError: they are to be held and don't fit.
    """
    if wish is False or (wish == "auto" and workers):
        return False
    needed, free = sum(map(bytes_of, splits)), free_bytes(device)
    if wish == "auto":
        return needed <= _SHARE[device.type] * free
    if needed > free:
        raise ConfigError(
            f"keep_on_device is true, but the utterances take {needed / 2**30:.1f} GiB and {device} has "
            f"{free / 2**30:.1f} GiB free; use --set keep_on_device=auto"
        )
    return True


def bytes_of(split: UtteranceDataset) -> int:
    """About how many bytes the packed tensors of a split take; no sample is read."""
    counts = {name: int(values.sum()) for name, values in split.counts().items()}
    if split.features is None:
        sound = counts["chunks"] * (_CHUNK_BYTES + split.waveforms * _WAVEFORM_BYTES)
        return counts["faces"] * _FACE_BYTES + sound
    return sum(4 * count * split.features.sizes[letter] for letter, count in counts.items())


def free_bytes(device: torch.device) -> int:
    """Memory of `device` that nobody uses; on a CPU also what the system would give back of its caches."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    known = Path("/proc/meminfo")
    if known.is_file():
        lines = dict(line.split(":") for line in known.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


class LeavesOut(Protocol):
    """What to leave out of a batch, as `pipeline.training.damage.ModalityDropout`."""

    letters: str
    empty: tuple[Tensor, Tensor]

    def absent(self, ids: Sequence[str], present: Mapping[str, Flags]) -> dict[str, Flags]:
        """(B,) bool by modality letter."""


class HeldBatches:
    """The batches that a loader would give in the same order, bit for bit, cut out of memory.

    device: where the split is kept and where the batches are. dropout: modalities to leave out; None for none.
    """

    def __init__(
        self,
        split: UtteranceDataset,
        order: EpochBatches | OrderedBatches,
        tokenize: Tokenize,
        device: torch.device,
        dropout: LeavesOut | None = None,
    ) -> None:
        packed, rest = pack(split, device)
        self._order = order
        self._ids = np.array([name for part in rest for name in part.ids], dtype=object)
        self._faces, self._chunks = packed.pop("faces"), packed.pop("chunks")
        self._features = packed
        tokens, token_mask = tokenize(split.table["text"].tolist())
        # Padding is on the right: the last real token says how long a text is.
        places = torch.arange(1, tokens.shape[1] + 1)
        self._text_lengths = (token_mask * places).amax(1).numpy()
        self._tokens, self._token_mask = tokens.to(device), token_mask.to(device)
        self._labels = torch.cat([part.labels for part in rest]).to(device)
        self._sentiment = torch.cat([part.sentiment for part in rest]).to(device)
        self._present = {letter: torch.cat([part.present(letter) for part in rest]).numpy() for letter in "tav"}
        self._dropout = dropout
        self._empty = None if dropout is None else [part.to(device) for part in dropout.empty]

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[Batch]:
        for positions in self._order:
            yield self._batch(np.array(positions, np.int64))

    def _batch(self, at: NDArray[np.int64]) -> Batch:
        device = self._labels.device
        absent = self._absent(at)
        sound, here = absent.get("a"), sent(torch.from_numpy(at), device)
        faces, chunks = self._faces.of_utterances(at, absent.get("v")), self._chunks.of_utterances(at, sound)
        has_words = self._present["t"][at]
        lengths, wordless = self._text_lengths[at], None
        if "t" in absent and "t" not in self._features and absent["t"].any():
            assert self._empty is not None
            wordless = sent(torch.from_numpy(absent["t"]).unsqueeze(1), device)
            has_words = has_words & ~absent["t"]
            lengths = np.where(absent["t"], int(self._empty[1].sum()), lengths)
        longest = int(lengths.max())
        tokens, mask = self._tokens[here, :longest], self._token_mask[here, :longest]
        if wordless is not None and self._empty is not None:
            tokens = torch.where(wordless, self._empty[0][:, :longest], tokens)
            mask = torch.where(wordless, self._empty[1][:, :longest], mask)
        return Batch(
            faces=faces.values,
            face_counts=faces.counts,
            chunks=chunks.values,
            chunk_counts=chunks.counts,
            tokens=tokens,
            token_mask=mask,
            labels=self._labels[here],
            sentiment=self._sentiment[here],
            ids=tuple(self._ids[at]),
            features={
                name: rows.of_utterances(at, sound if name == WAVEFORM else absent.get(name))
                for name, rows in self._features.items()
            },
            longest={
                "faces": self._faces.longest(at, absent.get("v")),
                "chunks": self._chunks.longest(at, sound),
            },
            has_words=sent(torch.from_numpy(has_words), device),
        )

    def _absent(self, at: NDArray[np.int64]) -> dict[str, Flags]:
        if self._dropout is None:
            return {}
        present = {letter: self._present[letter][at] for letter in self._dropout.letters}
        return self._dropout.absent(tuple(self._ids[at]), present)
