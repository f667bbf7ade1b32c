"""The convolutional parts of a tower: stem, VGG block and stage, dense and sparse.

Dense and sparse parts share parameter names and shapes, so one's weights load into the other. Convolutions have no
bias, because the batch norm behind each takes any constant away.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers.norm import BatchNormRelu
from models.layers.sparse.attention import AttentionGradient, CrossModalAttention
from models.layers.sparse.backends import BackendName, computes_masked
from models.layers.sparse.masked import MaskedMap, masked_stage
from models.layers.sparse.sparse_map import Count, SparseMap
from models.layers.sparse.submanifold import SparseMaxPool2d, SubmanifoldConv2d
from models.native.call import kernels_support
from models.native.pool import MaxOfRows


@dataclass(frozen=True)
class DenseMap:
    """features: (images, D, H, W), channels_last. macs: multiply-adds done so far to compute them."""

    features: Tensor
    macs: Count = 0.0

    def dense(self) -> Tensor:
        """The features."""
        return self.features


class StageResult(NamedTuple):
    """map: after the pool; None once the next part of the tower has read it. sites: how many sites the stage had, over
    all images. active: how many it computed.

    kept: (images, H, W) bool, the computed ones; None where all were. attention_macs: beside those of the map.
    kept_share: as in `models.layers.sparse.attention.Selection`.
    """

    map: DenseMap | SparseMap | MaskedMap | None
    sites: int
    active: Count
    kept: Tensor | None = None
    attention_macs: float = 0.0
    kept_share: Tensor | None = None


class DenseConv2d(nn.Conv2d):
    """Convolution that keeps height and width, on a DenseMap; counts what it did."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3) -> None:
        super().__init__(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
        self.weight = nn.Parameter(self.weight.to(memory_format=torch.channels_last))
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: DenseMap) -> DenseMap:  # type: ignore[override]
        """Multiply-adds are counted at the border too, as papers do."""
        images, _, height, width = x.features.shape
        return DenseMap(super().forward(x.features), x.macs + images * height * width * self.weight.numel())


def max_pool(maps: Tensor) -> Tensor:
    """2x2 max-pool of (images, D, H, W), channels_last; torch takes several times as long in bfloat16 on a CPU."""
    images, channels, height, width = maps.shape
    rows = maps.permute(0, 2, 3, 1).reshape(-1, channels)
    if not kernels_support(rows):
        return F.max_pool2d(maps, 2)
    pooled = MaxOfRows.apply(rows, None, (images, height, width))
    return pooled.view(images, height // 2, width // 2, channels).permute(0, 3, 1, 2)


class _Block(nn.Module):
    """Twice convolution, batch norm, ReLU."""

    def __init__(self, conv1: nn.Module, conv2: nn.Module, channels: int) -> None:
        super().__init__()
        self.conv1 = conv1
        self.norm1 = BatchNormRelu(channels)
        self.conv2 = conv2
        self.norm2 = BatchNormRelu(channels)


class DenseBlock(_Block):
    """VGG block on a dense map."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(DenseConv2d(in_channels, out_channels), DenseConv2d(out_channels, out_channels), out_channels)

    def forward(self, x: DenseMap) -> DenseMap:
        """(images, C, H, W) -> (images, O, H, W)."""
        for conv, norm in ((self.conv1, self.norm1), (self.conv2, self.norm2)):
            x = conv(x)
            x = DenseMap(norm(x.features), x.macs)
        return x


class SparseBlock(_Block):
    """VGG block on the active sites of a sparse map."""

    def __init__(self, in_channels: int, out_channels: int, backend: BackendName) -> None:
        first = SubmanifoldConv2d(in_channels, out_channels, backend)
        super().__init__(first, SubmanifoldConv2d(out_channels, out_channels, backend), out_channels)

    def forward(self, x: SparseMap) -> SparseMap:
        """C channels -> O channels on the same sites."""
        for conv, norm in ((self.conv1, self.norm1), (self.conv2, self.norm2)):
            x = conv(x)
            x = SparseMap(norm(x.features), x.sites, x.macs)
        return x


class DenseStage(nn.Module):
    """FE2E's stage: VGG block, max-pool 2."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.block = DenseBlock(in_channels, out_channels)

    def forward(self, x: DenseMap, query: Tensor | None) -> StageResult:  # noqa: ARG002 - one call for both stages
        """(images, C, H, W) -> (images, O, H // 2, W // 2); no query is needed."""
        images, _, height, width = x.features.shape
        sites = images * height * width
        x = self.block(x)
        return StageResult(DenseMap(max_pool(x.features), x.macs), sites, sites)


class SparseStage(nn.Module):
    """MESM's cross-modal sparse block: attention, top-p, submanifold VGG block, sparse max-pool."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        query_size: int,
        top_p: float,
        gradient: AttentionGradient,
        backend: BackendName,
    ) -> None:
        super().__init__()
        self.attention = CrossModalAttention(in_channels, query_size, top_p, gradient)
        self.block = SparseBlock(in_channels, out_channels, backend)
        self.pool = SparseMaxPool2d()
        self.backend = backend

    def forward(self, x: DenseMap | SparseMap | MaskedMap, query: Tensor) -> StageResult:
        """query: (images, query_size), what the attention asks each image's sites with."""
        if isinstance(x, SparseMap) or not computes_masked(self.backend, x.features):
            assert not isinstance(x, MaskedMap)
            return self.on_rows(x, query)
        if isinstance(x, DenseMap):
            x = MaskedMap.from_dense(x.features, x.macs)
        found = masked_stage(x, query, self.attention, self.block)
        sites = x.active.numel()
        return StageResult(found.map, sites, found.active, found.kept, found.macs, found.kept_share)

    def on_rows(self, x: DenseMap | SparseMap, query: Tensor) -> StageResult:
        """The stage on compact rows, whose number depends on the data."""
        if isinstance(x, DenseMap):
            x = SparseMap.from_dense(x.features, macs=x.macs)
        kept, _, attention_macs, kept_share = self.attention(x, query)
        active = kept.sites.active
        pooled = self.pool(self.block(kept))
        return StageResult(pooled, active.numel(), len(kept.sites), active, attention_macs, kept_share)


class Stem(nn.Module):
    """Convolution 5x5, batch norm, ReLU, max-pool 2, two VGG blocks: dense in both models."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.conv = DenseConv2d(in_channels, width, 5)
        self.norm = BatchNormRelu(width)
        self.blocks = nn.ModuleList([DenseBlock(width, width) for _ in range(2)])

    def forward(self, images: Tensor) -> DenseMap:
        """(I, C, H, W) float -> (I, width, H // 2, W // 2)."""
        x = self.conv(DenseMap(images.contiguous(memory_format=torch.channels_last)))
        x = DenseMap(max_pool(self.norm(x.features)), x.macs)
        for block in self.blocks:
            x = block(x)
        return x
