"""High-level restoration by SimSiam (Chen and He 2021): two views of an utterance are drawn to each other."""

import torch.nn.functional as F
from torch import Tensor, nn

# The predictor's hidden layer is this much narrower, as in SimSiam.
_BOTTLENECK = 4


class SimSiam(nn.Module):
    """The symmetric loss of two views with one projector p and one predictor q (Sun et al. 2023, eq. 13 and 14).

    Both are two-layer networks. SimSiam's batch norm is a layer norm here: an utterance does not depend on its batch
    mates, and a last batch of one utterance can be trained on.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        narrow = max(_BOTTLENECK, size // _BOTTLENECK)
        self.project = _two_layers(size, size)
        self.predict = _two_layers(size, narrow)

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """(B, size) twice -> scalar in [-1, 1], the mean over the utterances."""
        first, second = self.project(one), self.project(other)
        return (self._pull(first, second) + self._pull(second, first)) / 2

    def _pull(self, moved: Tensor, fixed: Tensor) -> Tensor:
        """D(q(p(x)), sg(p(y))): without the stop both views could meet in one constant vector."""
        return -F.cosine_similarity(self.predict(moved).float(), fixed.detach().float(), dim=1).mean()


def _two_layers(size: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(size, hidden), nn.LayerNorm(hidden), nn.ReLU(), nn.Linear(hidden, size))
