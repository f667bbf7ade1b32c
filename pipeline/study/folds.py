"""A run's model trained anew for each session or speaker that is left out, and scored on it."""

from typing import Any

from data_tools.files import folder_lock
from data_tools.folds import FoldsBy
from pipeline.progress import Reporter
from pipeline.report.comparison import sheet
from pipeline.report.pages import write_result
from pipeline.run import RunDir
from pipeline.settings import ModelSpec
from pipeline.study.plan import StudySettings, each_fold
from pipeline.study.result import result_of
from pipeline.study.runs import train_all, wanted_runs


def evaluate_folds(run: RunDir, by: FoldsBy, reporter: Reporter) -> dict[str, Any]:
    """Train with the settings of `run` in its folder folds-<by>/<fold>/seed-<seed>; return the mean and the spread.

    What is finished is kept. Writes evaluate.json, evaluate.md and evaluate.html into that folder; they are those of a
    comparison of one model.

    Raises:
        ConfigError, ModelError, DataError: as `train`; fewer than two sessions or speakers; a shared model.
    """
    settings, model = run.read_settings()
    settings = settings.model_copy(update={"data": run.own_data(), "out": None, "split": None})
    spec, out = ModelSpec.from_dict(model), run.path / f"folds-{by}"
    planned = each_fold(spec.name, settings, spec, by)
    asked = StudySettings(data=settings.data, models=(spec.name,), out=out, folds=by)
    with folder_lock(out):
        trained = train_all(wanted_runs(out, {spec.name: ("", planned)}, 1), reporter)
        result = result_of(asked, trained, f"pipeline evaluate --run {run.path} --folds {by}")
        write_result(out, "evaluate", result, sheet(result), reporter)
    return result
