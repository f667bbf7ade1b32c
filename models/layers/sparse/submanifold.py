"""Submanifold convolution (Graham and van der Maaten 2017) and its max-pool, on sparse maps.

A submanifold convolution keeps the set of active sites: it computes an output only where the input is active, and
reads inactive neighbours as zero.
"""

import torch
from torch import Tensor, nn

from models.layers.sparse.backends import BackendName, convolve
from models.layers.sparse.sparse_map import Sites, SparseMap
from models.native.call import kernels_support
from models.native.pool import MaxOfRows


class SubmanifoldConv2d(nn.Module):
    """3x3 submanifold convolution without bias; a SparseMap of C channels in, one of O channels on the same sites out.

    weight: (O, C, 3, 3), as in `nn.Conv2d`, so that a dense network's weights fit.
    """

    def __init__(self, in_channels: int, out_channels: int, backend: BackendName = "auto") -> None:
        super().__init__()
        weight = torch.empty(out_channels, in_channels, 3, 3)
        self.weight = nn.Parameter(weight.to(memory_format=torch.channels_last))
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        self.backend = backend

    def forward(self, x: SparseMap) -> SparseMap:
        """See the class."""
        features, macs = convolve(x.features, self.weight, x.sites, self.backend)
        return SparseMap(features, x.sites, x.macs + macs)


class SparseMaxPool2d(nn.Module):
    """2x2 max-pool over the active sites; an output is active where any of its four inputs is.

    An odd last row or column is dropped, as `nn.MaxPool2d(2)` does.
    """

    def forward(self, x: SparseMap) -> SparseMap:
        """(images, H, W) active -> (images, H // 2, W // 2)."""
        images, height, width = x.sites.active.shape
        rows = x.sites.row_of[:, 1 : 1 + height // 2 * 2, 1 : 1 + width // 2 * 2]
        windows = rows.reshape(images, height // 2, 2, width // 2, 2).transpose(2, 3).flatten(3)
        sites = Sites((windows < len(x.sites)).any(3))
        members = windows.reshape(-1, 4)[sites.flat]  # (N', 4) rows, N where inactive
        return SparseMap(_max_of_rows(x.features, members, x.sites.active.shape), sites, x.macs)


def _max_of_rows(features: Tensor, members: Tensor, shape: torch.Size) -> Tensor:
    """(N', D): the maximum over each row's members; the index N stands for minus infinity. shape: (images, H, W)."""
    if kernels_support(features) and len(members):
        return MaxOfRows.apply(features, members, shape)
    lowest = features.new_full((1, features.shape[1]), float("-inf"))
    padded = torch.cat([features, lowest])
    gathered = padded.index_select(0, members.flatten()).view(-1, 4, features.shape[1])
    return gathered.max(1).values
