"""The maximum over windows of rows, by kernels that read and write each row once."""

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from models.native.build import library
from models.native.call import HALF, c_longs, pointer_to


class MaxOfRows(Function):
    """(windows, C): the maximum over each window's rows; of equal ones the first takes the gradient."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, members: Tensor | None, shape: tuple[int, int, int]) -> Tensor:
        """rows: (N, C) float32 or bfloat16.

        members: (windows, 4) int64, rows of each window, N for none, at least one is below; no row twice.
        shape: without members (images, H, W) of dense maps, whose rows these are: windows are 2x2. Else unused.
        """
        rows = rows.contiguous()
        images, height, width = shape
        windows = images * (height // 2) * (width // 2) if members is None else len(members)
        out = rows.new_empty(windows, rows.shape[1])
        ctx.members, ctx.shape = None if members is None else members.contiguous(), shape
        library().pool_forward(*_arguments(ctx, rows, out), pointer_to(rows), pointer_to(out), torch.get_num_threads())
        ctx.save_for_backward(rows, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """Rows in no window get zeros."""
        rows, out = ctx.saved_tensors
        grad = grad.to(rows.dtype).contiguous()
        _, height, width = ctx.shape
        everywhere = height % 2 == width % 2 == 0
        grad_rows = torch.empty_like(rows) if everywhere else torch.zeros_like(rows)
        read = pointer_to(rows), pointer_to(out), pointer_to(grad)
        library().pool_backward(*_arguments(ctx, rows, out), *read, pointer_to(grad_rows), torch.get_num_threads())
        return grad_rows, None, None


def _arguments(ctx: Any, rows: Tensor, out: Tensor) -> list[Any]:
    members = ctypes.c_void_p(None) if ctx.members is None else pointer_to(ctx.members)
    return [*c_longs(len(out), *rows.shape, *ctx.shape[1:]), HALF[rows.dtype], members]
