"""Several data folders as one data set."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_tools.dataset import Sample, UtteranceDataset
from data_tools.errors import DataError


class JoinedDataset(UtteranceDataset):
    """The utterances of several data sets with the same emotions and features, those of the first one first.

    Attributes, beside those of a data set: parts. `data_dir` is that of the first.

    Raises:
        DataError: they have other emotions or features, or share an utterance.
    """

    def __init__(self, parts: Sequence[UtteranceDataset]) -> None:
        first = parts[0]
        for part in parts[1:]:
            _check_alike(first, part)
        self._parts = tuple(parts)
        self.data_dir, self.emotions, self.features = first.data_dir, first.emotions, first.features
        self.mapped, self.scale, self.waveforms, self.letters = (
            first.mapped,
            first.scale,
            first.waveforms,
            first.letters,
        )
        self.table = pd.concat([part.table for part in parts], ignore_index=True)
        twice = self.table["utterance_id"][self.table["utterance_id"].duplicated()]
        if len(twice):
            folders = " and ".join(str(part.data_dir) for part in parts)
            raise DataError(
                f"{twice.iloc[0]!r} is an utterance of more than one of {folders}; give it another id in one"
            )
        self.rejected = sum(part.rejected for part in parts)
        self.left_out = sum(part.left_out for part in parts)
        self._labels = torch.cat([part._labels for part in parts])
        self._stores = {}
        self._ends = np.cumsum([len(part) for part in parts])

    @property
    def parts(self) -> tuple[UtteranceDataset, ...]:
        """The data sets that it is made of."""
        return self._parts

    def only(self, kept: NDArray[np.bool_]) -> "JoinedDataset":
        """As `UtteranceDataset.only`."""
        pieces = np.split(kept, self._ends[:-1])
        joined = JoinedDataset([part.only(piece) for part, piece in zip(self._parts, pieces, strict=True)])
        joined.scale, joined.waveforms, joined.letters = self.scale, self.waveforms, self.letters
        return joined

    def counts(self) -> dict[str, NDArray[np.int64]]:
        """As `UtteranceDataset.counts`."""
        found = [part.counts() for part in self._parts if len(part)]
        return {name: np.concatenate([counts[name] for counts in found]) for name in (found[0] if found else {})}

    def stored_features(self) -> Iterator[dict[str, Tensor]]:
        """As `UtteranceDataset.stored_features`."""
        for part in self._parts:
            yield from self._set(part).stored_features()

    def __getitem__(self, index: int) -> Sample:
        number = int(np.searchsorted(self._ends, index, side="right"))
        part = self._set(self._parts[number])
        return part[index - int(self._ends[number] - len(part))]

    def _set(self, part: UtteranceDataset) -> UtteranceDataset:
        """A part that gives what this data set was told to give."""
        part.scale, part.waveforms, part.letters = self.scale, self.waveforms, self.letters
        return part


def join(parts: Sequence[UtteranceDataset]) -> UtteranceDataset:
    """The data sets as one; a single one as it is. Raises DataError as `JoinedDataset`."""
    return parts[0] if len(parts) == 1 else JoinedDataset(parts)


def _check_alike(first: UtteranceDataset, other: UtteranceDataset) -> None:
    if first.emotions != other.emotions:
        raise DataError(
            f"{first.data_dir} has the emotions {', '.join(first.emotions) or 'none'}, {other.data_dir} has "
            f"{', '.join(other.emotions) or 'none'}; give --labels common, or another label map that has both corpora"
        )
    own, others = (part.features and (part.features.settings, part.features.sizes) for part in (first, other))
    if own != others:
        raise DataError(
            f"the features of {first.data_dir} were made with {own}, those of {other.data_dir} with {others}; run "
            "`pipeline extract` on both with the same settings"
        )
