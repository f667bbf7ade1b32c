"""Sizes of the tiles that the kernels work in, and how a kernel is started."""

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor


@dataclass
class Tiles:
    """Largest tiles of the kernels; each is cut to the next power of two of what there is, at least 16.

    rows: sites of a convolution's tile. outputs, channels: of its weights. sites: of the tables. cells: numbers of a
    tile of the kernels that work number by number. programs: that the gradient of a weight is split into.
    """

    rows: int = 128
    outputs: int = 128
    channels: int = 64
    sites: int = 256
    cells: int = 4096
    programs: int = 1024


# Chosen by the shared memory of the smaller GPUs, not by measuring; tests make them small.
TILES = Tiles()
# A product on the tensor cores has no side below.
_LEAST = 16


@triton.jit
def _probe(out):
    tl.store(out, 1)


# True where TRITON_INTERPRET=1 was set before triton was imported: kernels then run in numpy, on a CPU.
INTERPRETED = not isinstance(_probe, triton.JITFunction)


def tile(most: int, size: int) -> int:
    """Side of a tile: a power of two that holds `size` or is `most`, at least 16."""
    return max(_LEAST, min(most, triton.next_power_of_2(max(size, 1))))


def launch(kernel: Any, programs: int, like: Tensor, *arguments: Any, **constants: Any) -> None:
    """Start `programs` programs of a kernel on the device of `like`; none of them is no error."""
    if programs:
        with torch.cuda.device_of(like):
            kernel[(programs,)](*arguments, **constants)


def product_settings(dtype: torch.dtype) -> dict[str, Any]:
    """Constants of a kernel that multiplies matrices of this type.

    float32 is exact unless torch's own convolutions may use TF32. The interpreter's product knows no bfloat16.
    """
    tf32 = dtype == torch.float32 and torch.backends.cudnn.allow_tf32
    return {"PRECISION": "tf32" if tf32 else "ieee", "WIDEN": INTERPRETED and dtype == torch.bfloat16}
