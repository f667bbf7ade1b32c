"""CMU-MOSEI's raw label tables: one row an annotator, summed into one label a clip."""

import io
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from data_tools.corpora.mosei.clips import MAX_EMOTION, MAX_SENTIMENT, ClipLabels, LeftOver, Segment, shown
from data_tools.corpora.release import Release, visible
from data_tools.corpora.tables import MAX_BYTES
from data_tools.files import read_limited

EMOTION_COLUMNS = {
    "anger": "Answer.anger",
    "disgust": "Answer.disgust",
    "fear": "Answer.fear",
    "happy": "Answer.happiness",
    "sad": "Answer.sadness",
    "surprise": "Answer.surprise",
}
_VIDEO, _CLIP, _SENTIMENT = "Input.VIDEO_ID", "Input.CLIP", "Answer.sentiment"


class AnnotatorLabels:
    """Labels by `<video>_<clip>`.

    folder: where the tables lie, as rejects name it. lost: why a table that may hold missing rows cannot be read.
    """

    def __init__(self, labels: Mapping[str, ClipLabels], folder: Path, lost: str) -> None:
        self._labels, self._folder, self._lost = labels, folder, lost
        self._asked: set[str] = set()

    def by_times(self, video_id: str, segments: Sequence[Segment]) -> dict[str, ClipLabels]:
        """Labels of all `segments` by clip number."""
        return {segment.clip: self._of(f"{video_id}_{segment.clip}") for segment in segments}

    def by_order(
        self,
        video_id: str,
        clips: Collection[str],
        sentiments: Mapping[str, float],  # noqa: ARG002 - the ids are enough
    ) -> dict[str, ClipLabels]:
        """Labels of all `clips` by number."""
        return {clip: self._of(f"{video_id}_{clip}") for clip in clips}

    def left_over(self) -> Iterator[LeftOver]:
        """Clips with labels that were not asked for."""
        for utterance_id in sorted(set(self._labels) - self._asked):
            yield LeftOver(utterance_id, self._folder, "no_transcript", "it has labels, but no transcript line")

    def _of(self, utterance_id: str) -> ClipLabels:
        self._asked.add(utterance_id)
        if utterance_id in self._labels:
            return self._labels[utterance_id]
        if self._lost:
            detail = f"no row of this clip, and one may be in a file that cannot be read: {self._lost}"
            return ClipLabels(reason="no_labels", detail=detail)
        return ClipLabels(reason="unlabelled", detail="no label file has a row of this clip")


def read_annotators(release: Release, folder: Path, emotions: Sequence[str]) -> AnnotatorLabels | None:
    """Labels from every *.csv of `folder` that has the columns; None where none has.

    An emotion is 1.0 where at least one annotator saw it, sentiment is the mean. A row counts where it has at least
    one answer and every answer is a number from 0 to 3 (an empty one adds nothing); rows that don't count are noted,
    as are tables without the columns. Without emotions, a row counts where it has a sentiment.
    """
    paths = visible(folder, ".csv").values()
    tables = [table for path in paths if (table := _read_table(release, path, emotions)) is not None]
    if not tables:
        return None
    rows = pd.concat(tables, ignore_index=True)
    unusable = int((~rows["usable"]).sum())
    if unusable:
        release.notes.append(f"{unusable} of {len(rows)} annotators' rows have no answers in range and don't count")
    sources = rows.groupby("id")["source"].first()
    usable = rows[rows["usable"]].groupby("id")
    sentiment = usable["sentiment"].mean()  # of the rows that have one
    present = pd.DataFrame({emotion: usable[emotion].sum() > 0 for emotion in emotions}, index=sentiment.index)
    none = f"none of its rows has {'answers from 0 to 3' if emotions else 'a sentiment from -3 to 3'}"
    labels = {name: ClipLabels(source, reason="labels:unreadable", detail=none) for name, source in sources.items()}
    for name, mean, flags in zip(sentiment.index, sentiment, present.to_numpy(dtype=float), strict=True):
        values = {emotion: float(flag) for emotion, flag in zip(emotions, flags, strict=True)}
        labels[name] = ClipLabels(sources[name], values, None if pd.isna(mean) else float(mean))
    # Whatever was rejected by now is a label file: one of them may hold the rows that are missing.
    lost = next((reject.detail for reject in release.rejects), "")
    return AnnotatorLabels({str(name): clip for name, clip in labels.items()}, shown(release, folder), lost)


def _read_table(release: Release, path: Path, emotions: Sequence[str]) -> pd.DataFrame | None:
    """Columns id, the emotions, sentiment (float64), usable, source; None after a note or reject."""
    wanted = [_VIDEO, _CLIP, *([EMOTION_COLUMNS[emotion] for emotion in emotions] or [_SENTIMENT])]
    try:
        # Everything as text first: 459 video ids are all digits, and must not become numbers. index_col: otherwise a
        # comma at the end of every line moves all columns by one; pandas warns that it leaves out what is after it.
        with warnings.catch_warnings(action="ignore", category=pd.errors.ParserWarning):
            raw = pd.read_csv(
                io.BytesIO(read_limited(path, MAX_BYTES)),
                dtype=str,
                keep_default_na=False,
                index_col=False,
                encoding="utf-8-sig",
                encoding_errors="replace",
            )
    except (OSError, ValueError) as error:
        detail = f"{path.name} is not readable CSV: {str(error).strip()[:200]}"
        release.reject(None, shown(release, path), "labels:unreadable", detail)
        return None
    missing = [column for column in wanted if column not in raw.columns]
    if missing:
        release.notes.append(f"{path.name} is not used: it has no column {missing[0]}")
        return None
    return _parsed(raw, emotions).assign(source=shown(release, path))


def _parsed(raw: pd.DataFrame, emotions: Sequence[str]) -> pd.DataFrame:
    """The columns of `_read_table` but for the source, of the rows that name a clip."""
    # One file writes `folder/id`. Clip numbers are whole numbers, now and then written as 3.0.
    video = raw[_VIDEO].str.strip().str.rsplit("/", n=1).str[-1]
    clip = raw[_CLIP].str.strip().str.removesuffix(".0")
    answers = raw[[EMOTION_COLUMNS[emotion] for emotion in emotions]].set_axis(list(emotions), axis=1)
    table = answers.apply(pd.to_numeric, errors="coerce").astype(float)
    in_range = table.ge(0) & table.le(MAX_EMOTION)
    empty = answers.apply(lambda column: column.str.strip()).eq("")
    sentiment = raw[_SENTIMENT] if _SENTIMENT in raw.columns else pd.Series("", index=raw.index)
    numbers = pd.to_numeric(sentiment, errors="coerce").astype(float)
    table["sentiment"] = numbers.where(numbers.abs() <= MAX_SENTIMENT)
    table["usable"] = (in_range | empty).all(axis=1) & in_range.any(axis=1) if emotions else table["sentiment"].notna()
    table["id"] = video + "_" + clip
    return table[(video != "") & (clip != "")]
