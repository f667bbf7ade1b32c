"""The subnetworks of TFN and LMF: a modality's sequence becomes one vector before the vectors are multiplied.

Zadeh et al. 2017, section 4.1; Liu et al. 2018 take the same ones.
"""

import torch
from torch import Tensor, nn

from models.layers.padded import Padded


class TextSubnetwork(nn.Module):
    """An LSTM, and a layer over its state after the last real step."""

    def __init__(self, size_in: int, size: int, dropout: float) -> None:
        super().__init__()
        self.lstm = nn.LSTM(size_in, size, batch_first=True)
        self.last = nn.Sequential(nn.Dropout(dropout), nn.Linear(size, size), nn.ReLU())

    def forward(self, sequence: Padded) -> Tensor:
        """(B, L, size_in) -> (B, size)."""
        # What comes after an utterance's last step changes nothing before it.
        states, _ = self.lstm(sequence.values)
        out: Tensor = self.last(sequence.last(states))
        return out


class MeanSubnetwork(nn.Module):
    """The mean over the real steps, and three layers."""

    def __init__(self, size_in: int, size: int, dropout: float) -> None:
        super().__init__()
        widths = [size_in, size, size]
        self.layers = nn.Sequential(
            *(nn.Sequential(nn.Dropout(dropout), nn.Linear(width, size), nn.ReLU()) for width in widths)
        )

    def forward(self, sequence: Padded) -> Tensor:
        """(B, L, size_in) -> (B, size)."""
        out: Tensor = self.layers(sequence.mean())
        return out


def subnetworks(dims: dict[str, int], sizes: dict[str, int], dropout: float) -> nn.ModuleDict:
    """By modality letter: (B, L, dims) -> (B, sizes)."""
    kinds = {"t": TextSubnetwork, "a": MeanSubnetwork, "v": MeanSubnetwork}
    return nn.ModuleDict({letter: kinds[letter](dim, sizes[letter], dropout) for letter, dim in dims.items()})


def with_one(vector: Tensor) -> Tensor:
    """(B, D) -> (B, D + 1): [z; 1], so that a product of such vectors has every part of each of them in it too."""
    return torch.cat([vector, vector.new_ones(len(vector), 1)], dim=1)


def left_out(vector: Tensor, present: Tensor) -> Tensor:
    """(B, D), zero where `present` (B,) is false: of [z; 1] the 1 is then left, and with it all that the others say."""
    return torch.where(present.unsqueeze(1), vector, 0.0)
