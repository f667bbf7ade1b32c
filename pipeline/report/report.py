"""One page that shows runs side by side: scores, cost, curves, and what the sparse model looks at."""

import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import models
from data_tools.dataset import Sample, UtteranceDataset, collate
from data_tools.media.frames import read_frames
from pipeline.clip_tensors import FaceSettings
from pipeline.metrics.emotions import MULTI_LABEL
from pipeline.report.chosen import best_scores, one_of_each, truth
from pipeline.report.figures import curves_png, data_uri, enlarge, mel_image, mel_sites, png, show_kept
from pipeline.report.pages import write_page
from pipeline.run import RunDir
from pipeline.tasks.resolve import TASKS, with_label
from pipeline.tasks.task import Task
from pipeline.training.scoring import task_of_run


@dataclass(frozen=True)
class Confusion:
    """Counts of one run: utterances of each true emotion, the row, that were given each emotion, the column."""

    emotions: list[str]
    counts: list[list[int]]

    def share(self, row: int, column: int) -> float:
        """Of the utterances with the emotion `row`, those called `column`, in [0, 1]; 0 where nobody has it."""
        return self.counts[row][column] / max(1, sum(self.counts[row]))


SHOWN_METRICS = {metric.name: metric.report_title for metric in MULTI_LABEL if metric.report_title}


@dataclass(frozen=True)
class ScoreTable:
    """Values for report.html.j2.

    row_title, count_title: what the first two columns hold. groups: titles over the values; under each stands every
    run, then the baseline. rows: `name`, `count`, `values` as text, `mean` for those that sum up others.
    definitions: of all metrics and baselines, in words. confusions: of each run, where every utterance of the split has
    exactly one emotion; else empty.
    """

    row_title: str
    count_title: str
    groups: list[str]
    rows: list[dict[str, Any]]
    definitions: str
    confusions: list[Confusion] = field(default_factory=list)


def score_table(task: str, reports: Sequence[Mapping[str, Any]]) -> ScoreTable:
    """The table of one split. reports: of each run, what `pipeline evaluate` returns; all are of `task`."""
    metrics = [report["metrics"][task.replace("-", "_")] for report in reports]
    table = _by_emotion(metrics) if task == "multi-label" else _by_metric(task, metrics)
    return replace(table, confusions=_confusions(reports))


def _confusions(reports: Sequence[Mapping[str, Any]]) -> list[Confusion]:
    """Both tasks of emotions have the single-label protocol where the split allows it."""
    found = [report["metrics"].get("single_label") for report in reports]
    if not all(found):
        return []
    matrices = [protocol["accuracy"]["confusion"] for protocol in found if protocol]
    return [Confusion(matrix["emotions"], matrix["utterances"]) for matrix in matrices]


def _by_emotion(metrics: list[dict[str, Any]]) -> ScoreTable:
    emotions = metrics[0]["accuracy"]["per_emotion"]
    rows = []
    for emotion in [*emotions, None]:
        values = []
        for metric in SHOWN_METRICS:
            values += _values([m[metric]["per_emotion"][emotion] if emotion else m[metric] for m in metrics])
        count = emotions[emotion]["positives"] if emotion else ""
        rows.append({"name": emotion or "mean", "count": count, "values": values, "mean": emotion is None})
    entries = {title: metrics[0][name] for name, title in SHOWN_METRICS.items()}
    definitions = _definitions(entries) + " Thresholds: chosen per emotion on valid."
    return ScoreTable("emotion", "with it", list(SHOWN_METRICS.values()), rows, definitions)


def _by_metric(task: str, metrics: list[dict[str, Any]]) -> ScoreTable:
    rows = []
    for name, entry in metrics[0].items():
        row = {"name": name, "count": entry["utterances"], "values": _values([m[name] for m in metrics])}
        rows.append(row | {"mean": "per_emotion" in entry})
        for emotion, part in entry.get("per_emotion", {}).items():
            values = _values([m[name]["per_emotion"][emotion] for m in metrics])
            rows.append({"name": f"{name}: {emotion}", "count": part["positives"], "values": values, "mean": False})
    return ScoreTable("metric", "utterances", [task], rows, _definitions(metrics[0]))


