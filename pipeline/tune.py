"""`pipeline tune`: a seeded random or grid search over settings, by the score on valid; test is never read.

Each trial is a run, OUT/trial-<number>/seed-<seed>. Those that are finished are kept, one that was interrupted goes on.
"""

import itertools
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import yaml
from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError, model_validator

from data_tools.files import folder_lock, write_text
from models.errors import ModelError
from pipeline.command import Command
from pipeline.model_configs import ModelConfig
from pipeline.progress import Reporter
from pipeline.report.pages import Cell, Sheet, Table, markdown, number, write_result
from pipeline.run import RunDir
from pipeline.run_data import dataset_name
from pipeline.settings import DATA_HELP, DEFAULT_DATA, ConfigError, LocalPath, Settings, flag, read_yaml
from pipeline.study.plan import Planned, StudySettings, ValueFlags, configs_of, planned_variant, read_study
from pipeline.study.runs import VALID, Trained, Wanted, check_runs, train_all
from pipeline.training.scoring import task_of_run
from pipeline.training.settings import TrainSettings
from pipeline.yaml_text import parse_yaml

Values = dict[str, Any]


class Range(Settings):
    """Numbers from `low` to `high`, both among them. log: each power of ten is as likely. whole: no fractions."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    @model_validator(mode="after")
    def _is_a_range(self) -> "Range":
        if not self.low < self.high or not math.isfinite(self.high - self.low):
            raise ValueError(f"low is {self.low} and high {self.high}: give two finite numbers, the lower one first")
        if self.log and self.low <= 0:
            raise ValueError(f"low is {self.low}: with log it is above 0")
        return self

    def drawn(self, draw: np.random.Generator) -> float | int:
        """One of them."""
        if self.log:
            value = math.exp(draw.uniform(math.log(self.low), math.log(self.high)))
        else:
            value = draw.uniform(self.low, self.high)
        return round(value) if self.whole else float(f"{value:.4g}")


def read_space(value: Any) -> Any:
    """A YAML file, or YAML as it is typed in a flag, as a mapping.

    Raises:
        ConfigError: neither.
    """
    if not isinstance(value, str | Path):
        return value
    if str(value).lower().endswith((".yaml", ".yml")):
        return read_yaml(Path(value))
    try:
        return parse_yaml(str(value))
    except ValueError as error:
        raise ConfigError(f"--space {value!r} is not YAML: {error}") from error


Choices = Annotated[tuple[Any, ...], Field(min_length=1)]
Space = Annotated[dict[str, Range | Choices], Field(min_length=1), BeforeValidator(read_space)]


class TuneSettings(Settings):
    """Settings of `pipeline tune`."""

    data: LocalPath = flag(DEFAULT_DATA, help=DATA_HELP)
    model: str = flag(help="A model or config, or a path to a YAML file.")
    space: str = flag(
        help="Settings to search, as YAML or a .yaml file: key: [values], or key: {low: 1e-4, high: 1e-2, log: true, "
        "whole: false}."
    )
    grid: bool = flag(False, help="Try every combination of the values once, in place of drawing trials.")
    trials: int = flag(20, ge=1, help="Trials to draw; more of them go on with those that there are.")
    seed: int = flag(0, ge=0, help="Of the draws; that of trainings is --set seed=.")
    out: LocalPath | None = flag(None, help="The folder of trials, by default runs/tune-<model>-<dataset>.")
    values: dict[str, Any] = Field({}, description="settings of training and of the model that all trials share")


def tune(asked: TuneSettings, reporter: Reporter) -> dict[str, Any]:
    """Train a trial for each drawn setting, or each of a grid; write tune.json, tune.md, tune.html and best.yaml.

    best.yaml is a config: `pipeline train --config OUT/best.yaml`. Returns tune.json: {"model", "monitor", "trials":
    [{"trial", "settings", "score", "epoch", "folder", "reason"}], "best": number of the best trial, ...}. A trial whose
    settings cannot work, or whose loss is not finite, has a reason in place of a score.

    Raises:
        ConfigError: a space of another form, a setting that neither training nor the model has, no trial finished.
        ModelError, DataError: as `train`.
    """
    space = _checked_space(asked.space)
    (config,) = configs_of((asked.model,), asked.data)
    if twice := sorted(set(space) & set(asked.values)):
        raise ConfigError(f"--set {twice[0]}: it is searched; leave it out")
    out = asked.out or Path("runs") / f"tune-{config.label}-{dataset_name(asked.data)}"
    found = list(_grid(space)) if asked.grid else [drawn(space, asked.seed, i) for i in range(asked.trials)]
    check_runs(len(found), "--grid" if asked.grid else f"--trials {asked.trials}")
    study = StudySettings(data=asked.data, models=(asked.model,), out=out, values=asked.values, scored=VALID)
    planned, refused = _planned(study, found, reporter)
    wanted = [
        Wanted(
            _label(i), RunDir(out / _label(i) / f"seed-{one.prepared.settings.seed}"), one.prepared, seed, scored=VALID
        )
        for i, one in planned.items()
        for seed in [one.prepared.settings.seed]
    ]
    with folder_lock(out):
        trained = train_all(wanted, reporter)
        result = _result(asked, config, found, trained, refused, out)
        best = result["trials"][result["best"]]
        write_text(out / "best.yaml", _best_yaml(config, asked.values | best["settings"], result))
        write_result(out, "tune", result, sheet(result), reporter)
    reporter.say(f"the best settings are in {out / 'best.yaml'}: pipeline train --config {out / 'best.yaml'}")
    return result


def _checked_space(value: Any) -> dict[str, Range | tuple[Any, ...]]:
    try:
        return TypeAdapter(Space).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "space"
        raise ConfigError(
            f"--space: {place}: {first['msg']}; give key: [values] or key: {{low: ..., high: ...}}"
        ) from None


def drawn(space: Mapping[str, Range | Sequence[Any]], seed: int, trial: int) -> Values:
    """Settings of a trial, which depend on the seed and its number alone: more trials leave the first as they are."""
    draw = np.random.default_rng([seed, trial])
    # In name order: the file's order decides nothing.
    return {
        key: values.drawn(draw) if isinstance(values, Range) else values[int(draw.integers(len(values)))]
        for key, values in sorted(space.items())
    }


def _grid(space: Mapping[str, Range | Sequence[Any]]) -> Iterator[Values]:
    if ranges := [key for key, values in space.items() if isinstance(values, Range)]:
        raise ConfigError(f"--grid needs values, but {ranges[0]} is a range; give {ranges[0]}: [values]")
    keys = sorted(space)
    lists = [values for key in keys if not isinstance(values := space[key], Range)]
    yield from (dict(zip(keys, each, strict=True)) for each in itertools.product(*lists))


def _label(trial: int) -> str:
    return f"trial-{trial:03d}"


def _planned(
    study: StudySettings, found: Sequence[Values], reporter: Reporter
) -> tuple[dict[int, Planned], dict[int, str]]:
    """(trial -> training, trial -> why its settings cannot work)."""
    planned: dict[int, Planned] = {}
    refused: dict[int, str] = {}
    for trial, values in enumerate(found):
        try:
            (planned[trial],) = planned_variant(study, reporter, **values)
        except (ConfigError, ModelError) as error:
            refused[trial] = str(error)
            reporter.say(f"{_label(trial)} cannot work: {error}")
    if not planned:
        raise ConfigError(f"none of the {len(found)} trials can work, e.g.: {refused[0]}")
    return planned, refused


def _result(
    asked: TuneSettings,
    config: ModelConfig,
    found: Sequence[Values],
    trained: Trained,
    refused: Mapping[int, str],
    out: Path,
) -> dict[str, Any]:
    runs = {label: of_label[0] for label, of_label in trained.finished.items()}
    task = task_of_run(next(iter(runs.values())))
    monitor, lower = task.settings.monitor, task.lower_is_better(task.settings.monitor)
    reasons = {_label(trial): reason for trial, reason in refused.items()}
    reasons |= {failed["model"]: failed["reason"] for failed in trained.failed}
    trials = []
    for trial, settings in enumerate(found):
        label = _label(trial)
        entry: dict[str, Any] = {
            "trial": trial,
            "settings": settings,
            "score": None,
            "folder": None,
            "reason": reasons.get(label, ""),
        }
        if label in runs:
            value = value_of(runs[label].read_scores(asked.data)[VALID], task.settings.task, monitor)
            entry |= {"score": value["value"], "folder": runs[label].path.as_posix()}
        trials.append(entry)
    scored = [entry for entry in trials if entry["score"] is not None]
    sign = 1 if lower else -1
    best = min(scored, key=lambda entry: float(sign * entry["score"]))  # of equal ones the first
    about = runs[_label(best["trial"])].read_scores(asked.data)[VALID]
    return {
        "command": _command(asked, out),
        "model": config.name,
        "dataset": about["dataset"],
        "folder": about["folder"],
        "notice": about["notice"],
        "split": VALID,
        "split_protocol": about["split_protocol"],
        "utterances": about["utterances"],
        "task": task.settings.task,
        "monitor": monitor,
        "definition": value_of(about, task.settings.task, monitor)["definition"],
        "lower_is_better": lower,
        "baseline": value_of(about, task.settings.task, monitor)["baseline"],
        "search": "grid" if asked.grid else f"random, seed {asked.seed}",
        "versions": runs[_label(best["trial"])].read_starts()[-1]["versions"],
        "trials": trials,
        "best": best["trial"],
        "failed": trained.failed,
    }


def value_of(report: Mapping[str, Any], task: str, metric: str) -> dict[str, Any]:
    """A metric in a split's part of metrics.json, of the task's own protocol."""
    found: dict[str, Any] = report["metrics"][task.replace("-", "_")][metric]
    return found


def _command(asked: TuneSettings, out: Path) -> str:
    search = ["--grid"] if asked.grid else ["--trials", str(asked.trials), "--seed", str(asked.seed)]
    given = ["pipeline", "tune", "--model", asked.model, "--data", str(asked.data), "--space", asked.space, *search]
    sets = [part for key, value in asked.values.items() for part in ("--set", f"{key}={value}")]
    return shlex.join([*given, "--out", str(out), *sets])


def _best_yaml(config: ModelConfig, values: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """A config of the best settings, laid over those of the model."""
    train = {key: value for key, value in values.items() if key in TrainSettings.model_fields}
    model = {key: value for key, value in values.items() if key not in train}
    notice = f"\n# {result['notice']}" if result["notice"] else ""
    head = (
        f"# {config.name}, the best of {len(result['trials'])} trials ({result['search']}) by {result['monitor']} on "
        f"valid of {result['dataset']}; test was not read.{notice}\n"
    )
    sections = {"model": config.model | model, "train": config.train | train}
    return head + yaml.safe_dump(sections, sort_keys=False, allow_unicode=True)


def sheet(result: Mapping[str, Any]) -> Sheet:
    """The page of a search: trials from the best to the worst, then those without a score."""
    sign = 1 if result["lower_is_better"] else -1
    trials = sorted(
        result["trials"], key=lambda entry: (entry["score"] is None, sign * (entry["score"] or 0), entry["trial"])
    )
    keys = list(result["trials"][0]["settings"])
    rows = [
        [
            Cell(_label(entry["trial"])),
            Cell(number(entry["score"]) if entry["score"] is not None else "-", entry["trial"] == result["best"]),
            *(Cell(str(entry["settings"][key])) for key in keys),
        ]
        for entry in trials
    ]
    about = (
        f"Data set {result['dataset']}, split protocol {result['split_protocol']}: {result['monitor']} of the best "
        f"epoch on {result['utterances']} utterances of valid; baseline {number(result['baseline'])}. Test was not "
        "read: train best.yaml and score it there once."
    )
    note = f"{result['monitor']}: {result['definition']}. Search: {result['search']}."
    remarks = [f"{_label(entry['trial'])}: {entry['reason']}" for entry in trials if entry["reason"]]
    table = Table("Trials", note, ["trial", result["monitor"], *keys], rows)
    title = f"Search over settings of {result['model']} on {result['dataset']}"
    return Sheet(title, result["notice"], about, [table], remarks, result["command"], result["versions"])


COMMAND = Command(
    tune,
    (TuneSettings, ValueFlags),
    example="pipeline tune --model mult --data data/mosi --space '{learning_rate: [1.0e-3, 1.0e-4]}' --grid",
    read=read_study(TuneSettings),
    takes_set=True,
    for_people=lambda result: markdown(sheet(result)),
    failed=lambda result: bool(result["failed"]),
    without=("top_p", "modalities", "frontend"),
)
