"""Result of a study: scores over the seeds, inputs, sizes and times, read from the run folders alone."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import models
from data_tools.batch import WAVEFORM, Batch
from data_tools.dataset import UtteranceDataset, collate
from models.base import Model
from pipeline.counting.model import multiply_adds
from pipeline.metrics.metric import SPREAD, mean_and_spread, over_seeds
from pipeline.run import RunDir
from pipeline.run_data import DataFacts
from pipeline.study.plan import StudySettings, laid_over, standin_budget
from pipeline.study.runs import SPLIT, Trained
from pipeline.tasks.task import Task
from pipeline.training.data import load_unseen
from pipeline.training.log import TrainLog, done_in_training
from pipeline.training.scoring import task_of_run

SPREAD_OF_FOLDS = "population standard deviation over the folds and seeds"
_READ = {"t": "words", "a": "mel chunks", "v": "faces"}


def result_of(asked: StudySettings, trained: Trained, command: str) -> dict[str, Any]:
    """All that the tables show, ready for JSON; one object under `models` for each label. Runs of one task.

    command: what to type to get the same table.
    """
    runs = trained.finished
    first = next(iter(runs.values()))[0]
    folds = folds_in(runs)
    report, task = _report(first, asked.data), task_of_run(first)
    dataset = load_unseen(first, asked.data, SPLIT)
    chosen = _median_utterance(dataset)
    # Of the first row: one for each fold, or one.
    reports = [_report(run, asked.data)["metrics"] for run in next(iter(runs.values()))[: max(len(folds), 1)]]
    starts = [run.read_starts()[-1] for of_model in runs.values() for run in of_model]
    row = dataset.table.set_index("utterance_id").loc[chosen]
    about = {
        "command": command,
        "dataset": report["dataset"],
        "folder": report["folder"],
        "notice": report["notice"],
        "split": SPLIT,
        "split_protocol": report["split_protocol"] if not folds else f"each {asked.folds} left out once",
        "utterances": _counts(first) | {SPLIT: report["utterances"]} if not folds else _over_folds(folds),
        "task": report["task"],
        "monitor": task.settings.monitor,
        "seeds": asked.seeds,
        "budget": _budget(runs, standin_budget(asked.data)),
        "spread": SPREAD if not folds else SPREAD_OF_FOLDS,
        "counted_on": {"utterance": chosen, "seconds": float(row["end_s"] - row["start_s"])},
        "machines": sorted({f"{start['device']}, {start['threads']} threads" for start in starts}),
        "versions": starts[0]["versions"],
        "metrics": {
            protocol: {name: _about_metric(task, name, [each[protocol][name] for each in reports]) for name in entries}
            for protocol, entries in report["metrics"].items()
        },
        "models": [_row(name, of_model, asked.data, chosen) for name, of_model in runs.items()],
        "left_out": {},
        "failed": trained.failed,
    }
    labels = {"labels": report["labels"]} if "labels" in report else {}
    return about | ({"folds": folds} if folds else {}) | labels


def folds_in(runs: Mapping[str, Sequence[RunDir]]) -> list[dict[str, Any]]:
    """Of each fold its name and its utterances in train, valid and test; empty where the runs have none.

    A run of a fold lies in a folder of its name.
    """
    found: dict[str, dict[str, Any]] = {}
    for run in next(iter(runs.values())):
        split = run.read_settings()[0].split
        name = run.path.parent.name
        if split is not None and name == split.folder_name and name not in found:
            tested = run.read_scores(run.own_data())[SPLIT]["utterances"]
            found[name] = {"fold": name} | _counts(run) | {SPLIT: tested}
    return list(found.values())


def _over_folds(folds: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Utterances that are tested, each in one fold."""
    return {SPLIT: sum(fold[SPLIT] for fold in folds)}


