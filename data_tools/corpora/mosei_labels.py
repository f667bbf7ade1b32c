"""CMU-MOSEI's label files: the raw rows of the annotators, summed into one label a clip."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from data_tools.corpora.release import Release
from data_tools.errors import DataError

# The task's names (MESM's order is anger, disgust, fear, happy, sad, surprise) and the columns they come from.
EMOTION_COLUMNS = {
    "anger": "Answer.anger",
    "disgust": "Answer.disgust",
    "fear": "Answer.fear",
    "happy": "Answer.happiness",
    "sad": "Answer.sadness",
    "surprise": "Answer.surprise",
}
_VIDEO, _CLIP, _SENTIMENT = "Input.VIDEO_ID", "Input.CLIP", "Answer.sentiment"
_MAX_EMOTION, _MAX_SENTIMENT = 3, 3


@dataclass(frozen=True)
class ClipLabels:
    """Labels of one clip. emotions: name -> 0.0 or 1.0; sentiment: in [-3, 3] or None.

    source: the label file. problem: empty, or why no row of the clip could be used.
    """

    emotions: dict[str, float]
    sentiment: float | None
    source: Path
    problem: str = ""


def read_labels(release: Release, emotions: Sequence[str]) -> dict[str, ClipLabels]:
    """Labels by `<video>_<clip>` from every Labels/*.csv that has the columns; the others are named in the notes.

    A row counts where it has at least one answer and every answer is a number from 0 to 3 (an empty one adds nothing);
    rows that don't count are noted.

    Raises:
        DataError: no file has the columns.
    """
    folder = release.root / "Labels"
    tables = []
    for path in sorted(folder.glob("*.csv")):
        if not path.name.startswith("."):
            table = _read_table(release, path, emotions)
            if table is not None:
                tables.append(table)
    if not tables:
        raise DataError(
            f"no labels: looked for *.csv in {folder} with the columns {_VIDEO}, {_CLIP} and Answer.*; "
            f"copy the folder Labels of CMU_MOSEI.zip there"
        )
    rows = pd.concat(tables, ignore_index=True)
    unusable = int((~rows["usable"]).sum())
    if unusable:
        release.notes.append(f"{unusable} of {len(rows)} annotators' rows have answers outside 0 to 3 and don't count")
    sources = rows.groupby("id")["source"].first()
    usable = rows[rows["usable"]].groupby("id")
    present = usable[list(emotions)].sum() > 0
    sentiment = usable["sentiment"].mean()  # of the rows that have one
    labels = {
        utterance_id: ClipLabels({}, None, source, f"none of its rows has answers from 0 to {_MAX_EMOTION}")
        for utterance_id, source in sources.items()
    }
    for utterance_id, flags in zip(present.index, present.to_numpy(), strict=True):
        mean = sentiment[utterance_id]
        values = {emotion: float(flag) for emotion, flag in zip(emotions, flags, strict=True)}
        labels[utterance_id] = ClipLabels(values, None if pd.isna(mean) else float(mean), sources[utterance_id])
    return {str(utterance_id): clip for utterance_id, clip in labels.items()}


def _read_table(release: Release, path: Path, emotions: Sequence[str]) -> pd.DataFrame | None:
    """Columns id, the emotions, sentiment (float64), usable, source; None after a note or reject."""
    wanted = [_VIDEO, _CLIP, *(EMOTION_COLUMNS[emotion] for emotion in emotions)]
    try:
        # Everything as text first: 459 video ids are all digits, and must not become numbers.
        raw = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", encoding_errors="replace")
    except (OSError, ValueError) as error:
        release.reject(None, path, "labels:unreadable", f"{path.name} is not readable CSV: {str(error).strip()[:200]}")
        return None
    missing = [column for column in wanted if column not in raw.columns]
    if missing:
        release.notes.append(f"{path.name} is not used: it has no column {missing[0]}")
        return None
    table = pd.DataFrame()
    # One file writes `folder/id`. Clip numbers are whole numbers, now and then written as 3.0.
    video = raw[_VIDEO].str.strip().str.rsplit("/", n=1).str[-1]
    table["id"] = video + "_" + raw[_CLIP].str.strip().str.removesuffix(".0")
    answers = raw[[EMOTION_COLUMNS[emotion] for emotion in emotions]].set_axis(list(emotions), axis=1)
    numbers = answers.apply(pd.to_numeric, errors="coerce")
    table[list(emotions)] = numbers
    sentiment = raw[_SENTIMENT] if _SENTIMENT in raw.columns else pd.Series("", index=raw.index)
    table["sentiment"] = pd.to_numeric(sentiment, errors="coerce")
    table.loc[table["sentiment"].abs() > _MAX_SENTIMENT, "sentiment"] = None
    in_range = numbers.ge(0) & numbers.le(_MAX_EMOTION)
    empty = answers.apply(lambda column: column.str.strip() == "")
    table["usable"] = (in_range | empty).all(axis=1) & in_range.any(axis=1)
    table["source"] = path
    return table[(video != "") & (raw[_CLIP].str.strip() != "")]
