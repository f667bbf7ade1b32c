"""Cross-modal attention over the sites of a map, and the selection it makes: eq. 1-4 of the MESM paper."""

import math
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from models.layers.sparse.precision import compute_dtype
from models.layers.sparse.sparse_map import Sites, SparseMap
from models.layers.sparse.top_p import mass_before, top_p_mask
from models.native.attend import Scores, UnitGate
from models.native.call import kernels_support
from models.native.rows import take_rows

AttentionGradient = Literal["none", "straight_through", "soft", "budget"]

# Width of the step by which a site is taken or left, as the gradient of p sees it; in units of attention mass.
SOFTNESS = 0.1


class Selection(NamedTuple):
    """kept: the map's kept sites. weights: (images, H, W) attention, softmax over the sites that were active.

    macs: multiply-adds of eq. 1-2; not part of those of the map. kept_share: (images,) float32, kept sites over active
    ones, with a gradient to p where p is learnt; None elsewhere.
    """

    kept: SparseMap
    weights: Tensor
    macs: float
    kept_share: Tensor | None = None


class CrossModalAttention(nn.Module):
    """Scores each active site with a query from another modality and keeps the top p of the attention's mass.

    eq. 1: Mq = tanh((Wm M + bm) + Wq q). eq. 2: softmax(Wi Mq) over the active sites of each image; bi is left out,
    because one number added to all sites doesn't change a softmax. eq. 3: top-p. eq. 4: the rest becomes inactive.
    k, the inner width, is the number of channels.

    gradient:
        "none": as published: a constant mask. No parameter of this layer then gets a gradient.
        "straight_through": forward, a kept site is multiplied by exactly 1. Backward, that factor is taken for its
            attention weight divided by the mean weight of the image's kept sites (a constant), so it is about 1 in
            size; so attention grows at kept sites whose stronger presence would lower the loss, shrinks at the
            others, and through the softmax the sites that were not kept rise when kept ones fall. This gradient
            reaches the parameters here and the query, not the features, which are given to eq. 1 without their
            history: they get the gradient of the constant mask, as published, so that a tower learns to tell
            emotions apart and the attention where to look. Where every active site of an image was kept, nothing
            was selected and the factor is a constant 1.
        "soft": a kept site is multiplied by its weight divided by the mean weight of the image's kept sites: 1 on the
            average, and 1 everywhere under even attention. The gradient is the true one, of all inputs, wherever the
            set of kept sites does not jump.
        "budget": as "straight_through", and p is learnt: of each image it is sigmoid(Wp q' + bp), q' the query on a
            fixed scale; it starts near the setting p. Forward the mask is hard. Backward, a site is taken for
            sigmoid((p - mass before it) / SOFTNESS) there, so that p grows where more of the sites at the edge would
            lower the loss; `kept_share` has the gradient of the same relaxation, for a loss that holds the share to a
            budget.

    With p = 1 nothing is selected, whatever `gradient` is: the map stays as it is, and no parameter gets a gradient.
    """

    def __init__(self, channels: int, query_size: int, p: float, gradient: AttentionGradient) -> None:
        super().__init__()
        self.of_map = nn.Linear(channels, channels)
        self.of_query = nn.Linear(query_size, channels, bias=False)
        self.score = nn.Linear(channels, 1, bias=False)
        self.of_p = nn.Linear(query_size, 1) if gradient == "budget" else None
        if self.of_p is not None:
            nn.init.constant_(self.of_p.bias, math.log(p / (1 - p)) if p < 1 else 0.0)
        self.p = p
        self.gradient = gradient
        # A gradient reaches the parameters.
        self.learns = gradient != "none" and p < 1

    def forward(self, x: SparseMap, query: Tensor) -> Selection:
        """x: a map of C channels. query: (images, query_size)."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.learns):
            weights = self._weights(x, query)
            p = self.share_of_mass(query)
        shape, active = x.sites.active.shape, x.sites.active.flatten(1)
        share = taken = None
        if p is None:
            mask = top_p_mask(weights.detach(), active, self.p)
        else:
            before = mass_before(weights.detach(), active)
            # Rounding can let the sum reach 1 before the last site.
            mask = ((before < p.detach()) | (p.detach() == 1)) & active
            taken = torch.sigmoid((p - before) / SOFTNESS)
            share = kept_share_of(mask, active, taken)
        kept = x.select(mask.view(shape))
        if self.gradient == "soft" and self.p < 1:
            kept = _scaled(kept, _relative(weights, kept.sites))
        elif weights.requires_grad:
            gate = _straight_through(weights, active, kept.sites)
            if taken is not None:
                own = take_rows(taken.flatten(), kept.sites.flat)
                gate = gate + (own - own.detach())
            kept = _gated(kept, gate)
        return Selection(kept, weights.detach().view(shape), self.multiply_adds(len(x.sites), len(query)), share)

    def _weights(self, x: SparseMap, query: Tensor) -> Tensor:
        """(images, H * W) float32 attention."""
        features = x.features if self.gradient == "soft" else x.features.detach()
        scores = self._scores(features, query, x.sites)
        everywhere = torch.full_like(x.sites.active.flatten(1), float("-inf"), dtype=scores.dtype)
        return everywhere.flatten().index_copy(0, x.sites.flat, scores).view_as(everywhere).softmax(1)

    def _scores(self, features: Tensor, query: Tensor, sites: Sites) -> Tensor:
        """(N,) float32: eq. 1, and eq. 2 before its softmax."""
        shift = self.of_query(query)
        dtype = compute_dtype(features)
        if kernels_support(features := features.to(dtype), self.score.weight):
            shift = (shift + self.of_map.bias).float()
            score = self.score.weight[0]
            return Scores.apply(features, self.of_map.weight.to(dtype), shift, score, sites.first)
        hidden = torch.tanh(self.of_map(features) + _OfImage.apply(shift, sites))
        return self.score(hidden).squeeze(1).float()

    def share_of_mass(self, query: Tensor) -> Tensor | None:
        """(images, 1) float32 in (0, 1]; None where all images have the setting `p`."""
        if self.of_p is None or self.p >= 1:
            return None
        # At this length a step of Adam moves p by little; else p runs into 0 or 1, where hardly any gradient is left.
        unit = F.layer_norm(query, query.shape[1:]) / math.sqrt(query.shape[1])
        return self.of_p(unit).float().sigmoid()

    def multiply_adds(self, sites: int, images: int) -> float:
        """Multiply-adds of eq. 1-2 over so many sites of all images together."""
        k, channels = self.of_map.weight.shape
        of_p = 0 if self.of_p is None or self.p >= 1 else self.of_p.weight.numel()
        return sites * (channels * k + k) + images * (self.of_query.weight.numel() + of_p)


class _OfImage(Function):
    """(N, C): the row of `values` (images, C) that belongs to each site's image.

    The gradient is a sum over the up to 1,024 sites of an image: in float32, and in their order. torch's own adds them
    in the rows' type, in bfloat16 2 to 3 % off, and on a GPU in another order each time.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, sites: Sites) -> Tensor:
        ctx.first = sites.first
        return values.index_select(0, sites.image)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        total = torch.segment_reduce(
            grad.to(torch.promote_types(grad.dtype, torch.float32)).contiguous(), "sum", offsets=ctx.first, unsafe=True
        )
        return total.to(grad.dtype), None


