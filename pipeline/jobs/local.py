"""Jobs over processes of this machine; one that dies or takes too long costs its own job and not the run."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

from pebble import ProcessExpired, ProcessPool

from data_tools.processes import end_with_parent

Job = TypeVar("Job")
Result = TypeVar("Result")


DIED = "worker:died"
TIMED_OUT = "worker:time"


@dataclass(frozen=True)
class Lost(Generic[Job]):
    """In place of a result: the job did not finish. reason, detail: a code and a sentence, as a reject has them."""

    job: Job
    reason: str
    detail: str


def died(job: Job) -> Lost[Job]:
    """The job was lost with two workers, the second of which had it alone."""
    return Lost(job, DIED, "the process that worked on it died twice (out of memory, or a crash in a codec)")


def timed_out(job: Job, limit_s: float) -> Lost[Job]:
    """The worker that had the job was ended after `limit_s` seconds."""
    return Lost(
        job, TIMED_OUT, f"it was not done after {limit_s:.0f} s, its limit; raise --time-limit-s if it only was slow"
    )


def run_in_processes(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    workers: int | None,
    preload: str,
    limit_s: Callable[[Job], float] | None = None,
) -> Iterator[tuple[Job, Result | Lost[Job]]]:
    """With one worker everything runs in this process, so that a debugger and a profiler see it; without limits.

    workers: None for one on each core, in processes of their own even on one core.
    A job whose worker died is tried again at the end, when it has the machine for itself.
    """
    if workers == 1:
        for job in jobs:
            yield job, function(job)
        return
    if not jobs:
        return
    with _processes(min(workers or available_cores(), len(jobs)), preload) as pool:
        suspects = []
        # Twice as many as there are workers, so that none waits for this process.
        for job, result in _results(pool, function, jobs, 2 * (workers or available_cores()), limit_s):
            if isinstance(result, Lost) and result.reason == DIED:
                suspects.append(job)
            else:
                yield job, result
        yield from _results(pool, function, suspects, 1, limit_s)


@contextmanager
def _processes(workers: int, preload: str) -> Iterator[ProcessPool]:
    """A pool of processes, forked from a server without threads; all of them are gone when the block is left."""
    context = multiprocessing.get_context("forkserver")
    if threading.current_thread() is threading.main_thread():
        context.set_forkserver_preload([preload])
    pool = ProcessPool(workers, initializer=end_with_parent, context=context)
    try:
        yield pool
    finally:
        pool.stop()
        pool.join()


def _results(
    pool: ProcessPool,
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    most: int,
    limit_s: Callable[[Job], float] | None,
) -> Iterator[tuple[Job, Result | Lost[Job]]]:
    """As they finish; `most` jobs are handed to the pool at once. Time counts from when a worker takes the job."""
    waiting = iter(jobs)
    running: dict[Future[Result], tuple[Job, float | None]] = {}
    while True:
        for job in islice(waiting, most - len(running)):
            limit = limit_s(job) if limit_s else None
            running[pool.schedule(function, [job], timeout=limit)] = job, limit
        if not running:
            return
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            job, limit = running.pop(future)
            try:
                result: Result | Lost[Job] = future.result()
            except ProcessExpired:
                result = died(job)
            except TimeoutError as error:
                # A file server that does not answer raises one too, with a number in it.
                if limit is None or isinstance(error.errno, int):
                    raise
                result = timed_out(job, limit)
            yield job, result


def available_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
