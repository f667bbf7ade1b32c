"""Eq. 1 and 2 of the MESM paper over rows, and a factor that is exactly 1, by kernels that pass over memory once."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from models.native.build import library
from models.native.call import HALF, c_longs, empty_output, pointer_to

# Rows that one product of the weights' gradient takes at a time: a single one of all rows would run on one core.
_ROWS = 4096


class Scores(Function):
    """(N,) float32: score weights (C,) times tanh(weight (C, C) row + shift of the row's image)."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, shift: Tensor, score: Tensor, first: Tensor) -> Tensor:
        """rows: (N, C), image after image. weight: of their type. shift: (images, C) and score: (C,) float32.

        first: (images + 1,) int64, where each image's rows begin.
        """
        hidden, shift, score = rows @ weight.T, shift.contiguous(), score.contiguous()
        scores = empty_output(len(rows))
        if len(first) != len(shift) + 1:
            raise ValueError(f"{len(first) - 1} images, but {len(shift)} queries")
        library().attend_forward(
            *c_longs(*shift.shape),
            HALF[rows.dtype],
            pointer_to(first),
            pointer_to(hidden),
            pointer_to(shift),
            pointer_to(score),
            pointer_to(scores),
            _threads(),
        )
        ctx.save_for_backward(rows, weight, hidden, score, first)
        return scores

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor, Tensor, None]:
        """Of everything but `first`."""
        rows, weight, hidden, score, first = ctx.saved_tensors
        grad, inner = grad.contiguous(), torch.empty_like(hidden)
        of_shift, of_score = (empty_output(len(first) - 1, len(score)) for _ in range(2))
        read = pointer_to(first), pointer_to(hidden), pointer_to(score), pointer_to(grad)
        written = pointer_to(inner), pointer_to(of_shift), pointer_to(of_score)
        library().attend_backward(*c_longs(*of_shift.shape), HALF[rows.dtype], *read, *written, _threads())
        of_rows = inner @ weight if ctx.needs_input_grad[0] else None
        return of_rows, _products(inner, rows).to(weight.dtype), of_shift, of_score.sum(0), None


class UnitGate(Function):
    """rows (N, C) as they are; the gradient of a factor (N,) float32, which is exactly 1, is given beside theirs."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, gate: Tensor) -> Tensor:  # noqa: ARG004 - it is 1
        """See the class."""
        ctx.save_for_backward(rows.contiguous())
        return rows.view_as(rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        """The rows' own, and each row's product with its gradient."""
        (rows,) = ctx.saved_tensors
        given = grad.to(rows.dtype).contiguous()
        out = empty_output(len(rows))
        library().row_products(
            *c_longs(*rows.shape), HALF[rows.dtype], pointer_to(rows), pointer_to(given), pointer_to(out), _threads()
        )
        return grad, out


def _products(left: Tensor, right: Tensor) -> Tensor:
    """left.T @ right of (N, C) each: products of _ROWS rows in their type, summed in float32."""
    whole = len(left) // _ROWS * _ROWS
    parts = [part[:whole].view(-1, _ROWS, part.shape[1]) for part in (left, right)]
    total = torch.bmm(parts[0].transpose(1, 2), parts[1]).sum(0, dtype=torch.float32)
    return total + left[whole:].T @ right[whole:]


def _threads() -> int:
    return torch.get_num_threads()