def _values(entries: list[dict[str, Any]]) -> list[str]:
    return [_number(value) for value in (*(entry["value"] for entry in entries), entries[0]["baseline"])]


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _definitions(entries: Mapping[str, Mapping[str, Any]]) -> str:
    shown = "; ".join(f"{title}: {entry['definition']}" for title, entry in entries.items())
    baselines = "; ".join(f"{title}: {entry['baseline_definition']}" for title, entry in entries.items())
    return f"{shown}. Baselines: {baselines}."


SPLIT = "test"
BLOCKS = (1, 2, 3)
SAMPLE_EVERY_MS = FaceSettings().sample_every_ms
CROP_HEIGHT_PX = 144


@dataclass(frozen=True)
class Run:
    """A finished run: the name it is shown under, its folder, and what `pipeline.train.train` returned."""

    name: str
    folder: Path
    summary: dict[str, Any]


def write_report(page: Path, data: Path, runs: Sequence[Run], command: str) -> Path:
    """Write the page, one file with its pictures inside; the first run that keeps sites is the one drawn.

    runs: all of one task.

    Raises:
        DataError: the page cannot be written, or a clip that the contact sheet shows cannot be read.
    """
    logs = {run.name: pd.read_csv(RunDir(run.folder).log) for run in runs}
    report, task = runs[0].summary["splits"][SPLIT], runs[0].summary["task"]
    write_page(
        page,
        "report/report.html.j2",
        title=f"{' and '.join(run.name.upper() for run in runs)} on {report['dataset']}",
        notice=report["notice"],
        summary=_summary(data, runs),
        split=SPLIT,
        count=report["utterances"],
        protocol=report["split_protocol"],
        runs=runs,
        table=score_table(task, [run.summary["splits"][SPLIT] for run in runs]),
        costs=_cost_rows(runs, logs),
        curves=data_uri(curves_png(logs, TASKS[task].monitors(3)[0])),
        sparse_name=_sparse(runs).name.upper(),
        sheet=_contact_sheet(data, runs),
        command=command,
        versions=", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("emotion-pipeline", "torch")),
    )
    return page


def _sparse(runs: Sequence[Run]) -> Run:
    return next((run for run in runs if "top_p" in models.load(run.folder).config.model_dump()), runs[0])


def _summary(data: Path, runs: Sequence[Run]) -> str:
    counts = UtteranceDataset(data).table["split"].value_counts()
    splits = ", ".join(f"{counts[name]} {name}" for name in ("train", "valid", "test") if name in counts)
    epochs = "; ".join(f"{run.name}: {run.summary['epochs']} epochs, best {run.summary['best_epoch']}" for run in runs)
    return f"{counts.sum()} utterances ({splits}). {epochs}.{_single_label(runs)}"


def _single_label(runs: Sequence[Run]) -> str:
    """Share of utterances whose highest-scoring emotion is the true one, where each of the split has exactly one."""
    if runs[0].summary["task"] != "multi-label":
        return ""
    found = {run.name: run.summary["splits"][SPLIT]["metrics"].get("single_label") for run in runs}
    if not all(found.values()):
        return ""
    entries = {name: metrics["accuracy"] for name, metrics in found.items()}
    shown = ", ".join(f"{name} {entry['value']:.3f}" for name, entry in entries.items())
    baseline = next(iter(entries.values()))["baseline"]
    return f" The highest-scoring emotion is the true one: {shown}; the most frequent one of train: {baseline:.3f}."


