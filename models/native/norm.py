"""Batch norm and ReLU of rows in one function, by kernels that pass over memory twice each way."""

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from models.native.build import SUM_ROWS, library
from models.native.call import HALF, at, room, sizes


class NormRelu(Function):
    """ReLU of rows (N, C) normalised by their own statistics; also gives mean and variance (over N), each (C,)."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        """rows: float32 or bfloat16, contiguous. weight, bias: (C,) float32."""
        mean, variance = torch.empty_like(weight), torch.empty_like(weight)
        read = *sizes(*rows.shape), HALF[rows.dtype], at(rows)
        library().norm_statistics(*read, at(_sums(rows)), at(mean), at(variance), torch.get_num_threads())
        out = normalised(rows, mean, variance, weight, bias, eps)
        ctx.save_for_backward(rows, weight, bias, mean, variance)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance)
        return out, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Of all three, in one go."""
        rows, weight, bias, mean, variance = ctx.saved_tensors
        grad = grad.to(rows.dtype).contiguous()
        inverse = (variance + ctx.eps).rsqrt()
        scale, sums, out = weight * inverse, _sums(rows), torch.empty_like(rows)
        constants = at(mean), at(variance), at(scale), at(bias), ctypes.c_double(ctx.eps)
        threads = torch.get_num_threads()
        library().norm_backward(
            *sizes(*rows.shape), HALF[rows.dtype], at(rows), at(grad), *constants, at(sums), at(out), threads
        )
        return out, sums[0, 1] * inverse, sums[0, 0].clone(), None


def normalised(rows: Tensor, mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """ReLU((rows - mean) weight / sqrt(variance + eps) + bias), without a gradient.

    rows: (N, C), contiguous. All others: (C,) float32.
    """
    scale, out = weight * (variance + eps).rsqrt(), torch.empty_like(rows)
    constants = at(mean), at(scale), at(bias)
    library().norm_apply(*sizes(*rows.shape), HALF[rows.dtype], at(rows), *constants, at(out), torch.get_num_threads())
    return out


def _sums(rows: Tensor) -> Tensor:
    """Room for the kernels' sums."""
    count, channels = rows.shape
    return room(-(-count // SUM_ROWS), 2, channels)
