"""The scores of runs side by side: a row an emotion, else a row a metric; and what was taken for what."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.metrics.emotions import MULTI_LABEL


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
