"""Feature maps of which only some sites exist: the sites, their neighbours, and the rows of features.

Rows are in raster order (image, then y, then x) everywhere, so that features and sites can never be listed in
different orders.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from models.native.rows import take_rows

# The 3x3 neighbourhood in the order of a kernel's elements: y, then x. Offset 4 is the site itself.
KERNEL_OFFSETS = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1))
CENTRE = 4

# A number of multiply-adds; on a GPU a 0-dim tensor there, where reading it would make the program wait.
Count = float | Tensor


class Pairs(NamedTuple):
    """Active neighbours of one kernel element: output row `target[i]` reads input row `source[i]`."""

    target: Tensor
    source: Tensor


class Sites:
    """The active sites of a stack of maps, and tables derived from them, each made once on first use.

    active: (images, H, W) bool. `len()` is N, the number of active sites.
    """

    def __init__(self, active: Tensor) -> None:
        self.active = active
        # Tables that a backend derives from these sites, kept for the next layer.
        self.backend_tables: dict[str, object] = {}

    def __len__(self) -> int:
        return len(self.flat)

    @cached_property
    def flat(self) -> Tensor:
        """(N,) int64, rising: index of each active site in the flattened (images, H, W)."""
        return self.active.flatten().nonzero().squeeze(1)

    @cached_property
    def image(self) -> Tensor:
        """(N,) int64: the image that each active site belongs to."""
        _, height, width = self.active.shape
        return self.flat // (height * width)

    @cached_property
    def first(self) -> Tensor:
        """(images + 1,) int64: the row at which each image's sites begin, and N."""
        return F.pad(self.active.flatten(1).sum(1).cumsum(0), (1, 0))

    @cached_property
    def coordinates(self) -> Tensor:
        """(N, 3) int32, contiguous: image, y, x of each active site."""
        # nonzero() returns column-major storage, and backends that read raw memory silently get it wrong.
        return self.active.nonzero().to(torch.int32).contiguous()

    @cached_property
    def row_of(self) -> Tensor:
        """(images, H + 2, W + 2) int64: row of each active site, N elsewhere and on the added border."""
        rows = torch.full_like(self.active, len(self), dtype=torch.int64).flatten()
        rows[self.flat] = torch.arange(len(self), device=rows.device)
        return F.pad(rows.view(self.active.shape), (1, 1, 1, 1), value=len(self))

    @cached_property
    def pairs(self) -> tuple[Pairs, ...]:
        """For each of the nine kernel elements, the pairs of active sites that it joins."""
        own = torch.arange(len(self), device=self.flat.device)
        found: list[Pairs] = []
        for neighbour in self.neighbours.T[:CENTRE]:
            target = (neighbour < len(self)).nonzero().squeeze(1)
            found.append(Pairs(target, neighbour[target]))
        # Being neighbours is mutual: the opposite kernel element joins the same pairs the other way round.
        opposite = [Pairs(source, target) for target, source in reversed(found)]
        return (*found, Pairs(own, own), *opposite)

    @cached_property
    def neighbours(self) -> Tensor:
        """(N, 9) int64: row of each active site's neighbours in the order of a kernel's elements; N where inactive."""
        height, width = self.active.shape[1:]
        shifted = [self.row_of[:, 1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width] for dy, dx in KERNEL_OFFSETS]
        return torch.stack([rows.reshape(-1)[self.flat] for rows in shifted], 1)

    @cached_property
    def bags(self) -> tuple[Tensor, Tensor]:
        """Entries of a list of all `pairs`, one kernel element after the other, that each output row sums.

        Returns (pairs,) int64, the entries of row 0, then those of row 1, ..., and (N,) int64, where each row's begin.
        """
        joined = self.neighbours < len(self)
        place = (joined.T.reshape(-1).cumsum(0) - 1).view(9, -1).T
        counts = joined.sum(1)
        return place[joined], counts.cumsum(0) - counts

    @cached_property
    def n_pairs(self) -> Tensor:
        """() int64 on the sites' device: (kernel element, output site) combinations whose input site is active."""
        height, width = self.active.shape[1:]
        border = F.pad(self.active, (1, 1, 1, 1), value=False)
        # Being neighbours is mutual, so that half of the offsets and the site itself say it all.
        joined = [
            (self.active & border[:, 1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]).sum()
            for dy, dx in KERNEL_OFFSETS[:CENTRE]
        ]
        return self.active.sum() + 2 * torch.stack(joined).sum()


@dataclass(frozen=True)
class SparseMap:
    """Features at the active sites of a stack of maps; every other site counts as zero.

    features: (N, D) float, rows in raster order. sites: the N active sites.
    macs: multiply-adds really done so far to compute this map.
    """

    features: Tensor
    sites: Sites
    macs: Count = 0.0

    @classmethod
    def from_dense(cls, dense: Tensor, active: Tensor | None = None, macs: Count = 0.0) -> "SparseMap":
        """The sites of `dense` (images, D, H, W) where `active` (images, H, W) is True; None takes all of them."""
        images, channels, height, width = dense.shape
        rows = dense.permute(0, 2, 3, 1).reshape(-1, channels)
        if active is None:
            active = torch.ones(images, height, width, dtype=torch.bool, device=dense.device)
            return cls(rows, Sites(active), macs)
        sites = Sites(active)
        return cls(take_rows(rows, sites.flat), sites, macs)

    def dense(self) -> Tensor:
        """(images, D, H, W) in channels_last, zero at inactive sites."""
        images, height, width = self.sites.active.shape
        channels = self.features.shape[1]
        if len(self.sites) == self.sites.active.numel():
            rows = self.features
        else:
            empty = self.features.new_zeros(images * height * width, channels)
            rows = empty.index_copy(0, self.sites.flat, self.features)
        return rows.view(images, height, width, channels).permute(0, 3, 1, 2)

    def select(self, kept: Tensor) -> "SparseMap":
        """The same map with only the sites in `kept` (images, H, W) bool, which must all be active."""
        sites = Sites(kept)
        if len(sites) == len(self.sites):
            return self
        rows = self.sites.row_of[:, 1:-1, 1:-1].reshape(-1)[sites.flat]
        return SparseMap(take_rows(self.features, rows), sites, self.macs)
