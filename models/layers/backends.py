"""The engines that can compute a submanifold convolution, behind one function each.

An engine takes rows (N, C), a kernel (O, C, 3, 3) of their type or float32 and the N sites, and returns rows (N, O)
and the multiply-adds that its forward pass did: for `torch`, `gather` and `native` the rows of zeros that half
precision on a CPU adds are counted too, for spconv the pairs of active sites, without what its tiles leave unused. All
agree with a dense convolution of the zero-filled map, read at the active sites.

torch: products over pairs of active sites (`pairs`). gather: one product over gathered neighbours (`gathered`).
dense: the dense convolution itself. native: kernels in C for the processor that runs them (`native`). spconv:
traveller59's package. spconv_triton: PyPI's spconv-triton, the same API written in Triton.
"""

import importlib
import warnings
from functools import lru_cache
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from models.errors import ModelError
from models.layers.choice import WORTH_MEASURING, Engine, fastest
from models.layers.gathered import GatherConvolution, gathered_rows
from models.layers.native.convolution import by_native
from models.layers.native.convolution import check as check_native
from models.layers.pairs import PairConvolution, multiplied_rows
from models.layers.precision import computed_in
from models.layers.sparse_map import Count, Sites, SparseMap

BackendName = Literal["auto", "torch", "gather", "dense", "native", "spconv", "spconv_triton"]

# Where nothing is measured: above this share of the dense multiply-adds a dense convolution is faster.
DENSE_ABOVE_SHARE = 0.6
# spconv has no bfloat16.
_SPCONV_TYPES = (torch.float32, torch.float16)
_SPCONV_MODULES = {"spconv": "spconv.pytorch", "spconv_triton": "spconv_triton.pytorch"}
_INSTALLED_BY = {"spconv": "run `make install EXTRAS=cuda`", "spconv_triton": "run `pip install spconv-triton`"}


def convolve(rows: Tensor, weight: Tensor, sites: Sites, backend: BackendName) -> tuple[Tensor, Count]:
    """The submanifold convolution by the engine called `backend`; `auto` takes what `models.layers.choice` measured.

    rows: (N, C). weight: (O, C, 3, 3). Returns rows (N, O) and the multiply-adds done.

    Raises:
        ModelError: unknown backend, one that is not installed, spconv for rows that are not on a GPU or neither
            float32 nor float16, or native for rows that are, or without a C compiler.
    """
    rows = rows.to(computed_in(rows))
    _, engine = engine_for(backend, rows, weight, sites)
    return engine(rows, weight, sites)


def engine_for(backend: BackendName, rows: Tensor, weight: Tensor, sites: Sites) -> tuple[str, Engine]:
    """The name of the engine that `convolve` uses for these rows, and the engine. Raises as `convolve` does."""
    if backend == "auto":
        name = _auto(rows, weight, sites)
        return name, _candidates(rows)[name]
    return backend, _named(backend, rows)


def _auto(rows: Tensor, weight: Tensor, sites: Sites) -> str:
    if len(rows) == 0:
        return "torch"
    if sites.active.numel() * weight.numel() >= WORTH_MEASURING:
        return fastest(_candidates(rows), rows, weight, sites)
    share = sites.n_pairs.item() / (9 * sites.active.numel())
    return "dense" if share > DENSE_ABOVE_SHARE else "torch"


def _candidates(rows: Tensor) -> dict[str, Engine]:
    engines = dict(_PLAIN)
    if rows.is_cuda and rows.dtype in _SPCONV_TYPES and (engine := _usable_spconv()) is not None:
        engines["spconv"] = engine
    if _native_is_usable(rows.device.type, rows.dtype):
        engines["native"] = by_native
    return engines


