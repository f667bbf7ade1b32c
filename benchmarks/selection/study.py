"""`pipeline selection`: MESM trained in each mode of its selection on data folders, and what that changed.

Each data folder, mode and seed has a run folder as `pipeline train` makes it, OUT/<dataset>/<mode>/seed-<seed>. Those
that are finished are kept, one that was interrupted goes on after its last epoch, and one that was measured is not
measured again. The tables are made from these folders alone.
"""

import hashlib
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import Field, field_validator

from benchmarks.selection.gradients import BATCHES, gradient_norms
from benchmarks.selection.landmarks import RADIUS
from benchmarks.selection.page import as_markdown
from benchmarks.selection.sites import DRAWS, kept_sites
from data_tools.files import folder_lock, read_json_if_any, write_json, write_text
from models.layers.sparse.attention import AttentionGradient
from pipeline.metrics.seeds import mean_and_spread
from pipeline.progress import Reporter
from pipeline.run import RunDir
from pipeline.run_data import dataset_name
from pipeline.settings import ConfigError, LocalPath, Settings
from pipeline.study.plan import CompareSettings, plan
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
    """What `pipeline selection` is told."""

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


def selection(asked: SelectionSettings, reporter: Reporter) -> dict[str, Any]:
    """Train what is not trained yet, measure all runs, write selection.json and selection.md; returns the first.

    A run whose loss is not finite is named there under `failed`, and the others go on.

    Raises:
        ConfigError, ModelError, DataError: as `pipeline.study.plan.plan` and `train`; two folders of one name; a run
            in the folder was started with other settings or data; no run of a data folder came to an end.
    """
    folders = {dataset_name(data): data for data in asked.data}
    if len(folders) < len(asked.data):
        raise ConfigError(f"--data names {len(asked.data)} folders, of {len(folders)} names: their runs would mix")
    prepared = {name: _prepared(asked, data, reporter) for name, data in folders.items()}
    with folder_lock(asked.out):
        trained = train_all(_wanted(asked, prepared), reporter)
        result = {
            "command": _command(asked),
            "modes": list(asked.modes),
            "seeds": asked.seeds,
            "radius": RADIUS,
            "draws": DRAWS,
            "batches": BATCHES,
            "datasets": [_of_dataset(name, data, asked, trained, reporter) for name, data in folders.items()],
            "failed": trained.failed,
        }
        place = asked.tables or asked.out
        write_json(place / "selection.json", result)
        write_text(place / "selection.md", as_markdown(result))
    reporter.say(f"the tables are in {place}")
    return result


def _prepared(asked: SelectionSettings, data: Path, reporter: Reporter) -> dict[str, Prepared]:
    """Mode -> its training, with the first seed."""
    return {mode: plan(_as_comparison(asked, data, mode), reporter).planned[0].prepared for mode in asked.modes}


def _as_comparison(asked: SelectionSettings, data: Path, mode: str) -> CompareSettings:
    values = asked.values | {"attention_gradient": mode}
    return CompareSettings(data=data, models=(MODEL,), seeds=asked.seeds, out=asked.out, values=values)


def _wanted(asked: SelectionSettings, prepared: dict[str, dict[str, Prepared]]) -> list[Wanted]:
    """All modes on all data with one seed, then with the next."""
    rows = {
        _label(name, mode): (_label(name, mode), one) for name, modes in prepared.items() for mode, one in modes.items()
    }
    return wanted_runs(asked.out, rows, asked.seeds)


def _label(name: str, mode: str) -> str:
    return f"{name}/{mode}"


def _of_dataset(
    name: str, data: Path, asked: SelectionSettings, trained: Trained, reporter: Reporter
) -> dict[str, Any]:
    runs: dict[str, list[RunDir]] = {
        mode: trained.finished[_label(name, mode)] for mode in asked.modes if _label(name, mode) in trained.finished
    }
    if not runs:
        raise ConfigError(f"no run on {data} came to an end: " + "; ".join(run["reason"] for run in trained.failed))
    found = result_of(_as_comparison(asked, data, asked.modes[0]), Trained(runs, []), _command(asked))
    own = found["task"].replace("-", "_")
    rows = []
    for row in found["models"]:
        mode = row["model"]
        reporter.say(f"measuring {_label(name, mode)}")
        over_seeds = _over_seeds([measured(run, data) for run in runs[mode]])
        rows.append({"mode": mode, "scores": row["scores"][own], **over_seeds, "runs": row["runs"]})
    about = ("dataset", "folder", "notice", "split", "split_protocol", "utterances", "task", "monitor", "machines")
    settings = found["models"][0]["settings"]
    settings["model"].pop("attention_gradient")
    return {
        **{key: found[key] for key in (*about, "versions", "spread")},
        "metrics": found["metrics"][own],
        "settings": settings,
        "modes": rows,
    }


def measured(run: RunDir, data: Path) -> dict[str, Any]:
    """`gradient_norms` and `kept_sites` of a run, kept in its folder for as long as they hold: they take a minute."""
    weights = hashlib.sha256(run.model.read_bytes()).hexdigest()
    made_of = {"weights": weights, "radius": RADIUS, "draws": DRAWS, "batches": BATCHES}
    kept = read_json_if_any(run.path / MEASURED)
    if kept.get("made_of") == made_of:
        return dict(kept["found"])
    found = gradient_norms(run) | kept_sites(run, data)
    write_json(run.path / MEASURED, {"made_of": made_of, "found": found})
    return found


def _over_seeds(measured: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The same dictionary, with mean, spread and values over the seeds where a number was."""
    merged: dict[str, Any] = {}
    for key, value in measured[0].items():
        values = [one[key] for one in measured]
        if isinstance(value, dict):
            merged[key] = _over_seeds(values)
        else:
            mean, spread = mean_and_spread(values)
            merged[key] = {"mean": mean, "spread": spread, "values": values}
    return merged


def _command(asked: SelectionSettings) -> str:
    flags = [part for data in asked.data for part in ("--data", str(data))]
    flags += ["--seeds", str(asked.seeds), "--modes", ",".join(asked.modes), "--out", str(asked.out)]
    flags += ["--tables", str(asked.tables)] if asked.tables else []
    for key, value in asked.values.items():
        # As `--set` reads it back: JSON is YAML.
        flags += ["--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
    return shlex.join(["pipeline", "selection", *flags])
