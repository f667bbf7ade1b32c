"""LF-TRANS, the late-fusion baseline of the MESM paper (Dai et al. 2021, section 5.2): a transformer a modality.

A linear layer brings a modality to `size` features; a transformer encoder with sinusoidal positions reads a learnt
CLS vector and the steps behind it; the state of CLS goes through a two-layer head to the modality's scores. The
scores of the modalities are added with learnt weights.

The paper names the baseline and gives no sizes; those of its own CLS transformers (Table 6) are the defaults. The
released code works in the width of each modality's features, which the number of heads has to divide.
"""

from typing import Self

from pydantic import Field, model_validator
from torch import nn

from data_tools.batch import Batch
from models.fusion import FusionConfig, FusionModel
from models.layers.late import WeightedSum, score_head
from models.layers.padded import Padded
from models.layers.sequence import SequenceEncoder
from models.layers.text import TextEncoder
from models.output import Output


class LFTransConfig(FusionConfig):
    """Settings of LF-TRANS."""

    size: int = Field(64, ge=2, multiple_of=2, description="features of a step in every transformer")
    heads: int = Field(4, ge=1, description="attention heads of each layer; divide size")
    layers: int = Field(4, ge=1, description="of each transformer")
    feed_forward: int | None = Field(
        None, ge=1, description="width of each layer's network; None: 4 times its features; released: 2048"
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="in the transformers and in the heads")

    @model_validator(mode="after")
    def _heads_divide_size(self) -> Self:
        if self.size % self.heads:
            raise ValueError(f"heads is {self.heads} and size {self.size}: give a number of heads that divides size")
        return self


class LFTrans(FusionModel):
    """`model(batch) -> Output`; see the head of this file."""

    leaves_out_absent = True

    def __init__(self, config: LFTransConfig, text: TextEncoder | None) -> None:
        super().__init__(config, text)
        size = config.size
        self.project = nn.ModuleDict({letter: nn.Linear(dim, size) for letter, dim in self.sizes.items()})
        self.encoders = nn.ModuleDict(
            {
                letter: SequenceEncoder(size, config.layers, config.heads, config.dropout, config.feed_forward)
                for letter in self.sizes
            }
        )
        self.heads = nn.ModuleDict(
            {letter: score_head(size, size, config.outputs, config.dropout) for letter in self.sizes}
        )
        self.fusion = WeightedSum(self.sizes)

    def fuse(self, sequences: dict[str, Padded], batch: Batch) -> Output:
        """Sequences -> scores (B, outputs)."""
        scores = {}
        for letter, (values, present) in sequences.items():
            steps = self.project[letter](values[present])
            summary, _ = self.encoders[letter](steps, present.sum(1))
            scores[letter] = self.heads[letter](summary)
        return Output(self.fusion(scores, self.present(batch)))
