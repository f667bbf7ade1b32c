"""Submanifold convolution as a product of matrices that are never written: rows of neighbours times the kernel.

A tile is a number of sites that follow each other in the list of `Tables`, so that they share most of their missing
neighbours; a kernel element that none of them needs is left out. Sums are float32.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from models.triton_kernels.launch import TILES, launch, product_settings, tile
from models.triton_kernels.tables import Tables


@triton.jit
def _either(left, right):
    return left | right


@triton.jit
def _product(left, right, total, PRECISION: tl.constexpr, WIDEN: tl.constexpr):
    if WIDEN:
        left, right = left.to(tl.float32), right.to(tl.float32)
    return tl.dot(left, right, total, input_precision=PRECISION)


@triton.jit
def _convolve_kernel(
    rows,
    kernel,
    bits,
    order,
    count,
    out,
    sums,
    sites,
    width,
    kernel_element,
    kernel_in,
    kernel_out,
    CHANNELS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    TURNED: tl.constexpr,
    STATISTICS: tl.constexpr,
    ROWS: tl.constexpr,
    INNER: tl.constexpr,
    COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
    WIDEN: tl.constexpr,
):
    """out (sites, OUTPUTS) of rows (sites, CHANNELS), zero at inactive sites; TURNED: by the kernel turned round.

    sums: (tiles, 2, OUTPUTS) float32: of each tile the sum of its active sites, and of their squared distances from
    their mean.
    """
    column_tiles: tl.constexpr = (OUTPUTS + COLUMNS - 1) // COLUMNS
    first = tl.program_id(0) // column_tiles * ROWS
    row = first + tl.arange(0, ROWS)
    column = tl.program_id(0) % column_tiles * COLUMNS + tl.arange(0, COLUMNS)
    inside = row < sites
    active = tl.load(count)
    here = row < active
    site = tl.load(order + row, mask=inside, other=0)
    near = tl.load(bits + site, mask=here, other=0).to(tl.int32)
    anywhere = tl.reduce(near, 0, _either)
    # One loop over the elements that are needed and their channels, so that loads run ahead of the products.
    chunks: tl.constexpr = (CHANNELS + INNER - 1) // INNER
    steps = 0
    for bit in tl.static_range(9):
        steps += ((anywhere >> bit) & 1) * chunks
    rest = anywhere
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for step in range(0, steps):
        lowest = rest & -rest
        # The exponent of 2 ** element.
        element = (lowest.to(tl.float32).to(tl.int32, bitcast=True) >> 23) - 127
        joined = ((near >> element) & 1) != 0
        source = (site + (element // 3 - 1) * width + element % 3 - 1).to(tl.int64) * CHANNELS
        place = kernel + (8 - element if TURNED else element) * kernel_element
        channel = step % chunks * INNER + tl.arange(0, INNER)
        known = channel < CHANNELS
        left = tl.load(rows + source[:, None] + channel[None, :], mask=joined[:, None] & known[None, :], other=0)
        right = tl.load(
            place + channel[:, None] * kernel_in + column[None, :] * kernel_out,
            mask=known[:, None] & (column < OUTPUTS)[None, :],
            other=0,
        )
        total = _product(left, right, total, PRECISION, WIDEN)
        rest = tl.where(step % chunks == chunks - 1, rest - lowest, rest)
    made = total.to(out.dtype.element_ty)
    target = out + site.to(tl.int64)[:, None] * OUTPUTS + column[None, :]
    tl.store(target, made, mask=inside[:, None] & (column < OUTPUTS)[None, :])
    if STATISTICS:
        values = made.to(tl.float32)
        added = tl.sum(values, 0)
        mean = added / tl.maximum(tl.minimum(active - first, ROWS), 1).to(tl.float32)
        distance = tl.where(here[:, None], values - mean[None, :], 0.0)
        place = sums + tl.program_id(0) // column_tiles * 2 * OUTPUTS + column
        tl.store(place, added, mask=column < OUTPUTS)
        tl.store(place + OUTPUTS, tl.sum(distance * distance, 0), mask=column < OUTPUTS)


@triton.jit
def _weight_gradient_kernel(
    rows,
    grad,
    bits,
    order,
    count,
    out,
    width,
    splits,
    CHANNELS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    ROWS: tl.constexpr,
    INNER: tl.constexpr,
    COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
    WIDEN: tl.constexpr,
):
    """out: (splits, OUTPUTS, 9, CHANNELS) float32; each split sums its share of the active sites."""
    column_tiles: tl.constexpr = (CHANNELS + COLUMNS - 1) // COLUMNS
    inner_tiles: tl.constexpr = (OUTPUTS + INNER - 1) // INNER
    split, rest = tl.program_id(0) % splits, tl.program_id(0) // splits
    channel = rest % column_tiles * COLUMNS + tl.arange(0, COLUMNS)
    rest = rest // column_tiles
    output = rest % inner_tiles * INNER + tl.arange(0, INNER)
    element = rest // inner_tiles
    active = tl.load(count)
    share = tl.cdiv(tl.cdiv(active, ROWS), splits) * ROWS
    last = tl.minimum((split + 1) * share, active)
    step = (element // 3 - 1) * width + element % 3 - 1
    total = tl.zeros((INNER, COLUMNS), tl.float32)
    for start in range(split * share, last, ROWS):
        row = start + tl.arange(0, ROWS)
        site = tl.load(order + row, mask=row < last, other=0)
        near = tl.load(bits + site, mask=row < last, other=0).to(tl.int32)
        joined = (near >> element) & 1
        if tl.max(joined, 0) > 0:
            source, target = (site + step).to(tl.int64) * CHANNELS, site.to(tl.int64) * OUTPUTS
            here = (joined != 0)[:, None]
            left = tl.load(grad + target[:, None] + output[None, :], mask=here & (output < OUTPUTS)[None, :], other=0)
            right = tl.load(
                rows + source[:, None] + channel[None, :], mask=here & (channel < CHANNELS)[None, :], other=0
            )
            total = _product(tl.trans(left), right, total, PRECISION, WIDEN)
    place = out + ((split * OUTPUTS + output[:, None]) * 9 + element).to(tl.int64) * CHANNELS + channel[None, :]
    tl.store(place, total, mask=(output < OUTPUTS)[:, None] & (channel < CHANNELS)[None, :])


def row_tiles(sites: int) -> int:
    """Tiles of a convolution of so many sites: rows of its sums."""
    return triton.cdiv(sites, TILES.rows)


def _reach(dtype: torch.dtype) -> int:
    """Side of a product that is summed over."""
    return TILES.channels // 2 if dtype == torch.float32 else TILES.channels


def _product_of_neighbours(
    rows: Tensor, weight: Tensor, tables: Tables, turned: bool, statistics: bool
) -> tuple[Tensor, Tensor]:
    """The convolution and its sums; turned: from outputs back to channels."""
    kernel = weight.permute(2, 3, 1, 0).to(rows.dtype)
    kernel = kernel.reshape(9, *kernel.shape[2:])
    if turned:
        kernel = kernel.transpose(1, 2)
    _, channels, outputs = kernel.shape
    sites, rows = len(tables.bits), rows.contiguous()
    out = rows.new_empty(sites, outputs)
    tiles = row_tiles(sites)
    sums = rows.new_empty(tiles if statistics else 0, 2, outputs, dtype=torch.float32)
    # Exact products of float32 are made without tensor cores, and 128 columns would not fit the registers.
    columns = tile(TILES.outputs if rows.dtype != torch.float32 else TILES.outputs // 2, outputs)
    launch(
        _convolve_kernel,
        tiles * triton.cdiv(outputs, columns),
        rows,
        rows,
        kernel,
        tables.bits,
        tables.order,
        tables.totals,
        out,
        sums,
        sites,
        tables.width,
        *kernel.stride(),
        CHANNELS=channels,
        OUTPUTS=outputs,
        TURNED=turned,
        STATISTICS=statistics,
        ROWS=TILES.rows,
        INNER=tile(_reach(rows.dtype), channels),
        COLUMNS=columns,
        num_warps=8,
        num_stages=3,
        **product_settings(rows.dtype),
    )
    return out, sums


@torch.library.custom_op("emotion::convolve", mutates_args=())
def _convolve(
    rows: Tensor, weight: Tensor, bits: Tensor, order: Tensor, count: Tensor, width: int, statistics: bool
) -> tuple[Tensor, Tensor]:
    return _product_of_neighbours(rows, weight, Tables(bits, order, count, width), False, statistics)


@_convolve.register_fake
def _(
    rows: Tensor, weight: Tensor, bits: Tensor, order: Tensor, count: Tensor, width: int, statistics: bool
) -> tuple[Tensor, Tensor]:
    sums = rows.new_empty(row_tiles(len(rows)) if statistics else 0, 2, len(weight), dtype=torch.float32)
    return rows.new_empty(len(rows), len(weight)), sums


@torch.library.custom_op("emotion::convolve_rows_gradient", mutates_args=())
def _rows_gradient(grad: Tensor, weight: Tensor, bits: Tensor, order: Tensor, count: Tensor, width: int) -> Tensor:
    return _product_of_neighbours(grad, weight, Tables(bits, order, count, width), True, False)[0]


@_rows_gradient.register_fake
def _(grad: Tensor, weight: Tensor, bits: Tensor, order: Tensor, count: Tensor, width: int) -> Tensor:
    return grad.new_empty(len(grad), weight.shape[1])


@torch.library.custom_op("emotion::convolve_weight_gradient", mutates_args=())
def _weight_gradient(rows: Tensor, grad: Tensor, bits: Tensor, order: Tensor, count: Tensor, width: int) -> Tensor:
    """(O, 3, 3, C) float32."""
    rows, grad = rows.contiguous(), grad.contiguous()
    channels, outputs = rows.shape[1], grad.shape[1]
    inner, columns = tile(TILES.outputs, outputs), tile(TILES.outputs, channels)
    reach = tile(_reach(rows.dtype), len(rows))
    tiles = 9 * triton.cdiv(outputs, inner) * triton.cdiv(channels, columns)
    splits = max(1, min(TILES.programs // tiles, triton.cdiv(len(rows), 4 * reach)))
    out = rows.new_empty(splits, outputs, 3, 3, channels, dtype=torch.float32)
    launch(
        _weight_gradient_kernel,
        tiles * splits,
        rows,
        rows,
        grad,
        bits,
        order,
        count,
        out,
        width,
        splits,
        CHANNELS=channels,
        OUTPUTS=outputs,
        ROWS=reach,
        INNER=inner,
        COLUMNS=columns,
        num_warps=8,
        num_stages=3,
        **product_settings(rows.dtype),
    )
    return out.sum(0)


@_weight_gradient.register_fake
def _(rows: Tensor, grad: Tensor, bits: Tensor, order: Tensor, count: Tensor, width: int) -> Tensor:
    return rows.new_empty(grad.shape[1], 3, 3, rows.shape[1], dtype=torch.float32)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:5])
    ctx.width = inputs[5]
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    rows, weight, *tables = ctx.saved_tensors
    grad = grad.to(rows.dtype)
    of_rows = of_weight = None
    if ctx.needs_input_grad[0]:
        of_rows = _rows_gradient(grad, weight, *tables, ctx.width)
    if ctx.needs_input_grad[1]:
        of_weight = _weight_gradient(rows, grad, *tables, ctx.width).permute(0, 3, 1, 2).to(weight.dtype)
    return of_rows, of_weight, None, None, None, None, None


_convolve.register_autograd(_backward, setup_context=_keep)


def convolve_sites(rows: Tensor, weight: Tensor, tables: Tables, statistics: bool = False) -> tuple[Tensor, Tensor]:
    """Submanifold convolution of the active sites of a map.

    rows: (S, C) float32, bfloat16 or float16, read at active sites alone. weight: (O, C, 3, 3) of any type; its
    gradient is summed in float32. Returns (S, O) of the rows' type, zero at inactive sites, and sums for
    `models.triton_kernels.norm.statistics_of`, which are empty unless asked for.
    """
    return _convolve(rows, weight, *tables, statistics)
