"""One image tower, for faces and for mel chunks, dense or sparse by the stages that it is given."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.layers.sparse.masked import MaskedMap
from models.layers.sparse.sparse_map import Count, SparseMap
from models.layers.vgg import DenseMap, StageResult, Stem

# Mel chunks take about 1 MB each in the widest layer of the paper's towers.
MAX_IMAGES = 512


@dataclass(frozen=True)
class TowerResult:
    """Result of a tower for I images.

    features: (I, D). macs: multiply-adds done, by part: stem, stages (convolutions only), attention, linear.
    stages: the result of each stage, in order.
    """

    features: Tensor
    macs: dict[str, Count]
    stages: tuple[StageResult, ...]


def _together(parts: Sequence[TowerResult]) -> TowerResult:
    """The result for all images of the results for some after the others."""
    stages = []
    for each in zip(*(part.stages for part in parts), strict=True):
        kept = [stage.kept for stage in each if stage.kept is not None]
        shares = [stage.kept_share for stage in each if stage.kept_share is not None]
        stages.append(
            StageResult(
                map=None,
                sites=sum(stage.sites for stage in each),
                active=sum(stage.active for stage in each),
                kept=torch.cat(kept) if kept else None,
                attention_macs=sum(stage.attention_macs for stage in each),
                kept_share=torch.cat(shares) if shares else None,
            )
        )
    macs = {name: sum(part.macs[name] for part in parts) for name in parts[0].macs}
    return TowerResult(torch.cat([part.features for part in parts]), macs, tuple(stages))


class Tower(nn.Module):
    """Stem, three stages that double the channels and halve height and width, two linear layers.

    stages: from (width, H / 2, W / 2) to (8 width, H / 16, W / 16).
    size_px: (H, W) of an image, multiples of 16. mean, deviation: (in_channels,), of the raw input.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        size_px: tuple[int, int],
        width: int,
        stages: Sequence[nn.Module],
        mean: Sequence[float],
        deviation: Sequence[float],
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation).view(-1, 1, 1), persistent=False)
        self.stem = Stem(len(mean), width)
        self.stages = nn.ModuleList(stages)
        flat = 8 * width * (size_px[0] // 16) * (size_px[1] // 16)
        self.project = nn.Sequential(nn.Linear(flat, 16 * width), nn.ReLU(inplace=True), nn.Linear(16 * width, width))

    def forward(self, images: Tensor, query: Tensor | None) -> TowerResult:
        """images: (I, C, H, W) uint8 or float, raw. query: (I, Q), or None where the stages are dense.

        In evaluation without gradients memory does not grow with I: `MAX_IMAGES` are in the tower at a time.
        """
        if self.training or torch.is_grad_enabled() or len(images) <= MAX_IMAGES:
            return self._forward(images, query)
        parts = images.split(MAX_IMAGES)
        queries = [None] * len(parts) if query is None else query.split(MAX_IMAGES)
        return _together([self._forward(*part) for part in zip(parts, queries, strict=True)])

    def _forward(self, images: Tensor, query: Tensor | None) -> TowerResult:
        stem = self.stem((images.to(self.mean.dtype) - self.mean) / self.deviation)
        last: DenseMap | SparseMap | MaskedMap = stem
        stages: list[StageResult] = []
        for stage in self.stages:
            result: StageResult = stage(last, query)
            assert result.map is not None
            last = result.map
            stages.append(result._replace(map=None))
        features = self.project(last.dense().flatten(1))
        linear = sum(layer.weight.numel() for layer in self.project if isinstance(layer, nn.Linear))
        macs: dict[str, Count] = {
            "stem": stem.macs,
            "stages": last.macs - stem.macs,
            "attention": sum(stage.attention_macs for stage in stages),
            "linear": float(len(images) * linear),
        }
        return TowerResult(features, macs, tuple(stages))
