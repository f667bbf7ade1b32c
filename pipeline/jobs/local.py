"""Jobs over processes of this machine; the death of one worker costs one job and not the run."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Generic, TypeVar

from data_tools.processes import end_with_parent

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Died(Generic[Job]):
    """In place of a result: the worker that had this job alone was killed (out of memory, a crash in a codec)."""

    job: Job


def run_in_processes(
    function: Callable[[Job], Result], jobs: Sequence[Job], workers: int, preload: str
) -> Iterator[tuple[Job, Result | Died[Job]]]:
    """With one worker everything runs in this process, so that a debugger and a profiler see it.

    A killed worker takes its whole pool along; each job that was under way then is tried again in a pool of its own.
    """
    if workers == 1 or len(jobs) <= 1:
        for job in jobs:
            yield job, function(job)
        return
    context = multiprocessing.get_context("forkserver")
    if threading.current_thread() is threading.main_thread():
        context.set_forkserver_preload([preload])
    left = list(jobs)
    suspects: list[Job] = []
    while left:
        done: list[int] = []
        running: dict[Future[Result], int] = {}
        position = 0
        with ProcessPoolExecutor(min(workers, len(left)), context, end_with_parent) as pool:
            try:
                while position < len(left) or running:
                    # A short queue: what is not under way when a worker dies needs no second trial.
                    while position < len(left) and len(running) < workers:
                        running[pool.submit(function, left[position])] = position
                        position += 1
                    finished, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in finished:
                        result = future.result()
                        index = running.pop(future)
                        done.append(index)
                        yield left[index], result
            except BrokenProcessPool:
                suspects += [left[index] for index in running.values()]
                done += running.values()
        left = [job for index, job in enumerate(left) if index not in set(done)]
    for job in suspects:
        with ProcessPoolExecutor(1, context, end_with_parent) as pool:
            try:
                yield job, pool.submit(function, job).result()
            except BrokenProcessPool:
                yield job, Died(job)


def available_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
