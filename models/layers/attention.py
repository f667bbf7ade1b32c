"""Cross-modal attention over the sites of a map, and the selection it makes: eq. 1-4 of the MESM paper."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from models.layers.sparse_map import Sites, SparseMap
from models.layers.top_p import top_p_mask

AttentionGradient = Literal["straight_through", "none"]


class Selection(NamedTuple):
    """kept: the map's kept sites. weights: (images, H, W) attention, softmax over the sites that were active.

    macs: multiply-adds of eq. 1-2; not part of those of the map.
    """

    kept: SparseMap
    weights: Tensor
    macs: float


class CrossModalAttention(nn.Module):
    """Scores each active site with a query from another modality and keeps the top p of the attention's mass.

    eq. 1: Mq = tanh((Wm M + bm) + Wq q). eq. 2: softmax(Wi Mq) over the active sites of each image; bi is left out,
    because one number added to all sites doesn't change a softmax. eq. 3: top-p. eq. 4: the rest becomes inactive.
    k, the inner width, is the number of channels.

    gradient:
        "straight_through": forward, a kept site is multiplied by exactly 1. Backward, that factor is taken for its
            attention weight divided by the mean weight of the image's kept sites (a constant), so it is about 1 in
            size; so attention grows at kept sites whose stronger presence would lower the loss, shrinks at the
            others, and through the softmax the sites that were not kept rise when kept ones fall. This gradient
            reaches the parameters here and the query, not the features, which are given to eq. 1 without their
            history: they get the gradient of the constant mask, as published, so that a tower learns to tell
            emotions apart and the attention where to look. Where every active site of an image was kept, nothing
            was selected and the factor is a constant 1; with p = 1 no parameter of this layer gets a gradient.
        "none": as published: a constant mask. No parameter of this layer then gets a gradient.
    """

    def __init__(self, channels: int, query_size: int, p: float, gradient: AttentionGradient) -> None:
        super().__init__()
        self.of_map = nn.Linear(channels, channels)
        self.of_query = nn.Linear(query_size, channels, bias=False)
        self.score = nn.Linear(channels, 1, bias=False)
        self.p = p
        self.gradient = gradient

    @property
    def learns(self) -> bool:
        """Whether any gradient reaches the parameters."""
        return self.gradient == "straight_through" and self.p < 1

    def forward(self, x: SparseMap, query: Tensor) -> Selection:
        """x: a map of C channels. query: (images, query_size)."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.learns):
            weights = self._weights(x, query)
        active = x.sites.active.flatten(1)
        mask = top_p_mask(weights.detach(), active, self.p)
        kept = x.select(mask.view(x.sites.active.shape))
        if weights.requires_grad:
            gate = _straight_through(weights, active, kept.sites).unsqueeze(1).to(kept.features.dtype)
            kept = SparseMap(kept.features * gate, kept.sites, kept.macs)
        return Selection(kept, weights.detach().view(x.sites.active.shape), self._macs(len(x.sites), len(query)))

    def _weights(self, x: SparseMap, query: Tensor) -> Tensor:
        """(images, H * W) float32 attention."""
        shift = self.of_query(query)
        hidden = torch.tanh(self.of_map(x.features.detach()) + shift.index_select(0, x.sites.image))
        scores = self.score(hidden).squeeze(1).float()
        everywhere = torch.full_like(x.sites.active.flatten(1), float("-inf"), dtype=scores.dtype)
        return everywhere.flatten().index_copy(0, x.sites.flat, scores).view_as(everywhere).softmax(1)

    def _macs(self, sites: int, images: int) -> float:
        k, channels = self.of_map.weight.shape
        return sites * (channels * k + k) + images * self.of_query.weight.numel()


def _straight_through(weights: Tensor, active: Tensor, kept: Sites) -> Tensor:
    """(N,): exactly 1 for every kept site, with the gradient of its weight over the mean of the image's kept ones.

    weights, active: (images, H * W). An image that kept all its active sites sends no gradient.
    """
    own = weights.flatten().index_select(0, kept.flat)
    constant = weights.detach()
    mask = kept.active.flatten(1)
    mean = (constant * mask).sum(1) / mask.sum(1)
    selected = (mask != active).any(1)
    relative = own * (selected / mean).index_select(0, kept.image)
    return 1 + (relative - relative.detach())
