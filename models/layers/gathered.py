"""Submanifold convolution as one matrix product: each output row reads the rows of its nine neighbours side by side.

An inactive neighbour is a row of zeros, so that a share a of the dense multiply-adds is done: more than over pairs of
active sites (about a * a), but in one large product without a sum over scattered results. In bfloat16, where products
are cheap and moving rows is not, that is faster for few channels. Rows are gathered block by block, so that a block
stays in the processor's cache and nothing nine times as wide as the map is ever kept; the backward pass gathers again.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from models.layers.rounding import is_padded, round_up
from models.layers.sparse_map import Sites

# A block's bytes; on a GPU large enough to fill it.
_BLOCK_BYTES = {"cpu": 2**22, "cuda": 2**27}


def _block_rows(rows: Tensor) -> int:
    """Output rows in a block: a power of two, at least 256."""
    of_row = 9 * rows.shape[1] * rows.element_size()
    return max(256, 2 ** ((_BLOCK_BYTES[rows.device.type] // of_row).bit_length() - 1))


def _blocks(rows: Tensor, sites: Sites) -> Iterator[tuple[int, int, Tensor]]:
    """Start and stop of each block of output rows with their neighbours, (rows of the product, 9 C)."""
    channels, size = rows.shape[1], _block_rows(rows)
    padded = torch.cat([rows, rows.new_zeros(1, channels)])
    for start in range(0, len(rows), size):
        stop = min(start + size, len(rows))
        index = sites.neighbours[start:stop].flatten()
        if is_padded(rows):
            # The index N is the row of zeros.
            index = torch.cat([index, index.new_full((9 * (round_up(stop - start) - stop + start),), len(rows))])
        yield start, stop, padded.index_select(0, index).view(-1, 9 * channels)


def _convolve(rows: Tensor, kernel: Tensor, sites: Sites) -> Tensor:
    """(N, O) rows. kernel: (9 C, O)."""
    out = rows.new_empty(len(rows), kernel.shape[1])
    for start, stop, gathered in _blocks(rows, sites):
        if len(gathered) == stop - start:
            torch.mm(gathered, kernel, out=out[start:stop])
        else:
            out[start:stop] = (gathered @ kernel)[: stop - start]
    return out


def gathered_rows(rows: Tensor) -> int:
    """How many rows of nine neighbours the forward pass multiplies, the added zeros included."""
    if not is_padded(rows):
        return len(rows)
    whole, rest = divmod(len(rows), _block_rows(rows))
    return whole * _block_rows(rows) + round_up(rest)


class GatherConvolution(Function):
    """(N, C) rows and an (O, C, 3, 3) kernel -> (N, O) rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, sites: Sites) -> Tensor:
        """See the module; keeps rows and weight, nothing else."""
        ctx.save_for_backward(rows, weight)
        ctx.sites = sites
        return _convolve(rows, weight.permute(2, 3, 1, 0).reshape(-1, weight.shape[0]), sites)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """The gradient of the rows is the same convolution with the kernel turned round."""
        rows, weight = ctx.saved_tensors
        size, channels = weight.shape[:2]
        grad_rows = grad_weight = None
        if ctx.needs_input_grad[0]:
            turned = weight.flip(2, 3).permute(2, 3, 0, 1).reshape(-1, channels)
            grad_rows = _convolve(grad_out.contiguous(), turned, ctx.sites)
        if ctx.needs_input_grad[1]:
            # In half precision the sum over blocks would lose what each block adds.
            wide = torch.promote_types(weight.dtype, torch.float32)
            total = torch.zeros(9 * channels, size, dtype=wide, device=weight.device)
            for start, stop, gathered in _blocks(rows, ctx.sites):
                block = grad_out[start:stop]
                if len(gathered) > len(block):
                    block = torch.cat([block, block.new_zeros(len(gathered) - len(block), size)])
                total += gathered.T @ block
            grad_weight = total.view(3, 3, channels, size).permute(3, 2, 0, 1).to(weight.dtype)
            grad_weight = grad_weight.contiguous(memory_format=torch.channels_last)
        return grad_rows, grad_weight, None
