"""Late fusion: every modality has scores of its own, and a learnt number for each says how much they count."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn


class WeightedSum(nn.Module):
    """Scores of several modalities -> their weighted sum; one weight by modality, all equal and positive at first.

    Positive, so that every modality pulls the way its own scores point. `[name]` is the weight of a modality.
    """

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__()
        listed = list(names)
        for name in listed:
            self.register_parameter(name, nn.Parameter(torch.tensor(1 / len(listed))))

    def __getitem__(self, name: str) -> nn.Parameter:
        return self.get_parameter(name)

    def forward(self, scores: Mapping[str, Tensor]) -> Tensor:
        """scores: (B, E) by name, of every modality; added in their own order. Returns (B, E) float32."""
        return torch.stack([self[name] * score.float() for name, score in scores.items()]).sum(0)


def score_head(size_in: int, size: int, outputs: int, dropout: float) -> nn.Sequential:
    """(B, size_in), what stands for a modality -> its scores (B, outputs), by two layers."""
    return nn.Sequential(nn.Linear(size_in, size), nn.ReLU(), nn.Dropout(dropout), nn.Linear(size, outputs))
