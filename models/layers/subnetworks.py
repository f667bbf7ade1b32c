"""The subnetworks of TFN and LMF: a modality's sequence becomes one vector before the vectors are multiplied.

Zadeh et al. 2017, section 4.1; Liu et al. 2018 take the same ones.
"""

import torch
from pydantic import Field
from torch import Tensor, nn

from models.fusion import FusionConfig
from models.layers.padded import Padded


class SubnetworkConfig(FusionConfig):
    """Settings of the subnetworks and of the vector that they are fused to; the defaults are TFN's sizes."""

    size: int = Field(128, ge=1, description="features of the text's LSTM and of its vector")
    audio_size: int = Field(32, ge=1, description="features of the vector of sound")
    vision_size: int = Field(32, ge=1, description="features of the vector of the picture")
    fused_size: int = Field(128, ge=1, description="features of what the product of all vectors is brought to")
    dropout: float = Field(0.15, ge=0, lt=1, description="of every modality's vector and of the fused one")

    def vector_sizes(self) -> dict[str, int]:
        """Features of a modality's vector, for the modalities that are named, in the order t, a, v."""
        sizes = {"t": self.size, "a": self.audio_size, "v": self.vision_size}
        return {letter: size for letter, size in sizes.items() if letter in self.modalities}


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


def subnetworks(dims: dict[str, int], config: SubnetworkConfig) -> nn.ModuleDict:
    """By modality letter: (B, L, dims) -> (B, vector size)."""
    sizes = config.vector_sizes()
    kinds = {"t": TextSubnetwork, "a": MeanSubnetwork, "v": MeanSubnetwork}
    return nn.ModuleDict({letter: kinds[letter](dim, sizes[letter], config.dropout) for letter, dim in dims.items()})


def with_one(vector: Tensor) -> Tensor:
    """(B, D) -> (B, D + 1): [z; 1], so that a product of such vectors has every part of each of them in it too."""
    return torch.cat([vector, vector.new_ones(len(vector), 1)], dim=1)
