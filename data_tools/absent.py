"""Modalities left out of a batch, as if the utterances had never had them: no steps, no words.

Damage (data_tools/damage.py) is another thing: there a step keeps its place and its values become blank.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_tools.batch import WAVEFORM, Batch, Packed
from data_tools.damage import uniform

Flags = NDArray[np.bool_]


def draw_absent(
    ids: Sequence[str], present: Mapping[str, Flags], probability: float, seed: int, epoch: int
) -> dict[str, Flags]:
    """The modalities to leave out of each utterance, (B,) bool by letter.

    Each goes with `probability`, by itself; where all that the utterance has would go, one of them stays, each equally
    likely. Drawn from (utterance id, seed, epoch) alone. present: (B,) bool by letter; what is absent cannot go.
    """
    letters = list(present)
    draws = np.stack([uniform(name, seed, epoch, "absent")(len(letters)) for name in ids], axis=1)
    there = np.stack([present[letter] for letter in letters])
    gone = (draws < probability) & there
    # The one with the highest draw stays.
    stays = np.argmax(np.where(there, draws, -1.0), axis=0)
    gone[stays, np.arange(len(ids))] &= ~(gone == there).all(0)
    return dict(zip(letters, gone, strict=True))


def leave_out(batch: Batch, absent: Mapping[str, Tensor], empty: tuple[Tensor, Tensor]) -> Batch:
    """The batch, on the CPU, without some modalities of some utterances.

    absent: (B,) bool by letter. empty: tokens and mask of the empty text, (1, L), padded to the longest there can be.
    """
    nothing = torch.zeros(len(batch), dtype=torch.bool)
    of = {letter: absent.get(letter, nothing) for letter in "tav"}
    chunks = _packed_without(Packed(batch.chunks, batch.chunk_counts), of["a"])
    faces = _packed_without(Packed(batch.faces, batch.face_counts), of["v"])
    features = {
        name: _packed_without(packed, of["a" if name == WAVEFORM else name]) for name, packed in batch.features.items()
    }
    left = replace(
        batch,
        chunks=chunks.values,
        chunk_counts=chunks.counts,
        faces=faces.values,
        face_counts=faces.counts,
        features=features,
        longest={},
    )
    if "t" in features or not of["t"].any():
        return left
    tokens, mask = (
        torch.where(of["t"].unsqueeze(1), row[:, : values.shape[1]], values)
        for values, row in zip((batch.tokens, batch.token_mask), empty, strict=True)
    )
    longest = int((mask * torch.arange(1, mask.shape[1] + 1)).amax())
    return replace(
        left,
        tokens=tokens[:, :longest],
        token_mask=mask[:, :longest],
        has_words=batch.present("t") & ~of["t"],
    )


def leave_out_all(batch: Batch, letters: Iterable[str], empty: tuple[Tensor, Tensor]) -> Batch:
    """The batch without these modalities. empty: as for `leave_out`."""
    every = torch.ones(len(batch), dtype=torch.bool)
    return leave_out(batch, dict.fromkeys(letters, every), empty)


def _packed_without(packed: Packed, absent: Tensor) -> Packed:
    """Steps of utterances without those where `absent` (B,) is true."""
    kept = (~absent).repeat_interleave(packed.counts, output_size=len(packed.values))
    return Packed(packed.values.index_select(0, kept.nonzero().squeeze(1)), packed.counts * ~absent)
