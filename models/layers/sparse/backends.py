"""The backends of a submanifold convolution, and the rule by which `auto` chooses one.

torch: products over pairs of active sites, in plain torch on any device (`pairs`). dense: the dense convolution of the
zero-filled map, read at the active sites. native: kernels in C for this machine's processor (`native_convolution`).
triton: kernels of our own in Triton, on CUDA (`triton_backend`). spconv: traveller59's package, on CUDA. spconv_triton:
PyPI's spconv-triton, the same API written in Triton.

A backend takes rows (N, C), a kernel (O, C, 3, 3) of their type or float32 and the N sites, and returns rows (N, O)
and the multiply-adds of its forward pass: for `torch` and `native` with the rows of zeros that half precision on a CPU
adds, on CUDA the pairs of active sites, without what tiles leave unused. All agree with the dense convolution.
"""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from models.errors import ModelError
from models.layers.sparse.native_convolution import check_supported, convolve_native, native_is_supported
from models.layers.sparse.pairs import PairConvolution, multiplied_rows
from models.layers.sparse.precision import compute_dtype
from models.layers.sparse.sparse_map import Count, Sites, SparseMap
from models.layers.sparse.spconv_backend import SPCONV_MODULES, SPCONV_TYPES, spconv_convolution, spconv_is_usable
from models.layers.sparse.triton_backend import TRITON_TYPES, check_triton, convolve_triton, triton_is_usable

BackendName = Literal["auto", "torch", "dense", "native", "triton", "spconv", "spconv_triton"]
Backend = Callable[[Tensor, Tensor, Sites], tuple[Tensor, Count]]

# Share of active sites above which `auto` prefers `dense` to `torch`: where training steps took equally long, on one
# thread of a Xeon with AVX-512 and AMX, for 64 to 256 channels on 12x12 and 24x24 sites. With 512 channels `torch` was
# the faster one at every share.
DENSE_ABOVE_SHARE = 0.8
DENSE_ABOVE_SHARE_IN_HALF = 0.5
# In float32 `native` first rewrites its kernel, which takes as long as the products of some hundred sites. `torch` was
# faster below about twice as many sites as input channels: 1.8 times for 65 sites of 512 to 512 channels.
_SITES_A_CHANNEL = 2


def auto_backend(
    device: torch.device, dtype: torch.dtype, sites: int, active_share: float, in_channels: int
) -> BackendName:
    """Return the backend that `auto` stands for: it depends on nothing else, so it is the same in every run.

    dtype: of the products. sites: active ones in all maps. active_share: those over all sites, in [0, 1].
    """
    if device.type == "cuda":
        if dtype in TRITON_TYPES and triton_is_usable():
            return "triton"
        # Half of spconv's float16 kernels sum in float16, so `auto` leaves float16 to the dense convolution.
        return "spconv" if dtype == torch.float32 and spconv_is_usable() else "dense"
    if native_is_supported(device, dtype):
        return "torch" if dtype == torch.float32 and sites < _SITES_A_CHANNEL * in_channels else "native"
    threshold = DENSE_ABOVE_SHARE_IN_HALF if dtype in (torch.bfloat16, torch.float16) else DENSE_ABOVE_SHARE
    return "dense" if active_share > threshold else "torch"


def convolve(rows: Tensor, weight: Tensor, sites: Sites, backend: BackendName) -> tuple[Tensor, Count]:
    """Submanifold convolution of rows (N, C) with a kernel (O, C, 3, 3); returns rows (N, O) and the multiply-adds.

    Raises:
        ModelError: unknown backend, one that is not installed, spconv or triton for rows that are not on a GPU or of
            a type that it does not know, or native for rows that are, or without a C compiler.
    """
    rows = rows.to(compute_dtype(rows))
    function = backend_by_name(resolve_backend(backend, rows, sites), rows)
    if not len(rows):
        # Nothing to multiply; spconv refuses it, and pairs keep the path of the gradients.
        function = convolve_pairs
    return function(rows, weight, sites)


def resolve_backend(backend: BackendName, rows: Tensor, sites: Sites) -> BackendName:
    """Return `backend`, or the one that `auto` stands for with rows (N, C) of these sites."""
    if backend != "auto":
        return backend
    active_share = len(sites) / max(sites.active.numel(), 1)
    return auto_backend(rows.device, rows.dtype, len(sites), active_share, rows.shape[1])


def computes_masked(backend: BackendName, values: Tensor) -> bool:
    """Return True if a stage on features like `values` is computed by Triton's kernels as a whole (`masked`).

    Raises:
        ModelError: `backend` is triton, and it cannot be used here.
    """
    dtype = compute_dtype(values)
    if backend == "triton":
        check_triton(values.device, dtype)
        return True
    return backend == "auto" and values.device.type == "cuda" and dtype in TRITON_TYPES and triton_is_usable()


def backend_by_name(name: BackendName, rows: Tensor) -> Backend:
    """Return the function behind a name other than `auto`; raises ModelError as `convolve` does."""
    if name in _PLAIN:
        return _PLAIN[name]
    if name == "native":
        check_supported(rows.device, rows.dtype)
        return convolve_native
    if name == "triton":
        check_triton(rows.device, rows.dtype)
        return convolve_triton
    if name in SPCONV_MODULES:
        if not rows.is_cuda:
            raise ModelError(
                f"backend is {name!r} but the model is on {rows.device}: it runs on CUDA only "
                "(its CPU results are wrong now and then); use backend=torch or auto"
            )
        if rows.dtype not in SPCONV_TYPES[name]:
            known = " and ".join(str(dtype).removeprefix("torch.") for dtype in SPCONV_TYPES[name])
            raise ModelError(
                f"backend is {name!r} but the features are {rows.dtype}: it knows {known} only; "
                "use backend=auto or torch, or train in another precision"
            )
        return spconv_convolution(name)
    raise ModelError(f"backend is {name!r}; known: {', '.join(get_args(BackendName))}")


def convolve_pairs(rows: Tensor, weight: Tensor, sites: Sites) -> tuple[Tensor, Count]:
    """Products only where output and input site are both active."""
    out = PairConvolution.apply(rows, weight.to(rows.dtype), sites)
    return out, float(multiplied_rows(rows, sites.pairs) * weight.shape[0] * weight.shape[1])


def convolve_dense(rows: Tensor, weight: Tensor, sites: Sites) -> tuple[Tensor, Count]:
    """The dense convolution of the zero-filled map, read at the active sites."""
    dense = F.conv2d(SparseMap(rows, sites).dense(), weight.to(rows.dtype), padding=1)
    out = dense.permute(0, 2, 3, 1).reshape(-1, weight.shape[0])
    if len(sites) < sites.active.numel():
        out = out.index_select(0, sites.flat)
    return out, float(sites.active.numel() * weight.numel())


# Those that run on any device.
_PLAIN: dict[str, Backend] = {"torch": convolve_pairs, "dense": convolve_dense}
