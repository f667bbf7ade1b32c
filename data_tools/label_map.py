"""Label maps: emotions that several corpora have in common, and each corpus' own names of them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_tools.manifest import emotions_of
from data_tools.records import LABEL_PREFIX, PRESENT_FROM


@dataclass(frozen=True)
class LabelMap:
    """Names of emotions across corpora.

    name: of the map, for reports. emotions: those of the map, in label order.
    corpora: corpus, as dataset.json names it -> its own emotion -> one of `emotions`.
    """

    name: str
    emotions: list[str]
    corpora: dict[str, dict[str, str]]

    def __post_init__(self) -> None:
        """Raise ValueError for a map that contradicts itself."""
        if not self.emotions or len(set(self.emotions)) < len(self.emotions):
            raise ValueError(f"emotions is {self.emotions!r:.200}: give at least one, and each once")
        for corpus, own in self.corpora.items():
            if strange := sorted(set(own.values()) - set(self.emotions)):
                raise ValueError(f"corpora.{corpus} maps to {', '.join(strange)}, which emotions does not have")

    def counterparts(self, corpus: str, own: Sequence[str]) -> dict[str, str]:
        """Emotion of `own` -> its counterpart in the map; those without one are left out.

        A corpus that the map does not list has its emotions under the names of the map.
        """
        known = self.corpora.get(corpus, {name: name for name in self.emotions})
        return {name: known[name] for name in own if name in known}


@dataclass(frozen=True)
class MappedLabels:
    """Labels of a data set in the emotions of a label map.

    label_map: the map. counterparts: own emotion -> emotion of the map, those alone that the data set then has.
    left_out: own emotion -> utterances that are left out because it has no counterpart and they have no other; each
    counts once, under its strongest. beside_others: the same -> utterances that lose it and keep another one.
    """

    label_map: LabelMap
    counterparts: dict[str, str]
    left_out: dict[str, int]
    beside_others: dict[str, int]


def map_labels(
    table: pd.DataFrame, label_map: LabelMap, counterparts: Mapping[str, str], emotions: Sequence[str]
) -> tuple[pd.DataFrame, NDArray[np.bool_], MappedLabels]:
    """The manifest `table` with `emotions` in place of its own, (n,) bool of the utterances to keep, and the counts.

    counterparts: own emotion -> emotion of the map; where `emotions` lacks that, it counts as having none. Of several
    own emotions with one counterpart the largest value counts. An utterance whose emotions all lack a counterpart is
    not to be kept; one without any emotion is.
    """
    own = emotions_of(table)
    used = {name: counterparts[name] for name in own if counterparts.get(name) in emotions}
    values = table[[LABEL_PREFIX + name for name in own]].to_numpy(np.float32)
    present, known = values >= PRESENT_FROM, np.array([name in used for name in own], bool)
    kept = present[:, known].any(1) | ~present.any(1)
    strongest = (values * ~known)[~kept].argmax(1) if not kept.all() else []
    beside = (present & ~known)[kept].sum(0)
    mapped = table.drop(columns=[LABEL_PREFIX + name for name in own])
    for place, emotion in enumerate(emotions, start=table.columns.get_loc("text") + 3):  # after clip and wav
        sources = [e for e, name in enumerate(own) if used.get(name) == emotion]
        column = values[:, sources].max(1) if sources else np.zeros(len(table), np.float32)
        mapped.insert(place, LABEL_PREFIX + emotion, column)
    left_out = dict(Counter(own[e] for e in strongest))
    beside_others = {own[e]: int(count) for e, count in enumerate(beside) if count}
    return mapped, kept, MappedLabels(label_map, used, left_out, beside_others)
