"""Sequences of several utterances side by side, padded to the longest, with a mask that says what is real."""

from typing import NamedTuple

import torch
from torch import Tensor


class Padded(NamedTuple):
    """values: (B, L, D), zero where nothing is. present: (B, L) bool, True at real steps; real ones come first."""

    values: Tensor
    present: Tensor

    def last(self, states: Tensor) -> Tensor:
        """(B, D) of `states` (B, L, D): each utterance's state at its last real step."""
        at = self.present.sum(1).clamp(min=1) - 1
        return states[torch.arange(len(states), device=states.device), at]

    def mean(self) -> Tensor:
        """(B, D): the mean of an utterance's real steps; 0 where it has none."""
        real = self.present.unsqueeze(2).to(self.values.dtype)
        return (self.values * real).sum(1) / real.sum(1).clamp(min=1)


def pad(values: Tensor, counts: Tensor, longest: int | None = None) -> Padded:
    """Packed steps, padded to the longest utterance, at least 1.

    values: (N, D), utterance after utterance. counts: (B,) int64, sums to N. longest: length to pad to, at least the
    largest count; None reads the counts, for which a GPU is waited for.
    """
    utterance = torch.arange(len(counts), device=counts.device).repeat_interleave(counts, output_size=len(values))
    first = counts.cumsum(0) - counts
    position = torch.arange(len(values), device=counts.device) - first[utterance]
    if longest is None:
        longest = int(counts.max()) if len(counts) else 0
    length = max(1, longest)
    padded = values.new_zeros(len(counts), length, values.shape[1]).index_put((utterance, position), values)
    return Padded(padded, torch.arange(length, device=counts.device) < counts.unsqueeze(1))
