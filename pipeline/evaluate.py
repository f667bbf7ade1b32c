"""Stage 4: run directory + split -> metrics.json, predictions.parquet."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import models
from data_tools.dataset import UtteranceDataset
from data_tools.errors import DataError
from data_tools.files import atomic_path, folder_lock, read_json, read_json_if_any, write_json
from data_tools.manifest import read_manifest
from pipeline.config import ConfigError, EvaluateSettings
from pipeline.damaging import Damage, Damaged
from pipeline.engine import Engine, start_fabric
from pipeline.facts import dataset_name, notice_of, preprocessing_of
from pipeline.loaders import ordered_loader
from pipeline.loop import Pass, run_epoch
from pipeline.losses import Objective
from pipeline.progress import Reporter
from pipeline.rundir import RunDir
from pipeline.tasks import Task, named, task_of, with_label


def evaluate(settings: EvaluateSettings, reporter: Reporter) -> dict[str, Any]:
    """Score a finished run on one split; returns that split's part of metrics.json.

    Other splits that were evaluated before stay in both files. Nobody else trains or evaluates the run meanwhile.

    Raises:
        ConfigError: no such run, it isn't finished, CUDA asked for where there is none, other emotions in the data.
        DataError: the data folder is missing or not preprocessed as the run's was, or the split has no utterances or
            some that the run was trained on; another process trains or evaluates the run.
    """
    run = RunDir.existing(settings.run)
    run.read_thresholds()  # refuses an unfinished run before anything is loaded
    # All the way: a lock for the writing alone would be refused after the work, and a resumed training in between
    # would leave scores of weights that are gone.
    with folder_lock(run.path):
        return _evaluate(run, settings, reporter)


def _evaluate(run: RunDir, asked: EvaluateSettings, reporter: Reporter) -> dict[str, Any]:
    dataset = load_fitting(run, asked.data, asked.split)
    best = BestModel.load(run, asked.device, asked.batch_size)
    return record(run, dataset, asked.split, best.score(dataset, reporter, asked.split), reporter)


def load_fitting(run: RunDir, other: Path | None, split: str) -> UtteranceDataset:
    """`load_unseen` from the folder `other`, or the run's own, with the run's emotions and preprocessing.

    Raises:
        ConfigError: other emotions in the data.
        DataError: as `load_unseen`, or the data was preprocessed in another way.
    """
    data = other or Path(run.facts().folder)
    dataset = load_unseen(run, data, split)
    check_fits(run, data, dataset)
    return dataset


def check_fits(run: RunDir, data: Path, dataset: UtteranceDataset) -> None:
    """Refuse a data set of `data` that isn't like the one which `run` was trained on.

    Raises:
        ConfigError: other emotions in the data.
        DataError: the data was preprocessed in another way.
    """
    facts = run.facts()
    if run.read_settings()[0].task != "sentiment" and dataset.emotions != facts.emotions:
        raise ConfigError(f"{data} has the emotions {dataset.emotions}, the run {run.path} knows {facts.emotions}")
    if (found := preprocessing_of(data)) != facts.preprocessing:
        raise DataError(
            f"{data} was preprocessed with {found}, the data of {run.path} with {facts.preprocessing}; "
            "run `pipeline preprocess` with the settings of the run"
        )


def load_split(data: Path, split: str, features: str | None = None) -> UtteranceDataset:
    """The utterances of one split, at least one; with extracted features in place of faces and sound where named.

    Raises:
        DataError: no manifest, nothing in the split, or not preprocessed; the message has the command that helps.
    """
    counts = read_manifest(data)["split"].value_counts().to_dict()
    dataset = UtteranceDataset(data, split, features) if counts.get(split) else None
    if not dataset:
        found = ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"
        rejected = f"; preprocessing rejected all {counts[split]} of them" if counts.get(split) else ""
        raise DataError(
            f"no utterances in the split {split!r} of {data} (the manifest has: {found}{rejected}); make other splits "
            "with `pipeline reorganize --split ...`"
        )
    return dataset


def load_unseen(run: RunDir, data: Path, split: str) -> UtteranceDataset:
    """`load_split` for the task of `run`, which was trained on none of it unless the split is `train` itself.

    Utterances without the label of the task are left out, and counted. The splits of a data folder can be other ones
    than when the run was trained. A run on extracted features gets those of the same name, on the scale that it was
    trained with.

    Raises:
        DataError: as `load_split` and `with_label`, or the run was trained on some of the utterances (names a few), or
            on features that were extracted in another way.
    """
    use = run.facts().features
    dataset = load_split(data, split, None if use is None else use.name)
    settings, model_settings = run.read_settings()
    config = models.config_of(model_settings["name"], {k: v for k, v in model_settings.items() if k != "name"})
    dataset.waveforms = config.waveform_encoder is not None
    dataset = with_label(dataset, named(settings.task, dataset.emotions))
    if use is not None:
        use.apply(dataset)
    trained_on = run.learned_from()["train"]
    known = [name for name in dataset.table["utterance_id"] if name in trained_on]
    if split != "train" and known:
        protocol = run.facts().dataset.get("split", "not stated")
        raise DataError(
            f"{run.path} was trained on {len(known)} of the {len(dataset)} utterances in {split!r} of {data}, "
            f"e.g. {', '.join(known[:3])}: the splits are others than in training (then: {protocol}), and these scores "
            "would be too good; make the folder as it was with `pipeline reorganize --split ...`, or train again on it"
        )
    return dataset


@dataclass(frozen=True)
class BestModel:
    """The best weights of a run, ready to score in float32."""

    engine: Engine
    objective: Objective
    batch_size: int

    @classmethod
    def load(cls, run: RunDir, device: str, batch_size: int | None = None) -> "BestModel":
        """Read them from the run folder. batch_size: None for that of the training."""
        engine = Engine(start_fabric(device), models.load(run.path))
        size = batch_size or run.read_settings()[0].batch_size
        return cls(engine, task_objective(task_of_run(run), engine.fabric.device), size)

    def score(self, dataset: UtteranceDataset, reporter: Reporter, label: str, damage: Damage | None = None) -> Pass:
        """One pass over `dataset` in its own order. An utterance without faces, sound or words counts like any."""
        loader = ordered_loader(dataset, self.batch_size, models.tokenizer_for(self.engine.model))
        batches = loader if damage is None else Damaged(loader, damage)
        return run_epoch(self.engine, batches, self.objective, reporter, label)


def task_objective(task: Task, device: torch.device, loss_weights: Mapping[str, float] | None = None) -> Objective:
    """What a run makes small: the loss of its task, and the model's further losses."""
    return Objective(task.settings.loss, task.loss(device), loss_weights or {})


