"""Batch norm of a map's active sites followed by ReLU; its statistics come from the sums of the convolution before it.

Where fewer than two sites are active there is no variance: the running statistics stand in as constants, and stay as
they are. Which of the two it is stays on the device, as the number of sites does.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from models.triton_kernels.launch import TILES, launch, tile

# Tiles of sums that a program reads at a time, and the channels of a program: narrow, so that there are many programs.
_SUMS, _SUM_COLUMNS = 256, 16


class Statistics(NamedTuple):
    """What the active sites are normalised by.

    mean, inverse: (C,) float32; inverse is 1 / sqrt(variance + eps). share: () float32, of each site in them: 1 over
    the number of active sites, 0 where they are constants.
    """

    mean: Tensor
    inverse: Tensor
    share: Tensor


@triton.jit
def _statistics_kernel(
    sums,
    count,
    running_mean,
    running_variance,
    tracked,
    mean,
    inverse,
    share,
    momentum,
    eps,
    CHANNELS: tl.constexpr,
    ROWS: tl.constexpr,
    TILES: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """sums: (tiles, 2, CHANNELS) of tiles of ROWS active sites."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    known = column < CHANNELS
    active = tl.load(count)
    tiles = tl.cdiv(active, ROWS)
    total = tl.zeros((COLUMNS,), tl.float32)
    for start in range(0, tiles, TILES):
        tile = start + tl.arange(0, TILES)
        mask = (tile < tiles)[:, None] & known[None, :]
        total += tl.sum(tl.load(sums + tile[:, None] * (2 * CHANNELS) + column[None, :], mask=mask, other=0.0), 0)
    size = tl.maximum(active, 1).to(tl.float32)
    middle = total / size
    spread = tl.zeros((COLUMNS,), tl.float32)
    for start in range(0, tiles, TILES):
        tile = start + tl.arange(0, TILES)
        mask = (tile < tiles)[:, None] & known[None, :]
        place = sums + tile[:, None] * (2 * CHANNELS) + column[None, :]
        rows = tl.maximum(tl.minimum(active - tile * ROWS, ROWS), 1).to(tl.float32)[:, None]
        distance = tl.load(place, mask=mask, other=0.0) / rows - middle[None, :]
        within = tl.load(place + CHANNELS, mask=mask, other=0.0)
        spread += tl.sum(tl.where(mask, within + rows * distance * distance, 0.0), 0)
    enough = active >= 2
    of_running = tl.load(running_mean + column, mask=known, other=0.0)
    spread_of_running = tl.load(running_variance + column, mask=known, other=1.0)
    variance = tl.where(enough, spread / size, spread_of_running)
    tl.store(mean + column, tl.where(enough, middle, of_running), mask=known)
    tl.store(inverse + column, 1.0 / tl.sqrt(variance + eps), mask=known)
    step = tl.where(enough, momentum, 0.0)
    unbiased = spread / tl.maximum(size - 1.0, 1.0)
    tl.store(running_mean + column, of_running + step * (middle - of_running), mask=known)
    tl.store(running_variance + column, spread_of_running + step * (unbiased - spread_of_running), mask=known)
    if tl.program_id(0) == 0:
        tl.store(share, tl.where(enough, 1.0 / size, 0.0))
        tl.store(tracked, tl.load(tracked) + enough.to(tl.int64))


@triton.jit
def _tile_of_map(bits, sites, CHANNELS: tl.constexpr, SITES: tl.constexpr, COLUMNS: tl.constexpr):
    """(first tile of sites, channels, places, which of these there are, which are of active sites)."""
    columns: tl.constexpr = (CHANNELS + COLUMNS - 1) // COLUMNS
    tile = tl.program_id(0) // columns
    site = tile * SITES + tl.arange(0, SITES)
    column = tl.program_id(0) % columns * COLUMNS + tl.arange(0, COLUMNS)
    known = (site < sites)[:, None] & (column < CHANNELS)[None, :]
    active = (tl.load(bits + site, mask=site < sites, other=0).to(tl.int32) & 16) != 0
    return tile, column, site.to(tl.int64)[:, None] * CHANNELS + column[None, :], known, known & active[:, None]


