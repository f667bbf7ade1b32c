"""Independent tasks over processes or machines; the death of one worker costs one task and not the run."""

import multiprocessing
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from data_tools.processes import end_with_parent
from pipeline.settings import LOCAL, available_cores

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Died(Generic[Task]):
    """In place of a result: the worker that had this task alone was killed (out of memory, a crash in a codec)."""

    task: Task


def run_tasks(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    workers: int | None,
    preload: str,
    executor: str = LOCAL,
    *,
    reads: Path | None = None,
    writes: Path | None = None,
    on_gpu: bool = False,
) -> Iterator[tuple[Task, Result | Died[Task]]]:
    """(task, result) as they finish, in any order. Exceptions of `function` are raised here.

    Nothing is started before the first result is asked for; only that a Ray cluster answers is checked at once.
    A task whose worker was killed is tried once more; only one that kills a second worker is given up.

    function, tasks: must be picklable. workers: most tasks at once; None for one on each core, of all machines.
    preload: the module that local workers import once, before they are forked from a server process without threads.
    executor: `local`, or `ray` or `ray:ADDRESS` for a Ray cluster. Its nodes must have this project installed and see
    the folder `reads` and the folder `writes` under the same paths, absolute ones. on_gpu: on Ray each task gets a GPU.

    Raises:
        ConfigError: with Ray: no such cluster, or a node that lacks a folder, the GPU or the same package versions.
        DataError: the Ray cluster broke down.
    """
    if executor == LOCAL:
        return _run_here(function, tasks, workers or available_cores(), preload)
    if not tasks:
        return iter(())
    from pipeline.jobs.ray_cluster import check_cluster, run_on_ray  # Ray is an extra

    address = executor.partition(":")[2] or None
    check_cluster(address)
    return run_on_ray(function, tasks, address, workers, reads, writes, on_gpu)


def _run_here(
    function: Callable[[Task], Result], tasks: Sequence[Task], workers: int, preload: str
) -> Iterator[tuple[Task, Result | Died[Task]]]:
    """With one worker everything runs in this process, so that a debugger and a profiler see it.

    A killed worker takes its whole pool along; each task that was under way then is tried again in a pool of its own.
    """
    if workers == 1 or len(tasks) <= 1:
        for task in tasks:
            yield task, function(task)
        return
    context = multiprocessing.get_context("forkserver")
    if threading.current_thread() is threading.main_thread():
        context.set_forkserver_preload([preload])
    left = list(tasks)
    suspects: list[Task] = []
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
        left = [task for index, task in enumerate(left) if index not in set(done)]
    for task in suspects:
        with ProcessPoolExecutor(1, context, end_with_parent) as pool:
            try:
                yield task, pool.submit(function, task).result()
            except BrokenProcessPool:
                yield task, Died(task)
