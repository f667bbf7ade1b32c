"""Late fusion: every modality has scores of its own, and a learnt number for each says how much they count."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn


class WeightedSum(nn.Module):
    """Scores of several modalities -> their weighted sum; one weight by modality, all equal and positive at first.

    Positive, so that every modality pulls the way its own scores point.
    """

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__()
        self.names = list(names)
        for name in self.names:
            self.register_parameter(name, nn.Parameter(torch.tensor(1 / len(self.names))))

    def forward(self, scores: Mapping[str, Tensor]) -> Tensor:
        """scores: (B, E) by name. Returns (B, E) float32."""
        return torch.stack([self.get_parameter(name) * scores[name].float() for name in self.names]).sum(0)


def score_head(size_in: int, size: int, outputs: int, dropout: float) -> nn.Sequential:
    """(B, size_in), what stands for a modality -> its scores (B, outputs), by two layers."""
    return nn.Sequential(nn.Linear(size_in, size), nn.ReLU(), nn.Dropout(dropout), nn.Linear(size, outputs))
