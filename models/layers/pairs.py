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
    out = (_gather(rows, None) @ kernel[CENTRE])[: len(rows)]
    for element, (target, source) in enumerate(pairs):
        if element != CENTRE and len(target):
            out.index_add_(0, target, (_gather(rows, source) @ kernel[element])[: len(target)])
    return out


def _gather(rows: Tensor, index: Tensor | None) -> Tensor:
    """The rows at `index`, or all of them; in half precision on a CPU followed by rows of zeros up to a round number.

    There the library compiles a product for every new number of rows, for longer than the product itself takes, and
    the number of pairs is new in every batch.
    """
    if not _is_padded(rows):
        return rows if index is None else rows.index_select(0, index)
    count = len(rows) if index is None else len(index)
    padded = rows.new_empty(_round_up(count), rows.shape[1])
    if index is None:
        padded[:count] = rows
    else:
        torch.index_select(rows, 0, index, out=padded[:count])
    padded[count:] = 0
    return padded


def _is_padded(rows: Tensor) -> bool:
    return not rows.is_cuda and rows.dtype in (torch.bfloat16, torch.float16)


def _round_up(count: int) -> int:
    """The next multiple of 256, or of a quarter of the power of two below `count`: few numbers, little to spare."""
    step = max(256, 2 ** max(count.bit_length() - 3, 0))
    return -(-count // step) * step


def multiplied_rows(rows: Tensor, pairs: tuple[Pairs, ...]) -> int:
    """How many rows the forward pass multiplies by a kernel element, the zeros that `_gather` adds included."""
    counts = [len(rows) if element == CENTRE else len(target) for element, (target, _) in enumerate(pairs)]
    return sum(map(_round_up, counts)) if _is_padded(rows) else sum(counts)


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
                at, read = (None, None) if element == CENTRE else (target, source)
                torch.mm(_gather(grad_out, at).T, _gather(rows, read), out=grad)
        return grad_rows, grad_weight, None
