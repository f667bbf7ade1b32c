"""Arguments of the kernels: pointers to tensors, sizes, and the checks before a call."""

import ctypes

import torch
from torch import Tensor

from models.native.build import is_available

# The kernels' flag for bfloat16 numbers.
HALF = {torch.float32: 0, torch.bfloat16: 1}
# Channels in a kernel's vector.
LANES = 16


def kernels_available(values: Tensor) -> bool:
    """Return True if the kernels can be called for this tensor: on a CPU, not compiling, library built."""
    return not torch.compiler.is_compiling() and values.device.type == "cpu" and is_available()


def kernels_support(rows: Tensor, *constants: Tensor | None) -> bool:
    """Return True if the kernels of norm, pool and attention support rows (N, C), N > 0, and constants, all float32."""
    return (
        kernels_available(rows)
        and rows.dtype in HALF
        and rows.shape[1] % LANES == 0
        and len(rows) > 0
        and all(c is not None and c.dtype == torch.float32 and c.device == rows.device for c in constants)
    )


def empty_output(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Uninitialised tensor on the CPU for a kernel to write into; torch's default device and type don't matter."""
    return torch.empty(shape, dtype=dtype, device="cpu")


def c_longs(*numbers: int) -> list[ctypes.c_long]:
    """Convert numbers to C's long."""
    return [ctypes.c_long(number) for number in numbers]


class Pointer(ctypes.c_void_p):
    """Address of a tensor's data; keeps the tensor alive, so that a temporary one outlasts the call."""

    def __init__(self, values: Tensor) -> None:
        if values.device.type != "cpu" or not values.is_contiguous():
            raise ValueError(f"a kernel was given a tensor on {values.device} with strides {values.stride()}")
        super().__init__(values.data_ptr())
        self.values = values


def pointer_to(values: Tensor) -> Pointer:
    """Return the address of a tensor's data. The type must be the one that the kernel expects.

    Raises:
        ValueError: the tensor is not contiguous or not on the CPU.
    """
    return Pointer(values)
