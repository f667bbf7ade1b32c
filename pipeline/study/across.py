"""Trained on each corpus, scored on each: the matrix of `pipeline compare --across`.

Every run learns the emotions that all of the corpora have, and is scored on the test split of each: a column of the
matrix is of the same utterances whatever the run learned from.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.about import read_dataset_facts
from data_tools.dataset import UtteranceDataset
from data_tools.files import folder_lock
from data_tools.manifest import emotions_of, read_manifest
from data_tools.parquet import read_parquet
from data_tools.records import LABEL_PREFIX
from pipeline.metrics.metric import SPREAD, over_seeds
from pipeline.progress import Reporter
from pipeline.run import RunDir
from pipeline.run_data import describe_folders, notice_of
from pipeline.settings import ConfigError
from pipeline.study.plan import Plan, Planned, StudySettings, plan
from pipeline.study.runs import SPLIT, Trained, check_runs, train_all, wanted_runs
from pipeline.training.data import check_together, load_fitting
from pipeline.training.label_maps import emotions_to_learn, read_label_map
from pipeline.training.scoring import BestModel, record, task_of_run


def matrix_of(asked: StudySettings, folders: Sequence[Path], out: Path, reporter: Reporter) -> dict[str, Any]:
    """Train every model on every folder, score each run on all of them, and return the matrix, ready for JSON.

    `matrix`: model -> trained on -> scored on -> metric of the task -> {"mean", "spread", "values" of the seeds,
    "baseline"}. Folders go by their last part. Runs and scores that are there already are kept.

    Raises:
        ConfigError, ModelError, DataError: as `pipeline.study.plan.plan` and `pipeline.study.runs.train_all`; folders
            that cannot be compared: of one name, with an utterance in common, or of other tasks or emotions.
    """
    named = _by_name(folders)
    check_together(folders)
    values = asked.values | _emotions(asked.values, folders) | _task(asked.values, folders)
    plans = {
        name: plan(asked.model_copy(update={"data": folder, "values": values}), reporter)
        for name, folder in named.items()
    }
    rows, left_out = _rows(plans)
    check_runs(len(rows) * asked.seeds, f"{len(named)} corpora and {len(rows)} rows with --seeds {asked.seeds}")
    with folder_lock(out):
        trainings = {label: (f"{model}/{name}", [planned]) for label, (model, name, planned) in rows.items()}
        trained = train_all(wanted_runs(out, trainings, asked.seeds), reporter)
        reports = {
            label: {name: [_scored(run, folder, reporter) for run in runs] for name, folder in named.items()}
            for label, runs in trained.finished.items()
        }
    return _result(asked, named, {label: row[:2] for label, row in rows.items()}, trained, reports) | {
        "left_out": left_out
    }


def _by_name(folders: Sequence[Path]) -> dict[str, Path]:
    named = {folder.resolve().name: folder for folder in folders}
    if len(folders) < 2:
        raise ConfigError("--across needs two data folders or more: give --data for each")
    if len(named) < len(folders):
        raise ConfigError(f"of the data folders {', '.join(map(str, folders))} two have one name; rename one")
    return named


def _emotions(values: Mapping[str, Any], folders: Sequence[Path]) -> dict[str, Any]:
    """The setting `learn_emotions`: those that all corpora have by the label map; nothing where there is no choice."""
    own = {folder: emotions_of(read_manifest(folder)) for folder in folders}
    if "labels" not in values:
        if values.get("task") != "sentiment" and len(set(map(tuple, own.values()))) > 1:
            listed = "; ".join(f"{folder}: {', '.join(names) or 'none'}" for folder, names in own.items())
            raise ConfigError(f"the data folders have other emotions ({listed}); give --labels common")
        return {}
    if "learn_emotions" in values:
        return {}
    label_map = read_label_map(values["labels"])
    return {"learn_emotions": emotions_to_learn(None, list(own.items()), label_map)}


def _task(values: Mapping[str, Any], folders: Sequence[Path]) -> dict[str, str]:
    """The setting `task`, where all folders state the same; nothing where it is given."""
    if "task" in values:
        return {}
    stated = {folder: read_dataset_facts(folder).get("task") for folder in folders}
    if len(set(stated.values())) > 1:
        listed = ", ".join(f"{folder} {task or 'none'}" for folder, task in stated.items())
        raise ConfigError(f"the data folders state other tasks ({listed}); name one with --set task=single-label")
    return {}


def _rows(plans: Mapping[str, Plan]) -> tuple[dict[str, tuple[str, str, Planned]], dict[str, str]]:
    """Label -> (model, trained on, its training), model by model; and the models left out, those of any corpus."""
    left_out = {model: reason for found in plans.values() for model, reason in found.left_out.items()}
    first = next(iter(plans.values()))
    rows = {
        f"{planned.name} on {name}": (planned.name, name, each)
        for planned in first.planned
        if planned.name not in left_out
        for name, found in plans.items()
        for each in found.planned
        if each.name == planned.name
    }
    if not rows:
        raise ConfigError("no model can be trained on all of these data folders: " + "; ".join(left_out.values()))
    return rows, left_out


def _scored(run: RunDir, folder: Path, reporter: Reporter) -> dict[str, Any]:
    """The scores of a run on the test split of `folder`: those that are there, where they are of the same labels."""
    dataset = load_fitting(run, folder, SPLIT)
    saved = run.read_scores(folder).get(SPLIT)
    if saved is not None and _same_labels(run.predictions(folder), dataset):
        return saved
    with folder_lock(run.path):
        best = BestModel.load(run, run.read_settings()[0].device)
        return record(run, dataset, SPLIT, best.score(dataset, reporter, f"{run.path} on {folder}"), reporter)


def _same_labels(predictions: Path, dataset: UtteranceDataset) -> bool:
    """Return True if the table of a run's answers has the utterances and labels of `dataset`."""
    columns = [LABEL_PREFIX + name for name in dataset.emotions] or ["sentiment"]
    try:
        table = read_parquet(predictions)
        answered = table[table["split"] == SPLIT].set_index("utterance_id")[columns]
    except (OSError, ValueError, KeyError):
        return False
    now = dataset.table.set_index("utterance_id")[columns]
    same_ids = sorted(answered.index) == sorted(now.index)
    return same_ids and np.array_equal(answered.loc[now.index].to_numpy(np.float32), now.to_numpy(np.float32))


