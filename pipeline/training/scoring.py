"""Scores of a run's best weights on a split, and what is written of them into the run folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import models
from data_tools.about import read_dataset_facts
from data_tools.batch import Batch
from data_tools.dataset import UtteranceDataset
from data_tools.errors import DataError
from data_tools.files import read_json, write_json
from data_tools.parquet import read_parquet, write_parquet
from models.base import Model
from models.output import Output
from pipeline.progress import Reporter
from pipeline.run import RunDir
from pipeline.run_data import dataset_name, notice_of
from pipeline.tasks.resolve import build_task
from pipeline.tasks.task import Task
from pipeline.training.batches import StepLimit, ordered_loader
from pipeline.training.damage import Change, Changed
from pipeline.training.device import choose_device
from pipeline.training.loop import Pass, run_epoch
from pipeline.training.losses import Objective


class Scorer:
    """A model on one device in float32, without Fabric: scoring needs none of it.

    Attributes:
        model: the network, moved to the device. device: where batches are expected.
    """

    def __init__(self, model: Model, device: torch.device) -> None:
        self.device = device
        self.model = model.to(device)

    def __call__(self, batch: Batch) -> Output:
        """The model's output for a batch on the device."""
        output: Output = self.model(batch)
        return output


@dataclass(frozen=True)
class BestModel:
    """The best weights of a run, ready to score in float32."""

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
        return cls(scorer, task_objective(task_of_run(run), scorer.device), size, settings.max_batch_steps)

    def score(self, dataset: UtteranceDataset, reporter: Reporter, label: str, damage: Change | None = None) -> Pass:
        """One pass over `dataset` in its own order. An utterance without faces, audio or words counts like any.

        Raises:
            DataError: a score is not a finite number.
        """
        limit = StepLimit.from_dataset(dataset, self.max_batch_steps)
        loader = ordered_loader(dataset, self.batch_size, models.tokenizer_for(self.scorer.model), limit=limit)
        batches = loader if damage is None else Changed(loader, damage)
        found = run_epoch(self.scorer, batches, self.objective, reporter, label)
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


def record(run: RunDir, dataset: UtteranceDataset, split: str, found: Pass, reporter: Reporter) -> dict[str, Any]:
    """Write what `found` says about one split into metrics.json and predictions.parquet; returns the split's part.

    dataset: what `found` is a pass over. `left_out` in the answer counts its utterances without the label of the task.

    `tuned_on` there counts the utterances that the best epoch and the thresholds were chosen by: all of valid, and in
    another split none, unless the splits have changed since training.
    """
    task, data = task_of_run(run), dataset.data_dir
    about = read_dataset_facts(data)
    thresholds, tuned_on = run.read_thresholds(), run.learned_from()["valid"]
    report = {
        "split": split,
        "split_protocol": split_protocol(run, data),
        "dataset": dataset_name(data),
        "folder": data.as_posix(),
        "task": task.settings.task,
        "utterances": len(found.ids),
        "left_out": {task.unlabelled: dataset.left_out} if dataset.left_out else {},
        "tuned_on": 0 if split == "train" else sum(name in tuned_on for name in found.ids),
        "notice": notice_of(about),
        "thresholds": read_json(run.thresholds),
        "metrics": {
            protocol: {name: {"split": split} | entry for name, entry in entries.items()}
            for protocol, entries in task.report(found, thresholds).items()
        },
    }
    _write_metrics(run, data, report)
    columns = {"utterance_id": list(found.ids), "split": split} | task.columns(found, thresholds)
    _write_predictions(run.predictions(data), split, pd.DataFrame(columns))
    reporter.say(format_split(report))
    return report


def split_protocol(run: RunDir, data: Path) -> str:
    """Name of the protocol that the run's splits of `data` follow: the run's own, else the data folder's."""
    own = run.read_settings()[0].split
    if own is not None and not run.is_shared and data.resolve() == run.own_data().resolve():
        return own.portable
    return str(read_dataset_facts(data).get("split", "not stated by the data folder"))


def _write_metrics(run: RunDir, data: Path, report: dict[str, Any]) -> None:
    splits = run.read_scores(data) | {report["split"]: report}
    # In name order, so that the file doesn't depend on which split was evaluated first.
    write_json(run.metrics(data), {"splits": dict(sorted(splits.items()))})


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
    for protocol, entries in report["metrics"].items():
        found = [f"{name} {_number(e['value'])} (baseline {_number(e['baseline'])})" for name, e in entries.items()]
        lines.append(f"  {protocol}: {', '.join(found)}")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"
