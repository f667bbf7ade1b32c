"""A sparse stage on maps whose inactive sites are zeros, by the kernels in Triton: no shape depends on the data.

Attention, top-p, two convolutions with batch norm and ReLU, and the pool do what `SparseStage` does with compact rows.
The number of active sites stays on the device, so nothing waits for it, and a step can be compiled or captured whole.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from models.layers.sparse.attention import SOFTNESS, CrossModalAttention, kept_share_of
from models.layers.sparse.precision import compute_dtype
from models.layers.sparse.sparse_map import Count
from models.layers.sparse.top_p import mass_before


@dataclass(frozen=True)
class MaskedMap:
    """Features of all sites of a stack of maps, zero where a site is inactive.

    features: (images * H * W, D), in raster order. active: (images, H, W) bool. macs: multiply-adds done so far.
    """

    features: Tensor
    active: Tensor
    macs: Count = 0.0

    @classmethod
    def from_dense(cls, dense: Tensor, macs: Count = 0.0) -> "MaskedMap":
        """All sites of `dense` (images, D, H, W)."""
        images, channels, height, width = dense.shape
        active = torch.ones(images, height, width, dtype=torch.bool, device=dense.device)
        return cls(dense.permute(0, 2, 3, 1).reshape(-1, channels), active, macs)

    def dense(self) -> Tensor:
        """(images, D, H, W) in channels_last."""
        return self.features.view(*self.active.shape, self.features.shape[1]).permute(0, 3, 1, 2)


class MaskedStage(NamedTuple):
    """map: after the pool. kept: (images, H, W) bool, the sites that were computed. active: () float64, how many.

    macs, kept_share: as in `models.layers.sparse.attention.Selection`.
    """

    map: MaskedMap
    kept: Tensor
    active: Tensor
    macs: float
    kept_share: Tensor | None


def masked_stage(x: MaskedMap, query: Tensor, attention: CrossModalAttention, block: Any) -> MaskedStage:
    """query: (images, query_size). block: a `SparseBlock`, whose parameters are used."""
    from models.triton_kernels.convolve import convolve_sites
    from models.triton_kernels.norm import norm_relu, statistics_of
    from models.triton_kernels.pool import norm_relu_pool
    from models.triton_kernels.tables import make_tables

    images, height, width = x.active.shape
    rows, kept, share = _select(x, query, attention)
    tables = make_tables(kept)

    out, sums = convolve_sites(rows, block.conv1.weight, tables, block.norm1.training)
    out = norm_relu(out, tables.bits, statistics_of(sums, tables.totals, block.norm1), block.norm1)
    out, sums = convolve_sites(out, block.conv2.weight, tables, block.norm2.training)
    pooled = norm_relu_pool(
        out, tables.bits, statistics_of(sums, tables.totals, block.norm2), block.norm2, height, width
    )
    products = (block.conv1.weight.numel() + block.conv2.weight.numel()) // 9
    macs = x.macs + tables.totals[1].double() * products
    halves = kept[:, : height // 2 * 2, : width // 2 * 2].unflatten(2, (-1, 2)).unflatten(1, (-1, 2))
    return MaskedStage(
        MaskedMap(pooled, halves.any(4).any(2), macs),
        kept,
        tables.totals[0].double(),
        attention.multiply_adds(images * height * width, images),
        share,
    )


def _select(x: MaskedMap, query: Tensor, attention: CrossModalAttention) -> tuple[Tensor, Tensor, Tensor | None]:
    """(rows with the factor of their gate, kept sites (images, H, W), kept share): eq. 1-4."""
    from models.triton_kernels.select import select_sites

    active = x.active.flatten(1)
    rows = x.features.to(compute_dtype(x.features))
    with torch.set_grad_enabled(torch.is_grad_enabled() and attention.learns):
        scores = _scores(rows if attention.gradient == "soft" else rows.detach(), query, attention, active.shape)
        weights, mask = select_sites(scores, active, attention.p)
        p = attention.share_of_mass(query)
    share = taken = None
    if p is not None:
        before = mass_before(weights.detach(), active)
        # Rounding can let the sum reach 1 before the last site.
        mask = ((before < p.detach()) | (p.detach() == 1)) & active
        taken = torch.sigmoid((p - before) / SOFTNESS)
        share = kept_share_of(mask, active, taken)
    if attention.gradient == "soft" and attention.p < 1:
        gate = weights / _mean_of_kept(weights, mask)
        rows = rows * gate.view(-1, 1).to(rows.dtype)
    elif weights.requires_grad:
        # A kept site's weight over the mean of its image's; nothing where the image kept all.
        selected = (mask != active).any(1, keepdim=True)
        gate = weights * (selected / _mean_of_kept(weights.detach(), mask))
        rows = _UnitGate.apply(rows, (gate if taken is None else gate + taken).flatten())
    return rows, mask.view_as(x.active), share


def _scores(rows: Tensor, query: Tensor, attention: CrossModalAttention, shape: torch.Size) -> Tensor:
    """`shape` (images, H * W) float32: eq. 1, and eq. 2 before its softmax, of all sites."""
    mapped = attention.of_map(rows).view(*shape, attention.of_map.out_features)
    hidden = torch.tanh(mapped + attention.of_query(query).unsqueeze(1))
    return attention.score(hidden).squeeze(2).float()


def _mean_of_kept(weights: Tensor, mask: Tensor) -> Tensor:
    """(images, 1): mean weight of an image's kept sites. weights, mask: (images, S)."""
    kept = mask.sum(1, keepdim=True).clamp(min=1)
    return ((weights * mask).sum(1, keepdim=True) / kept).clamp(min=torch.finfo(weights.dtype).tiny)


class _UnitGate(Function):
    """rows (S, C) as they are, for a factor (S,) that stands for exactly 1 and gets a factor's gradient."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, gate: Tensor) -> Tensor:  # noqa: ARG004 - it stands for 1
        ctx.save_for_backward(rows)
        return rows.view_as(rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        from models.triton_kernels.select import row_products

        (rows,) = ctx.saved_tensors
        return grad, row_products(rows, grad)
