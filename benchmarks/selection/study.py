"""`python -m benchmarks selection`: MESM trained in each mode of its selection on data folders, and the difference.

Each data folder, mode and seed has a run folder as `pipeline train` makes it, OUT/<dataset>/<mode>/seed-<seed>. Those
that are finished are kept, one that was interrupted goes on after its last epoch, and one that was measured is not
measured again. The tables are made from these folders alone.
"""

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import Field, field_validator

from benchmarks.rows import rounded, write_result
from benchmarks.selection.gradients import BATCHES, gradient_norms
from benchmarks.selection.page import as_markdown
from benchmarks.selection.sites import DRAWS, RADIUS, kept_sites
from data_tools.files import folder_lock, read_json_if_any, write_json
from models.layers.sparse.attention import AttentionGradient
from pipeline.metrics.metric import mean_and_spread
from pipeline.progress import Reporter
from pipeline.run import RunDir
from pipeline.run_data import dataset_name
from pipeline.settings import ConfigError, LocalPath, Settings
from pipeline.study.plan import Planned, StudySettings, plan
from pipeline.study.result import result_of
from pipeline.study.runs import Trained, Wanted, train_all, wanted_runs
from pipeline.train import Prepared

MODEL = "mesm"
MODES: tuple[AttentionGradient, ...] = get_args(AttentionGradient)
# In each run's folder.
MEASURED = "selection.json"
# The study gives these to each run itself.
_OWN = ("attention_gradient",)


class SelectionSettings(Settings):
    """Settings of the study."""

    data: tuple[LocalPath, ...] = Field(min_length=1)
    seeds: int = Field(3, ge=1, description="runs of each mode on each data folder")
    modes: tuple[AttentionGradient, ...] = Field(MODES, min_length=1)
    out: LocalPath = Field(Path("runs/selection"), description="the folder of the runs")
    tables: LocalPath | None = Field(None, description="where selection.json and selection.md go; None: out")
    values: dict[str, Any] = Field({}, description="settings of training and of the model")

    @field_validator("values")
    @classmethod
    def _leaves_the_mode_alone(cls, values: dict[str, Any]) -> dict[str, Any]:
        if own := [key for key in _OWN if key in values]:
            raise ValueError(f"{own[0]} is what is compared here: give --modes in place of --set {own[0]}")
        if "v" not in values.get("modalities", "v"):
            raise ValueError(f"modalities is {values['modalities']!r}: without v there is no face to look at")
        return values


def selection(settings: SelectionSettings, reporter: Reporter) -> dict[str, Any]:
    """Train what is not trained yet, measure all runs, write selection.json and selection.md; returns the first.

    Scores of each emotion stay in the runs' own metrics.json; figures are rounded to 8 digits.

    A run whose loss is not finite is named there under `failed`, and the others go on.

    Raises:
        ConfigError, ModelError, DataError: as `pipeline.study.plan.plan` and `train`; two folders of one name; a run
            in the folder was started with other settings or data; no run on a data folder finished.
    """
    folders = {dataset_name(data): data for data in settings.data}
    if len(folders) < len(settings.data):
        raise ConfigError(f"--data names {len(settings.data)} folders, of {len(folders)} names: their runs would mix")
    prepared = {name: _plan_modes(settings, data, reporter) for name, data in folders.items()}
    with folder_lock(settings.out):
        trained = train_all(_plan_runs(settings, prepared), reporter)
        result: dict[str, Any] = {
            "command": _command_line(settings),
            "modes": list(settings.modes),
            "seeds": settings.seeds,
            "radius": RADIUS,
            "draws": DRAWS,
            "batches": BATCHES,
            "datasets": [_measure_dataset(name, data, settings, trained, reporter) for name, data in folders.items()],
            "failed": trained.failed,
        }
        result = rounded(result)
        place = settings.tables or settings.out
        write_result(place, "selection", result, as_markdown(result))
    reporter.say(f"the tables are in {place}")
    return result


