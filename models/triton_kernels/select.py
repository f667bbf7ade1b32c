"""Softmax and top-p of each image in one program: the rule of `models.layers.sparse.top_p`, without a sort."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from models.triton_kernels.launch import TILES, launch, tile

# float32 numbers from 0 to 1 rise as their bits do, from 0 to these, which have 30 digits.
_ONE = 0x3F800000


@triton.jit
def _select_kernel(scores, active, weights, kept, p, sites, ONE: tl.constexpr, SITES: tl.constexpr):
    """weights, kept of one image. Bisection finds the smallest number below whose equals p is not reached yet."""
    site = tl.arange(0, SITES)
    place = tl.program_id(0).to(tl.int64) * sites + site
    inside = site < sites
    here = inside & (tl.load(active + place, mask=inside, other=0) != 0)
    score = tl.load(scores + place, mask=here, other=float("-inf"))
    top = tl.max(score, 0)
    power = tl.where(here, tl.exp(score - top), 0.0)
    weight = power / tl.maximum(tl.sum(power, 0), 1.0e-30)
    tl.store(weights + place, weight, mask=inside)
    number = weight.to(tl.int32, bitcast=True)
    low, high = 0, ONE
    for _ in range(30):
        middle = (low + high) // 2
        reached = tl.sum(tl.where(number > middle, weight, 0.0), 0) >= p
        low = tl.where(reached, middle + 1, low)
        high = tl.where(reached, high, middle)
    above = tl.sum(tl.where(number > high, weight, 0.0), 0)
    equal = here & (number == high)
    before = (tl.cumsum(equal.to(tl.int32), 0) - 1).to(tl.float32)
    chosen = here & ((number > high) | (equal & (above + before * weight < p)))
    tl.store(kept + place, chosen.to(tl.int8), mask=inside)


@torch.library.custom_op("emotion::select", mutates_args=())
def _select(scores: Tensor, active: Tensor, p: float) -> tuple[Tensor, Tensor]:
    (images, sites), scores = scores.shape, scores.contiguous()
    weights, kept = torch.empty_like(scores), torch.empty_like(scores, dtype=torch.int8)
    arguments = scores, active.contiguous(), weights, kept, p, sites
    launch(_select_kernel, images, scores, *arguments, ONE=_ONE, SITES=tile(1 << 20, sites))
    return weights, kept.view(torch.bool)


@_select.register_fake
def _(scores: Tensor, active: Tensor, p: float) -> tuple[Tensor, Tensor]:
    return scores.new_empty(scores.shape), scores.new_empty(scores.shape, dtype=torch.bool)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    weights, kept = output
    ctx.save_for_backward(weights)
    ctx.mark_non_differentiable(kept)


def _backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
    (weights,) = ctx.saved_tensors
    return weights * (grad - (grad * weights).sum(1, keepdim=True)), None, None


_select.register_autograd(_backward, setup_context=_keep)


def select_sites(scores: Tensor, active: Tensor, p: float) -> tuple[Tensor, Tensor]:
    """(weights, kept): the softmax of an image's active sites, and which of them top-p keeps.

    scores: (images, S) float32, read at active sites. active: (images, S) bool. p: in (0, 1); from 1 on all are kept.
    weights: (images, S) float32, 0 at inactive sites. kept: bool, by the rule of `top_p_mask`.
    """
    weights, kept = _select(scores, active, p)
    return weights, active if p >= 1 else kept


@triton.jit
def _row_products_kernel(left, right, out, rows, CHANNELS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    total = tl.zeros((ROWS,), tl.float32)
    for start in range(0, CHANNELS, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        place = row.to(tl.int64)[:, None] * CHANNELS + column[None, :]
        mask = (row < rows)[:, None] & (column < CHANNELS)[None, :]
        first = tl.load(left + place, mask=mask, other=0.0).to(tl.float32)
        total += tl.sum(first * tl.load(right + place, mask=mask, other=0.0).to(tl.float32), 1)
    tl.store(out + row, total, mask=row < rows)


@torch.library.custom_op("emotion::row_products", mutates_args=())
def row_products(left: Tensor, right: Tensor) -> Tensor:
    """(S,) float32: the scalar product of each row of left and right (S, C)."""
    rows, channels = left.shape
    out = left.new_empty(rows, dtype=torch.float32)
    columns = tile(TILES.outputs, channels)
    size = max(1, TILES.cells // columns)
    constants = {"CHANNELS": channels, "ROWS": size, "COLUMNS": columns}
    arguments = left.contiguous(), right.contiguous(), out, rows
    launch(_row_products_kernel, triton.cdiv(rows, size), left, *arguments, **constants)
    return out


@row_products.register_fake
def _(left: Tensor, right: Tensor) -> Tensor:
    return left.new_empty(len(left), dtype=torch.float32)
