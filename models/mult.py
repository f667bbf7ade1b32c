"""MulT, the multimodal transformer of Tsai et al. 2019: every modality asks every other one, pair by pair.

A convolution of width 1 brings each modality to `size` features. For each modality, one crossmodal transformer for
each of the others enriches its sequence; their outputs, side by side, go through a transformer of their own, whose
last real step stands for the modality. A residual two-layer head reads all of them.

With 300, 5 and 20 features and one output it has the 1,071,211 parameters that UCRN's Table 7 quotes.

Where the paper is silent: no step is hidden from another one (the released code hides the future of the target by
default, which no sentence of the paper asks for), and the last step is the last real one, so padding changes nothing.
"""

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from data_tools.batch import Batch
from models.fusion import FusionConfig, FusionModel
from models.layers.crossmodal import CrossmodalTransformer
from models.layers.padded import Padded
from models.layers.text import TextEncoder
from models.output import Output


class MulTConfig(FusionConfig):
    """Settings of MulT; the sizes are those of the released code, which give the published number of parameters."""

    size: int = Field(30, ge=2, multiple_of=2, description="features of a step in every transformer")
    heads: int = Field(5, ge=1, description="attention heads of each layer")
    layers: int = Field(5, ge=1, description="of each transformer")
    dropout: float = Field(0.1, ge=0, lt=1, description="of embeddings, attention and feed-forward networks")


class MulT(FusionModel):
    """`model(batch) -> Output`; see the head of this file."""

    def __init__(self, config: MulTConfig, text: TextEncoder | None) -> None:
        super().__init__(config, text)
        self.dropout = config.dropout
        self.project = nn.ModuleDict(
            {letter: nn.Linear(size, config.size, bias=False) for letter, size in self.sizes.items()}
        )
        self.fusion = PairwiseFusion(list(self.sizes), config.size, config.layers, config.heads, config.dropout)
        width = self.fusion.out_size
        self.residual = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Dropout(config.dropout), nn.Linear(width, width)
        )
        self.head = nn.Linear(width, config.outputs)

    def fuse(self, sequences: dict[str, Padded], batch: Batch) -> Output:  # noqa: ARG002
        """Sequences -> scores (B, outputs)."""
        projected = {
            letter: Padded(self.project[letter](F.dropout(values, self.dropout, self.training)), present)
            for letter, (values, present) in sequences.items()
        }
        fused = self.fusion(projected)
        return Output(self.head(fused + self.residual(fused)).float())


class PairwiseFusion(nn.Module):
    """Crossmodal transformers for all ordered pairs of `letters`, then one transformer for each target.

    A modality that is alone is enriched by itself only.
    """

    def __init__(self, letters: list[str], size: int, layers: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.sources = {target: [letter for letter in letters if letter != target] for target in letters}
        pairs = [(target, source) for target, sources in self.sources.items() for source in sources]
        wide = size * max(1, len(letters) - 1)
        self.out_size = wide * len(letters)
        self.pairs = nn.ModuleDict(
            {f"{target}_asks_{source}": CrossmodalTransformer(size, layers, heads, dropout) for target, source in pairs}
        )
        self.own = nn.ModuleDict({target: CrossmodalTransformer(wide, layers, heads, dropout) for target in letters})

    def forward(self, sequences: dict[str, Padded]) -> Tensor:
        """(B, out_size): the last real step of every target, side by side."""
        summaries = []
        for target, sources in self.sources.items():
            own = sequences[target]
            enriched = [self.pairs[f"{target}_asks_{source}"](own, sequences[source]) for source in sources]
            joined = Padded(torch.cat(enriched, dim=2) if enriched else own.values, own.present)
            summaries.append(joined.last(self.own[target](joined)))
        return torch.cat(summaries, dim=1)
