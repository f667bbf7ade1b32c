"""Batch norm and ReLU of rows in one function, by kernels that pass over memory twice each way."""

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from models.native.build import SUM_ROWS, library
from models.native.call import HALF, c_longs, empty_output, pointer_to


class NormRelu(Function):
    """ReLU of rows (N, C) normalised by their own statistics; also gives mean and variance (over N), each (C,)."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        """rows: float32 or bfloat16, contiguous. weight, bias: (C,) float32."""
        mean, variance = torch.empty_like(weight), torch.empty_like(weight)
        read = *c_longs(*rows.shape), HALF[rows.dtype], pointer_to(rows)
        library().norm_statistics(
            *read, pointer_to(_sums(rows)), pointer_to(mean), pointer_to(variance), torch.get_num_threads()
        )
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
        constants = (
            pointer_to(mean),
            pointer_to(variance),
            pointer_to(scale),
            pointer_to(bias),
            ctypes.c_double(ctx.eps),
        )
        threads = torch.get_num_threads()
        library().norm_backward(
            *c_longs(*rows.shape),
            HALF[rows.dtype],
            pointer_to(rows),
            pointer_to(grad),
            *constants,
            pointer_to(sums),
            pointer_to(out),
            threads,
        )
        return out, sums[0, 1] * inverse, sums[0, 0].clone(), None


def normalised(rows: Tensor, mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """ReLU((rows - mean) weight / sqrt(variance + eps) + bias), without a gradient.

    rows: (N, C), contiguous. All others: (C,) float32.
    """
    scale, out = weight * (variance + eps).rsqrt(), torch.empty_like(rows)
    constants = pointer_to(mean), pointer_to(scale), pointer_to(bias)
    library().norm_apply(
        *c_longs(*rows.shape), HALF[rows.dtype], pointer_to(rows), *constants, pointer_to(out), torch.get_num_threads()
    )
    return out


def _sums(rows: Tensor) -> Tensor:
    """Room for the kernels' sums."""
    count, channels = rows.shape
    return empty_output(-(-count // SUM_ROWS), 2, channels)
