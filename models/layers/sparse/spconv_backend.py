"""Submanifold convolution by spconv (traveller59), or by a package with the same API; CUDA only."""

import importlib
import warnings
from functools import lru_cache
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from models.errors import ModelError
from models.layers.sparse.sparse_map import Count, Sites

SPCONV_MODULES = {"spconv": "spconv.pytorch", "spconv_triton": "spconv_triton.pytorch"}
# spconv has no kernels for bfloat16; those of spconv-triton are written for any type, with sums in float32.
SPCONV_TYPES = {
    "spconv": (torch.float32, torch.float16),
    "spconv_triton": (torch.float32, torch.float16, torch.bfloat16),
}
_INSTALLED_BY = {"spconv": "run `make install EXTRAS=cuda`", "spconv_triton": "run `pip install spconv-triton`"}


@lru_cache
def spconv_is_usable() -> bool:
    """Return True if spconv is installed and can be imported; warn of one that is broken."""
    if find_spec("spconv") is None:
        return False
    try:
        spconv_convolution("spconv")
    except ModelError as error:
        warnings.warn(f"spconv is not used: {error}", stacklevel=2)
        return False
    return True


@lru_cache
def spconv_convolution(backend: str) -> "SpconvConvolution":
    """Import the package of `backend`, a key of SPCONV_MODULES.

    Raises:
        ModelError: it is not installed, or cannot be imported.
    """
    name = SPCONV_MODULES[backend]
    try:
        spconv = importlib.import_module(name)
    # A build for another CUDA or torch fails in more ways than ImportError.
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        raise ModelError(
            f"backend is {backend!r} but {name} cannot be imported ({error}); "
            f"{_INSTALLED_BY[backend]}, or use backend=torch"
        ) from error
    return SpconvConvolution(spconv)


class SpconvConvolution:
    """Calls spconv's `SubMConv2d` with rows, kernel and sites; its tables are kept with the sites."""

    def __init__(self, spconv: ModuleType) -> None:
        self.spconv = spconv
        self.layers: dict[tuple[int, int], Any] = {}

    def __call__(self, rows: Tensor, weight: Tensor, sites: Sites) -> tuple[Tensor, Count]:
        """Return rows (N, O), N at least 1, and the multiply-adds as a float64 scalar on the GPU."""
        weight = weight.to(rows.dtype)
        images, height, width = sites.active.shape
        inputs = self.spconv.SparseConvTensor(
            rows.contiguous(), sites.coordinates, [height, width], images, indice_dict=sites.backend_tables
        )
        out_channels, in_channels = weight.shape[:2]
        if (in_channels, out_channels) not in self.layers:
            # The kernel comes with each call; this layer only carries the sizes.
            self.layers[in_channels, out_channels] = self.spconv.SubMConv2d(
                in_channels, out_channels, 3, padding=1, bias=False, indice_key="sites"
            )
        kernel = weight.permute(0, 2, 3, 1).contiguous()  # (O, 3, 3, C), as spconv 2 stores it
        layer = self.layers[in_channels, out_channels]
        # Rows and kernel have their type already; spconv's own autocast would make float16 of bfloat16.
        with torch.autocast("cuda", enabled=False):
            out = torch.func.functional_call(layer, {"weight": kernel}, (inputs,))
        # It writes its tables into a copy of the ones it was given.
        sites.backend_tables.update(out.indice_dict)
        return out.features, sites.n_pairs.double() * (out_channels * in_channels)
