"""Late fusion: every modality has scores of its own, and a learnt number for each says how much they count."""

from collections.abc import Iterable, Mapping

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


def some_of(present: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Some of the modalities that each utterance has, but not all, each such subset equally likely.

    present: (B,) bool by name. Returns the same; an utterance with one modality keeps it. Draws from torch's generator.
    """
    there = torch.stack(list(present.values()))
    draws = torch.rand(there.shape, device=there.device).masked_fill(~there, -1.0)
    # Of three the highest draw or the two highest, of two the higher one.
    higher = (draws.unsqueeze(0) > draws.unsqueeze(1)).sum(1)
    most = (there.sum(0) - 1).clamp(min=1)
    kept = 1 + (torch.rand(most.shape, device=there.device) * most).long()
    return dict(zip(present, there & (higher < kept), strict=True))


def score_head(size_in: int, size: int, outputs: int, dropout: float) -> nn.Sequential:
    """(B, size_in), what stands for a modality -> its scores (B, outputs), by two layers."""
    return nn.Sequential(nn.Linear(size_in, size), nn.ReLU(), nn.Dropout(dropout), nn.Linear(size, outputs))
