"""selection.json as a page for a person."""

from collections.abc import Mapping
from typing import Any

from pipeline.report.pages import Cell, Sheet, Table, markdown, number, score_column

_BETTER = {True: "↓", False: "↑"}


def as_markdown(result: Mapping[str, Any]) -> str:
    """Page of selection.json, in Markdown."""
    return markdown(_sheet(result))


def _sheet(result: Mapping[str, Any]) -> Sheet:
    datasets = result["datasets"]
    names = " and ".join(found["dataset"] for found in datasets)
    notices = "; ".join(f"{found['dataset']}: {found['notice']}" for found in datasets if found["notice"])
    tables = [table for found in datasets for table in _tables(found)]
    remarks = [f"{run['model']}, seed {run['seed']}, failed: {run['reason']}" for run in result["failed"]]
    return Sheet(
        f"MESM's selection in {len(result['modes'])} modes on {names}",
        notices or None,
        _about(result),
        tables,
        remarks,
        result["command"],
        datasets[0]["versions"],
    )


def _about(result: Mapping[str, Any]) -> str:
    first = result["datasets"][0]
    model, train = first["settings"]["model"], first["settings"]["train"]
    return (
        f"Mean ± {first['spread']}, {result['seeds']} a mode. Modalities {model['modalities']}, width "
        f"{model['width']}, text encoder {model['text_encoder']}, top_p {model['top_p']}, at most {train['epochs']} "
        f"epochs, batch {train['batch_size']}, learning rate {train['learning_rate']:g}. Attention's gradient: norm "
        "over the parameters of eq. 1 and 2, with the weights that the seed draws and with the best ones, and its "
        f"share of the norm of the towers' whole gradient; medians over {result['batches']} batches of train. Lift: "
        f"share of kept sites whose centre is within {result['radius']:g} distances between the eyes of an eye, a "
        "corner of the mouth or its middle, over that share of the sites that were active before the selection, over "
        "the faces of test in which the detector found these; 1 is chance. Drawn anew: the same trained network, its "
        f"attention's weights random, mean of {result['draws']} draws."
    )


def _tables(found: Mapping[str, Any]) -> list[Table]:
    return [_scores(found), _costs(found), _lifts(found)]


def _scores(found: Mapping[str, Any]) -> Table:
    metrics, rows = found["metrics"], found["modes"]
    split = ", ".join(f"{count} {split}" for split, count in found["utterances"].items())
    note = "; ".join(f"{metric}: {about['definition']}" for metric, about in metrics.items())
    columns = [
        score_column([row["scores"][metric] for row in rows], about["lower_is_better"])
        for metric, about in metrics.items()
    ]
    return Table(
        f"{found['dataset']}, split {found['split_protocol']}: scores",
        f"On {found['split']} ({split} utterances). Best epoch by {found['monitor']} on valid. {note}.",
        ["mode", *(f"{metric} {_BETTER[about['lower_is_better']]}" for metric, about in metrics.items())],
        [
            *([Cell(row["mode"]), *(column[i] for column in columns)] for i, row in enumerate(rows)),
            [Cell("baseline"), *(Cell(number(about["baseline"])) for about in metrics.values())],
        ],
    )


def _costs(found: Mapping[str, Any]) -> Table:
    towers = list(found["modes"][0]["kept_share"])
    return Table(
        f"{found['dataset']}: what reaches the attention, what is kept, what it costs",
        f"Kept: share of all sites that a tower's stages compute, one after the other, on {found['split']}. Million "
        f"multiply-adds of the forward pass, mean of an utterance of {found['split']}.",
        [
            *("mode", "gradient, start", "gradient, best", "its share, best"),
            *(f"kept, {tower}" for tower in towers),
            *(f"multiply-adds, {part}" for part in (*towers, "all")),
        ],
        [
            [
                Cell(row["mode"]),
                Cell(number(**row["gradient"]["start"]["norm"])),
                Cell(number(**row["gradient"]["best"]["norm"])),
                Cell(number(**row["gradient"]["best"]["share"])),
                *(
                    Cell(" / ".join(f"{kept['mean']:.2f}" for kept in row["kept_share"][tower].values()))
                    for tower in towers
                ),
                *(Cell(_millions(row["multiply_adds"][part])) for part in (*towers, "all")),
            ]
            for row in found["modes"]
        ],
    )


def _lifts(found: Mapping[str, Any]) -> Table:
    stages, kinds = list(found["modes"][0]["lift"]), {"trained": "trained", "drawn_anew": "drawn anew"}
    return Table(
        f"{found['dataset']}: lift on eyes and mouth",
        "By stage of the face tower; 1 is chance.",
        ["mode", *(f"stage {stage}, {words}" for stage in stages for words in kinds.values())],
        [
            [Cell(row["mode"]), *(Cell(number(**row["lift"][stage][kind])) for stage in stages for kind in kinds)]
            for row in found["modes"]
        ],
    )


def _millions(score: Mapping[str, Any]) -> str:
    return f"{score['mean'] / 1e6:,.1f} ± {score['spread'] / 1e6:,.1f}"