@triton.jit
def constants_of(mean, inverse, weight, bias, column, CHANNELS: tl.constexpr):
    """The four at `column`, each (1, columns)."""
    own = column < CHANNELS
    return (
        tl.load(mean + column, mask=own, other=0.0)[None, :],
        tl.load(inverse + column, mask=own, other=0.0)[None, :],
        tl.load(weight + column, mask=own, other=0.0)[None, :],
        tl.load(bias + column, mask=own, other=0.0)[None, :],
    )


@triton.jit
def _norm_kernel(
    rows,
    bits,
    mean,
    inverse,
    weight,
    bias,
    out,
    sites,
    CHANNELS: tl.constexpr,
    SITES: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """out (sites, CHANNELS): the norm's ReLU at active sites, else 0."""
    _, column, place, known, here = _tile_of_map(bits, sites, CHANNELS, SITES, COLUMNS)
    middle, narrow, factor, added = constants_of(mean, inverse, weight, bias, column, CHANNELS)
    unit = (tl.load(rows + place, mask=here, other=0.0).to(tl.float32) - middle) * narrow
    made = tl.where(here, tl.maximum(unit * factor + added, 0.0), 0.0)
    tl.store(out + place, made.to(out.dtype.element_ty), mask=known)


@triton.jit
def _norm_backward_kernel(
    rows,
    grad,
    bits,
    mean,
    inverse,
    weight,
    bias,
    of_mean,
    out,
    sites,
    CHANNELS: tl.constexpr,
    SUMS: tl.constexpr,
    SITES: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """SUMS: out (tiles of sites, 2, CHANNELS) float32, sums of the gradient before the ReLU, and of it times the
    normalised rows. Else: out (sites, CHANNELS), the gradient of the rows. of_mean: (2, CHANNELS), those sums times
    each site's share in the statistics.
    """
    tile, column, place, known, here = _tile_of_map(bits, sites, CHANNELS, SITES, COLUMNS)
    middle, narrow, factor, added = constants_of(mean, inverse, weight, bias, column, CHANNELS)
    unit = (tl.load(rows + place, mask=here, other=0.0).to(tl.float32) - middle) * narrow
    given = tl.load(grad + place, mask=here, other=0.0).to(tl.float32)
    given = tl.where(unit * factor + added > 0, given, 0.0)
    if SUMS:
        target = out + tile * 2 * CHANNELS + column
        tl.store(target, tl.sum(given, 0), mask=column < CHANNELS)
        tl.store(target + CHANNELS, tl.sum(given * unit, 0), mask=column < CHANNELS)
    else:
        plain = tl.load(of_mean + column, mask=column < CHANNELS, other=0.0)[None, :]
        along = tl.load(of_mean + CHANNELS + column, mask=column < CHANNELS, other=0.0)[None, :]
        made = tl.where(here, factor * narrow * (given - plain - unit * along), 0.0)
        tl.store(out + place, made.to(out.dtype.element_ty), mask=known)


@torch.library.custom_op("emotion::statistics", mutates_args=("running_mean", "running_variance", "tracked"))
def _statistics(
    sums: Tensor,
    count: Tensor,
    running_mean: Tensor,
    running_variance: Tensor,
    tracked: Tensor,
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    channels = sums.shape[2]
    mean, inverse, share = sums.new_empty(channels), sums.new_empty(channels), sums.new_empty(())
    columns = tile(_SUM_COLUMNS, channels)
    launch(
        _statistics_kernel,
        triton.cdiv(channels, columns),
        sums,
        *(sums, count, running_mean, running_variance, tracked, mean, inverse, share, momentum, eps),
        CHANNELS=channels,
        ROWS=TILES.rows,
        TILES=tile(_SUMS, len(sums)),
        COLUMNS=columns,
    )
    return mean, inverse, share


@_statistics.register_fake
def _(
    sums: Tensor,
    count: Tensor,
    running_mean: Tensor,
    running_variance: Tensor,
    tracked: Tensor,
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    return sums.new_empty(sums.shape[2]), sums.new_empty(sums.shape[2]), sums.new_empty(())


def map_tiles(channels: int) -> tuple[int, int]:
    """(sites, channels) of a tile of a kernel that works number by number."""
    columns = tile(TILES.outputs, channels)
    return max(1, TILES.cells // columns), columns


@torch.library.custom_op("emotion::norm_relu", mutates_args=())
def _norm_relu(
    rows: Tensor, bits: Tensor, mean: Tensor, inverse: Tensor, share: Tensor, weight: Tensor, bias: Tensor
) -> Tensor:
    rows = rows.contiguous()
    (sites, channels), out = rows.shape, torch.empty_like(rows)
    height, columns = map_tiles(channels)
    programs = triton.cdiv(sites, height) * triton.cdiv(channels, columns)
    constants = {"CHANNELS": channels, "SITES": height, "COLUMNS": columns}
    launch(_norm_kernel, programs, rows, rows, bits, mean, inverse, weight, bias, out, sites, **constants)
    return out


@_norm_relu.register_fake
def _(
    rows: Tensor,
    bits: Tensor,
    mean: Tensor,
    inverse: Tensor,
    share: Tensor,
    weight: Tensor,
    bias: Tensor,
) -> Tensor:
    return rows.new_empty(rows.shape)


@torch.library.custom_op("emotion::norm_relu_gradient", mutates_args=())
def _norm_relu_gradient(
    grad: Tensor,
    rows: Tensor,
    bits: Tensor,
    mean: Tensor,
    inverse: Tensor,
    share: Tensor,
    weight: Tensor,
    bias: Tensor,
) -> tuple[Tensor, Tensor]:
    """Gradient of the rows, and (2, C) float32, those of bias and weight."""
    rows, grad = rows.contiguous(), grad.to(rows.dtype).contiguous()
    sites, channels = rows.shape
    height, columns = map_tiles(channels)
    tiles = triton.cdiv(sites, height)
    programs = tiles * triton.cdiv(channels, columns)
    parts, out = mean.new_empty(tiles, 2, channels), torch.empty_like(rows)
    read = rows, grad, bits, mean, inverse, weight, bias
    constants = {"CHANNELS": channels, "SITES": height, "COLUMNS": columns}
    launch(_norm_backward_kernel, programs, rows, *read, parts, parts, sites, SUMS=True, **constants)
    sums = parts.sum(0)
    launch(_norm_backward_kernel, programs, rows, *read, sums * share, out, sites, SUMS=False, **constants)
    return out, sums


@_norm_relu_gradient.register_fake
def _(
    grad: Tensor,
    rows: Tensor,
    bits: Tensor,
    mean: Tensor,
    inverse: Tensor,
    share: Tensor,
    weight: Tensor,
    bias: Tensor,
) -> tuple[Tensor, Tensor]:
    return rows.new_empty(rows.shape), mean.new_empty(2, rows.shape[1])


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    of_rows, sums = _norm_relu_gradient(grad, *ctx.saved_tensors)
    return of_rows, None, None, None, None, sums[1], sums[0]


_norm_relu.register_autograd(_backward, setup_context=_keep)


def statistics_of(sums: Tensor, count: Tensor, norm: torch.nn.BatchNorm2d) -> Statistics:
    """Statistics that `norm` takes for a map, from the sums of the convolution before it.

    In training these are the map's own, and the running ones follow; in evaluation the running ones.
    """
    running = norm.running_mean, norm.running_var, norm.num_batches_tracked
    assert running[0] is not None
    assert running[1] is not None
    assert running[2] is not None
    if norm.training:
        return Statistics(*_statistics(sums, count, *running, norm.momentum, norm.eps))
    return Statistics(running[0], (running[1] + norm.eps).rsqrt(), torch.zeros_like(running[1][0]))


def norm_relu(rows: Tensor, bits: Tensor, statistics: Statistics, norm: torch.nn.BatchNorm2d) -> Tensor:
    """ReLU of the normalised active sites of rows (S, C), of their type; 0 at the others. bits: as in `Tables`."""
    return _norm_relu(rows, bits, *statistics, norm.weight, norm.bias)
