"""The maximum over each window's active rows, by kernels that read and write each row once."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from models.layers.native.build import library
from models.layers.native.call import HALF, at, sizes


class MaxOfRows(Function):
    """(N', C): the maximum over each row's members; of equal ones the first takes the gradient."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, members: Tensor) -> Tensor:
        """rows: (N, C) float32 or bfloat16. members: (N', 4) int64; N for none, at least one is below; no row twice."""
        rows, members = rows.contiguous(), members.contiguous()
        out = rows.new_empty(len(members), rows.shape[1])
        library().pool_forward(*_shape(rows, members), at(rows), at(members), at(out), torch.get_num_threads())
        ctx.save_for_backward(rows, members, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Rows in no window get zeros."""
        rows, members, out = ctx.saved_tensors
        grad = grad.to(rows.dtype).contiguous()
        grad_rows = torch.zeros_like(rows)
        read = at(rows), at(members), at(out), at(grad)
        library().pool_backward(*_shape(rows, members), *read, at(grad_rows), torch.get_num_threads())
        return grad_rows, None


def _shape(rows: Tensor, members: Tensor) -> list[Any]:
    return [*sizes(len(members), *rows.shape), HALF[rows.dtype]]
