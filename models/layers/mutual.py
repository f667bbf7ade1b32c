"""The mutual promotion unit and the poolings of EMT (Sun et al. 2023, eq. 4, 5 and 9, section 5.2.3)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.padded import Padded


class MutualPromotion(nn.Module):
    """Two sequences enrich each other (eq. 4). shared: both directions have the same weights.

    serial: the second direction asks the first sequence as the first direction has made it (section 5.2.2).
    """

    def __init__(
        self,
        size: int,
        heads: int,
        attention_dropout: float,
        feed_forward_dropout: float,
        shared: bool,
        serial: bool = False,
    ) -> None:
        super().__init__()
        self.serial = serial
        self.directions = nn.ModuleList(
            Promotion(size, heads, attention_dropout, feed_forward_dropout) for _ in range(1 if shared else 2)
        )

    def forward(self, one: Padded, other: Padded) -> tuple[Tensor, Tensor]:
        """(B, L, D) and (B, K, D) -> the same shapes; both directions see the other as it was, unless `serial`."""
        first = self.directions[0](one, other)
        return first, self.directions[-1](other, Padded(first, one.present) if self.serial else one)


class Promotion(nn.Module):
    """One direction (eq. 5): asks the other sequence, then itself, then a feed-forward network; layer norms before."""

    def __init__(self, size: int, heads: int, attention_dropout: float, feed_forward_dropout: float) -> None:
        super().__init__()
        self.norm_target, self.norm_source = nn.LayerNorm(size), nn.LayerNorm(size)
        self.cross = Attention(size, heads, attention_dropout)
        self.norm_own = nn.LayerNorm(size)
        self.own = Attention(size, heads, attention_dropout)
        self.feed_forward = nn.Sequential(nn.LayerNorm(size), GatedFeedForward(size, 4, feed_forward_dropout))

    def forward(self, target: Padded, source: Padded) -> Tensor:
        """target: (B, L, D). source: (B, K, D). Returns (B, L, D)."""
        x = target.values
        x = x + self.cross(self.norm_target(x), self.norm_source(source.values), source.present)
        normed = self.norm_own(x)
        x = x + self.own(normed, normed, target.present)
        made: Tensor = x + self.feed_forward(x)
        return made


class Attention(nn.Module):
    """Multi-head attention (eq. 2 and 3) without bias but for the output's: 4 D^2 + D parameters."""

    def __init__(self, size: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.to_query = nn.Linear(size, size, bias=False)
        self.to_key_value = nn.Linear(size, 2 * size, bias=False)
        self.out = nn.Linear(size, size)

    def forward(self, query: Tensor, source: Tensor, present: Tensor) -> Tensor:
        """query: (B, L, D). source: (B, K, D), of which `present` (B, K) bool are real."""
        q = self._split(self.to_query(query))
        k, v = map(self._split, self.to_key_value(source).chunk(2, dim=2))
        dropout = self.dropout if self.training else 0.0
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=present[:, None, None], dropout_p=dropout)
        out: Tensor = self.out(seen.transpose(1, 2).flatten(2))
        return out

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


class GatedFeedForward(nn.Module):
    """GEGLU (Shazeer 2020): (GELU of one half x the other half), `expansion` times as wide: 12 D^2 + 9 D for 4."""

    def __init__(self, size: int, expansion: int, dropout: float) -> None:
        super().__init__()
        self.wide = nn.Linear(size, 2 * expansion * size)
        self.narrow = nn.Linear(expansion * size, size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        values, gate = self.wide(x).chunk(2, dim=-1)
        made: Tensor = self.narrow(self.dropout(values * F.gelu(gate)))
        return made


class AttentionPooling(nn.Module):
    """Several vectors become one: a mean weighted by softmax(v tanh(W x + b)) (eq. 9)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Linear(size, size), nn.Tanh(), nn.Linear(size, 1))

    def forward(self, choices: Tensor) -> Tensor:
        """(..., K, D) -> (..., D)."""
        weights = torch.softmax(self.score(choices), dim=-2)
        return (weights * choices).sum(-2)


class MeanPooling(nn.Module):
    """Several vectors become their mean."""

    def forward(self, choices: Tensor) -> Tensor:
        """(..., K, D) -> (..., D)."""
        return choices.mean(-2)


class LinearPooling(nn.Module):
    """Several vectors become one by a fully connected layer over all of them, the paper's MLP-based pooling."""

    def __init__(self, size: int, count: int) -> None:
        super().__init__()
        self.join = nn.Linear(count * size, size)

    def forward(self, choices: Tensor) -> Tensor:
        """(..., count, D) -> (..., D)."""
        joined: Tensor = self.join(choices.flatten(-2))
        return joined