def _scaled(kept: SparseMap, gate: Tensor) -> SparseMap:
    return SparseMap(kept.features * gate.unsqueeze(1).to(kept.features.dtype), kept.sites, kept.macs)


def _gated(kept: SparseMap, gate: Tensor) -> SparseMap:
    """`kept` with a factor (N,) float32 for each row, which is exactly 1."""
    if not kernels_support(kept.features):
        return _scaled(kept, gate)
    return SparseMap(UnitGate.apply(kept.features, gate), kept.sites, kept.macs)


def _relative(weights: Tensor, kept: Sites) -> Tensor:
    """(N,): weight of every kept site over the mean weight of its image's kept ones. weights: (images, H * W)."""
    own = take_rows(weights.flatten(), kept.flat)
    mask = kept.active.flatten(1)
    return own / ((weights * mask).sum(1) / mask.sum(1)).index_select(0, kept.image)


def _straight_through(weights: Tensor, active: Tensor, kept: Sites) -> Tensor:
    """(N,): exactly 1 for every kept site, with the gradient of its weight over the mean of the image's kept ones.

    weights, active: (images, H * W). An image that kept all its active sites sends no gradient.
    """
    own = take_rows(weights.flatten(), kept.flat)
    constant = weights.detach()
    mask = kept.active.flatten(1)
    mean = (constant * mask).sum(1) / mask.sum(1)
    selected = (mask != active).any(1)
    relative = own * (selected / mean).index_select(0, kept.image)
    return 1 + (relative - relative.detach())


def kept_share_of(mask: Tensor, active: Tensor, taken: Tensor) -> Tensor:
    """(images,): active sites that are in `mask`, as a share; its gradient is that of `taken`'s mean over them.

    mask, active: (images, S) bool. taken: (images, S) in (0, 1).
    """
    count = active.sum(1)
    relaxed = (taken * active).sum(1) / count
    return mask.sum(1) / count + (relaxed - relaxed.detach())
