"""Plan of a study: each model with its settings, or the reason why it is left out."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

import models
from data_tools.about import read_dataset_facts
from data_tools.errors import DataError
from data_tools.folds import FoldsBy, folds_of
from data_tools.manifest import read_manifest
from data_tools.sequences.mixed import sets_of
from data_tools.sequences.store import read_facts
from pipeline.extract import ExtractSettings, extract
from pipeline.model_configs import ModelConfig, load_model_config
from pipeline.progress import Reporter
from pipeline.run_data import dataset_name, notice_of
from pipeline.settings import (
    DATA_HELP,
    DEFAULT_DATA,
    LABELS_HELP,
    ConfigError,
    LocalPath,
    ModelSettingFlags,
    ModelSpec,
    Names,
    Settings,
    config_names,
    configs_dir,
    did_you_mean,
    flag,
    load_config,
    read_yaml,
)
from pipeline.train import Prepared, prepare
from pipeline.training.data import load_split
from pipeline.training.features import default_features, reads_features
from pipeline.training.settings import TrainSettings

ALL = "all"
MODELS_HELP = "Models or configs of configs/models, or paths to YAML files, with commas."
# What the comparison itself gives to each run.
_OWN = ("data", "out")


class StudySettings(Settings):
    """Settings that `compare`, `sweep` and `ablate` share."""

    data: LocalPath = flag(DEFAULT_DATA, help=DATA_HELP)
    models: Names = flag(min_length=1, help=MODELS_HELP)
    seeds: int = flag(1, ge=1, help="Runs of each row of the table, each with a seed of its own.")
    out: LocalPath | None = flag(None, help="The folder of runs and tables, by default runs/<command>-<dataset>.")
    folds: FoldsBy | None = Field(None, description="leave each session or speaker out once; None: the folder's split")
    scored: Literal["test", "valid"] = Field("test", description="split of the scores; valid leaves test unread")
    values: dict[str, Any] = Field({}, description="settings of training, and of every model that knows them")


class ValueFlags(ModelSettingFlags):
    """Flags that become a part of `StudySettings.values`."""

    device: str | None = flag(None, help="auto, cpu or cuda.")
    labels: str | None = flag(None, help=LABELS_HELP)


def read_study(kind: type[Settings]) -> Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]:
    """A `read` for the command of a study with settings `kind`: `--set` and `ValueFlags` become its values."""

    def read(flags: Mapping[str, Any], assignments: Mapping[str, Any]) -> dict[str, Any]:
        own = {name: value for name, value in flags.items() if name in kind.model_fields}
        values = {**assignments, **{name: value for name, value in flags.items() if name not in own}}
        return {"asked": kind.checked(own | {"values": values}, "flags")}

    return read


@dataclass(frozen=True)
class Planned:
    """A training of a row. name: of its config. prepared: with the first seed; others differ in the seed alone.

    fold: the group that is left out, `session-5`; empty without folds.
    """

    name: str
    prepared: Prepared
    fold: str = ""


@dataclass(frozen=True)
class Plan:
    """left_out: config -> reason."""

    planned: list[Planned]
    left_out: dict[str, str]


def plan(asked: StudySettings, reporter: Reporter) -> Plan:
    """Settings of every config, checked against the data; features that are missing are extracted.

    A config that is named must fit the data; of `all`, which is every model with its own, those that don't are left
    out. Of a config with columns by corpus, that of the data is taken, and said.

    Raises:
        ConfigError, ModelError, DataError: as `train`, for a model that is named; no model fits, or a setting that
            none of them knows; the data has no test split.
    """
    everything = ALL in asked.models
    names = models.REGISTRY if everything else asked.models
    configs = configs_of(names, asked.data)  # an unknown name, before anything is done
    _check_values(asked.values, {config.model["name"] for config in configs})
    standin = standin_budget(asked.data)
    result = Plan([], {})
    for file in configs:
        name = file.label
        if file.note:
            reporter.say(file.note)
        values, model_settings = _settings(file, asked, standin)
        try:
            config = models.config_of(file.model["name"], model_settings)
            if reads_features(config):
                _extract_missing(asked.data, values.get("features"), reporter)
            else:
                values.pop("features", None)
            settings = TrainSettings.checked(values, f"configs/models/{name}.yaml, configs/compare.yaml and --set")
            spec = ModelSpec.checked(file.model["name"], model_settings, file.note)
            result.planned.extend(each_fold(name, settings, spec, asked.folds, asked.scored))
        except (ConfigError, models.ModelError, DataError) as error:
            if not everything:
                raise
            result.left_out[name] = str(error)
            reporter.say(f"{name} is left out: {error}")
    if not result.planned:
        reasons = "\n".join(f"  {name}: {reason}" for name, reason in result.left_out.items())
        raise ConfigError(f"no model can be trained on {asked.data} like this:\n{reasons}")
    _check_one_task(result.planned)
    return result


def configs_of(names: Iterable[str], data: Path) -> list[ModelConfig]:
    """The configs of these names, each once, with the columns for the data set in `data`.

    Raises:
        ConfigError: an unknown one, or two YAML files of one name.
    """
    found = [load_model_config(name, dataset_name(data)) for name in dict.fromkeys(names)]
    labels = Counter(config.label for config in found)
    if twice := [label for label, count in labels.items() if count > 1]:
        raise ConfigError(f"--models has two configs called {twice[0]}: each row has a folder of its name; rename one")
    return found


def each_fold(
    name: str, settings: TrainSettings, model: ModelSpec, by: FoldsBy | None, scored: str = "test"
) -> list[Planned]:
    """One training of these settings, or one for each session or speaker that is left out.

    Raises:
        ConfigError, ModelError, DataError: as `train`; nothing to test; fewer than two sessions or speakers.
    """
    if by is None:
        splits = [settings.split]
    elif settings.split is not None:
        raise ConfigError(
            f"split is {settings.split} and folds by {by}: each fold has a split of its own; leave one out"
        )
    else:
        splits = list(folds_of(read_manifest(settings.data), by))
    planned = []
    for split in splits:
        prepared = prepare(settings.model_copy(update={"split": split}), model)
        load_split(settings.data, scored, prepared.settings.features, split)
        planned.append(Planned(name, prepared, "" if by is None or split is None else split.folder_name))
    return planned


def _check_one_task(planned: Sequence[Planned]) -> None:
    tasks = {row.name: row.prepared.settings.task for row in planned}
    if len(set(tasks.values())) > 1:
        listed = ", ".join(f"{name} {task}" for name, task in tasks.items())
        raise ConfigError(f"one table is of one task, but the configs have {listed}; add --set task=...")


def _check_values(values: Mapping[str, Any], names: Collection[str]) -> None:
    if own := [key for key in _OWN if key in values]:
        raise ConfigError(f"--set {own[0]}: give it as --{own[0]}, it holds for the whole comparison")
    known = set(TrainSettings.model_fields).union(*(models.REGISTRY[name][0].model_fields for name in names))
    if unknown := sorted(set(values) - known):
        near = did_you_mean(unknown[0], known)
        raise ConfigError(
            f"--set {', '.join(unknown)}: a setting neither of training nor of one of these models{near}; known: "
            + ", ".join(sorted(known - set(_OWN)))
        )


def standin_budget(data: Path) -> dict[str, Any]:
    """Values of configs/compare.yaml, laid over each model's own config where the data set is a stand-in; else none."""
    if notice_of(read_dataset_facts(data)) is None:
        return {}
    values: dict[str, Any] = read_yaml(configs_dir() / "compare.yaml")["standin"]
    return values


