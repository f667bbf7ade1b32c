"""Some rows of a table, with a gradient that is written in one pass: torch adds row by row, on one core."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from models.native.build import library
from models.native.call import c_longs, kernels_available, pointer_to


def take_rows(values: Tensor, places: Tensor) -> Tensor:
    """values (N, ...) at `places` (M,) int64, which rise strictly."""
    return _Rows.apply(values, places) if kernels_available(values) else values.index_select(0, places)


class _Rows(Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        ctx.shape = values.shape
        return values.index_select(0, places)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (places,) = ctx.saved_tensors
        grad = grad.contiguous()
        out = grad.new_empty(ctx.shape)
        count, bytes_of_row = len(out), out[:1].numel() * out.element_size()
        shape = c_longs(count, len(places), bytes_of_row)
        library().place_rows(*shape, pointer_to(places), pointer_to(grad), pointer_to(out), torch.get_num_threads())
        return out, None
