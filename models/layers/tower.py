"""One image tower, for faces and for mel chunks, dense or sparse by the stages that it is given."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.layers.sparse.sparse_map import Count
from models.layers.vgg import StageResult, Stem


@dataclass(frozen=True)
class TowerResult:
    """Result of a tower for I images.

    features: (I, D). macs: multiply-adds done, by part: stem, stages (convolutions only), attention, linear.
    stages: the result of each stage, in order.
    """

    features: Tensor
    macs: dict[str, Count]
    stages: tuple[StageResult, ...]


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
        """images: (I, C, H, W) uint8 or float, raw. query: (I, Q), or None where the stages are dense."""
        x = self.stem((images.to(self.mean.dtype) - self.mean) / self.deviation)
        stages: list[StageResult] = []
        for stage in self.stages:
            stages.append(stage(stages[-1].map if stages else x, query))
        last = stages[-1].map
        features = self.project(last.dense().flatten(1))
        linear = sum(layer.weight.numel() for layer in self.project if isinstance(layer, nn.Linear))
        macs: dict[str, Count] = {
            "stem": x.macs,
            "stages": last.macs - x.macs,
            "attention": sum(stage.attention_macs for stage in stages),
            "linear": float(len(images) * linear),
        }
        return TowerResult(features, macs, tuple(stages))
