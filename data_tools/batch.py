"""The batch that every model takes: plain tensors, packed, not padded.

Shape legend for the whole project: B utterances, F faces and C mel chunks summed over the batch, H W pixels or
mel x time, D features, E emotions, N active sites, L text tokens.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

# Where `Batch.features` has the sound itself.
WAVEFORM = "w"


@dataclass(frozen=True)
class Packed:
    """Feature vectors of B utterances, one utterance after the other.

    values: (N, D) float32. counts: (B,) int64, vectors of each utterance; sums to N.
    """

    values: Tensor
    counts: Tensor


@dataclass(frozen=True)
class Batch:
    """B utterances, packed.

    faces: (F, 3, 48, 48) uint8 RGB, utterance after utterance, in time order.
    face_counts: (B,) int64, faces of each utterance; sums to F; 0 where the utterance has none.
    chunks: (C, 1, 128, 32) float32 log-mel, 400 ms each, standardised per utterance.
    chunk_counts: (B,) int64; sums to C; 0 where the utterance has no sound.
    tokens, token_mask: (B, L) int64 and bool; mask True at real tokens. L is the longest text of the batch.
    has_words: (B,) bool, False where the utterance has no words, and its tokens are those of the empty text; None
        where all have some.
    labels: (B, E) float32 in [0, 1]. sentiment: (B,) float32, NaN where the corpus has none.
    ids: utterance ids, in order.
    features: extracted features by modality, letters of "tav"; empty where nothing was extracted. Also, for models
        that read it and under `WAVEFORM`, the sound itself: (S, 1) at 16 kHz, standardised per utterance.
    missing: which steps data_tools/damage.py took away, bool, by what they are steps of: `tokens` (B, L),
        `chunks` (C,), `faces` (F,), a letter of `features` (N,); empty where nothing was damaged.
    longest: most `faces` and most `chunks` of an utterance, or more. The host then knows how long a padded sequence is
        without asking the device that has the counts; empty where nobody counted.
    complete: the batch before it was damaged, for models that learn to restore; None in evaluation.
    """

    faces: Tensor
    face_counts: Tensor
    chunks: Tensor
    chunk_counts: Tensor
    tokens: Tensor
    token_mask: Tensor
    labels: Tensor
    sentiment: Tensor
    ids: tuple[str, ...]
    features: Mapping[str, Packed] = field(default_factory=dict)
    missing: Mapping[str, Tensor] = field(default_factory=dict)
    longest: Mapping[str, int] = field(default_factory=dict, compare=False)
    complete: "Batch | None" = None
    has_words: Tensor | None = None

    def present(self, letter: str) -> Tensor:
        """(B,) bool: the utterances that have anything of a modality, by its letter."""
        source = WAVEFORM if letter == "a" and WAVEFORM in self.features else letter
        if source in self.features:
            return self.features[source].counts > 0
        if letter == "t":
            every = torch.ones(len(self), dtype=torch.bool, device=self.tokens.device)
            return every if self.has_words is None else self.has_words
        return {"a": self.chunk_counts, "v": self.face_counts}[letter] > 0

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on `device`; copies overlap with work there where the memory is pinned."""
        moved = self._each(lambda tensor: tensor.to(device, non_blocking=True))
        if self.longest or self.face_counts.device.type != "cpu" or moved.face_counts.device.type == "cpu":
            return moved
        counts = {"faces": self.face_counts, "chunks": self.chunk_counts}
        return replace(moved, longest={name: int(values.max()) for name, values in counts.items() if len(values)})

    def pin_memory(self) -> "Batch":
        """The same batch in memory that CUDA copies from without waiting; a loader with `pin_memory` calls this."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        made: dict[str, Any] = {name: change(value) for name, value in vars(self).items() if isinstance(value, Tensor)}
        made["features"] = {
            letter: Packed(change(packed.values), change(packed.counts)) for letter, packed in self.features.items()
        }
        made["missing"] = {name: change(mask) for name, mask in self.missing.items()}
        made["complete"] = None if self.complete is None else self.complete._each(change)
        return replace(self, **made)
