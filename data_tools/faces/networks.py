"""MTCNN's three networks, with the weights that facenet-pytorch's wheel holds.

That package is not imported: with it all of torchvision would be loaded, 170 MB and a second in every process.
"""

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from data_tools.errors import DataError


class Network:
    """Convolutions, each with PReLU and perhaps a max-pool of stride 2, then one dense layer or none, then heads.

    pnet slides over pictures of any size, its heads are convolutions too; rnet looks at 24 x 24 pixels, onet at 48.

    Source: Zhang et al., Joint Face Detection and Alignment using Multi-task Cascaded Convolutional Networks, 2016,
    figure 2; the sizes are those of the weights.
    """

    def __init__(self, name: str, pools: tuple[int | None, ...], device: torch.device) -> None:
        weights = torch.load(_weights_file(name), map_location=device, weights_only=True)
        self._pools = pools
        self._convolutions = [_layer(weights, f"conv{number}") for number in range(1, len(pools) + 1)]
        self._slopes = [weights[f"prelu{number}.weight"] for number in range(1, len(pools) + 1)]
        dense = f"dense{len(pools) + 1}"
        self._dense = (*_layer(weights, dense), weights[f"prelu{dense[5:]}.weight"]) if name != "pnet" else None
        heads = sorted(key.removesuffix(".weight") for key in weights if "_" in key and key.endswith(".weight"))
        self._heads = [_layer(weights, head) for head in heads]

    def __call__(self, pictures: Tensor) -> list[Tensor]:
        """What each head says of pictures (K, 3, H, W) in [-1, 1]: how sure it is of a face, (K, ...) in [0, 1]; how
        the sides shift, (K, 4, ...) in shares of the square; for onet the landmarks, (K, 10), five x and five y.

        For pnet `...` are the rows and columns of its places, 2 pixels apart, each of 12 x 12 pixels.
        """
        x = pictures
        for (weight, bias), slopes, pool in zip(self._convolutions, self._slopes, self._pools, strict=True):
            x = F.prelu(F.conv2d(x, weight, bias), slopes)
            if pool is not None:
                x = F.max_pool2d(x, pool, stride=2, ceil_mode=True)
        if self._dense is None:
            answers = [F.conv2d(x, weight, bias) for weight, bias in self._heads]
        else:
            # The weights come from a framework whose pictures have columns before rows, and channels last.
            weight, bias, slopes = self._dense
            x = F.prelu(F.linear(x.permute(0, 3, 2, 1).flatten(1), weight, bias), slopes)
            answers = [F.linear(x, weight, bias) for weight, bias in self._heads]
        return [answers[0].softmax(1)[:, 1], *answers[1:]]


def _layer(weights: dict[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    weight = weights[f"{name}.weight"]
    # On a CPU such convolutions are several times as fast with the channels last in memory.
    if weight.dim() == 4:
        weight = weight.contiguous(memory_format=torch.channels_last)
    return weight, weights[f"{name}.bias"]


def _weights_file(name: str) -> Path:
    spec = find_spec("facenet_pytorch")
    folders = spec.submodule_search_locations if spec else None
    path = Path(folders[0]) / "data" / f"{name}.pt" if folders else None
    if path is None or not path.is_file():
        raise DataError(f"no weights of the face detector ({path}); install the package facenet-pytorch again")
    return path
