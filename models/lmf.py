"""LMF, the low-rank multimodal fusion of Liu et al. 2018 (section 3): TFN's product of modalities without its tensor.

Subnetworks make one vector of each modality, as in TFN. TFN contracts the outer product of the vectors [z; 1] with
one weight for each of its values. Here these weights are a sum of `rank` products of one factor a modality, and so
the contraction is, without the outer product ever being made,

    h = sum_i (W_t^i [z_t; 1]) * (W_a^i [z_a; 1]) * (W_v^i [z_v; 1]) + b,    i = 1 ... rank,

with * feature by feature. The cost is linear in the number of modalities, where TFN's is exponential; a rank of the
product of all sizes but the largest has room for every weight tensor. With fewer modalities it is the product of
those that there are; with one, a linear layer.

What differs: the released code fuses straight to the outputs and weighs the ranks with further numbers, which the
factors can take in themselves. Here h has `fused_size` features, as in the paper's text, and a linear layer reads it.
"""

import torch
from pydantic import Field
from torch import Tensor, nn

from data_tools.batch import Batch
from models.fusion import FusionModel
from models.layers.padded import Padded
from models.layers.subnetworks import left_out, subnetworks, with_one
from models.layers.text import TextEncoder
from models.output import Output
from models.tfn import TFNConfig


class LMFConfig(TFNConfig):
    """Settings of LMF; sizes as TFN's, so that the fusions differ and nothing before them."""

    rank: int = Field(4, ge=1, description="products of factors whose sum stands for the weight tensor")


class LMF(FusionModel):
    """`model(batch) -> Output`; see the head of this file."""

    leaves_out_absent = True

    def __init__(self, config: LMFConfig, text: TextEncoder | None) -> None:
        super().__init__(config, text)
        self.subnetworks = subnetworks(self.sizes, config.vector_sizes(), config.dropout)
        self.fusion = LowRankFusion(config.vector_sizes(), config.fused_size, config.rank)
        self.head = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(config.fused_size, config.outputs))

    def fuse(self, sequences: dict[str, Padded], batch: Batch) -> Output:
        """Sequences -> scores (B, outputs)."""
        present = self.present(batch)
        vectors = {
            letter: left_out(self.subnetworks[letter](sequence), present[letter])
            for letter, sequence in sequences.items()
        }
        return Output(self.head(self.fusion(vectors)).float())


class LowRankFusion(nn.Module):
    """h of the head of this file. sizes: features of a modality's vector, by letter.

    factors: (rank, D + 1, fused) by letter; the last of the D + 1 rows is what the 1 of [z; 1] meets.
    """

    def __init__(self, sizes: dict[str, int], fused: int, rank: int) -> None:
        super().__init__()
        # h starts in the order of 1, whatever the rank: with a linear layer's small weights, a product of three would
        # be next to 0, and so would be every gradient.
        share = rank ** (-0.5 / len(sizes))
        self.factors = nn.ParameterDict()
        for letter, size in sizes.items():
            deviation = torch.tensor([size**-0.5] * size + [1.0]).view(1, -1, 1)
            self.factors[letter] = nn.Parameter(torch.randn(rank, size + 1, fused) * deviation * share)
        self.bias = nn.Parameter(torch.zeros(fused))

    def forward(self, vectors: dict[str, Tensor]) -> Tensor:
        """vectors: (B, D) by letter. Returns (B, fused)."""
        parts = [with_one(vectors[letter]) @ factor for letter, factor in self.factors.items()]
        return torch.stack(parts).prod(0).sum(0) + self.bias
