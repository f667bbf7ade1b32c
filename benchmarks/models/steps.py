"""Time of a forward and of a training step, the models side by side, and the memory that a step takes."""

import gc
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.cases import SCOPES, WORKS, Case, Precision, Run, device_name
from benchmarks.peak_memory import with_peak
from benchmarks.rows import measured_on
from data_tools.batch import Batch
from models.layers.sparse.backends import computes_masked, resolve_backend
from models.layers.sparse.precision import compute_dtype
from models.layers.sparse.submanifold import SubmanifoldConv2d
from models.layers.vgg import SparseStage
from pipeline.counting.noise import random_batch
from pipeline.progress import Reporter

TOP_P = (0.5, 0.7, 0.9)
# Of each utterance: at batch 8 these are the 72 faces, 96 chunks and texts of the published figures.
FACES, CHUNKS, TOKENS = 9, 12, 50
# On CUDA a single step is short beside the wait for it: so many are started before one wait.
_STEPS_A_WAIT = 4
# The optimizer's state is there from the second step on.
_STEPS_TO_PEAK = 2


def bench_models(
    reporter: Reporter,
    batch: int = 8,
    faces: int = FACES,
    chunks: int = CHUNKS,
    tokens: int = TOKENS,
    top_p: tuple[float, ...] = TOP_P,
    repeats: int = 5,
    warm_up: bool = True,
    precision: Precision = "32-true",
    device: str = "cpu",
    scopes: tuple[str, ...] = tuple(SCOPES),
    peak_scopes: tuple[str, ...] = tuple(SCOPES),
    width: int = 64,
) -> list[dict[str, Any]]:
    """Rows of FE2E and of MESM at each `top_p`: forward and training step, of each scope.

    faces, chunks, tokens: of each utterance. The input is seeded noise and the weights are new, so the attention
    keeps about as many sites as at the start of a training. A forward is in evaluation mode, without gradients. A
    training step is forward, loss, backward and Adam. `median_s` and `min_s` are over `repeats`, after one that isn't
    timed if `warm_up`; `ratio_to_fe2e` is of medians. `backend` is the one of the sparse convolutions that ran; where
    layers took different ones, all of them. The whole model has a text encoder of albert-base-v2's sizes with
    random weights. scopes: keys of SCOPES. peak_scopes: those whose memory is measured, which takes a process a model.
    `peak_bytes` is the most memory that a fresh process held resident while it took two training steps, the
    interpreter and torch included; on CUDA it is the most that torch had allocated on the device.
    """
    inputs = random_batch(batch, faces, chunks, tokens).to(device)
    rows = []
    for scope in scopes:
        cases = [Case(scope, p, precision, device, width) for p in (None, *top_p)]
        peaks = {case: peak_of_steps(case, inputs) for case in cases if scope in peak_scopes}
        for work in WORKS:
            reporter.say(f"bench: {work}, {scope}, batch {batch}, {precision}, {repeats} times")
            rows += time_in_turn(cases, inputs, work, repeats, warm_up, peaks)
    return rows


def time_in_turn(
    cases: Sequence[Case],
    inputs: Batch,
    work: str,
    repeats: int,
    warm_up: bool = True,
    peaks: dict[Case, int] | None = None,
) -> list[dict[str, Any]]:
    """Rows of `cases`, timed in turn; the first one is FE2E, which the others are compared with."""
    runs = {case: Run(case, inputs) for case in cases}
    times = _times(runs, work, repeats, warm_up)
    base = statistics.median(times[cases[0]])
    peaks = (peaks or {}) if work == "training step" else {}
    return [row_of(case, work, len(inputs), times[case], base, peaks.get(case), runs[case]) for case in cases]


def _times(runs: dict[Case, Run], work: str, repeats: int, warm_up: bool) -> dict[Case, list[float]]:
    """Seconds of `work`, the cases in turn, so that a busy moment of the machine hits them all."""
    times: dict[Case, list[float]] = {case: [] for case in runs}
    for turn in range(repeats + warm_up):
        for case, run in runs.items():
            seconds = seconds_of(run, work)
            if turn >= warm_up:
                times[case].append(seconds)
    return times


def seconds_of(run: Run, work: str) -> float:
    """Seconds of one forward or one training step, with nothing else under way."""
    count = _STEPS_A_WAIT if run.kind == "cuda" else 1
    run.wait()
    started = time.perf_counter()
    for _ in range(count):
        run.do(work)
    run.wait()
    return (time.perf_counter() - started) / count


def peak_of_steps(case: Case, inputs: Batch) -> int:
    """Peak of memory in bytes of training steps of this model alone; see `bench_models`."""
    if torch.device(case.device).type == "cpu":
        _, resident = with_peak(_steps, case, inputs, torch.get_num_threads())
        return resident
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    _steps(case, inputs, torch.get_num_threads())
    return int(torch.cuda.max_memory_allocated())


def _steps(case: Case, inputs: Batch, threads: int) -> None:
    torch.set_num_threads(threads)
    run = Run(case, inputs)
    for _ in range(_STEPS_TO_PEAK):
        run.do("training step")
    run.wait()


def row_of(
    case: Case, work: str, batch: int, times: Sequence[float], base: float | None, peak: int | None, run: Run
) -> dict[str, Any]:
    """Row of one case. times: seconds, at least one. base: FE2E's median in the same run, None for none."""
    median = statistics.median(times)
    return {
        "work": f"{work}, {case.scope}",
        "model": case.name,
        "top_p": case.top_p,
        "batch": batch,
        "precision": case.precision,
        "asked": "dense" if case.top_p is None else case.backend,
        "mode": case.mode,
        "backend": backends_used(run, work),
        "median_s": round(median, 6),
        "min_s": round(min(times), 6),
        "repeats": len(times),
        "ratio_to_fe2e": None if base is None else round(median / base, 3),
        "peak_bytes": peak,
    } | measured_on(device_name(case.device))


def backends_used(run: Run, work: str) -> str:
    """Backends of the sparse convolutions in one more forward or training step, e.g. `native, torch`.

    `dense` for a model without any; the one that was asked for where the model is not run eagerly.
    """
    used: set[str] = set()

    def note_stage(stage: SparseStage, args: tuple[Any, ...]) -> None:
        if computes_masked(stage.backend, args[0].features):
            used.add("triton")

    def note(layer: SubmanifoldConv2d, args: tuple[Any, ...]) -> None:
        rows: Tensor = args[0].features
        used.add(resolve_backend(layer.backend, rows.to(compute_dtype(rows)), args[0].sites))

    layers = [layer for layer in run.model.modules() if isinstance(layer, SubmanifoldConv2d)]
    if not layers:
        return "dense"
    if run.case.mode != "eager":  # a hook would be compiled into it
        return run.case.backend
    stages = [stage for stage in run.model.modules() if isinstance(stage, SparseStage)]
    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    hooks += [stage.register_forward_pre_hook(note_stage) for stage in stages]
    try:
        run.do(work)
    finally:
        for hook in hooks:
            hook.remove()
    return ", ".join(sorted(used))
