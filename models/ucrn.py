"""UCRN of Guo et al. 2021: each modality is refined on its own, then all of them together (section 3).

A projection brings each modality to `size` features. Unimodal refinement: layers of attention and a feed-forward
network (eq. 3 to 5); the last real step stands for the modality (eq. 6). A regulariser draws the modalities' vectors,
as distributions over their features, towards each other (eq. 7 and 8): `Output.losses["divergence"]`, whose weight is
lambda_m of eq. 13. Self-quality layers weigh each vector by itself (eq. 9), crossmodal refinement reads them side by
side (eq. 10 and 11), and two fully connected layers give the scores (eq. 12). Any subset of the modalities will do.

Where the paper is silent: steps have no positions, as in the released code, so the order of the steps before the last
one changes nothing; query, key and value have no bias; the feed-forward network is 4 times as wide; p of eq. 7 is the
softmax of the features; the hidden layer of the head has `size` features; the layer of eq. 4 that joins the heads
starts orthogonal. The average pooling of section 4.2 is over one step and leaves it as it is. Crossmodal refinement
attends to one step too (eq. 6 leaves no other), so its queries and keys choose nothing: they count as parameters, are
not computed, and never learn.

Table 7 is 422,401 parameters for three modalities and 211,681 for two. With features of 300, 5 and 20 and one output:

                                       tav                  ta
    refinements and self-quality      422,280 (-0.03 %)    212,400 (+0.34 %)    `fusion_parameters`
    with projections and head         431,857 (+2.2 %)     220,921 (+4.4 %)     `parameters`

So the table fits if the input projections are no part of the count, and cannot be met with them: the width is a
multiple of 3, the heads; at 24, the weights of text and audio's 15 layers (30 x 12 x 24^2 = 207,360)
and projections (7,320) alone are 1.4 % above 211,681, and at 21 or 27 the whole is far off. Nor does it fit exactly:
if every modality costs the same, both figures ask for 35,920 x M + 34,960 x M^2 + 1, and 34,960 / 24^2 is no integer.
Other widths, biases, norms, heads, self-quality layers and the released code's sizes (30 features: 687,000) were tried
by search; what met both figures contradicted the paper in its layers, norms or heads.
"""

import math
from itertools import combinations
from typing import Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from data_tools.batch import Batch
from models.fusion import FusionConfig, FusionModel
from models.layers.padded import Padded
from models.layers.text import TextEncoder
from models.output import Output


class UCRNConfig(FusionConfig):
    """Settings of UCRN; layers and heads are the paper's, size gives its number of parameters."""

    size: int = Field(24, ge=1, description="features of a modality after its projection")
    heads: int = Field(3, ge=1, description="attention heads of each layer; divide size")
    layers: int = Field(5, ge=1, description="of each refinement module")
    quality_layers: int = Field(
        1, ge=0, description="self-quality layers: one by eq. 9, a stack by the text of section 3.3; 0: without them"
    )
    unimodal: bool = Field(True, description="with unimodal refinement; without, a modality is its last step")
    crossmodal: bool = Field(True, description="with crossmodal refinement")
    divergence: bool = Field(True, description="with the loss of eq. 8")
    dropout: float = Field(0.1, ge=0, lt=1, description="of attention, feed-forward networks and the head")

    @model_validator(mode="after")
    def _heads_divide_size(self) -> Self:
        if self.size % self.heads:
            raise ValueError(f"heads is {self.heads} and size {self.size}: give a number of heads that divides size")
        return self


class UCRN(FusionModel):
    """`model(batch) -> Output`; see the head of this file."""

    config: UCRNConfig

    def __init__(self, config: UCRNConfig, text: TextEncoder | None) -> None:
        super().__init__(config, text)
        size = config.size
        self.project = nn.ModuleDict({letter: nn.Linear(dim, size, bias=False) for letter, dim in self.sizes.items()})
        self.fusion = RefinementNetwork("".join(self.sizes), config)
        self.head = nn.Sequential(
            nn.Linear(size * len(self.sizes), size),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(size, config.outputs),
        )

    def fuse(self, sequences: dict[str, Padded], batch: Batch) -> Output:  # noqa: ARG002
        """Sequences -> scores (B, outputs), and the divergence where there are two modalities or more."""
        projected = {
            letter: Padded(self.project[letter](values), present) for letter, (values, present) in sequences.items()
        }
        fused, refined = self.fusion(projected)
        compared = self.config.divergence and len(refined) > 1
        losses = {"divergence": multimodal_divergence(list(refined.values()))} if compared else {}
        return Output(self.head(fused).float(), losses)

    def parameters_without_gradient(self) -> list[str]:
        """Queries and keys of the crossmodal refinement, which attends to one step."""
        prefix = "fusion.crossmodal."
        return [
            name
            for name, _ in self.named_parameters()
            if name.startswith(prefix) and name.endswith(("to_query.weight", "to_key.weight"))
        ]


