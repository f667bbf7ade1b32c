"""Scores of a run's best weights on a split, and what is written of them into the run folder."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import models
from data_tools.batch import Batch
from data_tools.dataset import UtteranceDataset
from data_tools.errors import DataError
from data_tools.files import read_json, write_json
from data_tools.parquet import read_parquet, write_parquet
from models.base import Model
from models.output import Output
from pipeline.progress import Reporter
from pipeline.run import RunDir
from pipeline.run_data import describe_folders, joined_name, notice_of
from pipeline.tasks.resolve import build_task
from pipeline.tasks.task import Task
from pipeline.training.batches import StepLimit, ordered_loader
from pipeline.training.damage import Change, Changed
from pipeline.training.data import is_own_data
from pipeline.training.device import choose_device
from pipeline.training.label_maps import MappedAnswers, describe_labels
from pipeline.training.loop import Pass, run_epoch
from pipeline.training.losses import Objective


class Scorer:
    """A model on one device in float32, without Fabric: scoring needs none of it.

    change: of each output, before it is scored; None for none.

    Attributes:
        model: the network, moved to the device. device: where batches are expected.
    """

    def __init__(self, model: Model, device: torch.device, change: Callable[[Output], Output] | None = None) -> None:
        self.device = device
        self.model = model.to(device)
        self._change = change

    def __call__(self, batch: Batch) -> Output:
        """The model's output for a batch on the device."""
        output: Output = self.model(batch)
        return output if self._change is None else self._change(output)


@dataclass(frozen=True)
class BestModel:
    """The best weights of a run, ready to score in float32."""

    run: RunDir
    scorer: Scorer
    objective: Objective
    batch_size: int
    max_batch_steps: int

    @classmethod
    def load(cls, run: RunDir, device: str, batch_size: int | None = None) -> "BestModel":
        """Read them from the run folder. batch_size: None for that of the training."""
        scorer = Scorer(model_of_run(run), choose_device(device))
        settings = run.read_settings()[0]
        size = batch_size or settings.batch_size
        return cls(run, scorer, task_objective(task_of_run(run), scorer.device), size, settings.max_batch_steps)

    def score(self, dataset: UtteranceDataset, reporter: Reporter, label: str, damage: Change | None = None) -> Pass:
        """One pass over `dataset` in its own order. An utterance without faces, audio or words counts like any.

        The answers are in the emotions of `dataset`.

        Raises:
            DataError: a score is not a finite number.
        """
        limit = StepLimit.from_dataset(dataset, self.max_batch_steps)
        loader = ordered_loader(dataset, self.batch_size, models.tokenizer_for(self.scorer.model), limit=limit)
        batches = loader if damage is None else Changed(loader, damage)
        scorer, objective = self.scorer, self.objective
        if answers := answers_to(self.run, dataset):
            scorer = Scorer(scorer.model, scorer.device, answers.output)
            objective = task_objective(task_on(self.run, dataset), scorer.device)
        found = run_epoch(scorer, batches, objective, reporter, label)
        wrong = ~torch.isfinite(found.logits).all(1)
        if wrong.any():
            names = [name for name, is_wrong in zip(found.ids, wrong.tolist(), strict=True) if is_wrong]
            raise DataError(
                f"the scores of {len(names)} utterances are not finite, e.g. of {names[0]}: its features or the "
                "weights are damaged; look at it with `pipeline inspect`, and run `pipeline check --data` on the folder"
            )
        return found


def task_objective(task: Task, device: torch.device, loss_weights: Mapping[str, float] | None = None) -> Objective:
    """Loss of a run: that of its task, and the model's further losses."""
    return Objective(task.settings.loss, task.loss(device), loss_weights or {})


def task_of_run(run: RunDir) -> Task:
    """The task that a run was trained for.

    Raises:
        DataError: settings.yaml or data.json is damaged.
    """
    return build_task(run.read_settings()[0], run.facts())


def answers_to(run: RunDir, dataset: UtteranceDataset) -> MappedAnswers | None:
    """The answers of a run in the emotions that a label map gave to `dataset`; None where they are the run's own.

    Raises:
        ConfigError, DataError: as `task_of_run` and `RunDir.read_thresholds`.
    """
    if dataset.mapped is None or dataset.emotions == (facts := run.facts()).emotions:
        return None
    return MappedAnswers.to_data(facts, run.read_settings()[0].task, run.read_thresholds(), dataset)


def task_on(run: RunDir, dataset: UtteranceDataset) -> Task:
    """`task_of_run`, in the emotions of `dataset`."""
    answers = answers_to(run, dataset)
    return task_of_run(run) if answers is None else build_task(run.read_settings()[0], answers.facts)


def model_of_run(run: RunDir) -> Model:
    """The best weights of a run, on the CPU, in evaluation mode.

    Raises:
        ModelError: as `models.load`.
        DataError: it has another number of scores than the task of the run.
    """
    model, task = models.load(run.path), task_of_run(run)
    if model.config.outputs != task.outputs:
        raise DataError(
            f"the model in {run.path} has {model.config.outputs} scores, its task {task.outputs}: its files are of "
            "different runs; copy the folder again or train again"
        )
    return model


