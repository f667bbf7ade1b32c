"""The backend `triton`: where it can be used, and one convolution by it. Triton is imported at first use."""

import os
import shutil
import warnings
from functools import lru_cache
from importlib.util import find_spec

import torch
from torch import Tensor

from models.errors import ModelError
from models.layers.sparse.sparse_map import Count, Sites, SparseMap

TRITON_TYPES = (torch.float32, torch.bfloat16, torch.float16)
# Ampere; before it there is no bfloat16 and Triton supports little.
_LEAST_CAPABILITY = (8, 0)


@lru_cache
def triton_is_usable() -> bool:
    """Return True if `auto` may take Triton's kernels on this machine's GPUs; warn of a Triton that is broken.

    Triton needs a C compiler at run time, for the few lines that start a kernel.
    """
    if find_spec("triton") is None or not _has_compiler():
        return False
    if torch.cuda.is_available() and torch.cuda.get_device_capability() < _LEAST_CAPABILITY:
        return False
    try:
        _import_kernels()
    except ModelError as error:
        warnings.warn(f"triton is not used: {error}", stacklevel=2)
        return False
    return True


def check_triton(device: torch.device, dtype: torch.dtype) -> None:
    """Raise ModelError unless the kernels can be asked for rows of this type and device.

    On a CPU they run in Triton's interpreter alone, which is for tests: thousands of times as long.
    """
    if find_spec("triton") is None:
        raise ModelError(
            "backend is 'triton' but the package triton is not installed; it comes with torch for CUDA on Linux: "
            "install that one, or use backend=auto"
        )
    if dtype not in TRITON_TYPES:
        raise ModelError(
            f"backend is 'triton' but the features are {dtype}: its kernels know float32, bfloat16 and float16; "
            "use backend=auto or torch"
        )
    interpreted = _import_kernels()
    if device.type != "cuda" and not (device.type in ("cpu", "meta") and interpreted):
        raise ModelError(
            f"backend is 'triton' but the model is on {device}: its kernels run on CUDA; use backend=auto. (Tests run "
            "them on a CPU in Triton's interpreter, with TRITON_INTERPRET=1 in the environment before Python starts)"
        )
    if device.type == "cuda" and not interpreted and not _has_compiler():
        raise ModelError(
            "backend is 'triton', which needs a C compiler to start its kernels, and there is none; install gcc (or "
            "name another one in the environment variable CC), or use backend=dense"
        )


def convolve_triton(rows: Tensor, weight: Tensor, sites: Sites) -> tuple[Tensor, Count]:
    """One convolution of compact rows: they are put into their maps and read out of them again.

    A whole stage does without both, see `models.layers.sparse.masked`. The multiply-adds are those of pairs of active
    sites, without what tiles add.
    """
    from models.triton_kernels.convolve import convolve_sites
    from models.triton_kernels.tables import Tables, make_tables

    tables = sites.backend_tables.get("triton")
    if not isinstance(tables, Tables):
        sites.backend_tables["triton"] = tables = make_tables(sites.active)
    dense = SparseMap(rows, sites).dense().permute(0, 2, 3, 1).flatten(0, 2)
    out, _ = convolve_sites(dense, weight, tables)
    pairs = tables.totals[1].double()
    return out.index_select(0, sites.flat), pairs * (weight.shape[0] * weight.shape[1])


def _has_compiler() -> bool:
    return any(map(shutil.which, filter(None, (os.environ.get("CC"), "gcc", "clang"))))


def _import_kernels() -> bool:
    """Import the kernels; return True if they are interpreted.

    Raises:
        ModelError: a Triton that cannot be imported.
    """
    try:
        from models.triton_kernels.launch import INTERPRETED
    # A build for another Python or system fails in more ways than ImportError.
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        raise ModelError(
            f"backend is 'triton', and triton cannot be imported ({error}); install the version that this torch asks "
            "for, or use backend=dense"
        ) from error
    return INTERPRETED
