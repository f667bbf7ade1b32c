"""The transformer of MulT: a sequence of one modality is enriched by another's, or, given no other, by itself."""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.padded import Padded
from models.layers.sequence import sinusoids


class CrossmodalTransformer(nn.Module):
    """Pre-norm layers of attention and a feed-forward network (Tsai et al. 2019, section 3.2, eq. 1-4).

    Both sequences are scaled by the root of `size` and get sinusoidal positions; a last layer norm follows.
    """

    def __init__(self, size: int, layers: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.scale, self.dropout = math.sqrt(size), dropout
        self.layers = nn.ModuleList([_Layer(size, heads, dropout) for _ in range(layers)])
        self.norm = nn.LayerNorm(size)

    def forward(self, target: Padded, source: Padded | None = None) -> Tensor:
        """(B, L, size), states of `target`, which asks `source` in every layer, or itself where that is None."""
        x = self._embedded(target)
        other = None if source is None else self._embedded(source)
        absent = ~(target if source is None else source).present
        for layer in self.layers:
            x = layer(x, other, absent)
        out: Tensor = self.norm(x)
        return out

    def _embedded(self, sequence: Padded) -> Tensor:
        x = self.scale * sequence.values
        return F.dropout(x + sinusoids(x.shape[1], x.shape[2], x), self.dropout, self.training)


class _Layer(nn.Module):
    def __init__(self, size: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(size, heads, dropout, batch_first=True)
        self.norms = nn.ModuleList([nn.LayerNorm(size), nn.LayerNorm(size)])
        self.feed_forward = nn.Sequential(
            nn.Linear(size, 4 * size), nn.ReLU(), nn.Dropout(dropout), nn.Linear(4 * size, size)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, source: Tensor | None, absent: Tensor) -> Tensor:
        query = self.norms[0](x)
        keys = query if source is None else self.norms[0](source)
        seen, _ = self.attention(query, keys, keys, key_padding_mask=absent, need_weights=False)
        x = x + self.dropout(seen)
        made: Tensor = x + self.dropout(self.feed_forward(self.norms[1](x)))
        return made
