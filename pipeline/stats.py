"""What is in a data folder: utterances, words and seconds for each label and split, as in the papers' tables."""

import re
from pathlib import Path
from typing import Any

import pandas as pd

from data_tools.manifest import LABEL_PREFIX, emotions_of, read_manifest
from data_tools.splits import SPLITS

# IEMOCAP writes sounds into the text: [LAUGHTER], [BREATHING], [garbage]. They are not words.
_NOISE_TAG = re.compile(r"\[[A-Za-z]+\]")


def stats(data_dir: Path) -> dict[str, Any]:
    """Counts over all clips of a manifest, for each split, and for each label in each split.

    A word is what stands between spaces, noise tags aside; seconds are those of the intervals. An utterance with two
    labels counts for both, one without any for `no_label`. Means are None where there is nothing to average.

    Raises:
        DataError: no manifest in `data_dir`.
    """
    table = read_manifest(data_dir)
    emotions = emotions_of(table)
    table["words"] = [len(_NOISE_TAG.sub(" ", text).split()) for text in table["text"]]
    table["seconds"] = table["end_s"] - table["start_s"]
    parts = {name: table[table["split"] == name] for name in SPLITS} | {"all": table}
    return {"emotions": emotions, "splits": {name: _describe(rows, emotions) for name, rows in parts.items()}}


def format_stats(summary: dict[str, Any]) -> str:
    """The answer of `stats` as a table for a person, one row a label and split."""
    lines = [f"{'split':6} {'label':10} {'utterances':>10} {'words':>8} {'seconds':>9} {'words/utt':>9} {'s/utt':>6}"]
    for split, described in summary["splits"].items():
        lines.append(_row(split, "all", described))
        lines += [_row("", label, counts) for label, counts in described["labels"].items() if counts["utterances"]]
    for split, described in summary["splits"].items():
        sentiment = described["sentiment"]
        spoken = "".join(f", {count} {name}" for name, count in sentiment.items()) if sentiment else ""
        lines.append(f"{split}: {described['speakers']} speakers, {described['dialogues']} dialogues{spoken}")
    return "\n".join(lines)


def _describe(rows: pd.DataFrame, emotions: list[str]) -> dict[str, Any]:
    flags = {emotion: rows[LABEL_PREFIX + emotion] > 0.5 for emotion in emotions}
    unlabelled = ~pd.DataFrame(flags, index=rows.index).any(axis=1)
    sentiment = rows["sentiment"].dropna()
    return {
        **_totals(rows),
        "speakers": int(rows["speaker"].nunique()),
        "dialogues": int(rows["dialogue_id"].nunique()),
        "labels": {name: _totals(rows[flag]) for name, flag in [*flags.items(), ("no_label", unlabelled)]},
        "sentiment": {
            "negative": int((sentiment < 0).sum()),
            "zero": int((sentiment == 0).sum()),
            "positive": int((sentiment > 0).sum()),
        }
        if len(sentiment)
        else None,
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


def _row(split: str, label: str, counts: dict[str, Any]) -> str:
    words, seconds = counts["mean_words"] or 0.0, counts["mean_seconds"] or 0.0
    return (
        f"{split:6} {label:10} {counts['utterances']:10} {counts['words']:8} {counts['seconds']:9.1f} "
        f"{words:9.1f} {seconds:6.1f}"
    )