def _named(backend: str, rows: Tensor) -> Engine:
    if backend in _PLAIN:
        return _PLAIN[backend]
    if backend == "native":
        check_native(rows.device, rows.dtype)
        return by_native
    if backend in _SPCONV_MODULES:
        if not rows.is_cuda:
            raise ModelError(
                f"backend is {backend!r} but the model is on {rows.device}: it runs on CUDA only "
                "(its CPU results are wrong now and then); use backend=torch or auto"
            )
        if rows.dtype not in _SPCONV_TYPES:
            raise ModelError(
                f"backend is {backend!r} but the features are {rows.dtype}: it knows float32 and float16 only; "
                "use backend=auto or torch, or train in precision 32-true or 16-mixed"
            )
        return _by_spconv(backend)
    raise ModelError(f"backend is {backend!r}; known: {', '.join(get_args(BackendName))}")


def by_pairs(rows: Tensor, weight: Tensor, sites: Sites) -> tuple[Tensor, Count]:
    """Products only where output and input site are both active, in plain torch on any device."""
    out = PairConvolution.apply(rows, weight.to(rows.dtype), sites)
    return out, float(multiplied_rows(rows, sites.pairs) * weight.shape[0] * weight.shape[1])


def by_gather(rows: Tensor, weight: Tensor, sites: Sites) -> tuple[Tensor, Count]:
    """One product of every site's nine neighbours, zeros where inactive, in plain torch on any device."""
    out = GatherConvolution.apply(rows, weight.to(rows.dtype), sites)
    return out, float(gathered_rows(rows) * weight.numel())


def by_dense(rows: Tensor, weight: Tensor, sites: Sites) -> tuple[Tensor, Count]:
    """The dense convolution of the zero-filled map, read at the active sites."""
    dense = F.conv2d(SparseMap(rows, sites).dense(), weight.to(rows.dtype), padding=1)
    out = dense.permute(0, 2, 3, 1).reshape(-1, weight.shape[0])
    if len(sites) < sites.active.numel():
        out = out.index_select(0, sites.flat)
    return out, float(sites.active.numel() * weight.numel())


# Those that run on any device.
_PLAIN: dict[str, Engine] = {"torch": by_pairs, "gather": by_gather, "dense": by_dense}


@lru_cache
def _native_is_usable(kind: str, dtype: torch.dtype) -> bool:
    """Whether this processor's kernels can be compiled and loaded, and know such rows."""
    try:
        check_native(torch.device(kind), dtype)
    except ModelError:
        return False
    return True


@lru_cache
def _usable_spconv() -> Engine | None:
    """spconv where it is installed and can be imported; one that is broken gets a warning."""
    if find_spec("spconv") is None:
        return None
    try:
        return _by_spconv("spconv")
    except ModelError as error:
        warnings.warn(f"spconv is not used: {error}", stacklevel=2)
        return None


@lru_cache
def _by_spconv(backend: str) -> Engine:
    name = _SPCONV_MODULES[backend]
    try:
        spconv = importlib.import_module(name)
    # A build for another CUDA or torch fails in more ways than ImportError.
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        raise ModelError(
            f"backend is {backend!r} but {name} cannot be imported ({error}); "
            f"{_INSTALLED_BY[backend]}, or use backend=torch"
        ) from error
    return _SpconvEngine(spconv)


class _SpconvEngine:
    """traveller59's spconv, or a package with the same API; CUDA only."""

    def __init__(self, spconv: ModuleType) -> None:
        self.spconv = spconv
        self.layers: dict[tuple[int, int], Any] = {}

    def __call__(self, rows: Tensor, weight: Tensor, sites: Sites) -> tuple[Tensor, Count]:
        if len(rows) == 0:
            # spconv refuses an empty batch; plain torch returns no rows and keeps their gradient's path.
            return PairConvolution.apply(rows, weight.to(rows.dtype), sites), sites.n_pairs.double()
        weight = weight.to(rows.dtype)
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
        # It writes its tables into a copy of the ones it was given.
        sites.engine_tables.update(out.indice_dict)
        return out.features, sites.n_pairs.double() * (out_channels * in_channels)