def multimodal_divergence(vectors: list[Tensor]) -> Tensor:
    """Eq. 8: the sum over all pairs of their Jensen-Shannon divergence (eq. 7), in nats, mean over the batch.

    vectors: (B, D) a modality, two at least. Scalar float32, from 0 to the number of pairs times log 2.
    """
    logs = [torch.log_softmax(vector.float(), dim=1) for vector in vectors]
    return torch.stack([_jensen_shannon(one, other) for one, other in combinations(logs, 2)]).sum(0).mean()


def _jensen_shannon(one: Tensor, other: Tensor) -> Tensor:
    """(B,), of two logarithms of distributions (B, D)."""
    middle = torch.logaddexp(one, other) - math.log(2)
    return 0.5 * ((one.exp() * (one - middle)).sum(1) + (other.exp() * (other - middle)).sum(1))


class RefinementNetwork(nn.Module):
    """Unimodal refinement, self-quality layers, crossmodal refinement. letters: the modalities in their order."""

    def __init__(self, letters: str, config: UCRNConfig) -> None:
        super().__init__()
        size, sizes = config.size, (config.layers, config.heads, config.dropout)
        self.unimodal = nn.ModuleDict({letter: Refinement(size, *sizes) for letter in letters if config.unimodal})
        self.quality = nn.ModuleDict({letter: _quality(size, config.quality_layers) for letter in letters})
        self.crossmodal = Refinement(size * len(letters), *sizes) if config.crossmodal else None

    def forward(self, sequences: dict[str, Padded]) -> tuple[Tensor, dict[str, Tensor]]:
        """Sequences of `size` features -> x_C (B, size times the modalities), and x_U (B, size) by letter."""
        refined = {
            letter: self.unimodal[letter](sequence) if self.unimodal else sequence.last(sequence.values)
            for letter, sequence in sequences.items()
        }
        weighted = torch.cat([self.quality[letter](vector) for letter, vector in refined.items()], dim=1)
        if self.crossmodal is None:
            return weighted, refined
        one_step = Padded(weighted.unsqueeze(1), torch.ones_like(weighted[:, :1], dtype=torch.bool))
        return self.crossmodal(one_step), refined


def _quality(size: int, layers: int) -> nn.Module:
    """As many self-quality layers one after the other; one is no list, as checkpoints have it."""
    if layers == 1:
        return SelfQuality(size)
    return nn.Sequential(*(SelfQuality(size) for _ in range(layers)))


class SelfQuality(nn.Module):
    """A vector weighed feature by feature by what it says itself (eq. 9): (B, D) -> (B, D)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weigh = nn.Linear(size, size)

    def forward(self, vector: Tensor) -> Tensor:
        """See the class."""
        weighted: Tensor = vector * F.relu(self.weigh(vector))
        return weighted


class Refinement(nn.Module):
    """Layers over a sequence, and its last real step (eq. 2 and 6)."""

    def __init__(self, size: int, layers: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(RefinementLayer(size, heads, dropout) for _ in range(layers))

    def forward(self, sequence: Padded) -> Tensor:
        """(B, L, D) -> (B, D)."""
        values = sequence.values
        for layer in self.layers:
            values = layer(values, sequence.present)
        return sequence.last(values)


class RefinementLayer(nn.Module):
    """Heads, each beside what it reads, joined by a linear layer; then a feed-forward network (eq. 3 to 5)."""

    def __init__(self, size: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.to_query, self.to_key, self.to_value = (nn.Linear(size, size, bias=False) for _ in range(3))
        self.join = nn.Linear(size, size)
        # What is read passes through this matrix in each layer, with nothing beside it: one that shrinks, as torch's
        # own start does, leaves nothing after five or ten of them, and the model learns nothing.
        nn.init.orthogonal_(self.join.weight)
        nn.init.zeros_(self.join.bias)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(size), nn.Linear(size, 4 * size), nn.ReLU(), nn.Dropout(dropout), nn.Linear(4 * size, size)
        )

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        """(B, L, D), of which `present` (B, L) bool are real -> (B, L, D)."""
        joined = self.join(self._attended(x, present) + x)
        made: Tensor = self.feed_forward(joined) + joined
        return made

    def _attended(self, x: Tensor, present: Tensor) -> Tensor:
        values: Tensor = self.to_value(x)
        if x.shape[1] == 1:
            return values  # The weight of a single step is 1, whatever is asked.
        q, k, v = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (self.to_query(x), self.to_key(x), values)
        )
        dropout = self.dropout if self.training else 0.0
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=present[:, None, None], dropout_p=dropout)
        return seen.transpose(1, 2).flatten(2)
