"""Labels of CMU-MOSEI out of CMU_MOSEI_Labels.csd: which row is which clip.

The file knows no clip numbers. Its rows have the same times as the transcript lines, and stand in the order of the
clips' numbers sorted as TEXT: 0, 1, 10, 11, 2. As numbers they would get each other's labels.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from data_tools.corpora.csd import Csd, read_csd
from data_tools.corpora.mosei.clips import MAX_EMOTION, MAX_SENTIMENT, ClipLabels, LeftOver, Segment, shown
from data_tools.corpora.release import Release
from data_tools.errors import DataError

FILE = "CMU_MOSEI_Labels.csd"
# As older copies have it: the same table in two files.
OLDER_FILES = ("CMU_MOSEI_LabelsEmotions.csd", "CMU_MOSEI_LabelsSentiment.csd")

_DOCUMENTED = {
    7: ("sentiment", "happy", "sad", "anger", "surprise", "disgust", "fear"),
    6: ("happy", "sad", "anger", "surprise", "disgust", "fear"),
    1: ("sentiment",),
}
_OTHER_NAMES = {"happiness": "happy", "sadness": "sad"}
# Equal as written; this much is what single precision loses.
_SAME_TIME_S = 1e-4


class _MismatchError(Exception):
    """A clip without a row; arguments are a reject's reason and detail."""


class _Table:
    """One .csd file with the columns that are wanted."""

    def __init__(self, release: Release, csd: Csd, wanted: Collection[str]) -> None:
        self.csd, self.name, self.source = csd, csd.path.name, shown(release, csd.path)
        names = self._names(release)
        self.columns = [name for name in wanted if name in names]
        places = [names.index(name) for name in self.columns]
        lowest, highest = np.array([_bounds(name) for name in self.columns]).reshape(-1, 2).T
        self._rows: dict[str, list[list[float]]] = {}
        outside = 0
        for video_id, features in csd.features.items():
            rows = np.where(np.isfinite(features), features, np.nan)[:, places]
            outside += int(((rows < lowest) | (rows > highest)).sum())
            self._rows[video_id] = np.clip(rows, lowest, highest).tolist()
        if outside:
            release.notes.append(f"{outside} labels of {self.name} lay beyond their range and are moved to its end")

    def _names(self, release: Release) -> Sequence[str]:
        """Names of the columns in the task's words."""
        stated = [_OTHER_NAMES.get(name.strip().lower(), name.strip().lower()) for name in self.csd.columns]
        if set(stated) & set(_DOCUMENTED[7]):
            return stated
        width = next((rows.shape[1] for rows in self.csd.features.values()), 7)
        if width not in _DOCUMENTED:
            raise DataError(f"{self.csd.path} has {width} columns without names; expected {', '.join(_DOCUMENTED[7])}")
        release.notes.append(f"{self.name} names no columns; taken as {', '.join(_DOCUMENTED[width])}")
        return _DOCUMENTED[width]

    def values(self, video_id: str, row: int) -> dict[str, float]:
        """Labels of one row by column, inside their ranges; NaN where there is none."""
        return dict(zip(self.columns, self._rows[video_id][row], strict=True))

    def match_times(self, video_id: str, segments: Sequence[Segment]) -> dict[str, int | _MismatchError]:
        """The row of each clip, by its start and end."""
        intervals = self.csd.intervals[video_id]
        found: dict[str, int | _MismatchError] = {}
        for segment in segments:
            times = segment.start_s, segment.end_s
            rows = np.flatnonzero((np.abs(intervals - times) <= _SAME_TIME_S).all(axis=1))
            said = f"from {segment.start_s:g} to {segment.end_s:g} s"
            if len(rows) == 1:
                found[segment.clip] = int(rows[0])
            elif len(rows):
                found[segment.clip] = _MismatchError("labels:ambiguous", f"{self.name} has {len(rows)} rows {said}")
            else:
                found[segment.clip] = _MismatchError("unlabelled", f"{self.name} has no row {said}")
        return found

    def match_order(self, video_id: str, clips: Collection[str]) -> dict[str, int | _MismatchError]:
        """The row of each clip by its place among the numbers sorted as text; `clips` must be all of the video."""
        rows = len(self.csd.intervals[video_id])
        if rows == len(clips):
            return {clip: row for row, clip in enumerate(sorted(clips))}
        why = f"{self.name} has {rows} rows of {video_id}, and there are {len(clips)} clips of it: no telling which"
        return dict.fromkeys(clips, _MismatchError("labels:ambiguous", why))


