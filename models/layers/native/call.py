"""How tensors are handed to the kernels."""

import ctypes

import torch
from torch import Tensor

from models.layers.native.build import is_available

# Whether numbers are bfloat16, as the kernels are told.
HALF = {torch.float32: 0, torch.bfloat16: 1}
# A kernel's vectors of channels.
LANES = 16


def fits(rows: Tensor) -> bool:
    """Whether the kernels of rows (N, C) can take these: norm and pool; a convolution asks for more."""
    return (
        rows.device.type == "cpu"
        and rows.dtype in HALF
        and rows.shape[1] % LANES == 0
        and len(rows) > 0
        and not torch.compiler.is_compiling()
        and is_available()
    )


def sizes(*numbers: int) -> list[ctypes.c_long]:
    """Numbers as C's long."""
    return [ctypes.c_long(number) for number in numbers]


class Pointer(ctypes.c_void_p):
    """Where a tensor lies; keeps it alive as long as this does, so that a temporary one outlasts the call."""

    def __init__(self, values: Tensor) -> None:
        super().__init__(values.data_ptr())
        self.values = values


def at(values: Tensor) -> Pointer:
    """Where a tensor lies; it must be contiguous."""
    return Pointer(values)
