"""Submanifold convolution in plain torch: one matrix product for each kernel element over the pairs it joins.

With a share a of scattered active sites, about a * a of the dense multiply-adds are left, because a product is made
only where output and input are both active. The products of all nine elements lie in one table, and one pass sums
each output row's entries (`embedding_bag`): `index_add_` runs on one core and, in bfloat16, took longer than the
products. The rows gathered are made again in the backward pass instead of being kept, so that a layer keeps no more
than its input.

In half precision on a CPU the library compiles a product for every new number of rows, for longer than the product
itself takes, and the number of active sites is new in every batch. Rows of zeros are added up to a round number.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from models.layers.sparse.sparse_map import CENTRE, Pairs, Sites


def is_padded(rows: Tensor) -> bool:
    """Return True if products of these rows are made with a round number of them."""
    return not rows.is_cuda and rows.dtype in (torch.bfloat16, torch.float16)


def round_up(count: int) -> int:
    """The next multiple of 256, or of a quarter of the power of two below `count`: few numbers, little to spare."""
    step = max(256, 2 ** max(count.bit_length() - 3, 0))
    return -(-count // step) * step


def _sum_over_pairs(rows: Tensor, kernel: list[Tensor], sites: Sites) -> Tensor:
    """(N, O): for every output row, the sum over its active neighbours of row (C,) times kernel element (C, O)."""
    counts = [len(target) for target, _ in sites.pairs]
    size = kernel[CENTRE].shape[1]
    if not len(rows):
        return rows.new_zeros(0, size)
    # Rows of zeros behind one element's products are overwritten by the next one's; the last ones need room.
    products = rows.new_empty(sum(counts) + (round_up(max(counts)) if is_padded(rows) else 0), size)
    start = 0
    for element, (count, (_, source)) in enumerate(zip(counts, sites.pairs, strict=True)):
        if count:
            gathered = _gather(rows, None if element == CENTRE else source)
            torch.mm(gathered, kernel[element], out=products[start : start + len(gathered)])
        start += count
    entries, first = sites.bags
    return F.embedding_bag(entries, products, first, mode="sum")


def _gather(rows: Tensor, index: Tensor | None) -> Tensor:
    """The rows at `index`, or all of them; where `is_padded`, followed by rows of zeros up to a round number."""
    if not is_padded(rows):
        return rows if index is None else rows.index_select(0, index)
    count = len(rows) if index is None else len(index)
    padded = rows.new_empty(round_up(count), rows.shape[1])
    if index is None:
        padded[:count] = rows
    else:
        torch.index_select(rows, 0, index, out=padded[:count])
    padded[count:] = 0
    return padded


def multiplied_rows(rows: Tensor, pairs: tuple[Pairs, ...]) -> int:
    """Number of rows that the forward pass multiplies by a kernel element, the zeros that `_gather` adds included."""
    counts = [len(rows) if element == CENTRE else len(target) for element, (target, _) in enumerate(pairs)]
    return sum(map(round_up, counts)) if is_padded(rows) else sum(counts)


def _elements(weight: Tensor) -> list[Tensor]:
    """The nine (O, C) matrices of a (O, C, 3, 3) kernel, as views; BLAS reads them as they lie in channels_last."""
    return [weight[:, :, y, x] for y in range(3) for x in range(3)]


class PairConvolution(Function):
    """(N, C) rows and an (O, C, 3, 3) kernel -> (N, O) rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, sites: Sites) -> Tensor:
        """See the module; keeps rows and weight, nothing else."""
        ctx.save_for_backward(rows, weight)
        ctx.sites = sites
        return _sum_over_pairs(rows, [element.T for element in _elements(weight)], sites)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """The gradient of the rows is the same convolution with the kernel turned round."""
        rows, weight = ctx.saved_tensors
        grad_out = grad_out.contiguous()
        grad_rows = grad_weight = None
        if ctx.needs_input_grad[0]:
            turned = [element.contiguous() for element in reversed(_elements(weight))]
            grad_rows = _sum_over_pairs(grad_out, turned, ctx.sites)
        if ctx.needs_input_grad[1]:
            grad_weight = torch.empty_like(weight)
            for element, (target, source), grad in zip(range(9), ctx.sites.pairs, _elements(grad_weight), strict=True):
                at, read = (None, None) if element == CENTRE else (target, source)
                torch.mm(_gather(grad_out, at).T, _gather(rows, read), out=grad)
        return grad_rows, grad_weight, None
