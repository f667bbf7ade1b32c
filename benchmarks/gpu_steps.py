"""The steps of `make gpu-test`, each in a process of its own: a fault of one leaves the others alone.

`python -m benchmarks.gpu_steps STEP --rows FILE` writes a JSON object a line, as soon as it is known.
"""

import argparse
import gc
import json
import statistics
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from benchmarks.cases import Case, Run, where
from benchmarks.gpu_plan import SIZES, Sizes, Step, from_store, not_measured, plan
from benchmarks.models import row_of, seconds_of
from data_tools.batch import Batch
from pipeline.counting.noise import random_batch

_WARM_UP = 2


def model_rows(step: Step, sizes: Sizes, device: str) -> Iterator[dict[str, Any]]:
    """Times and peak memory of the planned cases; those of one work, batch, precision and mode run in turn.

    A case that this machine cannot run (an engine that is not installed, too little memory) gets its reason.
    """
    of_group = ("work", "batch", "precision", "mode")
    for values, planned in groupby(step.rows, key=lambda row: tuple(row[name] for name in of_group)):
        full, batch, _, mode = values
        work, _, scope = full.partition(", ")
        inputs = random_batch(batch, sizes.faces, sizes.chunks, sizes.tokens).to(device)
        runs: dict[int, Run] = {}
        peaks: dict[int, int | None] = {}
        rows = list(planned)
        for number, row in enumerate(rows):
            case = Case(scope, row["top_p"], row["precision"], device, sizes.width, row["asked"], mode)
            try:
                runs[number], peaks[number] = _warmed(_with_default(case), inputs, work)
            # Whatever a case fails with, a fault of torch's compiler included, the others are to be measured.
            except Exception as error:
                yield not_measured(row, _reason(error), where(device)["date"]) | where(device)
        times: dict[int, list[float]] = {number: [] for number in runs}
        for _ in range(sizes.repeats):
            for number, run in runs.items():
                times[number].append(seconds_of(run, work))
        base = next((statistics.median(times[n]) for n in runs if rows[n]["top_p"] is None), None)
        for number, run in runs.items():
            yield row_of(run.case, work, batch, times[number], base, peaks[number], run)
        runs.clear()
        _forget(device)


def _with_default(case: Case) -> Case:
    # FE2E has no engine to ask for.
    return case if case.top_p is not None else Case(**{**vars(case), "backend": "auto"})


def _warmed(case: Case, inputs: Batch, work: str) -> tuple[Run, int | None]:
    """The run after its first steps, and the most memory of the device that it took beside what was held before."""
    on_gpu = torch.device(case.device).type == "cuda"
    before = 0
    if on_gpu:
        _forget(case.device)
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
    run = Run(case, inputs)
    for _ in range(_WARM_UP):
        run.do(work)
    run.wait()
    return run, torch.cuda.max_memory_allocated() - before if on_gpu else None


def _forget(device: str) -> None:
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"[:300]


def rows_of(step: Step, sizes: Sizes, device: str) -> Iterator[dict[str, Any]]:
    """The rows of one step, one after the other."""
    if step.kind == "models":
        yield from model_rows(step, sizes, device)
        return
    from benchmarks.epoch import epoch_from_store, epoch_in_memory

    settings = from_store(sizes).get(step.kind)
    for row in step.rows:
        about = row["batch"], row["precision"], sizes, device
        found = epoch_in_memory(*about) if settings is None else epoch_from_store(*about, settings)
        yield row | found | where(device)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one step; see the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step")
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--sizes", choices=SIZES, default="full")
    given = parser.parse_args(arguments)
    sizes = SIZES[given.sizes]
    (step,) = (step for step in plan(sizes) if step.name == given.step)
    with given.rows.open("a", encoding="utf-8") as file:
        for row in rows_of(step, sizes, given.device):
            file.write(json.dumps(row) + "\n")
            file.flush()


if __name__ == "__main__":
    main()