def _result(
    asked: StudySettings,
    named: Mapping[str, Path],
    rows: Mapping[str, tuple[str, str]],
    trained: Trained,
    reports: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]],
) -> dict[str, Any]:
    first = next(iter(trained.finished.values()))[0]
    task, facts = task_of_run(first), first.facts()
    own = task.settings.task.replace("-", "_")
    matrix: dict[str, dict[str, Any]] = {}
    for label, scored in reports.items():
        model, name = rows[label]
        matrix.setdefault(model, {})[name] = {other: _cell(found, own) for other, found in scored.items()}
    some = next(iter(reports.values()))
    metrics = next(iter(some.values()))[0]["metrics"][own]
    return {
        "folders": {name: folder.as_posix() for name, folder in named.items()},
        "datasets": {name: describe_folders([folder]).get("dataset", name) for name, folder in named.items()},
        "split": SPLIT,
        "split_protocols": {name: found[0]["split_protocol"] for name, found in some.items()},
        "utterances": {name: found[0]["utterances"] for name, found in some.items()},
        "learned_from": {rows[label][1]: runs[0].facts().train_utterances for label, runs in trained.finished.items()},
        "notice": next(filter(None, (notice_of(read_dataset_facts(folder)) for folder in named.values())), None),
        "label_map": None if facts.label_map is None else facts.label_map.name,
        "emotions": facts.emotions,
        "without_counterpart": {name: found[0].get("labels", {}).get("left_out", {}) for name, found in some.items()},
        "task": task.settings.task,
        "monitor": task.settings.monitor,
        "seeds": asked.seeds,
        "spread": SPREAD,
        "metrics": {
            name: {"definition": entry["definition"], "lower_is_better": task.lower_is_better(name)}
            for name, entry in metrics.items()
        },
        "matrix": matrix,
        "versions": first.read_starts()[-1]["versions"],
        "failed": trained.failed,
    }


def _cell(reports: Sequence[Mapping[str, Any]], protocol: str) -> dict[str, Any]:
    """Metric -> mean, spread and values over the seeds, and the baseline of the first."""
    cell = {}
    for name, entry in reports[0]["metrics"][protocol].items():
        values = [report["metrics"][protocol][name]["value"] for report in reports]
        cell[name] = over_seeds(values) | {"baseline": entry["baseline"]}
    return cell
