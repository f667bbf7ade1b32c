"""Rows of a paper's table: planned, trained on the study engine, and set beside the published figures."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

import models
from data_tools.errors import DataError
from data_tools.manifest import read_manifest
from models.cmt import CMT
from models.errors import ModelError
from pipeline.counting.model import count_model
from pipeline.explain import explain
from pipeline.metrics.metric import full_name, over_seeds
from pipeline.model_configs import load_model_config
from pipeline.progress import Reporter
from pipeline.robustness_run import SEEDS, DamagedRunSettings, score_damaged
from pipeline.run import RunDir
from pipeline.settings import ConfigError, configs_dir, read_yaml
from pipeline.study.missing import damage_at, missing_of, rates_of, wanted_at_rates
from pipeline.study.plan import Planned, StudySettings, planned_variant, standin_budget
from pipeline.study.result import result_of
from pipeline.study.runs import Trained, check_runs, train_all, wanted_runs
from pipeline.study.spec import Column, Row, Study
from pipeline.training.settings import TrainSettings

# A stand-in says nothing about people, so nothing is fetched for it.
OFFLINE = {"text_encoder": "minilm", "speech_encoder": "tiny"}

Score = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """One study on one data folder. values: of `--set`, laid over all. starts: folders of pretrained runs by kind."""

    study: Study
    data: Path
    out: Path
    seeds: int
    quick: bool = False
    device: str = "auto"
    values: Mapping[str, Any] = field(default_factory=dict)
    starts: Mapping[str, Path] = field(default_factory=dict)

    @cached_property
    def small(self) -> dict[str, Any]:
        """configs/quick.yaml with the share of train that its utterances are; empty unless `quick`."""
        if not self.quick:
            return {}
        found = read_yaml(configs_dir() / "quick.yaml")
        count = int((read_manifest(self.data)["split"] == "train").sum()) or 1
        return found | {"train": found["train"] | {"train_fraction": min(1.0, found["utterances"] / count)}}


@dataclass
class Found:
    """values: row -> a score a column. reasons: row -> why it has none. about: what `result_of` says; empty of counts.

    pages: row -> page with pictures.
    """

    values: dict[str, list[Score | None]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    pages: dict[str, str] = field(default_factory=dict)


def run_study(asked: Asked, reporter: Reporter) -> Found:
    """Train what the study needs and read its values; a row that cannot be trained on these data has a reason.

    Raises:
        ConfigError: a setting that no row knows; no row can be trained. TrainingError: no run finished.
    """
    study, found = asked.study, Found()
    rows = [row for row in study.rows if row.config is not None]
    _check_values(asked, rows)
    if study.kind == "counts":
        found.values = {row.label: [_counted(row, study, column) for column in study.columns] for row in rows}
    elif study.kind == "missing":
        _run_missing(asked, rows, found, reporter)
    else:
        _run_trainings(asked, rows, found, reporter)
    return found


def folder_of(label: str) -> str:
    """Folder of a row's runs."""
    return re.sub(r"[^a-z0-9.]+", "-", label.lower()).strip("-") or "row"


def _check_values(asked: Asked, rows: Sequence[Row]) -> None:
    known = set(TrainSettings.model_fields).union(*(_fields(row) for row in rows))
    if unknown := sorted(set(asked.values) - known):
        raise ConfigError(f"--set {', '.join(unknown)}: a setting neither of training nor of a row of this study")


def _fields(row: Row) -> set[str]:
    name = load_model_config(str(row.config)).model["name"]
    return set(models.REGISTRY[name][0].model_fields)


def values_of(row: Row, asked: Asked) -> dict[str, Any]:
    """Settings laid over a row's config: quick or offline ones, the study's, the row's, those of `--set`."""
    name, fields = load_model_config(str(row.config)).model["name"], _fields(row)
    under = {} if not standin_budget(asked.data) else dict(OFFLINE)
    if asked.quick:
        small = asked.small
        under |= {**small["train"], **small["model"], **small["models"].get(name, {})}
    if asked.device != "auto":
        under["device"] = asked.device
    known = fields | set(TrainSettings.model_fields)
    usable = {key: value for key, value in (under | dict(asked.study.set)).items() if key in known}
    start = asked.starts.get(row.starts_from or "")
    return (
        usable
        | row.set
        | ({} if start is None else {"init": str(start)})
        | {key: value for key, value in asked.values.items() if key in known}
    )


def _planned(row: Row, asked: Asked, found: Found, reporter: Reporter, **values: Any) -> list[Planned]:
    """Trainings of a row; none, with a reason, where it cannot be trained on these data."""
    if row.starts_from is not None and row.starts_from not in asked.starts:
        flag = f"--{row.starts_from}"
        found.reasons[row.label] = f"starts from a run of `pipeline pretrain`: give it as {flag} FOLDER"
        return []
    own = StudySettings(
        data=asked.data, models=(str(row.config),), folds=asked.study.folds, values=values_of(row, asked)
    )
    try:
        return planned_variant(own, reporter, **values)
    except (ConfigError, DataError, ModelError) as error:
        found.reasons[row.label] = str(error)
        reporter.say(f"{row.label} is left out: {error}")
        return []


def _none_left(found: Found) -> ConfigError:
    reasons = "\n".join(f"  {label}: {reason}" for label, reason in found.reasons.items())
    return ConfigError(f"no row of this study can be trained on these data:\n{reasons}")


