"""The tables of `pipeline compare`, as Markdown and as a page."""

from collections.abc import Mapping, Sequence
from typing import Any

from data_tools.names import own_name
from pipeline.metrics.emotions import MULTI_LABEL
from pipeline.metrics.metric import mean_and_spread
from pipeline.metrics.single_label import SINGLE_LABEL
from pipeline.report.pages import Cell, Sheet, Table, labels_sentence, markdown, number, score_column

_BETTER = {True: "↓", False: "↑"}
# Metrics that have a table by emotion, as in the papers.
_BY_EMOTION = [metric.name for metric in (*MULTI_LABEL, *SINGLE_LABEL) if metric.by_emotion]


def as_markdown(result: Mapping[str, Any]) -> str:
    """The result as a page of Markdown."""
    return markdown(sheet(result))


def sheet(result: Mapping[str, Any]) -> Sheet:
    """The result with its tables and what must stand around them."""
    count = len(result["models"])
    title = f"{count} model{'s' * (count > 1)} on {result['dataset']}: {result['task']}"
    own = result["task"].replace("-", "_")  # a multi-label report can have single-label scores beside its own
    names = [name for name in _BY_EMOTION if "per_emotion" in result["metrics"][own].get(name, {})]
    by_emotion = [_emotion_table(result, own, name) for name in names]
    by_fold = [_fold_table(result, own)] if result.get("folds") else []
    return sheet_of(result, title, [*score_tables(result), *by_fold, _cost_table(result), *by_emotion])


def sheet_of(result: Mapping[str, Any], title: str, tables: Sequence[Table], findings: Sequence[str] = ()) -> Sheet:
    """The tables with what must stand around scores of `result`. findings: come first among the remarks."""
    versions, remarks = result["versions"], [*findings, *_remarks(result)]
    return Sheet(title, result["notice"], _about(result), tables, remarks, result["command"], versions)


def _about(result: Mapping[str, Any]) -> str:
    counts = ", ".join(f"{count} {split}" for split, count in result["utterances"].items())
    seeds = f"mean and {result['spread']}, {result['seeds']} of them" if result["seeds"] > 1 else "one seed"
    if folds := result.get("folds"):
        seeds = (
            f"mean and {result['spread']}: {len(folds)} folds, {result['seeds']} seed{'s' * (result['seeds'] > 1)} each"
        )
    return (
        f"Data set {result['dataset']}, split protocol {result['split_protocol']} ({counts} utterances). Scores are on "
        f"{result['split']}: {seeds}. The best epoch was chosen by {result['monitor']} on valid. "
        f"{labels_sentence(result)}Bold: the best of its column. {_trained_with(result['budget'])}"
    )


def _trained_with(budget: Mapping[str, Any] | None) -> str:
    """The common training budget, and the model settings that are not those of the models' configs."""
    if budget is None:
        return "Each model was trained with the settings of its own config, but for what the command below sets."
    names: dict[str, list[str]] = {}
    for name, settings in budget["models"].items():
        for key, value in settings.items():
            names.setdefault(f"{key} {value}", []).append(name)
    common = ", ".join(f"{key} {value}" for key, value in budget["train"].items())
    own = ", ".join(f"{setting} ({', '.join(of)})" for setting, of in names.items())
    return (
        f"All were trained with one budget, which is not that of their papers: {common}. "
        f"Model settings in place of their configs': {own or 'none'}."
    )


def score_tables(result: Mapping[str, Any]) -> list[Table]:
    """A table for each protocol that the scores follow, a row for each of `models`."""
    return [_score_table(result, protocol) for protocol in result["metrics"]]


def _score_table(result: Mapping[str, Any], protocol: str) -> Table:
    metrics = result["metrics"][protocol]
    columns = ["model", *(f"{name} {_BETTER[about['lower_is_better']]}" for name, about in metrics.items())]
    found = [({name: row["scores"][protocol][name] for name in metrics}, row["model"]) for row in result["models"]]
    lower = {name: about["lower_is_better"] for name, about in metrics.items()}
    rows = _rows(found, lower, {name: about["baseline"] for name, about in metrics.items()})
    return Table(f"Scores, {protocol.replace('_', ' ')}", _definitions(metrics), columns, rows)


def _definitions(metrics: Mapping[str, Any]) -> str:
    shown = "; ".join(f"{name}: {about['definition']}" for name, about in metrics.items())
    alike: dict[str, list[str]] = {}
    for name, about in metrics.items():
        alike.setdefault(about["baseline_definition"], []).append(name)
    baselines = "; ".join(f"{', '.join(names)}: {definition}" for definition, names in alike.items())
    return f"{shown}. Baselines: {baselines}."