def record(
    run: RunDir, dataset: UtteranceDataset, split: str, found: Pass, reporter: Reporter, whole: bool = False
) -> dict[str, Any]:
    """Write what `found` says about one split into metrics.json and predictions.parquet; returns the split's part.

    dataset: what `found` is a pass over. whole: it is the split of all data folders of the run. `left_out` in the
    answer counts its utterances without the label of the task.

    `tuned_on` there counts the utterances that the best epoch and the thresholds were chosen by: all of valid, and in
    another split none, unless the splits have changed since training.
    """
    task, answers = task_on(run, dataset), answers_to(run, dataset)
    folders = [part.data_dir for part in dataset.parts]
    about = describe_folders(folders)
    thresholds = run.read_thresholds() if answers is None else answers.thresholds
    tuned_on = run.learned_from()["valid"]
    stored = read_json(run.thresholds)
    report = {
        "split": split,
        "split_protocol": split_protocol(run, folders),
        "dataset": joined_name(folders),
        "folder": " + ".join(folder.as_posix() for folder in folders),
        "task": task.settings.task,
        "utterances": len(found.ids),
        "left_out": {task.unlabelled: dataset.left_out} if dataset.left_out else {},
        "tuned_on": 0 if split == "train" else sum(name in tuned_on for name in found.ids),
        "notice": notice_of(about),
        "thresholds": stored if answers is None else stored | {"thresholds": thresholds},
        "metrics": {
            protocol: {name: {"split": split} | entry for name, entry in entries.items()}
            for protocol, entries in task.report(found, thresholds).items()
        },
    }
    if dataset.mapped is not None:
        report["labels"] = describe_labels(dataset, answers)
    other_map = _other_map(run, dataset)
    place = run.own_folders() if whole else folders
    _write_metrics(run, place, other_map, report)
    columns = {"utterance_id": list(found.ids), "split": split} | task.columns(found, thresholds)
    _write_predictions(run.predictions(place, other_map), split, pd.DataFrame(columns))
    reporter.say(format_split(report))
    return report


def split_protocol(run: RunDir, folders: Sequence[Path]) -> str:
    """Name of the protocol that the run's splits of these folders follow: the run's own, else the folders'."""
    own = run.read_settings()[0].split
    if own is not None and is_own_data(run, folders):
        return own.portable
    return str(describe_folders(folders).get("split", "not stated by the data folder"))


def _other_map(run: RunDir, dataset: UtteranceDataset) -> str | None:
    """Name of the label map of `dataset`, where the run was not trained with it."""
    if dataset.mapped is None or dataset.mapped.label_map == run.facts().label_map:
        return None
    return dataset.mapped.label_map.name


def _write_metrics(run: RunDir, data: Sequence[Path], label_map: str | None, report: dict[str, Any]) -> None:
    splits = run.read_scores(data, label_map) | {report["split"]: report}
    # In name order, so that the file doesn't depend on which split was evaluated first.
    write_json(run.metrics(data, label_map), {"splits": dict(sorted(splits.items()))})


def _write_predictions(path: Path, split: str, table: pd.DataFrame) -> None:
    if path.is_file():
        try:
            before = read_parquet(path)[list(table.columns)]
            if odd := [name for name in table if before[name].dtype.kind != table[name].dtype.kind]:
                raise ValueError(f"{odd[0]} is of another type")
            table = pd.concat([before[before["split"] != split], table])
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{path} is damaged ({error}); delete it and evaluate each split again") from error
    write_parquet(path, table.sort_values(["split", "utterance_id"], ignore_index=True))


def format_split(report: Mapping[str, Any]) -> str:
    """For a person: the split and how it was made, then a line a protocol with each metric and its baseline."""
    head = f"{report['dataset']} {report['split']}, split {report['split_protocol']}, {report['utterances']} utterances"
    lines = [head + (f" [{report['notice']}]" if report["notice"] else "")]
    if report["tuned_on"] and report["split"] != "valid":
        lines.append(
            f"  not a test: the epoch and the thresholds were chosen on {report['tuned_on']} of these utterances"
        )
    lines += [f"  left out: {count} with {reason}" for reason, count in report["left_out"].items()]
    lines += _label_lines(report["labels"]) if "labels" in report else []
    for protocol, entries in report["metrics"].items():
        found = [f"{name} {_number(e['value'])} (baseline {_number(e['baseline'])})" for name, e in entries.items()]
        lines.append(f"  {protocol}: {', '.join(found)}")
    return "\n".join(lines)


def _label_lines(labels: Mapping[str, Any]) -> list[str]:
    """For a person: the label map, the names that it joins, and what has no counterpart."""
    lines = [f"  labels by the map {labels['map']}: {', '.join(labels['emotions'])}"]
    for whose, names in ({"the run": labels["run"] or {}} | labels["data"]).items():
        renamed = [f"{own} as {name}" for own, name in names.items() if own != name]
        lines += [f"    of {whose}: {', '.join(renamed)}"] if renamed else []
    for key, what in (("left_out", "left out"), ("beside_others", "not counted beside others")):
        counts = [f"{count} with {name}" for name, count in labels[key].items()]
        lines += [f"    {what}, without counterpart: {', '.join(counts)}"] if counts else []
    return lines


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"
