"""Submanifold convolution by the kernels in C, with gradients: the backend `native`."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from models.errors import ModelError
from models.layers.sparse.sparse_map import Count, Sites
from models.native.build import PANEL_ROOM, is_available, library
from models.native.call import c_longs, empty_output, pointer_to

# Channels and outputs are filled up with zeros to a multiple of that.
_MULTIPLE = {torch.float32: 16, torch.bfloat16: 32}
_SUFFIX = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


def native_is_supported(device: torch.device, dtype: torch.dtype) -> bool:
    """Return True if rows of this type can be convolved here: float32 or bfloat16, on a CPU, kernels compiled."""
    return device.type == "cpu" and dtype in _MULTIPLE and is_available()


def check_supported(device: torch.device, dtype: torch.dtype) -> None:
    """Raise ModelError where `native_is_supported` is False; the message says why."""
    if device.type != "cpu" or dtype not in _MULTIPLE:
        raise ModelError(
            f"backend is 'native' but the features are {dtype} on {device}: its kernels know float32 and "
            "bfloat16 on a CPU; use backend=auto or torch"
        )
    library()  # raises where it is missing


def _has_tiles() -> bool:
    """Return True if the processor has matrix tiles (AMX), which the kernels for bfloat16 need."""
    return bool(library().has_bfloat16())


def convolve_native(rows: Tensor, weight: Tensor, sites: Sites) -> tuple[Tensor, Count]:
    """Products over pairs of active sites, added up in registers; bfloat16: over the neighbours of 16 sites at a time.

    weight: also float32 beside bfloat16 rows: the kernels round it, and its gradient stays float32. The multiply-adds
    are those really done, zeros in tiles included. On a processor without tiles, bfloat16 is computed in float32 and
    rounded: with AVX-512 that takes half the time of plain torch in bfloat16.
    """
    if rows.dtype == torch.bfloat16 and not _has_tiles():
        out, macs = convolve_native(rows.float(), weight.float(), sites)
        return out.to(rows.dtype), macs
    done = [0]
    out = NativeConvolution.apply(rows, weight, sites, done)
    multiplied = int(sites.n_pairs) if rows.dtype == torch.float32 else done[0]
    return out, float(multiplied * weight.shape[0] * weight.shape[1])


class NativeConvolution(Function):
    """(N, C) rows, float32 or bfloat16, and an (O, C, 3, 3) kernel -> (N, O) rows of their type; on a CPU."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, sites: Sites, done: list[int]) -> Tensor:
        """See `convolve_native`; done[0] becomes what the kernel returns, in bfloat16 the rows that were multiplied.

        Keeps rows and weight, nothing else.
        """
        ctx.save_for_backward(rows, weight)
        ctx.sites = sites
        return _convolve(rows, _by_output(weight), sites, False, done)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        """The gradient of the rows is the same convolution with the kernel turned round."""
        rows, weight = ctx.saved_tensors
        grad_rows = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_rows = _convolve(grad_out, _by_output(weight), ctx.sites, True, [0])
        if ctx.needs_input_grad[1]:
            grad_weight = _weight_gradient(rows, grad_out, ctx.sites).to(weight.dtype).permute(0, 3, 1, 2)
        return grad_rows, grad_weight, None, None


def _convolve(rows: Tensor, weight: Tensor, sites: Sites, turned: bool, done: list[int]) -> Tensor:
    """(N, O) of rows (N, C) and weight (O, 3, 3, C) float32; turned: (N, C) of rows (N, O)."""
    outputs = weight.shape[3] if turned else weight.shape[0]
    multiple = _MULTIPLE[rows.dtype]
    rows, weight = _filled(rows, 1, multiple), _filled(_filled(weight, 0, multiple), 3, multiple)
    size = weight.shape[3] if turned else weight.shape[0]
    if not len(rows):
        return rows.new_zeros(0, outputs)
    kernels, suffix, threads = library(), _SUFFIX[rows.dtype], torch.get_num_threads()
    packed = rows.new_empty(9 * rows.shape[1] * (-(-size // PANEL_ROOM) * PANEL_ROOM))
    pack = getattr(kernels, f"pack_{suffix}")
    pack(*c_longs(weight.shape[0], weight.shape[3]), int(turned), pointer_to(weight), pointer_to(packed), threads)
    out = rows.new_empty(len(rows), size)
    convolve = getattr(kernels, f"convolve_{suffix}")
    shape = c_longs(len(rows), rows.shape[1], size)
    done[0] = convolve(
        *shape, pointer_to(rows), pointer_to(packed), pointer_to(_neighbours(sites)), pointer_to(out), threads
    )
    return out if size == outputs else out[:, :outputs].contiguous()


def _weight_gradient(rows: Tensor, grad: Tensor, sites: Sites) -> Tensor:
    """(O, 3, 3, C) float32."""
    outputs, channels = grad.shape[1], rows.shape[1]
    multiple = _MULTIPLE[rows.dtype]
    rows, grad = _filled(rows, 1, multiple), _filled(grad, 1, multiple)
    out = empty_output(grad.shape[1], 3, 3, rows.shape[1]).zero_()
    if len(rows):
        threads = torch.get_num_threads()
        shape = c_longs(len(rows), rows.shape[1], grad.shape[1])
        read = pointer_to(rows), pointer_to(grad), pointer_to(_neighbours(sites))
        if rows.dtype == torch.float32:
            library().weight_gradient_float32(*shape, *read, pointer_to(out), threads)
        else:
            turned = rows.new_empty((len(rows) + 31) // 32 * 32, grad.shape[1])
            library().weight_gradient_bfloat16(*shape, *read, pointer_to(turned), pointer_to(out), threads)
    return out[:outputs, :, :, :channels]


def _by_output(weight: Tensor) -> Tensor:
    """(O, 3, 3, C) float32 of (O, C, 3, 3), without a copy where it is channels_last."""
    return weight.permute(0, 2, 3, 1).float()


def _filled(values: Tensor, dim: int, multiple: int) -> Tensor:
    """Contiguous, with zeros behind `dim` up to a multiple."""
    lacking = -values.shape[dim] % multiple
    if not lacking:
        return values.contiguous()
    return F.pad(values, (0, 0) * (values.ndim - 1 - dim) + (0, lacking))


def _neighbours(sites: Sites) -> Tensor:
    """`sites.neighbours` as (N, 9) int32, made once."""
    table = sites.backend_tables.get("native")
    if not isinstance(table, Tensor):
        active = sites.active.contiguous()
        table = empty_output(len(sites), 9, dtype=torch.int32)
        shape = c_longs(*active.shape)
        library().find_neighbours(
            *shape, pointer_to(active), pointer_to(sites.first), pointer_to(table), torch.get_num_threads()
        )
        sites.backend_tables["native"] = table
    return table
