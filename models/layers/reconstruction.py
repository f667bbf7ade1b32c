"""Low-level restoration: what was missing in the input is guessed from what the fusion made of the rest."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.padded import Padded


class Decoders(nn.Module):
    """A two-layer network for each modality, from its fused steps to its input's features.

    sizes_in, sizes_out: features of a step before and after, by modality letter.
    """

    def __init__(self, sizes_in: Mapping[str, int], sizes_out: Mapping[str, int]) -> None:
        super().__init__()
        self.networks = nn.ModuleDict(
            {
                letter: nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, sizes_out[letter]))
                for letter, size in sizes_in.items()
            }
        )

    def forward(
        self, fused: Mapping[str, Tensor], complete: Mapping[str, Padded], missing: Mapping[str, Tensor]
    ) -> Tensor:
        """The sum of `reconstruction_loss` over the modalities, a scalar.

        fused: (B, L, sizes_in). complete: the undamaged input, (B, L, sizes_out). missing: (B, L) bool.
        """
        losses = [
            reconstruction_loss(network(fused[letter]), complete[letter].values, missing[letter])
            for letter, network in self.networks.items()
        ]
        return torch.stack(losses).sum()


def reconstruction_loss(guess: Tensor, complete: Tensor, missing: Tensor) -> Tensor:
    """Smooth L1 between two sequences (B, L, D), the mean over all features of the `missing` steps (B, L) bool.

    0 where nothing is missing. The target gets no gradient: one that moves towards the guess could become constant.
    """
    apart = F.smooth_l1_loss(guess.float(), complete.detach().float(), reduction="none").mean(2)
    # A sum of products and not a choice, so that decoders get a gradient (of zeros) where nothing is missing.
    return (apart * missing).sum() / missing.sum().clamp(min=1)
