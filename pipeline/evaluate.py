"""`pipeline evaluate`: scores of a finished run on one split, in metrics.json and predictions.parquet."""

from typing import Any

from pydantic import Field

from data_tools.files import folder_lock
from pipeline.command import Command
from pipeline.progress import Reporter
from pipeline.settings import LABELS_HELP, OTHER_DATA_HELP, RUN_HELP, SPLIT_HELP, Device, LocalPath, Settings, flag


class EvaluateSettings(Settings):
    """Settings of stage 4."""

    run: LocalPath = flag(help=RUN_HELP)
    split: str = flag("test", help=SPLIT_HELP)
    data: LocalPath | None = flag(None, help=OTHER_DATA_HELP)
    labels: str | None = flag(None, help=LABELS_HELP)
    batch_size: int | None = Field(None, ge=1, description="None: as in training, for the same scores to the last bit")
    device: Device = flag("auto", help="auto, cpu or cuda.")


def evaluate(settings: EvaluateSettings, reporter: Reporter) -> dict[str, Any]:
    """Score a finished run on one split; returns that split's part of metrics.json.

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
    run.read_thresholds()  # refuses an unfinished run before anything is loaded
    label_map = read_label_map(settings.labels) if settings.labels else None
    # All the way: a lock for the writing alone would be refused after the work, and a resumed training in between
    # would leave scores of weights that are gone.
    with folder_lock(run.path):
        dataset = load_fitting(run, settings.data, settings.split, label_map)
        best = BestModel.load(run, settings.device, settings.batch_size)
        found = best.score(dataset, reporter, settings.split)
        return record(run, dataset, settings.split, found, reporter, whole=settings.data is None)


COMMAND = Command(evaluate, (EvaluateSettings,), example="pipeline evaluate --run runs/first --split test")