class CsdLabels:
    """Labels of .csd files. An emotion is 1.0 where its mean over the annotators is above 0."""

    def __init__(self, main: _Table, further: _Table | None, emotions: Sequence[str]) -> None:
        """main: has all emotions, or without any the sentiment. further: has the sentiment where main has not."""
        self._main, self._further, self._emotions = main, further, emotions
        self.name = main.name if further is None else f"{main.name} and {further.name}"
        self._claimed: dict[str, set[int]] = defaultdict(set)
        self._asked: set[str] = set()

    def by_times(self, video_id: str, segments: Sequence[Segment]) -> dict[str, ClipLabels]:
        """Labels of all `segments` by clip number, by their times."""
        return self._labels(video_id, [s.clip for s in segments], lambda table: table.match_times(video_id, segments))

    def by_order(self, video_id: str, clips: Collection[str], sentiments: Mapping[str, float]) -> dict[str, ClipLabels]:
        """Labels of all `clips`, the numbers of a whole video, in the order of text.

        Where a clip's sentiment has another sign than in `sentiments`, the order is not that, and the whole video is
        labels:mismatch.
        """
        labels = self._labels(video_id, clips, lambda table: table.match_order(video_id, clips))
        found = {clip: labels[clip].sentiment for clip in sentiments if clip in labels}
        for clip, value in found.items():
            if value is not None and np.sign(value) != np.sign(sentiments[clip]):
                said = f"{value:g} in {self._main.name}, {sentiments[clip]:g} in the table of the clips"
                detail = f"the rows of {video_id} are in another order: the sentiment of clip {clip} is {said}"
                return dict.fromkeys(clips, ClipLabels(self._main.source, reason="labels:mismatch", detail=detail))
        return labels

    def left_over(self) -> Iterator[LeftOver]:
        """Rows that no clip was found for, called as the SDK does: video[row]."""
        table = self._main
        for video_id, intervals in table.csd.intervals.items():
            for row in sorted(set(range(len(intervals))) - self._claimed[video_id]):
                start_s, end_s = intervals[row]
                detail = f"{table.name} has a row from {start_s:g} to {end_s:g} s, and no transcript line has its times"
                yield LeftOver(f"{video_id}[{row}]", table.source, "no_transcript", detail)
        for video_id in sorted(set(table.csd.problems) - self._asked):
            detail = f"{video_id} in {table.name}: {table.csd.problems[video_id]}"
            yield LeftOver(None, table.source, "labels:unreadable", detail)

    def _labels(
        self,
        video_id: str,
        clips: Collection[str],
        match: Callable[[_Table], dict[str, int | _MismatchError]],
    ) -> dict[str, ClipLabels]:
        self._asked.add(video_id)
        source = self._main.source
        if video_id in self._main.csd.problems:
            detail = f"{video_id} in {self._main.name}: {self._main.csd.problems[video_id]}"
            return dict.fromkeys(clips, ClipLabels(source, reason="labels:unreadable", detail=detail))
        if video_id not in self._main.csd.intervals:
            detail = f"{self._main.name} has no rows of {video_id}"
            return dict.fromkeys(clips, ClipLabels(reason="unlabelled", detail=detail))
        rows = match(self._main)
        further = self._further
        more = match(further) if further is not None and video_id in further.csd.intervals else {}
        labels = {}
        for clip, row in rows.items():
            if isinstance(row, _MismatchError):
                labels[clip] = ClipLabels(reason=row.args[0], detail=row.args[1])
                continue
            self._claimed[video_id].add(row)
            values = self._main.values(video_id, row)
            second = more.get(clip)
            if further is not None and isinstance(second, int):
                values |= further.values(video_id, second)
            labels[clip] = self._one(values)
        return labels

    def _one(self, values: Mapping[str, float]) -> ClipLabels:
        """Labels of one row; a value that is not a number is no label."""
        source = self._main.source
        needed = self._emotions or ["sentiment"]
        missing = [name for name in needed if math.isnan(values[name])]
        if missing:
            detail = f"{self._main.name} has no number for {', '.join(missing)} in its row"
            return ClipLabels(source, reason="unlabelled", detail=detail)
        sentiment = values.get("sentiment", math.nan)
        emotions = {emotion: float(values[emotion] > 0) for emotion in self._emotions}
        return ClipLabels(source, emotions, None if math.isnan(sentiment) else sentiment)


def read_csd_labels(release: Release, folders: Sequence[Path], emotions: Sequence[str]) -> CsdLabels | None:
    """Labels of CMU_MOSEI_Labels.csd, or of the older pair of files, in the first of `folders` that has one.

    None where none has. Values beyond their range are moved to its end, and counted in a note.

    Raises:
        DataError: a file that cannot be read, or that lacks one of `emotions` (without any: the sentiment).
    """
    for folder in folders:
        paths = [folder / FILE] if (folder / FILE).is_file() else [folder / name for name in OLDER_FILES]
        tables = [_Table(release, read_csd(p), [*emotions, "sentiment"]) for p in paths if p.is_file()]
        if tables:
            return _chosen(tables, emotions)
    return None


def _chosen(tables: Sequence[_Table], emotions: Sequence[str]) -> CsdLabels:
    needed = list(emotions) or ["sentiment"]
    main = next((table for table in tables if set(needed) <= set(table.columns)), None)
    if main is None:
        names = ", ".join(table.name for table in tables)
        raise DataError(f"{names} in {tables[0].csd.path.parent}: no columns for all of {', '.join(needed)}")
    further = next((t for t in tables if "sentiment" in t.columns and "sentiment" not in main.columns), None)
    return CsdLabels(main, further, emotions)


def _bounds(name: str) -> tuple[float, float]:
    return (-MAX_SENTIMENT, MAX_SENTIMENT) if name == "sentiment" else (0.0, MAX_EMOTION)