def _fold_table(result: Mapping[str, Any], protocol: str) -> Table:
    """The metric that epochs were chosen by, of each fold: the mean over its seeds."""
    name = result["monitor"]
    about = result["metrics"][protocol][name]
    rows = []
    for row in result["models"]:
        values = row["scores"][protocol][name]["values"]
        cells = []
        for fold in result["folds"]:
            own = fold["fold"].replace("-", ":", 1)
            of_fold = [value for value, run in zip(values, row["runs"], strict=True) if run["fold"] == own]
            cells.append(Cell(number(mean_and_spread(of_fold)[0]) if of_fold else "-"))
        rows.append([Cell(row["model"]), *cells])
    counts = "; ".join(
        f"{f['fold']}: {f['train']} train, {f['valid']} valid, {f['test']} test" for f in result["folds"]
    )
    return Table(
        f"{name} by fold", f"{about['definition']}. {counts}.", ["model", *(f["fold"] for f in result["folds"])], rows
    )


def _emotion_table(result: Mapping[str, Any], protocol: str, name: str) -> Table:
    about = result["metrics"][protocol][name]
    emotions = about["per_emotion"]
    mean = own_name("mean", list(emotions))
    found = [
        (row["scores"][protocol][name]["per_emotion"] | {mean: row["scores"][protocol][name]}, row["model"])
        for row in result["models"]
    ]
    baselines = {emotion: part["baseline"] for emotion, part in emotions.items()} | {mean: about["baseline"]}
    columns = ["model", *(f"{emotion} ({part['positives']})" for emotion, part in emotions.items()), mean]
    rows = _rows(found, dict.fromkeys(baselines, about["lower_is_better"]), baselines)
    note = f"{about['definition']}. In brackets: utterances of {result['split']} with the emotion."
    return Table(f"{name}, {protocol.replace('_', ' ')}, by emotion", note, columns, rows)


def _rows(
    found: Sequence[tuple[Mapping[str, Any], str]], lower: Mapping[str, bool], baselines: Mapping[str, float | None]
) -> list[list[Cell]]:
    """A row a model, the best of each column marked, then the baseline."""
    columns = [score_column([scores[key] for scores, _ in found], is_lower) for key, is_lower in lower.items()]
    rows = [[Cell(name), *(column[i] for column in columns)] for i, (_, name) in enumerate(found)]
    return [*rows, [Cell("baseline"), *(Cell(number(baselines[key])) for key in lower)]]


def _cost_table(result: Mapping[str, Any]) -> Table:
    counted = result["counted_on"]
    note = (
        f"Multiply-adds: one forward pass over {counted['utterance']} ({counted['seconds']:.1f} s), the utterance of "
        f"middle length of {result['split']}; steps: its length as the model reads it. Extracting features is not "
        f"counted, in neither. Seconds: a training epoch, median, with loading; on {'; '.join(result['machines'])}. "
        f"All epochs of all runs together: {sum(row['seconds'] for row in result['models']) / 60:.1f} minutes."
    )
    columns = ["model", "reads", "steps", "parameters", "million multiply-adds", "seconds an epoch", "epochs"]
    rows = [
        [
            Cell(row["model"]),
            Cell(row["input"]),
            Cell(", ".join(f"{letter} {count}" for letter, count in row["steps"].items())),
            Cell(f"{row['parameters']:,}"),
            Cell(f"{row['multiply_adds'] / 1e6:,.1f}"),
            Cell(f"{row['epoch_seconds']:.1f}"),
            Cell(", ".join(str(run["epochs"]) for run in row["runs"])),
        ]
        for row in result["models"]
    ]
    return Table("What each model reads and costs", note, columns, rows)


def _remarks(result: Mapping[str, Any]) -> list[str]:
    """Remarks on single models."""
    damaged = [
        f"{row['model']} was trained on damaged input ({_words(row['trained_with_damage'])}), as its config says"
        for row in result["models"]
        if row["trained_with_damage"]
    ]
    short = [
        f"{row['model']}: {len(row['runs'])} of {runs} {'runs' if result.get('folds') else 'seeds'} finished"
        for row in result["models"]
        if len(row["runs"]) < (runs := result["seeds"] * max(1, len(result.get("folds", ()))))
    ]
    failed = [f"{run['model']}, seed {run['seed']}, failed: {run['reason']}" for run in result["failed"]]
    left_out = [f"{name} is left out: {reason}" for name, reason in result["left_out"].items()]
    return [*damaged, *short, *failed, *left_out]


def _words(damage: Mapping[str, Any]) -> str:
    return f"protocol {damage['protocol']}" + ("" if damage["rate"] is None else f", rate {damage['rate']}")
