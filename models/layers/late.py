"""Late fusion: every modality has scores of its own, and a learnt number for each says how much they count."""

from collections.abc import Collection, Iterable, Mapping
from itertools import combinations

import torch
from torch import Tensor, nn


class WeightedSum(nn.Module):
    """Scores of several modalities -> their weighted sum; one weight by modality, all equal and positive at first.

    Positive, so that every modality pulls the way its own scores point. `[name]` is the weight of a modality.

    An absent modality is left out, and the others weigh as much more as keeps the sum of the weights' sizes: what is
    there answers on the scale of the whole.
    """

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__()
        listed = list(names)
        for name in listed:
            self.register_parameter(name, nn.Parameter(torch.tensor(1 / len(listed))))

    def __getitem__(self, name: str) -> nn.Parameter:
        return self.get_parameter(name)

    def forward(self, scores: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None) -> Tensor:
        """scores: (B, E) by name, of every modality; added in their own order.

        present: (B,) bool by name; None where nothing is absent.

        Returns (B, E) float32. Where nothing is present all count, so that the answer is defined.
        """
        weighted = torch.stack([self[name] * score.float() for name, score in scores.items()])
        if present is None:
            return weighted.sum(0)
        there = torch.stack([present[name] for name in scores])
        there = there | ~there.any(0)
        sizes = torch.stack([self[name].detach().abs() for name in scores]).unsqueeze(1)
        scale = sizes.sum(0) / (sizes * there).sum(0)
        # Exactly the sum where nothing is absent.
        scale = torch.where(there.all(0), 1.0, scale).unsqueeze(1)
        return torch.where(there.unsqueeze(2), weighted, 0.0).sum(0) * scale


def each_subset(present: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """Every proper subset of the modalities, as an utterance would be that has no more.

    present: (B,) bool by name. An utterance with none of a subset keeps what it has.
    """
    names = list(present)
    sizes = range(1, len(names))
    subsets = [kept for size in sizes for kept in combinations(names, size)]
    return [_kept(present, kept) for kept in subsets]


def _kept(present: Mapping[str, Tensor], kept: Collection[str]) -> dict[str, Tensor]:
    """The modalities that are both `present`, (B,) bool by name, and `kept`; all present ones where that is none."""
    has_one = torch.stack([present[name] for name in kept]).any(0)
    return {name: there if name in kept else there & ~has_one for name, there in present.items()}


def score_head(size_in: int, size: int, outputs: int, dropout: float) -> nn.Sequential:
    """(B, size_in), what stands for a modality -> its scores (B, outputs), by two layers."""
    return nn.Sequential(nn.Linear(size_in, size), nn.ReLU(), nn.Dropout(dropout), nn.Linear(size, outputs))
