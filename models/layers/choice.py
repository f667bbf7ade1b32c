"""Which engine `auto` takes for a sparse convolution: the fastest in a short measurement, made once for its like.

What was found is kept in the process under a key of device, type, channels, number of sites, their density, and
whether gradients are made. Engines round differently, and a measurement may come out another way in another run:
`picked()` is what a program writes down, and `take_up()` reads it back, so that a repeated or resumed run takes the
same engines and comes out the same bit for bit.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from models.layers.sparse_map import Count, Sites

Engine = Callable[[Tensor, Tensor, Sites], tuple[Tensor, Count]]

# Dense multiply-adds below which nothing is measured: there it would cost more than it could ever bring.
WORTH_MEASURING = 2**24
# A measurement takes the first images of a map until there are so many sites; engines grow alike from there on.
_SITES = {"cpu": 2**11, "cuda": 2**17}
_REPEATS = 3
# The engine that is named first stays unless another one takes less than this share of its time.
_CLEARLY_FASTER = 0.95

_picked: dict[str, str] = {}
_used: set[str] = set()


def picked() -> dict[str, str]:
    """What `auto` took so far in this process or was given by `take_up`: kind of convolution -> engine."""
    return dict(_picked)


def used() -> set[str]:
    """The kinds of convolution that were come across since `start_over`."""
    return set(_used)


def start_over() -> None:
    """Another run begins: nothing is used yet. What was picked stays."""
    _used.clear()


def take_up(choices: Mapping[str, str]) -> None:
    """Take the engines in `choices` (of `picked`) from now on, instead of measuring; the last one given counts."""
    _picked.update(choices)


def forget() -> None:
    """Measure anew."""
    _picked.clear()
    _used.clear()


@torch.compiler.disable
def fastest(engines: Mapping[str, Engine], rows: Tensor, weight: Tensor, sites: Sites) -> str:
    """The name of the engine that is fastest for such rows (N, C), kernel (O, C, 3, 3) and sites on this machine.

    Of a choice taken up that names an engine which cannot run here, nothing is kept: it is measured anew.
    """
    backward = torch.is_grad_enabled() and (rows.requires_grad or weight.requires_grad)
    key = f"{_key(rows, weight, sites, backward)}, of {', '.join(engines)}"
    if _picked.get(key) not in engines:
        _picked[key] = _measured(engines, rows, weight, sites, backward)
    _used.add(key)
    return _picked[key]


def _key(rows: Tensor, weight: Tensor, sites: Sites, backward: bool) -> str:
    device = rows.device
    if device.type == "cuda":
        where = torch.cuda.get_device_name(device)
    else:
        where = f"cpu {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
    count = min(len(sites), _SITES[device.type]).bit_length()
    active = round(8 * len(sites) / sites.active.numel())
    joined = round(8 * sites.n_pairs.item() / (9 * len(sites)))
    out_channels, in_channels = weight.shape[:2]
    return (
        f"{where}, torch {torch.__version__}, {str(rows.dtype).removeprefix('torch.')}, {in_channels} to {out_channels}"
        f" channels, below 2^{count} sites, {active}/8 active, {joined}/8 of pairs, "
        + ("forward and backward" if backward else "forward")
    )


def _measured(engines: Mapping[str, Engine], rows: Tensor, weight: Tensor, sites: Sites, backward: bool) -> str:
    images = torch.searchsorted(sites.active.flatten(1).sum(1).cumsum(0), _SITES[rows.device.type]).item() + 1
    some = Sites(sites.active[: int(images)])
    rows = rows.detach()[: len(some)].clone().requires_grad_(backward)
    # In its own layout: channels_last stays channels_last.
    weight = weight.detach().clone().requires_grad_(backward)
    best: dict[str, float] = {}
    with torch.autocast(rows.device.type, enabled=False), torch.set_grad_enabled(backward):
        for turn in range(_REPEATS + 1):  # in turn, so that a busy moment hits them all; the first one warms up
            for name, engine in engines.items():
                seconds = _seconds(engine, rows, weight, some, backward)
                if turn:
                    best[name] = min(seconds, best.get(name, seconds))
    return _winner(best)


def _winner(seconds: Mapping[str, float]) -> str:
    name, least = next(iter(seconds.items()))
    for other, taken in seconds.items():
        if taken < _CLEARLY_FASTER * least:
            name, least = other, taken
    return name


def _seconds(engine: Engine, rows: Tensor, weight: Tensor, sites: Sites, backward: bool) -> float:
    wait: Callable[[], Any] = torch.cuda.synchronize if rows.is_cuda else lambda: None
    wait()
    started = time.perf_counter()
    out, _ = engine(rows, weight, sites)
    if backward:
        torch.autograd.grad(out, (rows, weight), torch.ones_like(out))
    wait()
    return time.perf_counter() - started