def laid_over(name: str, standin: Mapping[str, Any]) -> dict[str, Any]:
    """The model settings that the stand-in budget gives to a model instead of its config's."""
    fields = models.REGISTRY[name][0].model_fields
    shared = {key: value for key, value in standin.get("model", {}).items() if key in fields}
    return shared | standin.get("models", {}).get(name, {})


def _settings(
    config: ModelConfig, asked: StudySettings, standin: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(training settings, model settings without the name), the last of config, stand-in budget and `--set` counts."""
    name = config.model["name"]
    fields = models.REGISTRY[name][0].model_fields
    given = {key: value for key, value in asked.values.items() if key in TrainSettings.model_fields}
    own = {key: value for key, value in asked.values.items() if key not in given and key in fields}
    model = {**config.model, **laid_over(name, standin), **own}
    model.pop("name")
    return {**config.train, **standin.get("train", {}), **given, "data": asked.data}, model


def _extract_missing(data: Path, features: str | None, reporter: Reporter) -> None:
    """Extract the features that are wanted, where a recipe of that name is known and they are not there yet."""
    wanted = features or default_features(data)
    try:
        names = list(dict.fromkeys(sets_of(wanted).values())) or [wanted]
    except ValueError as error:
        raise ConfigError(str(error)) from None
    for name in names:
        try:
            read_facts(data, name)
        except DataError as missing:
            if name not in config_names("features"):
                raise
            reporter.say(f"{missing}: doing that now")
            values = load_config("features", name) | {"data": data, "features": name}
            extract(ExtractSettings.checked(values, f"configs/features/{name}.yaml"), reporter)


def refuse_own(asked: StudySettings, key: str, instead: str) -> None:
    """Refuse a setting that the study itself gives to each run. instead: what to do.

    Raises:
        ConfigError: `--set` has it.
    """
    if key in asked.values:
        raise ConfigError(f"--set {key}: {instead}")


def planned_variant(asked: StudySettings, reporter: Reporter, **values: Any) -> list[Planned]:
    """Every model of the study with `values` laid over its settings, where it has them; as `plan`."""
    return plan(asked.model_copy(update={"values": {**asked.values, **values}}), reporter).planned