def _run_trainings(asked: Asked, rows: Sequence[Row], found: Found, reporter: Reporter) -> None:
    study = asked.study
    planned = {row.label: _planned(row, asked, found, reporter) for row in rows}
    trainings = {label: (folder_of(label), of_row) for label, of_row in planned.items() if of_row}
    if not trainings:
        raise _none_left(found)
    check_runs(sum(len(of_row) for _, of_row in trainings.values()) * asked.seeds, f"--seeds {asked.seeds}")
    trained = train_all(wanted_runs(asked.out, trainings, asked.seeds), reporter)
    found.about = _about(asked, trained)
    of_row = {row["model"]: row for row in found.about["models"]}
    for label, runs in trained.finished.items():
        damaged = _damaged(runs, study, asked.device, reporter) if study.kind == "damage" else []
        found.values[label] = [_value(of_row[label], column, runs, damaged, found.about) for column in study.columns]
        if study.kind == "sites":
            shown = explain(runs[0].path, (), "test", None, asked.out / f"sites-{folder_of(label)}", reporter)
            found.pages[label] = str(shown["page"])
    for failed in trained.failed:
        found.reasons.setdefault(failed["model"], failed["reason"])


def _about(asked: Asked, trained: Trained) -> dict[str, Any]:
    own = StudySettings(data=asked.data, models=tuple(trained.finished), seeds=asked.seeds, folds=asked.study.folds)
    return result_of(own, trained, "")


def _run_missing(asked: Asked, rows: Sequence[Row], found: Found, reporter: Reporter) -> None:
    rates = rates_of(asked.data, asked.small.get("rates"))
    planned: dict[str, tuple[str, dict[float, Planned]]] = {}
    for row in rows:
        by_rate = {}
        for rate in rates:
            if not (of_rate := _planned(row, asked, found, reporter, damage=damage_at(rate))):
                break
            by_rate[rate] = of_rate[0]
        if len(by_rate) == len(rates):
            planned[row.label] = (folder_of(row.label), by_rate)
    if not planned:
        raise _none_left(found)
    wanted = wanted_at_rates(asked.out, planned, SEEDS[: asked.seeds])
    trained = train_all(wanted, reporter)
    found.about = _about(asked, trained)
    device: Any = asked.device
    found.about["missing"] = missing_of(wanted, trained, rates, device, reporter)
    for label, of_model in found.about["missing"]["models"].items():
        areas = of_model["areas"].get("auilc", {})
        found.values[label] = [areas.get(column.metric) for column in asked.study.columns]


def _damaged(runs: Sequence[RunDir], study: Study, device: str, reporter: Reporter) -> list[dict[str, Any]]:
    """Of each run, condition -> relative drop of each metric."""
    drops = []
    for run in runs:
        settings = DamagedRunSettings.checked(
            {"run": run.path, "protocol": study.damage, "device": device}, "the study"
        )
        report = score_damaged(settings, Reporter(quiet=reporter.quiet))
        drops.append({condition["name"]: condition["relative_drop"] for condition in report["conditions"]})
    return drops


def _value(
    row: Mapping[str, Any], column: Column, runs: Sequence[RunDir], damaged: Sequence[Mapping[str, Any]], about: Any
) -> Score | None:
    """The row's value in a column, over its seeds and folds; None where these data have no such metric or class."""
    if column.count is not None:
        count = row.get(column.count)
        return None if count is None else over_seeds([count * column.scale])
    if column.layer is not None:
        return over_seeds([_layer_weight(run, column.layer) for run in runs])
    protocol = column.protocol or about["task"].replace("-", "_")
    metric = str(column.metric)
    if column.condition is not None:
        name = full_name(about["metrics"], protocol, metric)
        drops = [drop.get(column.condition, {}).get(name) for drop in damaged]
        return _scaled(drops, 100)
    found = row["scores"].get(protocol, {}).get(metric)
    if found is not None and column.emotion is not None:
        found = found.get("per_emotion", {}).get(column.emotion)
    return None if found is None else _scaled(found["values"], column.scale)


def _scaled(values: Sequence[float | None], scale: float) -> Score:
    return over_seeds([None if value is None else value * scale for value in values])


def _layer_weight(run: RunDir, layer: int) -> float | None:
    model = models.load(run.path)
    if not isinstance(model, CMT) or model.fusion.layer_weights is None or layer > model.config.depth:
        return None
    return float(torch.softmax(model.fusion.layer_weights.detach(), dim=0)[layer - 1])


def _counted(row: Row, study: Study, column: Column) -> Score | None:
    """Parameters or multiply-adds of a row's model, untrained."""
    config = load_model_config(str(row.config)).model
    fields = _fields(row)
    settings = {key: value for key, value in (config | study.set | row.set).items() if key in fields}
    counted = count_model(config["name"], settings)
    parts = {
        "parameters": counted["parameters"],
        "fusion_parameters": counted.get("fusion_parameters"),
        "fusion_multiply_adds": counted["utterance"].get("fusion"),
        "tower_multiply_adds": counted.get("convolutions", {}).get("macs"),
        "multiply_adds": counted["utterance"]["total"],
    }
    value = parts[str(column.count)]
    return None if value is None else over_seeds([value * column.scale])
