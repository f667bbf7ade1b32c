"""Independent jobs, such as the dialogues of a corpus, over processes of this machine or over a Ray cluster."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pandas as pd

from data_tools.errors import DataError
from data_tools.files import refuse_links, sweep
from data_tools.tensor_file import delete_ours
from pipeline.jobs.local import Lost, run_in_processes
from pipeline.progress import Reporter, Work
from pipeline.settings import LOCAL

Job = TypeVar("Job")
Result = TypeVar("Result")

# The slowest thing done to media, words by a large model on one core, takes about five times as long as they last.
TIMES_REAL_TIME = 30.0


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
    limit_s: Callable[[Job], float] | None = None,
) -> Iterator[tuple[Job, Result | Lost[Job]]]:
    """(job, result) as they finish, in any order. Exceptions of `function` are raised here.

    Nothing is started before the first result is asked for; only that a Ray cluster answers is checked at once.
    A job whose worker was killed is tried once more; only one that kills a second worker is given up.

    function, jobs: must be picklable. workers: most jobs at once; None for one on each core, of all machines.
    preload: the module that local workers import once, before they are forked from a server process without threads.
    executor: `local`, or `ray` or `ray:ADDRESS` for a Ray cluster. Its nodes must have this project installed and see
    the folder `reads` and the folder `writes` under the same paths, absolute ones. on_gpu: on Ray each job gets a GPU.
    limit_s: seconds after which a job is given up, the others go on; with `workers` 1 nobody watches over them.

    Raises:
        ConfigError: with Ray: no such cluster, or a node that lacks a folder, the GPU or the same package versions.
        DataError: the Ray cluster broke down.
    """
    if executor == LOCAL:
        return run_in_processes(function, jobs, workers, preload, limit_s)
    if not jobs:
        return iter(())
    from pipeline.jobs.ray_cluster import check_cluster, run_on_ray  # Ray is an extra

    address = executor.partition(":")[2] or None
    check_cluster(address)
    return run_on_ray(function, jobs, address, workers, reads, writes, on_gpu, limit_s)


def time_limit(fixed_s: float, media_s: float) -> float:
    """Seconds that a job may take: `fixed_s`, and TIMES_REAL_TIME times the `media_s` seconds of its media."""
    return fixed_s + TIMES_REAL_TIME * media_s


def check_lost(lost: Mapping[str, Lost[Any]]) -> None:
    """Raise DataError where dialogues were given up, in a stage that has no rejects. lost: by dialogue id."""
    if lost:
        name, first = next(iter(lost.items()))
        raise DataError(
            f"{len(lost)} dialogues were given up, e.g. {name}: {first.detail}; all others are kept: run the same "
            "command again, for want of memory with --workers 1"
        )


class OfDialogue(Protocol):
    """The job of one dialogue."""

    @property
    def dialogue_id(self) -> str:
        """As the manifest has it."""


class Finished(Protocol):
    """The result of one dialogue."""

    @property
    def reused(self) -> bool:
        """True where the file of an earlier run was kept."""


DialogueJob = TypeVar("DialogueJob", bound=OfDialogue)
Done = TypeVar("Done", bound=Finished)


def dialogue_seconds(table: pd.DataFrame) -> dict[str, float]:
    """Seconds of the clips of each dialogue of a manifest."""
    seconds: dict[str, float] = (table["end_s"] - table["start_s"]).groupby(table["dialogue_id"]).sum().to_dict()
    return seconds


def shown(
    results: Iterator[tuple[DialogueJob, Done | Lost[DialogueJob]]],
    jobs: Sequence[DialogueJob],
    table: pd.DataFrame,
    label: str,
    reporter: Reporter,
) -> Iterator[tuple[DialogueJob, Done | Lost[DialogueJob]]]:
    """`results` as they come, shown with rate and time left.

    results: of `run_jobs`. table: the manifest of the data folder, for the seconds of clips; only a worker can tell
    which of them are done, by reading their bytes.
    """
    seconds = dialogue_seconds(table)
    work: Work[tuple[DialogueJob, Done | Lost[DialogueJob]]] = Work(
        lambda item: seconds[item[0].dialogue_id],
        sum(seconds[job.dialogue_id] for job in jobs),
        kept=lambda item: not isinstance(item[1], Lost) and item[1].reused,
    )
    yield from reporter.track(results, len(jobs), label, "dialogues", work)


def begin_folder(data_dir: Path, summary: Path, dialogues: set[str]) -> None:
    """Delete the file `summary`, without which its folder counts as unfinished, and what is of no dialogue any more.

    Hold the data folder's lock.

    Raises:
        DataError: the folder of `summary` lies behind a link.
    """
    folder = summary.parent
    refuse_links(data_dir, folder)
    summary.unlink(missing_ok=True)
    delete_ours(folder, dialogues)
    sweep(folder)
