"""A split packed on a device: the steps of all its utterances, one after the other, and where each one begins."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_tools.absent import Flags
from data_tools.batch import Batch, Packed
from data_tools.dataset import UtteranceDataset, collate

# Samples that are read at once; what they take beside the whole split is little.
_READ_AT_ONCE = 64


@dataclass(frozen=True)
class Rows:
    """Packed steps of all utterances on the device, and where each utterance begins, on the host."""

    values: Tensor
    counts: NDArray[np.int64]
    starts: NDArray[np.int64]

    def longest(self, at: NDArray[np.int64], absent: Flags | None = None) -> int:
        """Steps of the longest of these utterances; none where `absent`, (B,)."""
        return int((self.counts[at] if absent is None else self.counts[at] * ~absent).max())

    def of_utterances(self, at: NDArray[np.int64], absent: Flags | None = None) -> Packed:
        """The steps of the utterances at these positions, one utterance after the other; none where `absent`, (B,)."""
        counts = self.counts[at] if absent is None else self.counts[at] * ~absent
        shift = np.repeat(self.starts[at] - (counts.cumsum() - counts), counts)
        rows = torch.from_numpy(np.arange(counts.sum()) + shift)
        device = self.values.device
        return Packed(self.values.index_select(0, sent(rows, device)), sent(torch.from_numpy(counts), device))


class _Growing:
    """Packed steps of utterances that are appended, in one tensor on the device; `room` rows are taken at once."""

    def __init__(self, first: Tensor, room: int, device: torch.device) -> None:
        self._values = torch.empty((max(room, len(first)), *first.shape[1:]), dtype=first.dtype, device=device)
        self._used = 0
        self._counts: list[Tensor] = []

    def append(self, values: Tensor, counts: Tensor) -> None:
        """Append the steps of some utterances, (n,) of them by `counts`."""
        needed = self._used + len(values)
        if needed > len(self._values):
            larger = self._values.new_empty((max(needed, 3 * len(self._values) // 2), *values.shape[1:]))
            larger[: self._used] = self._values[: self._used]
            self._values = larger
        self._values[self._used : needed] = values
        self._used = needed
        self._counts.append(counts)

    def rows(self) -> Rows:
        """All that was appended."""
        counts = torch.cat(self._counts).numpy()
        return Rows(self._values[: self._used], counts, counts.cumsum() - counts)


def pack(split: UtteranceDataset, device: torch.device) -> tuple[dict[str, Rows], list[Batch]]:
    """The steps of a split on the device by name, and the other values of its samples, some samples at a time.

    All of them at once would be in memory twice: one by one, and packed.
    """
    room = {name: int(counts.sum()) for name, counts in split.counts().items()}
    growing: dict[str, _Growing] = {}
    rest = []
    for start in range(0, len(split), _READ_AT_ONCE):
        samples = [split[i] for i in range(start, min(start + _READ_AT_ONCE, len(split)))]
        part = collate(samples, lambda texts: (torch.zeros(len(texts), 0), torch.zeros(len(texts), 0)))
        steps = {"faces": Packed(part.faces, part.face_counts), "chunks": Packed(part.chunks, part.chunk_counts)}
        for name, packed in (steps | dict(part.features)).items():
            if name not in growing:
                growing[name] = _Growing(packed.values, room.get(name, 0), device)
            growing[name].append(packed.values, packed.counts)
        # New tensors: a slice would keep all of the old one.
        none = {name: Packed(packed.values[:0].clone(), packed.counts) for name, packed in part.features.items()}
        rest.append(replace(part, faces=part.faces[:0].clone(), chunks=part.chunks[:0].clone(), features=none))
    return {name: found.rows() for name, found in growing.items()}, rest


def sent(small: Tensor, device: torch.device) -> Tensor:
    """A small tensor of the host on the device, without a wait."""
    return small.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else small