def _about_metric(task: Task, name: str, entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Definition, baseline and counts of a metric. entries: of the reports of one row's folds, or of one report.

    Over folds a baseline is a mean, and utterances are added up.
    """
    about = {key: value for key, value in entries[0].items() if key not in ("value", "per_emotion", "confusion")}
    about |= {"baseline": mean_and_spread([entry["baseline"] for entry in entries])[0]}
    about |= {"utterances": sum(entry["utterances"] for entry in entries)}
    about |= {"lower_is_better": task.lower_is_better(name)}
    if "per_emotion" in entries[0]:
        about["per_emotion"] = {
            emotion: {
                "baseline": mean_and_spread([entry["per_emotion"][emotion]["baseline"] for entry in entries])[0],
                "positives": sum(entry["per_emotion"][emotion]["positives"] for entry in entries),
            }
            for emotion in entries[0]["per_emotion"]
        }
    return about


def _report(run: RunDir, data: Path) -> dict[str, Any]:
    return run.read_scores(data)[SPLIT]


def _counts(run: RunDir) -> dict[str, int]:
    return {split: len(ids) for split, ids in run.learned_from().items()}


def _budget(runs: Mapping[str, Sequence[RunDir]], standin: Mapping[str, Any]) -> dict[str, Any] | None:
    """Settings of the stand-in budget that the runs really had; None where there is none.

    Returns {"train": the training settings that all share, "models": name -> the settings it has in place of its
    config's}.
    """
    if not standin:
        return None
    asked = [of_model[0].read_settings() for of_model in runs.values()]
    train = asked[0][0].model_dump(mode="json")
    return {
        "train": {key: train[key] for key in standin["train"]},
        "models": {values["name"]: _in_place_of_its_own(values, standin) for _, values in asked},
    }


def _in_place_of_its_own(values: Mapping[str, Any], standin: Mapping[str, Any]) -> dict[str, Any]:
    # Those for all models are of towers: one without them is not made smaller.
    unused = () if values.get("frontend") == "towers" else standin.get("model", ())
    return {key: values[key] for key in laid_over(values["name"], standin) if key not in unused}


def _median_utterance(dataset: UtteranceDataset) -> str:
    """The id of the utterance of middle length; of equally long ones the first by id."""
    table = dataset.table.assign(seconds=dataset.table["end_s"] - dataset.table["start_s"])
    return str(table.sort_values(["seconds", "utterance_id"])["utterance_id"].iloc[(len(table) - 1) // 2])


def _row(name: str, runs: Sequence[RunDir], data: Path, chosen: str) -> dict[str, Any]:
    """One model: its scores over the seeds, what it is and what it cost."""
    settings, _ = runs[0].read_settings()
    logs = [TrainLog.read(run.log) for run in runs]
    model = models.load(runs[0].path)
    batch = _batch_of(runs[0], data, chosen, model)
    features = runs[0].facts().features
    return {
        "model": name,
        "input": _input(model, runs[0].facts()),
        "features": None if features is None else {"name": features.name, "sizes": features.sizes} | features.settings,
        "trained_with_damage": None if settings.damage is None else settings.damage.model_dump(mode="json"),
        "scores": _scores([_report(run, data)["metrics"] for run in runs]),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "multiply_adds": multiply_adds(model, batch),
        "steps": _steps(model, batch),
        "epoch_seconds": median(float(row["train_seconds"]) for log in logs for row in log),
        "seconds": sum(float(row["train_seconds"]) + float(row["valid_seconds"]) for log in logs for row in log),
        "runs": [
            {"seed": run.read_settings()[0].seed, **_fold(run), "folder": run.path.as_posix(), "epochs": len(log)}
            for run, log in zip(runs, logs, strict=True)
        ],
        "settings": {
            "train": settings.model_dump(mode="json", exclude={"data", "out", "seed"}),
            "model": model.config.model_dump(mode="json"),
        },
    }


def _fold(run: RunDir) -> dict[str, str]:
    split = run.read_settings()[0].split
    return {} if split is None else {"fold": str(split)}


def _scores(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Protocol -> metric -> mean, spread and the value of each seed; the same for each emotion where there are any."""
    scores: dict[str, Any] = {}
    for protocol, entries in reports[0].items():
        scores[protocol] = {}
        for name, entry in entries.items():
            found = over_seeds([report[protocol][name]["value"] for report in reports])
            if "per_emotion" in entry:
                found["per_emotion"] = {
                    emotion: over_seeds([report[protocol][name]["per_emotion"][emotion]["value"] for report in reports])
                    for emotion in entry["per_emotion"]
                }
            scores[protocol][name] = found
    return scores


def _batch_of(run: RunDir, data: Path, chosen: str, model: Model) -> Batch:
    """The one utterance, as the run reads it."""
    dataset = load_unseen(run, data, SPLIT)
    index = dataset.table["utterance_id"].tolist().index(chosen)
    return collate([dataset[index]], models.tokenizer_for(model))


def _input(model: Model, facts: DataFacts) -> str:
    """Its frontend and what that reads, in words, by modality."""
    letters = [letter for letter in "tav" if letter in model.config.modalities]
    if facts.features is not None:
        sizes = ", ".join(f"{letter} {facts.features.sizes[letter]}" for letter in letters)
        return f"features {facts.features.name} ({sizes})"
    read = _READ | ({"a": "sound"} if model.config.waveform_encoder is not None else {})
    return f"{getattr(model.config, 'frontend', 'end to end')}: " + ", ".join(read[letter] for letter in letters)


def _steps(model: Model, batch: Batch) -> dict[str, int]:
    """Length of that utterance for the model, by modality."""
    lengths = {"t": batch.tokens.shape[1], "a": len(batch.chunks), "v": len(batch.faces)}
    # Of the sound itself, that speech encoders read, a sample is a step.
    lengths |= {"a" if name == WAVEFORM else name: len(packed.values) for name, packed in batch.features.items()}
    return {letter: length for letter, length in lengths.items() if letter in model.config.modalities}


def command_line(name: str, asked: StudySettings, out: Path, *further: str) -> str:
    """Command that makes the same table. name: of the sub-command. further: flags that it alone has."""
    values = [f"--set {shlex.quote(f'{key}={_yaml(value)}')}" for key, value in asked.values.items()]
    folds = ("--folds", asked.folds) if asked.folds else ()
    given = ["--data", str(asked.data), "--models", ",".join(asked.models), *folds, *further]
    given += ["--seeds", str(asked.seeds)]
    return " ".join([shlex.join(["pipeline", name, *given, "--out", str(out)]), *values])


def _yaml(value: Any) -> str:
    """As `--set` reads it back: JSON is YAML."""
    return value if isinstance(value, str) else json.dumps(value)


def metric_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """The metric that the best epochs were chosen by: its `name`, and what the result says of it."""
    name: str = result["monitor"]
    return {"name": name} | result["metrics"][_protocol(result)][name]


def main_scores(result: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Label -> mean, spread and values of that metric over the seeds, of those that finished."""
    metric = result["monitor"]
    return {row["model"]: row["scores"][_protocol(result)][metric] for row in result["models"]}


def _protocol(result: Mapping[str, Any]) -> str:
    task: str = result["task"]
    return task.replace("-", "_")


def done_over_seeds(runs: Sequence[RunDir]) -> dict[str, Any]:
    """Multiply-adds of the runs of one row in training, per utterance, means over the seeds.

    Returns {"towers": of faces and sound with attention and sequence encoders, "towers_spread", "text", "total",
    "share_of_sites"}; the first four are 0 for a model that counts nothing.
    """
    done = [done_in_training(run) for run in runs]
    towers = [sum(one["per_utterance"].get(part, 0.0) for part in ("face", "mel")) for one in done]
    mean, spread = mean_and_spread(towers)
    return {
        "towers": mean,
        "towers_spread": spread,
        "text": _mean([one["per_utterance"].get("text", 0.0) for one in done]),
        "total": _mean([one["per_utterance"]["total"] for one in done]),
        "share_of_sites": {
            key: _mean([one["share_of_sites"][key] for one in done]) for key in done[0]["share_of_sites"]
        },
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
