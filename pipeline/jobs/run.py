"""Independent jobs, such as the dialogues of a corpus, over processes of this machine or over a Ray cluster."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from pipeline.jobs.local import Died, available_cores, run_in_processes
from pipeline.settings import LOCAL

Job = TypeVar("Job")
Result = TypeVar("Result")


def run_jobs(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    workers: int | None,
    preload: str,
    executor: str = LOCAL,
    *,
    reads: Path | None = None,
    writes: Path | None = None,
    on_gpu: bool = False,
) -> Iterator[tuple[Job, Result | Died[Job]]]:
    """(job, result) as they finish, in any order. Exceptions of `function` are raised here.

    Nothing is started before the first result is asked for; only that a Ray cluster answers is checked at once.
    A job whose worker was killed is tried once more; only one that kills a second worker is given up.

    function, jobs: must be picklable. workers: most jobs at once; None for one on each core, of all machines.
    preload: the module that local workers import once, before they are forked from a server process without threads.
    executor: `local`, or `ray` or `ray:ADDRESS` for a Ray cluster. Its nodes must have this project installed and see
    the folder `reads` and the folder `writes` under the same paths, absolute ones. on_gpu: on Ray each job gets a GPU.

    Raises:
        ConfigError: with Ray: no such cluster, or a node that lacks a folder, the GPU or the same package versions.
        DataError: the Ray cluster broke down.
    """
    if executor == LOCAL:
        return run_in_processes(function, jobs, workers or available_cores(), preload)
    if not jobs:
        return iter(())
    from pipeline.jobs.ray_cluster import check_cluster, run_on_ray  # Ray is an extra

    address = executor.partition(":")[2] or None
    check_cluster(address)
    return run_on_ray(function, jobs, address, workers, reads, writes, on_gpu)