def _plan_modes(settings: SelectionSettings, data: Path, reporter: Reporter) -> dict[str, Prepared]:
    """Training of each mode, with the first seed."""
    return {mode: plan(_study_of(settings, data, mode), reporter).planned[0].prepared for mode in settings.modes}


def _study_of(settings: SelectionSettings, data: Path, mode: str) -> StudySettings:
    values = settings.values | {"attention_gradient": mode}
    return StudySettings(data=data, models=(MODEL,), seeds=settings.seeds, out=settings.out, values=values)


def _plan_runs(settings: SelectionSettings, prepared: dict[str, dict[str, Prepared]]) -> list[Wanted]:
    """Runs in their order: all modes on all data with one seed, then with the next."""
    rows = {
        _label(name, mode): (_label(name, mode), [Planned(MODEL, one)])
        for name, modes in prepared.items()
        for mode, one in modes.items()
    }
    return wanted_runs(settings.out, rows, settings.seeds)


def _label(name: str, mode: str) -> str:
    return f"{name}/{mode}"


def _measure_dataset(
    name: str, data: Path, settings: SelectionSettings, trained: Trained, reporter: Reporter
) -> dict[str, Any]:
    runs: dict[str, list[RunDir]] = {
        mode: trained.finished[_label(name, mode)] for mode in settings.modes if _label(name, mode) in trained.finished
    }
    if not runs:
        raise ConfigError(f"no run on {data} finished: " + "; ".join(run["reason"] for run in trained.failed))
    found = result_of(_study_of(settings, data, settings.modes[0]), Trained(runs, []), _command_line(settings))
    own = found["task"].replace("-", "_")
    rows = []
    for row in found["models"]:
        mode = row["model"]
        reporter.say(f"measuring {_label(name, mode)}")
        over_seeds = _over_seeds([measure_run(run, data) for run in runs[mode]])
        scores = {name: _without_emotions(score) for name, score in row["scores"][own].items()}
        rows.append({"mode": mode, "scores": scores, **over_seeds, "runs": row["runs"]})
    about = ("dataset", "folder", "notice", "split", "split_protocol", "utterances", "task", "monitor", "machines")
    of_runs = found["models"][0]["settings"]
    of_runs["model"].pop("attention_gradient")
    return {
        **{key: found[key] for key in (*about, "versions", "spread")},
        "metrics": {name: _without_emotions(metric) for name, metric in found["metrics"][own].items()},
        "settings": of_runs,
        "modes": rows,
    }


def _without_emotions(score: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in score.items() if name != "per_emotion"}


def measure_run(run: RunDir, data: Path) -> dict[str, Any]:
    """Gradient norms and kept sites of a run, kept in its folder for as long as they hold: they take a minute."""
    weights = hashlib.sha256(run.model.read_bytes()).hexdigest()
    made_of = {"weights": weights, "radius": RADIUS, "draws": DRAWS, "batches": BATCHES}
    kept = read_json_if_any(run.path / MEASURED)
    if kept.get("made_of") == made_of:
        return dict(kept["found"])
    found = gradient_norms(run) | kept_sites(run, data)
    write_json(run.path / MEASURED, {"made_of": made_of, "found": found})
    return found


def _over_seeds(measured: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Merge dictionaries of the same shape: mean, spread and values over the seeds in place of each number."""
    merged: dict[str, Any] = {}
    for key, value in measured[0].items():
        values = [one[key] for one in measured]
        if isinstance(value, dict):
            merged[key] = _over_seeds(values)
        else:
            mean, spread = mean_and_spread(values)
            merged[key] = {"mean": mean, "spread": spread, "values": values}
    return merged


def _command_line(settings: SelectionSettings) -> str:
    flags = [part for data in settings.data for part in ("--data", str(data))]
    flags += ["--seeds", str(settings.seeds), "--modes", ",".join(settings.modes), "--out", str(settings.out)]
    flags += ["--tables", str(settings.tables)] if settings.tables else []
    for key, value in settings.values.items():
        # As `--set` reads it back: JSON is YAML.
        flags += ["--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
    return shlex.join(["python", "-m", "benchmarks", "selection", *flags])
