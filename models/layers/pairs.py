"""Submanifold convolution in plain torch: one matrix product for each kernel element over the pairs it joins.

With a share a of scattered active sites, about a * a of the dense multiply-adds are left, because a product is made
only where output and input are both active. The rows gathered for it are made again in the backward pass instead of
being kept, so that a layer keeps no more than its input.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from models.layers.sparse_map import CENTRE, Pairs


def _sum_over_pairs(rows: Tensor, kernel: list[Tensor], pairs: tuple[Pairs, ...]) -> Tensor:
    """(N, O): for every output row, the sum over its active neighbours of row (C,) times kernel element (C, O)."""
    out = rows @ kernel[CENTRE]
    for element, (target, source) in enumerate(pairs):
        if element != CENTRE and len(target):
            out.index_add_(0, target, rows.index_select(0, source) @ kernel[element])
    return out


def _elements(weight: Tensor) -> list[Tensor]:
    """The nine (O, C) matrices of a (O, C, 3, 3) kernel, as views; BLAS reads them as they lie in channels_last."""
    return [weight[:, :, y, x] for y in range(3) for x in range(3)]


class PairConvolution(Function):
    """(N, C) rows and an (O, C, 3, 3) kernel -> (N, O) rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, pairs: tuple[Pairs, ...]) -> Tensor:
        """See the module; keeps rows and weight, nothing else."""
        ctx.save_for_backward(rows, weight)
        ctx.pairs = pairs
        return _sum_over_pairs(rows, [element.T for element in _elements(weight)], pairs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """The gradient of the rows is the same convolution with the kernel turned round."""
        rows, weight = ctx.saved_tensors
        grad_out = grad_out.contiguous()
        grad_rows = grad_weight = None
        if ctx.needs_input_grad[0]:
            turned = [element.contiguous() for element in reversed(_elements(weight))]
            grad_rows = _sum_over_pairs(grad_out, turned, ctx.pairs)
        if ctx.needs_input_grad[1]:
            grad_weight = torch.empty_like(weight)
            for element, (target, source), grad in zip(range(9), ctx.pairs, _elements(grad_weight), strict=True):
                if element == CENTRE:
                    torch.mm(grad_out.T, rows, out=grad)
                else:
                    torch.mm(grad_out.index_select(0, target).T, rows.index_select(0, source), out=grad)
        return grad_rows, grad_weight, None
