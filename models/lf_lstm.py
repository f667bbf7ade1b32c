"""LF-LSTM, the late-fusion baseline of the MESM paper (Dai et al. 2021, section 5.2): an LSTM for each modality.

A bidirectional LSTM reads a modality's sequence; its state after the last real step and its state after reading back
to the first one, side by side, go through a two-layer head to the modality's scores. The scores of the modalities are
added with learnt weights.

The paper names the baseline and gives no sizes; in the released code each LSTM is as wide as its features, which
leaves a modality of five features with next to no memory. Here all have `size` features in each direction.
"""

import torch
from pydantic import Field
from torch import nn

from data_tools.batch import Batch
from models.fusion import FusionConfig, FusionModel
from models.layers.late import WeightedSum, score_head
from models.layers.padded import Padded
from models.layers.recurrent import bidirectional, final_states
from models.layers.text import TextEncoder
from models.output import Output


class LFLSTMConfig(FusionConfig):
    """Settings of LF-LSTM."""

    size: int = Field(128, ge=1, description="features of an LSTM's state in each direction")
    layers: int = Field(1, ge=1, description="of each LSTM")
    dropout: float = Field(0.1, ge=0, lt=1, description="between layers of an LSTM and in the heads")


class LFLSTM(FusionModel):
    """`model(batch) -> Output`; see the head of this file."""

    leaves_out_absent = True

    def __init__(self, config: LFLSTMConfig, text: TextEncoder | None) -> None:
        super().__init__(config, text)
        self.encoders = nn.ModuleDict(
            {
                letter: bidirectional(dim, config.size, config.layers, config.dropout)
                for letter, dim in self.sizes.items()
            }
        )
        self.heads = nn.ModuleDict(
            {letter: score_head(2 * config.size, config.size, config.outputs, config.dropout) for letter in self.sizes}
        )
        self.fusion = WeightedSum(self.sizes)

    def fuse(self, sequences: dict[str, Padded], batch: Batch) -> Output:
        """Sequences -> scores (B, outputs)."""
        scores = {}
        for letter, sequence in sequences.items():
            forth, back = final_states(self.encoders[letter], sequence)
            scores[letter] = self.heads[letter](torch.cat([forth, back], dim=1))
        return Output(self.fusion(scores, self.present(batch)))
