"""The type that a layer computes in."""

import torch
from torch import Tensor


def compute_dtype(values: Tensor) -> torch.dtype:
    """The type in which products of `values` are made: autocast's where it is on, else their own."""
    kind = values.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else values.dtype
