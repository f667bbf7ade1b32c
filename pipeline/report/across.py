"""The tables of `pipeline compare --across`: trained on each corpus, scored on each."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.metrics.metric import mean_and_spread
from pipeline.report.pages import Cell, Sheet, Table, number, score_column


def across_sheet(result: Mapping[str, Any]) -> Sheet:
    """The matrix with what must stand around it. result: of `pipeline.study.across.matrix_of`, with its `command`."""
    corpora, models = list(result["folders"]), list(result["matrix"])
    title = f"Across {', '.join(corpora)}: {', '.join(models)}"
    tables = [_table(result, model, corpora) for model in models]
    return Sheet(
        title, result["notice"], _about(result), tables, _remarks(result), result["command"], result["versions"]
    )


def _about(result: Mapping[str, Any]) -> str:
    protocols = ", ".join(f"{name} {protocol}" for name, protocol in result["split_protocols"].items())
    seeds = f"mean and {result['spread']}, {result['seeds']} of them" if result["seeds"] > 1 else "one seed"
    labels = f", labels by the map {result['label_map']}" if result["label_map"] else ""
    emotions = f" ({', '.join(result['emotions'])}{labels})" if result["emotions"] else ""
    return (
        f"Task {result['task']}{emotions}. Split protocols: {protocols}. Scores are on {result['split']}: {seeds}. The "
        f"best epoch was chosen by {result['monitor']} on valid of the corpus that the run learned from. Bold: the "
        "best of its column."
    )


def _table(result: Mapping[str, Any], model: str, corpora: Sequence[str]) -> Table:
    """Rows: trained on; columns: scored on."""
    name, rows = result["monitor"], result["matrix"][model]
    about = result["metrics"][name]
    trained = [corpus for corpus in corpora if corpus in rows]
    scores = {tested: [rows[corpus][tested][name] for corpus in trained] for tested in corpora}
    columns = [score_column(found, about["lower_is_better"]) for found in scores.values()]
    others = [_mean_of_others(rows[corpus], corpus, name) for corpus in trained]
    cells = [
        [Cell(f"{corpus} ({result['learned_from'][corpus]})"), *(column[i] for column in columns), Cell(others[i])]
        for i, corpus in enumerate(trained)
    ]
    own = [number(rows[corpus][corpus][name]["baseline"]) if corpus in rows else "-" for corpus in corpora]
    cells.append([Cell("baseline of the corpus itself"), *map(Cell, own), Cell("")])
    note = (
        f"{name}: {about['definition']}. Rows: the corpus that the runs learned from; columns: the one whose test "
        "split they answered. In brackets: utterances."
    )
    heads = [f"{corpus} ({result['utterances'][corpus]})" for corpus in corpora]
    return Table(f"{model}: {name}", note, ["trained on", *heads, "mean of the others"], cells)


def _mean_of_others(row: Mapping[str, Any], own: str, name: str) -> str:
    """The mean over the corpora that a run did not learn from, with the spread over the seeds."""
    seeds = zip(*(cell[name]["values"] for tested, cell in row.items() if tested != own), strict=True)
    means = [None if None in values else sum(values) / len(values) for values in seeds]
    mean, spread = mean_and_spread(means)
    return number(mean, spread, means)


def _remarks(result: Mapping[str, Any]) -> list[str]:
    remarks = [
        f"{name}: left out, without counterpart in the map or in one of the corpora: "
        + ", ".join(f"{count} with {label}" for label, count in counts.items())
        for name, counts in result["without_counterpart"].items()
        if counts
    ]
    remarks += [f"{run['model']}, seed {run['seed']}, failed: {run['reason']}" for run in result["failed"]]
    return [*remarks, *(f"{name} is left out: {reason}" for name, reason in result["left_out"].items())]
