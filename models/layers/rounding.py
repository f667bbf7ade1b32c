"""Round numbers of rows for matrix products in half precision on a CPU.

There the library compiles a product for every new number of rows, for longer than the product itself takes, and the
number of active sites is new in every batch. Rows of zeros are added up to a round number.
"""

import torch
from torch import Tensor


def is_padded(rows: Tensor) -> bool:
    """Whether products of these rows are made with a round number of them."""
    return not rows.is_cuda and rows.dtype in (torch.bfloat16, torch.float16)


def round_up(count: int) -> int:
    """The next multiple of 256, or of a quarter of the power of two below `count`: few numbers, little to spare."""
    step = max(256, 2 ** max(count.bit_length() - 3, 0))
    return -(-count // step) * step
