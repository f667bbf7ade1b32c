"""What the stages share that work by dialogues: a file a dialogue in one folder, and a summary there, written last."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import pandas as pd

from data_tools.files import sweep
from pipeline.jobs.jobs import Died
from pipeline.progress import Reporter, Work


class OfDialogue(Protocol):
    """The task of one dialogue."""

    @property
    def dialogue_id(self) -> str:
        """As the manifest has it."""


class Finished(Protocol):
    """The result of one dialogue."""

    @property
    def reused(self) -> bool:
        """Whether the file of an earlier run was kept."""


Task = TypeVar("Task", bound=OfDialogue)
Done = TypeVar("Done", bound=Finished)


def follow(
    results: Iterator[tuple[Task, Done | Died[Task]]],
    tasks: Sequence[Task],
    table: pd.DataFrame,
    summary: Path,
    label: str,
    reporter: Reporter,
) -> Iterator[tuple[Task, Done | Died[Task]]]:
    """`results` as they come, shown with rate and time left; before the first, the folder of `summary` is put in order.

    results: of `run_tasks`. table: the manifest, for the seconds of clips; only a worker can tell which of them are
    done, by reading their bytes. Hold the data folder's lock.
    """
    _start(summary, {task.dialogue_id for task in tasks})
    seconds = (table["end_s"] - table["start_s"]).groupby(table["dialogue_id"].astype(str)).sum().to_dict()
    work: Work[tuple[Task, Done | Died[Task]]] = Work(
        lambda item: seconds[item[0].dialogue_id],
        sum(seconds.values()),
        kept=lambda item: not isinstance(item[1], Died) and item[1].reused,
    )
    yield from reporter.track(results, len(tasks), label, "dialogues", work)


def _start(summary: Path, dialogues: set[str]) -> None:
    """Without its summary a folder counts as unfinished, until this run has ended well."""
    folder = summary.parent
    for path in [summary, *(p for p in folder.glob("*.safetensors") if p.stem not in dialogues)]:
        path.unlink(missing_ok=True)
    sweep(folder)
