"""Least time that a step could take on this machine: its multiply-adds or its bytes, each at full speed."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from benchmarks.cases import SCOPES, WORKS, Case, Precision, Run, device_name
from benchmarks.models.steps import CHUNKS, FACES, TOKENS
from benchmarks.rows import measured_on
from data_tools.batch import Batch
from models.layers.sparse.submanifold import SubmanifoldConv2d
from models.layers.tower import Tower
from models.layers.vgg import DenseConv2d
from pipeline.counting.noise import random_batch
from pipeline.progress import Reporter

_TYPES = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
# Side of the square matrices and bytes of the copied array: far more than a call costs, more than most caches hold.
_SIDE = {"cpu": 2048, "cuda": 8192}
_COPIED_BYTES = 2**29
_REPEATS = 10
# How often each output of a convolution moves at the least. Forward: written, and read by what follows; batch norm
# needs the whole of it before it can begin. Backward: it and its gradient are read, the gradient is written.
_MOVES = {"forward": 2, "training step": 5}
# The weights are read; a training step also writes and reads their gradients and reads and writes weights and Adam's
# two averages, all in float32.
_WEIGHT_MOVES = {"forward": 1, "training step": 9}


@dataclass(frozen=True)
class Work:
    """Least work of one forward or training step. macs: multiply-adds. moved: bytes."""

    macs: float
    moved: float


def floor_rows(
    reporter: Reporter,
    batches: tuple[int, ...] = (8, 32),
    top_p: tuple[float, ...] = (0.5, 0.7),
    precisions: tuple[Precision, ...] = ("32-true", "bf16-mixed"),
    scopes: tuple[str, ...] = tuple(SCOPES),
    device: str = "cpu",
    width: int = 64,
    faces: int = FACES,
    chunks: int = CHUNKS,
) -> list[dict[str, Any]]:
    """Rows of the least time of FE2E's and MESM's forward and training step; see `least_work`.

    `floor_s` is the larger of `macs` over the peak rate of matrix products and `bytes` over the bandwidth, both the
    best of a few measurements just before: measure on a quiet machine, or the floor is too high.
    `peak_gflops` counts two operations a multiply-add.
    """
    reporter.say("bench: floors")
    bandwidth = bandwidth_gb_s(device)
    peaks = {precision: peak_gflops(_TYPES[precision], device) for precision in precisions}
    rows = []
    for batch in batches:
        inputs = random_batch(batch, faces, chunks, TOKENS).to(device)
        for scope in scopes:
            for p in (None, *top_p):
                case = Case(scope, p, "32-true", device, width, "torch")
                run = Run(case, inputs)
                for work in WORKS:
                    for precision in precisions:
                        todo = least_work(run, work, _TYPES[precision])
                        floor = max(2 * todo.macs / (peaks[precision] * 1e9), todo.moved / (bandwidth * 1e9))
                        row = {"work": f"{work}, {scope}", "model": case.name, "top_p": p, "batch": batch}
                        row |= {"precision": precision, "floor_s": round(floor, 6), "macs": todo.macs}
                        row |= {"bytes": todo.moved, "peak_gflops": round(peaks[precision], 1)}
                        rows.append(row | {"bandwidth_gb_s": round(bandwidth, 1)} | measured_on(device_name(device)))
    return rows


def least_work(run: Run, work: str, dtype: torch.dtype) -> Work:
    """Least work of a forward or training step on the inputs of `run`, whose model is counted in one forward pass.

    Multiply-adds are those that the layers count (sparse convolutions: over pairs of active sites). Backward does each
    twice, without the gradient of the images, of the attention's features, which are given to it without their
    history, and of nothing else. Bytes are those of the weights and of every convolution's output in the towers, in
    the type of the precision.
    """
    moved = 0
    hooks = []

    def note(_layer: nn.Module, _args: Any, out: Any) -> None:
        nonlocal moved
        moved += out.features.numel()

    for layer in run.model.modules():
        if isinstance(layer, (DenseConv2d, SubmanifoldConv2d)):
            hooks.append(layer.register_forward_hook(note))
    run.model.eval()
    with torch.no_grad():
        computed = {key: float(value) for key, value in run.model(run.inputs).computed.items()}
    for hook in hooks:
        hook.remove()
    macs = sum(value for key, value in computed.items() if key.endswith(".macs"))
    if work == "training step":
        constant = sum(value for key, value in computed.items() if key.endswith(".macs.attention"))
        macs = 3 * macs - constant - _first_layers(run.model, run.inputs)
    weights = sum(parameter.numel() for parameter in run.model.parameters())
    return Work(macs, moved * _MOVES[work] * dtype.itemsize + 4 * weights * _WEIGHT_MOVES[work])


def _first_layers(model: nn.Module, inputs: Batch) -> float:
    """Multiply-adds of each tower's first convolution."""
    sites = {name: images.shape[0] * images.shape[2] * images.shape[3] for name, images in _images(inputs).items()}
    towers = model.towers
    assert isinstance(towers, nn.ModuleDict)
    return sum(
        float(sites[name] * tower.stem.conv.weight.numel())
        for name, tower in towers.items()
        if isinstance(tower, Tower)
    )


def _images(inputs: Batch) -> dict[str, torch.Tensor]:
    return {"face": inputs.faces, "mel": inputs.chunks}


def peak_gflops(dtype: torch.dtype, device: str = "cpu") -> float:
    """Rate of one large matrix product, in 1e9 operations a second, two a multiply-add; the best of a few."""
    side = _SIDE[torch.device(device).type]
    left, right = (torch.ones(side, side, dtype=dtype, device=device) for _ in range(2))
    return 2 * side**3 / _least_seconds(lambda: left @ right, device) / 1e9


def bandwidth_gb_s(device: str = "cpu") -> float:
    """Rate of copying one large array, in 1e9 bytes a second, read and written both counted; the best of a few."""
    source = torch.zeros(_COPIED_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * _COPIED_BYTES / _least_seconds(lambda: target.copy_(source), device) / 1e9


def _least_seconds(do: Callable[[], Any], device: str) -> float:
    wait = torch.cuda.synchronize if torch.device(device).type == "cuda" else lambda: None
    least_s = float("inf")
    for _ in range(_REPEATS):
        wait()
        started = time.perf_counter()
        do()
        wait()
        least_s = min(least_s, time.perf_counter() - started)
    return least_s
