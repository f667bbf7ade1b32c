"""Batch norm followed by ReLU, of maps and of rows."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.native.call import kernels_support
from models.native.norm import NormRelu, normalised


class BatchNormRelu(nn.BatchNorm2d):
    """ReLU of the batch norm of (images, D, H, W) or of rows (N, D), over all but D; momentum 0.1 for both.

    With fewer than two values a channel there is no variance: the running statistics are used and stay unchanged.
    On a CPU both are one kernel where there is a C compiler and D is a multiple of 16, in training and without a graph;
    else torch's two. As a class it is a batch norm: what converts those (`SyncBatchNorm`) would lose the ReLU.
    """

    def forward(self, x: Tensor) -> Tensor:
        """The same shape, normalised and without what is negative."""
        rows = x if x.ndim == 2 else x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
        frozen = not self.training or len(rows) < 2
        constants = self.weight, self.bias, self.running_mean, self.running_var
        if not kernels_support(rows, *constants) or (frozen and torch.is_grad_enabled()):
            return self._by_torch(x, frozen)
        rows = rows.contiguous()
        assert self.running_mean is not None
        assert self.running_var is not None
        if frozen:
            out = normalised(rows, self.running_mean, self.running_var, self.weight, self.bias, self.eps)
        else:
            out, mean, variance = NormRelu.apply(rows, self.weight, self.bias, self.eps)
            self._follow(mean, variance * (len(rows) / (len(rows) - 1)))
        if x.ndim == 2:
            return out
        images, _, height, width = x.shape
        return out.view(images, height, width, -1).permute(0, 3, 1, 2)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """The running statistics go a tenth of the way to those of a batch."""
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        for running, new in ((self.running_mean, mean), (self.running_var, variance)):
            assert running is not None
            running.lerp_(new, self.momentum)  # type: ignore[arg-type]

    def _by_torch(self, x: Tensor, frozen: bool) -> Tensor:
        if x.ndim == 2:
            # One image of N x 1 pixels, channels last: torch's kernel for that is much faster than the one for rows.
            as_map = x.contiguous().view(1, len(x), 1, x.shape[1]).permute(0, 3, 1, 2)
            return self._by_torch(as_map, frozen).permute(0, 2, 3, 1).reshape(x.shape)
        if self.training and frozen:
            out = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        else:
            out = super().forward(x)
        return F.relu_(out)
