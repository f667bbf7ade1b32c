"""One job of `make gpu-test`, in a process of its own: a fault of one leaves the others alone.

`python -m benchmarks.gpu.worker JOB --rows FILE` writes a JSON object a line, as soon as it is known.
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

from benchmarks.cases import Case, Run, device_name
from benchmarks.gpu.plan import SIZES, Job, Sizes, from_store, not_measured, plan
from benchmarks.models.steps import row_of, seconds_of
from benchmarks.rows import measured_on, today
from data_tools.batch import Batch
from pipeline.counting.noise import random_batch

_WARM_UP = 2


def model_rows(job: Job, sizes: Sizes, device: str) -> Iterator[dict[str, Any]]:
    """Times and peak memory of the planned cases; those of one work, batch, precision and mode run in turn.

    A case that this machine cannot run (a backend that is not installed, too little memory) gets its reason.
    """
    of_group = ("work", "batch", "precision", "mode")
    for values, planned in groupby(job.rows, key=lambda row: tuple(row[name] for name in of_group)):
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
                yield not_measured(row, _reason(error), today()) | measured_on(device_name(device))
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
    # FE2E has no backend to ask for.
    return case if case.top_p is not None else Case(**{**vars(case), "backend": "auto"})


def _warmed(case: Case, inputs: Batch, work: str) -> tuple[Run, int | None]:
    """Build a run and do its first steps; returns it and its peak of device memory above what was held before."""
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


def rows_of(job: Job, sizes: Sizes, device: str) -> Iterator[dict[str, Any]]:
    """Rows of one job, one after the other."""
    if job.kind == "models":
        yield from model_rows(job, sizes, device)
        return
    from benchmarks.gpu.epoch import epoch_from_store, epoch_in_memory

    settings = from_store(sizes).get(job.kind)
    for row in job.rows:
        about = row["batch"], row["precision"], sizes, device
        found = epoch_in_memory(*about) if settings is None else epoch_from_store(*about, settings)
        yield row | found | measured_on(device_name(device))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one job; see the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job")
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--sizes", choices=SIZES, default="full")
    given = parser.parse_args(arguments)
    sizes = SIZES[given.sizes]
    (job,) = (job for job in plan(sizes) if job.name == given.job)
    with given.rows.open("a", encoding="utf-8") as file:
        for row in rows_of(job, sizes, given.device):
            file.write(json.dumps(row) + "\n")
            file.flush()


if __name__ == "__main__":
    main()
