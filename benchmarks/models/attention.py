"""Share of MESM's training step that its attention and top-p take."""

import statistics
import time
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.cases import Case, Precision, Run, device_name
from benchmarks.models.steps import CHUNKS, FACES, TOKENS, seconds_of
from benchmarks.rows import measured_on
from models.layers.sparse.attention import CrossModalAttention
from models.layers.sparse.sparse_map import Sites, SparseMap
from pipeline.counting.noise import random_batch
from pipeline.progress import Reporter


def attention_rows(
    reporter: Reporter,
    batch: int = 8,
    top_p: tuple[float, ...] = (0.5, 0.7),
    repeats: int = 5,
    precision: Precision = "32-true",
    device: str = "cpu",
    scopes: tuple[str, ...] = ("towers only", "whole model"),
    width: int = 64,
    faces: int = FACES,
    chunks: int = CHUNKS,
) -> list[dict[str, Any]]:
    """Rows of `attention and top-p`: seconds of that part alone beside a whole training step, in turn, and the share.

    The part is what every attention layer of the step does with the maps and queries that it got there: eq. 1 to 4 of
    the paper forward, the kept rows gathered, and backward through all of it. Tables of sites are made anew, also those
    that later layers would use too: the share is rather too large than too small.
    """
    rows = []
    inputs = random_batch(batch, faces, chunks, TOKENS).to(device)
    for scope in scopes:
        for p in top_p:
            reporter.say(f"bench: attention and top-p, {scope}, p {p}, batch {batch}, {precision}, {repeats} times")
            run = Run(Case(scope, p, precision, device, width), inputs)
            layers = _with_arguments(run)
            parts, steps = [], []
            for turn in range(repeats + 1):
                step, part = seconds_of(run, "training step"), _seconds_alone(run, layers)
                if turn > 0:
                    steps.append(step)
                    parts.append(part)
            median, step = statistics.median(parts), statistics.median(steps)
            rows.append(
                {
                    "work": f"attention and top-p, {scope}",
                    "model": "mesm",
                    "top_p": p,
                    "batch": batch,
                    "precision": precision,
                    "median_s": round(median, 6),
                    "step_s": round(step, 6),
                    "share_of_step": round(median / step, 4),
                    "repeats": repeats,
                }
                | measured_on(device_name(device))
            )
    return rows


def _with_arguments(run: Run) -> list[tuple[CrossModalAttention, tuple[Any, ...]]]:
    """Every attention layer with its arguments in one training step, cut off from the step's gradients."""
    found: list[tuple[CrossModalAttention, tuple[Any, ...]]] = []

    def note(layer: nn.Module, args: tuple[Any, ...]) -> None:
        assert isinstance(layer, CrossModalAttention)
        found.append((layer, tuple(_leaf(value) for value in args)))

    layers = [layer for layer in run.model.modules() if isinstance(layer, CrossModalAttention)]
    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    run.do("training step")
    for hook in hooks:
        hook.remove()
    return found


def _leaf(value: Any) -> Any:
    if isinstance(value, SparseMap):
        return replace(value, features=_leaf(value.features))
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.detach().requires_grad_()
    return value


def _seconds_alone(run: Run, layers: list[tuple[CrossModalAttention, tuple[Any, ...]]]) -> float:
    for layer, args in layers:
        # As at the start of a step: nothing is added to gradients of the turn before.
        for value in (*layer.parameters(), *(v.features if isinstance(v, SparseMap) else v for v in args)):
            if isinstance(value, Tensor):
                value.grad = None
    run.wait()
    started = time.perf_counter()
    for layer, args in layers:
        # The tables that a map made of its sites are kept with them, so the sites have to be new.
        fresh = [
            replace(value, sites=Sites(value.sites.active)) if isinstance(value, SparseMap) else value for value in args
        ]
        with run.autocast():
            kept = layer(*fresh).kept.features
        torch.autograd.backward(kept, torch.ones_like(kept))
    run.wait()
    return time.perf_counter() - started