def task_of_run(run: RunDir) -> Task:
    """The task that a run was trained for."""
    return task_of(run.read_settings()[0], run.facts())


def record(run: RunDir, dataset: UtteranceDataset, split: str, found: Pass, reporter: Reporter) -> dict[str, Any]:
    """Write what `found` says about one split into metrics.json and predictions.parquet; returns the split's part.

    dataset: what `found` is a pass over. `left_out` in the answer counts its utterances without the label of the task.

    `tuned_on` there counts the utterances that the best epoch and the thresholds were chosen by: all of valid, and in
    another split none, unless the splits have changed since training.
    """
    task, data = task_of_run(run), dataset.data_dir
    about = read_json_if_any(data / "dataset.json")
    thresholds = run.read_thresholds()
    report = {
        "split": split,
        "split_protocol": str(about.get("split", "not stated by the data folder")),
        "dataset": dataset_name(data),
        "folder": data.as_posix(),
        "task": task.settings.task,
        "utterances": len(found.ids),
        "left_out": {task.unlabelled: dataset.left_out} if dataset.left_out else {},
        "tuned_on": 0 if split == "train" else len(run.learned_from()["valid"].intersection(found.ids)),
        "notice": notice_of(about),
        "thresholds": read_json(run.thresholds),
        "metrics": {
            protocol: {name: {"split": split} | entry for name, entry in entries.items()}
            for protocol, entries in task.report(found, thresholds).items()
        },
    }
    _write_metrics(run.metrics(data), split, report)
    columns = {"utterance_id": list(found.ids), "split": split} | task.columns(found, thresholds)
    _write_predictions(run.predictions(data), split, pd.DataFrame(columns))
    reporter.say(format_split(report))
    return report


def _write_metrics(path: Path, split: str, report: dict[str, Any]) -> None:
    before = read_json(path).get("splits") if path.is_file() else {}
    if not isinstance(before, dict):
        raise DataError(f"{path} is damaged: it has no splits; delete it and evaluate each split again")
    # In name order, so that the file doesn't depend on which split was evaluated first.
    write_json(path, {"splits": dict(sorted((before | {split: report}).items()))})


def _write_predictions(path: Path, split: str, table: pd.DataFrame) -> None:
    if path.is_file():
        try:
            before = pd.read_parquet(path)
            table = pd.concat([before[before["split"] != split], table])
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{path} is damaged ({error}); delete it and evaluate each split again") from error
    with atomic_path(path) as temporary:
        table.sort_values(["split", "utterance_id"], ignore_index=True).to_parquet(temporary, index=False)


def format_split(report: Mapping[str, Any]) -> str:
    """For a person: the split and how it was made, then a line a protocol with each metric and its baseline."""
    head = f"{report['dataset']} {report['split']}, split {report['split_protocol']}, {report['utterances']} utterances"
    lines = [head + (f" [{report['notice']}]" if report["notice"] else "")]
    if report["tuned_on"] and report["split"] != "valid":
        lines.append(
            f"  not a test: the epoch and the thresholds were chosen on {report['tuned_on']} of these utterances"
        )
    lines += [f"  left out: {count} with {reason}" for reason, count in report["left_out"].items()]
    for protocol, entries in report["metrics"].items():
        found = [f"{name} {_number(e['value'])} (baseline {_number(e['baseline'])})" for name, e in entries.items()]
        lines.append(f"  {protocol}: {', '.join(found)}")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"
