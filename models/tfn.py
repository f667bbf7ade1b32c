"""TFN, the tensor fusion network of Zadeh et al. 2017: all products of features of all modalities.

Subnetworks make one vector of each modality (models/layers/subnetworks.py). The fused tensor is the outer product

    Z = [z_t; 1] x [z_a; 1] x [z_v; 1]

whose (d_t + 1)(d_a + 1)(d_v + 1) values are the vectors themselves, the products of two and those of three; two
layers and a linear one read it. With fewer modalities it is the product of those that there are.

What was chosen: texts have the length that they have, so the text's layer reads the LSTM's state after the last real
step; one such layer stands behind the LSTM. Nothing bounds the scores: they are what every model gives, before a
sigmoid or the scale of sentiment.
"""

import math

from pydantic import Field
from torch import Tensor, nn

from data_tools.batch import Batch
from models.fusion import FusionConfig, FusionModel
from models.layers.padded import Padded
from models.layers.subnetworks import left_out, subnetworks, with_one
from models.layers.text import TextEncoder
from models.output import Output


class TFNConfig(FusionConfig):
    """Settings of TFN; the sizes are the paper's, which make 129 x 33 x 33 products."""

    size: int = Field(128, ge=1, description="features of the text's LSTM and of its vector")
    audio_size: int = Field(32, ge=1, description="features of the vector of audio")
    vision_size: int = Field(32, ge=1, description="features of the vector of vision")
    fused_size: int = Field(128, ge=1, description="features of what the product of all vectors is brought to")
    dropout: float = Field(0.15, ge=0, lt=1, description="of what goes into layers, before and behind the product")

    def vector_sizes(self) -> dict[str, int]:
        """Features of a modality's vector, for the modalities that are named, in the order t, a, v."""
        sizes = {"t": self.size, "a": self.audio_size, "v": self.vision_size}
        return {letter: size for letter, size in sizes.items() if letter in self.modalities}


class TFN(FusionModel):
    """`model(batch) -> Output`; see the head of this file."""

    leaves_out_absent = True

    def __init__(self, config: TFNConfig, text: TextEncoder | None) -> None:
        super().__init__(config, text)
        self.subnetworks = subnetworks(self.sizes, config.vector_sizes(), config.dropout)
        self.fusion = TensorFusion(config.vector_sizes(), config.fused_size)
        fused = config.fused_size
        self.head = nn.Sequential(
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(fused, fused),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(fused, config.outputs),
        )

    def fuse(self, sequences: dict[str, Padded], batch: Batch) -> Output:
        """Sequences -> scores (B, outputs)."""
        present = self.present(batch)
        vectors = {
            letter: left_out(self.subnetworks[letter](sequence), present[letter])
            for letter, sequence in sequences.items()
        }
        return Output(self.head(self.fusion(vectors)).float())


class TensorFusion(nn.Module):
    """W Z + b of the outer product Z. sizes: features of a modality's vector, by letter; they fix the order in Z."""

    def __init__(self, sizes: dict[str, int], fused: int) -> None:
        super().__init__()
        self.letters = list(sizes)
        self.contract = nn.Linear(math.prod(size + 1 for size in sizes.values()), fused)

    def forward(self, vectors: dict[str, Tensor]) -> Tensor:
        """vectors: (B, D) by letter. Returns (B, fused)."""
        product, *others = (with_one(vectors[letter]) for letter in self.letters)
        for other in others:
            product = (product.unsqueeze(2) * other.unsqueeze(1)).flatten(1)
        out: Tensor = self.contract(product)
        return out
