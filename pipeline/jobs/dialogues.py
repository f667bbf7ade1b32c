"""Stages that work by dialogues: one file a dialogue in one folder, and a summary there, written last."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import pandas as pd

from data_tools.files import sweep
from pipeline.jobs.local import Died
from pipeline.progress import Reporter, Work


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


Job = TypeVar("Job", bound=OfDialogue)
Done = TypeVar("Done", bound=Finished)


def follow(
    results: Iterator[tuple[Job, Done | Died[Job]]],
    jobs: Sequence[Job],
    table: pd.DataFrame,
    summary: Path,
    label: str,
    reporter: Reporter,
) -> Iterator[tuple[Job, Done | Died[Job]]]:
    """`results` as they come, shown with rate and time left; before the first, the folder of `summary` is put in order.

    results: of `run_jobs`. table: the manifest, for the seconds of clips; only a worker can tell which of them are
    done, by reading their bytes. Hold the data folder's lock.
    """
    _start(summary, {job.dialogue_id for job in jobs})
    seconds = (table["end_s"] - table["start_s"]).groupby(table["dialogue_id"].astype(str)).sum().to_dict()
    work: Work[tuple[Job, Done | Died[Job]]] = Work(
        lambda item: seconds[item[0].dialogue_id],
        sum(seconds.values()),
        kept=lambda item: not isinstance(item[1], Died) and item[1].reused,
    )
    yield from reporter.track(results, len(jobs), label, "dialogues", work)


def _start(summary: Path, dialogues: set[str]) -> None:
    """Without its summary a folder counts as unfinished, until this run has ended well."""
    folder = summary.parent
    for path in [summary, *(p for p in folder.glob("*.safetensors") if p.stem not in dialogues)]:
        path.unlink(missing_ok=True)
    sweep(folder)
