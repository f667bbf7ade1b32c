"""Batch norm, ReLU and 2x2 max-pool of a map's active sites, in one pass over it each way but for two sums.

Every site is in one window, so the gradient of a site is read, not added up from several.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from models.triton_kernels.launch import launch
from models.triton_kernels.norm import Statistics, constants_of, map_tiles


@triton.jit
def _windows(bits, images, height, width, CHANNELS: tl.constexpr, WINDOWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Windows of a program, those of a last odd row or column included.

    Returns (tile, channels, place of each window in the pooled map, which have one, places (windows, 4, channels),
    which of these there are, which are of active sites).
    """
    columns: tl.constexpr = (CHANNELS + COLUMNS - 1) // COLUMNS
    tile = tl.program_id(0) // columns
    column = tl.program_id(0) % columns * COLUMNS + tl.arange(0, COLUMNS)
    across, down = (width + 1) // 2, (height + 1) // 2
    window = tile * WINDOWS + tl.arange(0, WINDOWS)
    there = window < images * down * across
    x, y, image = window % across, window // across % down, window // across // down
    pooled = (image * (height // 2) + y) * (width // 2) + x
    whole = there & (y < height // 2) & (x < width // 2)
    member = tl.arange(0, 4)
    row, line = y[:, None] * 2 + (member // 2)[None, :], x[:, None] * 2 + (member % 2)[None, :]
    site = (image[:, None] * height + row) * width + line
    inside = there[:, None] & (row < height) & (line < width)
    active = (tl.load(bits + site, mask=inside, other=0).to(tl.int32) & 16) != 0
    own = (column < CHANNELS)[None, None, :]
    place = site.to(tl.int64)[:, :, None] * CHANNELS + column[None, None, :]
    at = pooled.to(tl.int64)[:, None] * CHANNELS + column[None, :]
    return (
        tile,
        column,
        at,
        whole[:, None] & (column < CHANNELS)[None, :],
        place,
        inside[:, :, None] & own,
        active[:, :, None] & own,
    )


@triton.jit
def _pool_kernel(
    rows,
    bits,
    mean,
    inverse,
    weight,
    bias,
    out,
    images,
    height,
    width,
    CHANNELS: tl.constexpr,
    WINDOWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """out (images * H // 2 * W // 2, CHANNELS): the largest of each window's active sites; 0 where none is."""
    _, column, at, whole, place, _, here = _windows(bits, images, height, width, CHANNELS, WINDOWS, COLUMNS)
    middle, narrow, factor, added = constants_of(mean, inverse, weight, bias, column, CHANNELS)
    values = tl.load(rows + place, mask=here, other=0.0).to(tl.float32)
    unit = (values - middle[:, None, :]) * narrow[:, None, :]
    # Nothing is below 0 behind a ReLU.
    made = tl.max(tl.where(here, unit * factor[:, None, :] + added[:, None, :], 0.0), 1)
    tl.store(out + at, tl.maximum(made, 0.0).to(out.dtype.element_ty), mask=whole)


@triton.jit
def _pool_backward_kernel(
    rows,
    grad,
    bits,
    mean,
    inverse,
    weight,
    bias,
    of_mean,
    out,
    images,
    height,
    width,
    CHANNELS: tl.constexpr,
    SUMS: tl.constexpr,
    WINDOWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """As `models.triton_kernels.norm._norm_backward_kernel`; of equal sites of a window the first has the gradient."""
    tile, column, at, whole, place, known, here = _windows(bits, images, height, width, CHANNELS, WINDOWS, COLUMNS)
    middle, narrow, factor, added = constants_of(mean, inverse, weight, bias, column, CHANNELS)
    values = tl.load(rows + place, mask=here, other=0.0).to(tl.float32)
    unit = (values - middle[:, None, :]) * narrow[:, None, :]
    # Compared as they were written: rounded.
    made = tl.where(here, unit * factor[:, None, :] + added[:, None, :], 0.0).to(rows.dtype.element_ty).to(tl.float32)
    largest = tl.max(made, 1)
    member = tl.arange(0, 4)[None, :, None]
    first = tl.min(tl.where(made == largest[:, None, :], member, 4), 1)
    given = tl.load(grad + at, mask=whole & (largest > 0), other=0.0).to(tl.float32)
    given = tl.where(here & (member == first[:, None, :]), given[:, None, :], 0.0)
    if SUMS:
        target = out + tile * 2 * CHANNELS + column
        tl.store(target, tl.sum(tl.sum(given, 1), 0), mask=column < CHANNELS)
        tl.store(target + CHANNELS, tl.sum(tl.sum(given * unit, 1), 0), mask=column < CHANNELS)
    else:
        plain = tl.load(of_mean + column, mask=column < CHANNELS, other=0.0)[None, None, :]
        along = tl.load(of_mean + CHANNELS + column, mask=column < CHANNELS, other=0.0)[None, None, :]
        made = tl.where(here, factor[:, None, :] * narrow[:, None, :] * (given - plain - unit * along), 0.0)
        tl.store(out + place, made.to(out.dtype.element_ty), mask=known)


def _sizes(bits: Tensor, channels: int, height: int, width: int) -> tuple[int, int, int, dict[str, int]]:
    """(images, tiles of windows, programs, constants)."""
    images = len(bits) // (height * width)
    cells, columns = map_tiles(channels)
    windows = max(1, cells // 4)
    tiles = triton.cdiv(images * ((height + 1) // 2) * ((width + 1) // 2), windows)
    constants = {"CHANNELS": channels, "WINDOWS": windows, "COLUMNS": columns}
    return images, tiles, tiles * triton.cdiv(channels, columns), constants


@torch.library.custom_op("emotion::norm_relu_pool", mutates_args=())
def _norm_relu_pool(
    rows: Tensor,
    bits: Tensor,
    mean: Tensor,
    inverse: Tensor,
    share: Tensor,
    weight: Tensor,
    bias: Tensor,
    height: int,
    width: int,
) -> Tensor:
    rows = rows.contiguous()
    images, _, programs, constants = _sizes(bits, rows.shape[1], height, width)
    out = rows.new_empty(images * (height // 2) * (width // 2), rows.shape[1])
    arguments = rows, bits, mean, inverse, weight, bias, out, images, height, width
    launch(_pool_kernel, programs, rows, *arguments, **constants)
    return out


@_norm_relu_pool.register_fake
def _(
    rows: Tensor,
    bits: Tensor,
    mean: Tensor,
    inverse: Tensor,
    share: Tensor,
    weight: Tensor,
    bias: Tensor,
    height: int,
    width: int,
) -> Tensor:
    return rows.new_empty(len(bits) // (height * width) * (height // 2) * (width // 2), rows.shape[1])


@torch.library.custom_op("emotion::norm_relu_pool_gradient", mutates_args=())
def _norm_relu_pool_gradient(
    grad: Tensor,
    rows: Tensor,
    bits: Tensor,
    mean: Tensor,
    inverse: Tensor,
    share: Tensor,
    weight: Tensor,
    bias: Tensor,
    height: int,
    width: int,
) -> tuple[Tensor, Tensor]:
    """Gradient of the rows, and (2, C) float32, those of bias and weight."""
    rows, grad = rows.contiguous(), grad.to(rows.dtype).contiguous()
    images, tiles, programs, constants = _sizes(bits, rows.shape[1], height, width)
    parts, out = mean.new_empty(tiles, 2, rows.shape[1]), torch.empty_like(rows)
    read = rows, grad, bits, mean, inverse, weight, bias
    launch(_pool_backward_kernel, programs, rows, *read, parts, parts, images, height, width, SUMS=True, **constants)
    sums = parts.sum(0)
    written = sums * share, out, images, height, width
    launch(_pool_backward_kernel, programs, rows, *read, *written, SUMS=False, **constants)
    return out, sums


@_norm_relu_pool_gradient.register_fake
def _(
    grad: Tensor,
    rows: Tensor,
    bits: Tensor,
    mean: Tensor,
    inverse: Tensor,
    share: Tensor,
    weight: Tensor,
    bias: Tensor,
    height: int,
    width: int,
) -> tuple[Tensor, Tensor]:
    return rows.new_empty(rows.shape), mean.new_empty(2, rows.shape[1])


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:7])
    ctx.size = inputs[7:]


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    of_rows, sums = _norm_relu_pool_gradient(grad, *ctx.saved_tensors, *ctx.size)
    return of_rows, None, None, None, None, sums[1], sums[0], None, None


_norm_relu_pool.register_autograd(_backward, setup_context=_keep)


def norm_relu_pool(
    rows: Tensor, bits: Tensor, statistics: Statistics, norm: torch.nn.BatchNorm2d, height: int, width: int
) -> Tensor:
    """Maximum over the active sites of each 2x2 window of `norm_relu` of rows (S, C): (S', C), 0 where none is active.

    An odd last row or column of the maps (H, W) is dropped, and counts in the norm.
    """
    return _norm_relu_pool(rows, bits, *statistics, norm.weight, norm.bias, height, width)
