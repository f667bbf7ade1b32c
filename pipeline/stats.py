"""`pipeline stats`: utterances, words and seconds for each label and split, beside the papers' tables."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from data_tools.about import read_dataset_facts
from data_tools.manifest import emotions_of, read_manifest
from data_tools.names import own_name
from data_tools.records import LABEL_PREFIX, PRESENT_FROM
from data_tools.splits import SPLITS
from pipeline.command import Command, fields_of
from pipeline.published import PublishedSplit, published_facts
from pipeline.settings import DATA_HELP, DEFAULT_DATA, LocalPath, Settings, flag


class StatsSettings(Settings):
    """Settings of `pipeline stats`."""

    data: LocalPath = flag(DEFAULT_DATA, help=DATA_HELP)


# IEMOCAP writes sounds into the text: [LAUGHTER], [BREATHING], [garbage]. They are not words.
_NOISE_TAG = re.compile(r"\[[A-Za-z]+\]")
_SENTIMENTS = ("negative", "zero", "positive")
# The columns of the papers' tables: means over all splits, then utterances of each split.
_COLUMNS = ("words", "seconds", *SPLITS)


def stats(data: Path) -> dict[str, Any]:
    """Counts over all clips of a manifest, for each split, and for each label in each split.

    A word is what stands between spaces, noise tags aside; seconds are those of the intervals. An utterance with two
    labels counts for both, one without any for `no_label`. Means are None where there is nothing to average. Where an
    emotion is called `no_label`, `all` or as a sentiment, our own row of that name gets a mark: `all*`.

    `table` has a row a label, as Tables 1 and 2 of the MESM paper: `words` and `seconds` are means over all splits,
    the others counts. `published` is None, or the name of the published split that this one is and its `table`.

    Raises:
        DataError: no manifest in `data`, or a damaged dataset.json.
    """
    table = read_manifest(data)
    emotions = emotions_of(table)
    dataset = read_dataset_facts(data)
    table["words"] = [len(_NOISE_TAG.sub(" ", text).split()) for text in table["text"]]
    table["seconds"] = table["end_s"] - table["start_s"]
    parts = {name: table[table["split"] == name] for name in SPLITS} | {"all": table}
    splits = {name: _describe(rows, emotions) for name, rows in parts.items()}
    facts = published_facts(str(dataset.get("dataset", "")))
    known = facts.split(str(dataset.get("split", "")), dataset.get("listed_ids") or {})
    return {
        "dataset": dataset.get("dataset"),
        "split": dataset.get("split"),
        "standin": bool(dataset.get("standin")),
        "emotions": emotions,
        "splits": splits,
        "table": _paper_table(splits, emotions),
        "published": {"name": known.name, "table": _published_table(known, dataset.get("merged_labels") or {})}
        if known
        else None,
    }


def format_stats(summary: dict[str, Any]) -> str:
    """The answer of `stats` as tables for a person: a row a label and split, then a row a label as in the papers."""
    lines = [f"{'split':6} {'label':10} {'utterances':>10} {'words':>8} {'seconds':>9} {'words/utt':>9} {'s/utt':>6}"]
    for split, described in summary["splits"].items():
        lines.append(_row(split, own_name("all", summary["emotions"]), described))
        groups = described["labels"] | (described["sentiment"] or {})
        lines += [_row("", label, counts) for label, counts in groups.items() if counts["utterances"]]
    for split, described in summary["splits"].items():
        line = f"{split}: {described['speakers']} speakers, {described['dialogues']} dialogues"
        if described["no_face_share"] is not None:
            line += f", {described['no_face_share']:.1%} of an utterance's frames without a face on average, "
            line += f"{described['without_face']} utterances without any face"
        lines.append(line)
    if summary["standin"]:
        lines.append("stand-in data, made by a program: none of these figures is the real corpus'")
    return "\n".join([*lines, "", *_paper_lines(summary)])


def _describe(rows: pd.DataFrame, emotions: list[str]) -> dict[str, Any]:
    flags = {emotion: rows[LABEL_PREFIX + emotion] >= PRESENT_FROM for emotion in emotions}
    if emotions:
        flags[own_name("no_label", emotions)] = ~pd.DataFrame(flags, index=rows.index).any(axis=1)
    sentiment = rows["sentiment"]
    names = [own_name(name, emotions) for name in _SENTIMENTS]
    signs = dict(zip(names, (sentiment < 0, sentiment == 0, sentiment > 0), strict=True))
    shares = rows["no_face_share"].dropna()
    return {
        **_totals(rows),
        "speakers": int(rows["speaker"].nunique()),
        "dialogues": int(rows["dialogue_id"].nunique()),
        "labels": {name: _totals(rows[flag]) for name, flag in flags.items()},
        "sentiment": {name: _totals(rows[sign]) for name, sign in signs.items()} if sentiment.notna().any() else None,
        "no_face_share": round(float(shares.mean()), 4) if len(shares) else None,
        "without_face": int((shares == 1).sum()) if len(shares) else None,
    }


def _totals(rows: pd.DataFrame) -> dict[str, Any]:
    count, words, seconds = len(rows), int(rows["words"].sum()), float(rows["seconds"].sum())
    return {
        "utterances": count,
        "words": words,
        "seconds": round(seconds, 3),
        "mean_words": round(words / count, 3) if count else None,
        "mean_seconds": round(seconds / count, 3) if count else None,
    }


def _paper_table(splits: dict[str, Any], emotions: Sequence[str]) -> dict[str, dict[str, float | None]]:
    """{label: {words, seconds, train, valid, test}}; the last row is `all`."""

    def row(of: dict[str, dict[str, Any]]) -> dict[str, float | None]:
        means = {"words": of["all"]["mean_words"], "seconds": of["all"]["mean_seconds"]}
        return means | {split: of[split]["utterances"] for split in SPLITS}

    rows = {}
    for kind in ("labels", "sentiment"):
        for name in splits["all"][kind] or {}:
            rows[name] = row({split: (found[kind] or {}).get(name, _NOTHING) for split, found in splits.items()})
    return rows | {own_name("all", emotions): row(splits)}


_NOTHING = {"utterances": 0, "mean_words": None, "mean_seconds": None}


def _published_table(known: PublishedSplit, merged: Mapping[str, str]) -> dict[str, dict[str, float | None]]:
    """Published figures of each row of `_paper_table`; None where there are none.

    merged: labels that count as others here: of those others the paper's figures are no figures.
    """
    labels = {name: label for name, label in known.labels.items() if name not in merged.values()}
    rows: dict[str, Mapping[Any, float]] = {name: label.model_dump() for name, label in labels.items()}
    if known.sentiment:
        for place, name in enumerate(_SENTIMENTS):
            rows[name] = {split: counts[place] for split, counts in known.sentiment.items()}
    rows["all"] = known.utterances
    return {name: {column: row.get(column) for column in _COLUMNS} for name, row in rows.items()}


def _row(split: str, label: str, counts: dict[str, Any]) -> str:
    words, seconds = counts["mean_words"] or 0.0, counts["mean_seconds"] or 0.0
    return (
        f"{split:6} {label:10} {counts['utterances']:10} {counts['words']:8} {counts['seconds']:9.1f} "
        f"{words:9.1f} {seconds:6.1f}"
    )


def _paper_lines(summary: dict[str, Any]) -> list[str]:
    published = summary["published"]
    if published is None:
        lines = ["as in the papers' tables (words and seconds: means over all splits; no figures for this split known)"]
        lines.append(f"{'label':10}" + "".join(f" {column:>8}" for column in _COLUMNS))
        for label, row in summary["table"].items():
            lines.append(f"{label:10}" + "".join(f" {_number(column, row[column])}" for column in _COLUMNS))
        return lines
    lines = [f"beside {published['name']}: here, published, difference"]
    lines.append(f"{'label':10}" + "".join(f" | {column:>8} {'publ.':>8} {'diff.':>8}" for column in _COLUMNS))
    for label, row in summary["table"].items():
        beside = published["table"].get(label, {})
        lines.append(f"{label:10}" + "".join(_three(column, row[column], beside.get(column)) for column in _COLUMNS))
    absent = [label for label in published["table"] if label not in summary["table"]]
    return lines + ([f"not in these data: {', '.join(absent)}"] if absent else [])


def _three(column: str, here: float | None, published: float | None) -> str:
    difference = None if here is None or published is None else here - published
    sign = "+" if difference is not None and difference > 0 else ""
    last = sign + _number(column, difference).strip()
    return f" | {_number(column, here)} {_number(column, published)} {last:>8}"


def _number(column: str, value: float | None) -> str:
    if value is None:
        return f"{'-':>8}"
    return f"{value:8.2f}" if column in ("words", "seconds") else f"{value:8.0f}"


COMMAND = Command(
    stats,
    (StatsSettings,),
    example="pipeline stats --data data/iemocap",
    read=fields_of(StatsSettings),
    for_people=format_stats,
)
