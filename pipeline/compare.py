"""`pipeline compare`: models trained and scored side by side: one data folder, one split, several seeds -> one table.

Each model and seed has a run folder as `pipeline train` makes it, OUT/<model>/seed-<seed>. Those that are finished are
kept, one that was interrupted goes on after its last epoch. The table is made from these folders alone.
"""

from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from data_tools.files import folder_lock
from data_tools.folds import FoldsBy
from pipeline.command import Command
from pipeline.progress import Reporter
from pipeline.report.across import across_sheet
from pipeline.report.comparison import as_markdown, sheet
from pipeline.report.pages import markdown, write_result
from pipeline.run_data import dataset_name
from pipeline.settings import DATA_HELP, DEFAULT_DATA, LocalPath, Names, first_and_further, flag
from pipeline.study.across import matrix_of
from pipeline.study.plan import MODELS_HELP, StudySettings, ValueFlags, plan, read_study
from pipeline.study.result import command_line, result_of
from pipeline.study.runs import check_runs, rows_of, train_all, wanted_runs


class CompareSettings(StudySettings):
    """Settings of `pipeline compare`."""

    folds: FoldsBy | None = flag(
        None, help="session or speaker: each is left out once, and tested; mean and spread over these trainings."
    )
    models: Names = flag(min_length=1, help=f"{MODELS_HELP[:-1]}; or all: every model.")
    data: LocalPath = flag(DEFAULT_DATA, repeats=True, help=f"{DATA_HELP[:-1]}; several with --across.")
    more_data: tuple[LocalPath, ...] = Field((), description="further data folders, as further --data give them")
    across: bool = flag(False, help="Train on each of several data folders and score on each.")

    _several = model_validator(mode="before")(first_and_further)

    @model_validator(mode="after")
    def _folders_fit(self) -> Self:
        if self.more_data and not self.across:
            raise ValueError("several --data make a matrix of corpora: add --across")
        if self.folds and self.across:
            raise ValueError("--across takes each folder's own splits: leave --folds out")
        return self


def compare(asked: CompareSettings, reporter: Reporter) -> dict[str, Any]:
    """Train what is not trained yet, then write compare.json, compare.md and compare.html; returns compare.json.

    A run whose loss is not finite is named there under `failed`, and the others go on.

    Raises:
        ConfigError, ModelError, DataError: as `pipeline.study.plan.plan` and `train`; a run in the folder was started
            with other settings or data; no run finished.
    """
    if asked.across:
        return _across(asked, reporter)
    out = asked.out or Path("runs") / f"compare-{dataset_name(asked.data)}"
    found = plan(asked, reporter)
    rows = rows_of(found.planned)
    check_runs(len(found.planned) * asked.seeds, f"{len(found.planned)} trainings with --seeds {asked.seeds}")
    with folder_lock(out):
        trained = train_all(wanted_runs(out, rows, asked.seeds), reporter)
        result = result_of(asked, trained, command_line("compare", asked, out)) | {"left_out": found.left_out}
        write_result(out, "compare", result, sheet(result), reporter)
    return result


def _across(asked: CompareSettings, reporter: Reporter) -> dict[str, Any]:
    """Write across.json, across.md and across.html; returns across.json."""
    folders = [asked.data, *asked.more_data]
    out = asked.out or Path("runs") / ("across-" + "+".join(folder.resolve().name for folder in folders))
    result = matrix_of(asked, folders, out, reporter)
    further = [part for folder in asked.more_data for part in ("--data", str(folder))]
    result["command"] = command_line("compare", asked, out, *further, "--across")
    write_result(out, "across", result, across_sheet(result), reporter)
    return result


def _for_people(result: dict[str, Any]) -> str:
    return markdown(across_sheet(result)) if "matrix" in result else as_markdown(result)


COMMAND = Command(
    compare,
    (CompareSettings, ValueFlags),
    example="pipeline compare --data data/iemocap --models mesm,fe2e,mult --seeds 3",
    read=read_study(CompareSettings),
    takes_set=True,
    for_people=_for_people,
    failed=lambda result: bool(result["failed"]),
    without=("top_p",),
)
