"""Stage 4: run directory + split -> metrics.json, predictions.parquet."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import models
from data_tools.dataset import UtteranceDataset
from data_tools.errors import DataError
from data_tools.files import atomic_path, folder_lock, write_json
from data_tools.manifest import LABEL_PREFIX, PRESENT_FROM, read_manifest
from pipeline import metrics, thresholds
from pipeline.config import ConfigError, EvaluateSettings
from pipeline.engine import Engine, start_fabric
from pipeline.facts import DataFacts, dataset_name, notice_of, preprocessing_of, read_json
from pipeline.loaders import ordered_loader
from pipeline.loop import Pass, run_epoch
from pipeline.losses import MultiLabelBCE, Objective
from pipeline.progress import Reporter
from pipeline.rundir import RunDir

TASK = "bce"
LOSS = "binary cross-entropy, positives weighted by negatives / positives of train; mean over utterances and emotions"
LOSS_BASELINE = "every score 0.5"


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


def _evaluate(run: RunDir, settings: EvaluateSettings, reporter: Reporter) -> dict[str, Any]:
    facts = run.facts()
    data = settings.data or Path(facts.folder)
    dataset = load_unseen(run, data, settings.split)
    if dataset.emotions != facts.emotions:
        raise ConfigError(f"{data} has the emotions {dataset.emotions}, the run {settings.run} knows {facts.emotions}")
    if (found := preprocessing_of(data)) != facts.preprocessing:
        raise DataError(
            f"{data} was preprocessed with {found}, the data of {settings.run} with {facts.preprocessing}; "
            "run `pipeline preprocess` with the settings of the run"
        )
    batch_size = settings.batch_size or run.read_settings()[0].batch_size
    best = BestModel.load(run, settings.device, batch_size)
    return record(run, data, settings.split, best.score(dataset, reporter, settings.split), reporter)


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
    """`load_split`, without an utterance that `run` was trained on unless the split is `train` itself.

    The splits of a data folder can be other ones than when the run was trained. A run on extracted features gets
    those of the same name, on the scale that it was trained with.

    Raises:
        DataError: as `load_split`, or the run was trained on some of the utterances (names a few), or on features that
            were extracted in another way.
    """
    use = run.facts().features
    dataset = load_split(data, split, None if use is None else use.name)
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
    def load(cls, run: RunDir, device: str, batch_size: int) -> "BestModel":
        """Read them from the run folder."""
        engine = Engine(start_fabric(device), models.load(run.path))
        return cls(engine, task_objective(run.facts(), engine.fabric.device), batch_size)

    def score(self, dataset: UtteranceDataset, reporter: Reporter, label: str) -> Pass:
        """One pass over `dataset` in its own order. An utterance without faces, sound or words counts like any."""
        loader = ordered_loader(dataset, self.batch_size, models.tokenizer_for(self.engine.model))
        return run_epoch(self.engine, loader, self.objective, reporter, label)


def task_objective(
    facts: DataFacts, device: torch.device, loss_weights: Mapping[str, float] | None = None
) -> Objective:
    """The loss of a run: weighted binary cross-entropy, and the model's further losses."""
    return Objective(TASK, _bce(facts, device), loss_weights or {})


def _bce(facts: DataFacts, device: torch.device) -> MultiLabelBCE:
    return MultiLabelBCE(torch.tensor([facts.pos_weight[name] for name in facts.emotions], device=device))


def record(run: RunDir, data: Path, split: str, found: Pass, reporter: Reporter) -> dict[str, Any]:
    """Write what `found` says about one split into metrics.json and predictions.parquet; returns the split's part.

    `tuned_on` there counts the utterances that the best epoch and the thresholds were chosen by: all of valid, and in
    another split none, unless the splits have changed since training.
    """
    facts = run.facts()
    dataset = read_json(data / "dataset.json") if (data / "dataset.json").is_file() else {}
    chosen = run.read_thresholds()
    scores = found.logits.sigmoid().numpy()
    predicted = thresholds.decide(scores, np.array(list(chosen.values())))
    report = {
        "split": split,
        "split_protocol": str(dataset.get("split", "not stated by the data folder")),
        "dataset": dataset_name(data),
        "folder": data.as_posix(),
        "utterances": len(found.ids),
        "tuned_on": 0 if split == "train" else len(run.learned_from()["valid"].intersection(found.ids)),
        "notice": notice_of(dataset),
        "thresholds": read_json(run.thresholds),
        "metrics": _metrics(facts, split, found, scores, predicted),
    }
    _write_metrics(run.metrics(data), split, report)
    _write_predictions(run.predictions(data), split, _table(facts.emotions, split, found, scores, predicted))
    reporter.say(format_split(report))
    return report


def _metrics(
    facts: DataFacts, split: str, found: Pass, scores: metrics.Floats, predicted: metrics.Bools
) -> dict[str, dict[str, Any]]:
    """Protocol -> metric -> value, baseline, definitions, split and count."""
    present = found.labels.numpy() >= PRESENT_FROM
    positives = np.array([facts.train_positives[name] for name in facts.emotions])
    share = positives / facts.train_utterances
    multi_label = metrics.multi_label_report(facts.emotions, present, scores, predicted, share)
    multi_label["loss"] = {
        "value": found.parts[TASK],
        "baseline": _bce(facts, found.labels.device).against(torch.zeros_like(found.logits), found.labels).item(),
        "definition": LOSS,
        "baseline_definition": LOSS_BASELINE,
        "utterances": len(present),
    }
    protocols = {"multi_label": multi_label}
    if metrics.is_single_label(present):
        truth, answer = present.argmax(1), found.logits.numpy().argmax(1)
        protocols["single_label"] = metrics.single_label_report(facts.emotions, truth, answer, int(positives.argmax()))
    return {
        protocol: {name: {"split": split} | entry for name, entry in entries.items()}
        for protocol, entries in protocols.items()
    }


def _table(
    emotions: list[str], split: str, found: Pass, scores: metrics.Floats, predicted: metrics.Bools
) -> pd.DataFrame:
    columns: dict[str, Any] = {"utterance_id": list(found.ids), "split": split}
    labels = found.labels.numpy()
    for prefix, values in ((LABEL_PREFIX, labels), ("score_", scores), ("predicted_", predicted)):
        columns |= {prefix + name: values[:, e] for e, name in enumerate(emotions)}
    return pd.DataFrame(columns)


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
    for protocol, entries in report["metrics"].items():
        found = [f"{name} {_number(e['value'])} (baseline {_number(e['baseline'])})" for name, e in entries.items()]
        lines.append(f"  {protocol}: {', '.join(found)}")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"
