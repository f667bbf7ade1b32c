"""`pipeline evaluate`: scores of a finished run on one split, in metrics.json and predictions.parquet."""

from typing import Any

from pydantic import Field

from data_tools.files import folder_lock
from data_tools.folds import FoldsBy
from pipeline.command import Command
from pipeline.progress import Reporter
from pipeline.settings import (
    LABELS_HELP,
    OTHER_DATA_HELP,
    RUN_HELP,
    SPLIT_HELP,
    ConfigError,
    Device,
    LocalPath,
    Settings,
    flag,
)

SPLIT = "test"


class EvaluateSettings(Settings):
    """Settings of stage 4."""

    run: LocalPath = flag(help=RUN_HELP)
    split: str = flag(SPLIT, help=SPLIT_HELP)
    data: LocalPath | None = flag(None, help=OTHER_DATA_HELP)
    labels: str | None = flag(None, help=LABELS_HELP)
    folds: FoldsBy | None = flag(
        None,
        help="session or speaker: the run's model is trained anew with each one left out, and scored on that one; "
        "mean and spread.",
    )
    batch_size: int | None = Field(None, ge=1, description="None: as in training, for the same scores to the last bit")
    device: Device = flag("auto", help="auto, cpu or cuda.")


def evaluate(settings: EvaluateSettings, reporter: Reporter) -> dict[str, Any]:
    """Score a finished run on one split; returns that split's part of metrics.json.

    With `folds` its model is trained for each of them, and the result is that of a comparison of one model.

    Other splits that were evaluated before stay in both files. Nobody else trains or evaluates the run meanwhile.
    With `labels` only emotions that the run and the data both have are scored, in files of their own.

    Raises:
        ConfigError: no such run, it isn't finished, CUDA asked for where there is none, other emotions in the data, or
            a label map that cannot be used.
        DataError: the data folder is missing or not preprocessed as the run's was, or the split has no utterances or
            some that the run was trained on; another process trains or evaluates the run.
    """
    from pipeline.run import RunDir
    from pipeline.training.data import load_fitting
    from pipeline.training.label_maps import read_label_map
    from pipeline.training.scoring import BestModel, record

    run = RunDir.existing(settings.run)
    if settings.folds is not None:
        from pipeline.study.folds import evaluate_folds

        if settings.data is not None or settings.labels is not None or settings.split != SPLIT:
            raise ConfigError(
                "--folds trains on the run's own data and tests each fold: leave --data, --split and --labels out"
            )
        return evaluate_folds(run, settings.folds, reporter)
    run.read_thresholds()  # refuses an unfinished run before anything is loaded
    label_map = read_label_map(settings.labels) if settings.labels else None
    # All the way: a lock for the writing alone would be refused after the work, and a resumed training in between
    # would leave scores of weights that are gone.
    with folder_lock(run.path):
        dataset = load_fitting(run, settings.data, settings.split, label_map)
        best = BestModel.load(run, settings.device, settings.batch_size)
        found = best.score(dataset, reporter, settings.split)
        return record(run, dataset, settings.split, found, reporter, whole=settings.data is None)


COMMAND = Command(
    evaluate,
    (EvaluateSettings,),
    example="pipeline evaluate --run runs/first --split test",
    failed=lambda result: bool(result.get("failed")),
)
