"""The engines that can compute a submanifold convolution, behind one function each.

An engine takes rows (N, C), a kernel (O, C, 3, 3) and the N sites, and returns rows (N, O) and the multiply-adds that
it really did. All agree with a dense convolution of the zero-filled map, read at the active sites.
"""

import importlib
from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from models.errors import ModelError
from models.layers.pairs import PairConvolution
from models.layers.sparse_map import Sites, SparseMap

BackendName = Literal["auto", "torch", "dense", "spconv", "spconv_triton"]
Engine = Callable[[Tensor, Tensor, Sites], tuple[Tensor, float]]

# Above this share of the dense multiply-adds a dense convolution is faster on a CPU; see `pipeline bench`.
DENSE_ABOVE_SHARE = 0.6
_SPCONV_MODULES = {"spconv": "spconv.pytorch", "spconv_triton": "spconv_triton.pytorch"}


def convolve(rows: Tensor, weight: Tensor, sites: Sites, backend: BackendName) -> tuple[Tensor, float]:
    """The submanifold convolution by the engine called `backend`; `auto` takes the fastest one that can run here.

    rows: (N, C). weight: (O, C, 3, 3). Returns rows (N, O) and the multiply-adds done.

    Raises:
        ModelError: unknown backend, one that is not installed, or spconv for rows that are not on a GPU.
    """
    device = rows.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        rows, weight = rows.to(dtype), weight.to(dtype)
    return _engine(backend, rows, sites)(rows, weight, sites)


def _engine(backend: BackendName, rows: Tensor, sites: Sites) -> Engine:
    if backend == "auto":
        if rows.is_cuda and find_spec("spconv") is not None:
            return _by_spconv("spconv")
        share = sites.n_pairs / max(9 * sites.active.numel(), 1)
        return by_dense if share > DENSE_ABOVE_SHARE else by_pairs
    if backend == "torch":
        return by_pairs
    if backend == "dense":
        return by_dense
    if backend in _SPCONV_MODULES:
        if not rows.is_cuda:
            raise ModelError(
                f"backend is {backend!r} but the model is on {rows.device}: it runs on CUDA only "
                "(its CPU results are wrong now and then); use backend=torch or auto"
            )
        return _by_spconv(backend)
    raise ModelError(f"backend is {backend!r}; known: {', '.join(get_args(BackendName))}")


def by_pairs(rows: Tensor, weight: Tensor, sites: Sites) -> tuple[Tensor, float]:
    """Products only where output and input site are both active, in plain torch on any device."""
    out = PairConvolution.apply(rows, weight, sites.pairs)
    return out, sites.n_pairs * weight.shape[0] * weight.shape[1]


def by_dense(rows: Tensor, weight: Tensor, sites: Sites) -> tuple[Tensor, float]:
    """The dense convolution of the zero-filled map, read at the active sites."""
    dense = F.conv2d(SparseMap(rows, sites).dense(), weight, padding=1)
    out = dense.permute(0, 2, 3, 1).reshape(-1, weight.shape[0])
    if len(sites) < sites.active.numel():
        out = out.index_select(0, sites.flat)
    return out, sites.active.numel() * weight.numel()


@lru_cache
def _by_spconv(backend: str) -> Engine:
    name = _SPCONV_MODULES[backend]
    try:
        spconv = importlib.import_module(name)
    except ImportError as error:
        raise ModelError(
            f"backend is {backend!r} but {name} cannot be imported ({error}); "
            "run `make install EXTRAS=cuda`, or use backend=torch"
        ) from error
    return _SpconvEngine(spconv)


class _SpconvEngine:
    """traveller59's spconv, or a package with the same API; CUDA only."""

    def __init__(self, spconv: ModuleType) -> None:
        self.spconv = spconv
        self.layers: dict[tuple[int, int], Any] = {}

    def __call__(self, rows: Tensor, weight: Tensor, sites: Sites) -> tuple[Tensor, float]:
        images, height, width = sites.active.shape
        inputs = self.spconv.SparseConvTensor(
            rows.contiguous(), sites.coordinates, [height, width], images, indice_dict=sites.engine_tables
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
        return out.features, sites.n_pairs * out_channels * in_channels
