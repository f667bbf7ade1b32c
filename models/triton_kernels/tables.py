"""Tables of the sites that a layer computes: their neighbours as nine bits, a list of them, and how many there are."""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from models.triton_kernels.launch import TILES, launch

# Behind every set of neighbours: sites that are not computed come last in the list.
_INACTIVE = 512


class Tables(NamedTuple):
    """Tables of the active sites of (images, H, W) maps, S = images * H * W sites in raster order.

    bits: (S,) int16; bit k of an active site says that its neighbour at kernel element k is active; 0 where inactive,
    so that bit 4 says whether the site is. order: (S,) int32, all sites, first the active ones, those with the same
    neighbours side by side. totals: (2,) int32, active sites, and pairs of active neighbours. width: of a map.
    """

    bits: Tensor
    order: Tensor
    totals: Tensor
    width: int


@triton.jit
def _neighbours_kernel(active, bits, key, counts, sites, height, width, INACTIVE: tl.constexpr, SITES: tl.constexpr):
    """bits, key of each site; counts: (programs, 2) int32."""
    site = tl.program_id(0) * SITES + tl.arange(0, SITES)
    inside = site < sites
    own = tl.load(active + site, mask=inside, other=0).to(tl.int32)
    x, y = site % width, site // width % height
    found = tl.zeros((SITES,), tl.int32)
    pairs = tl.zeros((SITES,), tl.int32)
    for element in tl.static_range(9):
        dy, dx = element // 3 - 1, element % 3 - 1
        there = (own != 0) & (y + dy >= 0) & (y + dy < height) & (x + dx >= 0) & (x + dx < width)
        near = tl.load(active + site + dy * width + dx, mask=there, other=0).to(tl.int32)
        found |= near << element
        pairs += near
    tl.store(bits + site, found.to(tl.int16), mask=inside)
    tl.store(key + site, tl.where(own != 0, found, INACTIVE).to(tl.int16), mask=inside)
    tl.store(counts + tl.program_id(0) * 2, tl.sum(own, 0))
    tl.store(counts + tl.program_id(0) * 2 + 1, tl.sum(pairs, 0))


@torch.library.custom_op("emotion::tables", mutates_args=())
def _tables(active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    images, height, width = active.shape
    sites = images * height * width
    programs = triton.cdiv(sites, TILES.sites)
    bits, key = (torch.empty(sites, dtype=torch.int16, device=active.device) for _ in range(2))
    counts = torch.empty(programs, 2, dtype=torch.int32, device=active.device)
    constants = {"INACTIVE": _INACTIVE, "SITES": TILES.sites}
    launch(
        _neighbours_kernel, programs, active, active.contiguous(), bits, key, counts, sites, height, width, **constants
    )
    order = key.sort(stable=True).indices.to(torch.int32)
    return bits, order, counts.sum(0, dtype=torch.int32)


@_tables.register_fake
def _(active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    sites = active.numel()
    return (
        active.new_empty(sites, dtype=torch.int16),
        active.new_empty(sites, dtype=torch.int32),
        active.new_empty(2, dtype=torch.int32),
    )


def make_tables(active: Tensor) -> Tables:
    """Tables of active sites, (images, H, W) bool."""
    bits, order, totals = _tables(active)
    return Tables(bits, order, totals, active.shape[2])