def _cost_rows(runs: Sequence[Run], logs: dict[str, pd.DataFrame]) -> list[dict[str, Any]]:
    last = {name: log.iloc[-1] for name, log in logs.items()}
    parts = {"face tower": "face.macs", "mel tower": "mel.macs", "text encoder": "text.macs"}
    rows = [
        {
            "title": f"{title}: million multiply-adds an utterance",
            "values": [f"{last[run.name][part] / 1e6:,.1f}" for run in runs],
        }
        for title, part in parts.items()
    ]
    for title, name in (("faces", "face"), ("mel chunks", "mel")):
        rows += [
            {
                "title": f"active share of sites, {title}, after attention {block}",
                "values": [_percent(last[run.name].get(f"{name}.share.{block}")) for run in runs],
            }
            for block in BLOCKS
        ]
    rows.append({"title": "seconds a training step (median)", "values": [_step(run) for run in runs]})
    rows.append({"title": "parameters", "values": [f"{run.summary['parameters']:,}" for run in runs]})
    return rows


def _percent(share: float | None) -> str:
    return "100 %" if share is None or np.isnan(share) else f"{share:.0%}"


def _step(run: Run) -> str:
    return f"{run.summary['step_seconds']:.3f}"


def _contact_sheet(data: Path, runs: Sequence[Run]) -> list[dict[str, Any]]:
    """One utterance of each emotion, the first by id; of a sentiment task the lowest, the middle and the highest."""
    task = task_of_run(RunDir(runs[0].folder))
    dataset = with_label(UtteranceDataset(data), task.settings.task)
    loaded = {run.name: models.load(run.folder) for run in runs}
    drawn = _sparse(runs).name
    return [_sheet_item(data, dataset, index, task, loaded, drawn) for index in one_of_each(dataset, task, SPLIT)]


def _sheet_item(
    data: Path, dataset: UtteranceDataset, index: int, task: Task, loaded: dict[str, Any], drawn: str
) -> dict[str, Any]:
    sample, row = dataset[index], dataset.table.iloc[index]
    outputs = {name: _run_model(model, sample) for name, model in loaded.items()}
    kept = outputs[drawn].kept
    return {
        "id": sample.id,
        "label": truth(task, sample),
        "text": sample.text,
        "scores": [{"name": name, "text": best_scores(task, out.logits[0])} for name, out in outputs.items()],
        "strips": [_face_strip(data / row["clip"], sample, kept), _mel_strip(sample, kept)],
    }


def _run_model(model: Any, sample: Sample) -> Any:
    with torch.inference_mode():
        return model(collate([sample], models.tokenizer_for(model)), keep_maps=True)


def _face_strip(clip: Path, sample: Sample, kept: dict[str, torch.Tensor]) -> list[dict[str, str]]:
    """The middle sampled frame, its crop, and what is kept of that after every attention layer."""
    middle = len(sample.faces) // 2
    frame = next(frame for i, (_, frame) in enumerate(read_frames(clip, SAMPLE_EVERY_MS)) if i == middle)
    crop = enlarge(sample.faces[middle].permute(1, 2, 0).numpy(), 3)
    step = max(1, frame.shape[0] // CROP_HEIGHT_PX)
    shown = [("frame of the clip", frame[::step, ::step]), ("face crop", crop)]
    for block in BLOCKS:
        if f"face.{block}" in kept:
            shown.append((f"kept after attention {block}", show_kept(crop, kept[f"face.{block}"][middle].numpy())))
    return _embedded(shown)


def _mel_strip(sample: Sample, kept: dict[str, torch.Tensor]) -> list[dict[str, str]]:
    """The mel-spectrogram of the utterance and what is kept of it after every attention layer."""
    sound = mel_image(sample.chunks.numpy())
    shown = [("mel-spectrogram", sound)]
    for block in BLOCKS:
        if f"mel.{block}" in kept:
            shown.append((f"kept after attention {block}", show_kept(sound, mel_sites(kept[f"mel.{block}"].numpy()))))
    return _embedded(shown)


def _embedded(pictures: Sequence[tuple[str, np.ndarray]]) -> list[dict[str, str]]:
    return [{"caption": caption, "src": data_uri(png(np.ascontiguousarray(image)))} for caption, image in pictures]
