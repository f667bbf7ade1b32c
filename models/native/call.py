"""How tensors are handed to the kernels."""

import ctypes

import torch
from torch import Tensor

from models.native.build import is_available

# Whether numbers are bfloat16, as the kernels are told.
HALF = {torch.float32: 0, torch.bfloat16: 1}
# A kernel's vectors of channels.
LANES = 16


def usable(values: Tensor) -> bool:
    """Whether the kernels can be asked at all: on a CPU, outside of torch.compile, and where they could be compiled."""
    return not torch.compiler.is_compiling() and values.device.type == "cpu" and is_available()


def fits(rows: Tensor, *constants: Tensor | None) -> bool:
    """Whether the kernels of norm, pool and attention can take rows (N, C) and constants, which must be float32."""
    return (
        usable(rows)
        and rows.dtype in HALF
        and rows.shape[1] % LANES == 0
        and len(rows) > 0
        and all(c is not None and c.dtype == torch.float32 and c.device == rows.device for c in constants)
    )


def room(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """A tensor for a kernel to write into, whatever torch's defaults are."""
    return torch.empty(shape, dtype=dtype, device="cpu")


def sizes(*numbers: int) -> list[ctypes.c_long]:
    """Numbers as C's long."""
    return [ctypes.c_long(number) for number in numbers]


class Pointer(ctypes.c_void_p):
    """Where a tensor lies; keeps it alive as long as this does, so that a temporary one outlasts the call."""

    def __init__(self, values: Tensor) -> None:
        if values.device.type != "cpu" or not values.is_contiguous():
            raise ValueError(f"a kernel was given a tensor on {values.device} with strides {values.stride()}")
        super().__init__(values.data_ptr())
        self.values = values


def at(values: Tensor) -> Pointer:
    """Where a tensor lies; it must be contiguous, on the CPU, and of the type that the kernel expects."""
    return Pointer(values)
