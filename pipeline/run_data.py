"""Facts about the training data that a run stores, the one definition of "the same data", and notices."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from pydantic import TypeAdapter, ValidationError

from data_tools.about import DATASET_FILE, read_dataset_facts, read_store_facts
from data_tools.dataset import UtteranceDataset
from data_tools.errors import DataError
from data_tools.files import read_json
from data_tools.label_map import LabelMap
from data_tools.records import LABEL_PREFIX, PRESENT_FROM
from pipeline.metrics.sentiment import train_constants
from pipeline.training.features import FeatureUse
from pipeline.training.losses import positive_weights

STANDIN_NOTICE = "stand-in data: scores say nothing about people"


@dataclass(frozen=True)
class DataFacts:
    """Facts about the training data that a run stores: label order, class weights, fingerprint; data.json there.

    folder: the data folder, as it was given. more_folders: further ones, where the run was trained on several.
    emotions: in label order.
    train_utterances, train_positives: how many utterances the train split has, and how many with each emotion.
    pos_weight: of the loss, by emotion. fingerprint: of the ids and labels of train and valid.
    sentiment: what baselines answer, of `metrics.sentiment.train_constants`; empty where train has no sentiment.
    left_out: split -> utterances without the label of the task, which count nowhere else.
    dataset: `describe_folders`. preprocessing: the settings that made its store.
    features: the extracted ones that the run reads; None where it reads faces and chunks.
    texts: fingerprint of the words of train and valid; None in runs of earlier versions.
    label_map: the one whose emotions were learned; None for the data folder's own. without_counterpart: split -> own
    emotion -> utterances that were left out because it has none in the map.
    """

    folder: str
    emotions: list[str]
    train_utterances: int
    train_positives: dict[str, int]
    pos_weight: dict[str, float]
    fingerprint: str
    dataset: dict[str, Any]
    preprocessing: dict[str, Any]
    sentiment: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    features: FeatureUse | None = None
    texts: str | None = None
    label_map: LabelMap | None = None
    more_folders: list[str] = field(default_factory=list)
    without_counterpart: dict[str, dict[str, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise ValueError for what no run has: data.json is read as this too."""
        names = set(self.emotions)
        if len(names) < len(self.emotions):
            raise ValueError("emotions has one twice")
        if set(self.train_positives) != names or set(self.pos_weight) != names:
            raise ValueError("train_positives and pos_weight are not of the emotions")
        if self.train_utterances < 1 or any(count < 0 for count in self.train_positives.values()):
            raise ValueError("train_utterances is less than 1, or one of train_positives less than 0")
        if not all(isinstance(part, dict) for part in self.preprocessing.values()):
            raise ValueError(f"preprocessing is {self.preprocessing!r:.60}")

    @classmethod
    def from_splits(cls, data: Path, train: UtteranceDataset, valid: UtteranceDataset) -> "DataFacts":
        """The facts of a data folder whose splits are loaded, or of several of which `data` is the first."""
        folders = [data, *(part.data_dir for part in train.parts[1:])]
        emotions = list(train.emotions)
        labels = train.table[[LABEL_PREFIX + name for name in emotions]]
        weights = positive_weights(torch.tensor(labels.to_numpy("float32"))).tolist()
        positives = (labels >= PRESENT_FROM).sum(axis=0).tolist()
        sentiment = train.table["sentiment"].dropna().to_numpy("float32")
        return cls(
            folder=data.as_posix(),
            emotions=emotions,
            train_utterances=len(train),
            train_positives=dict(zip(emotions, positives, strict=True)),
            pos_weight=dict(zip(emotions, weights, strict=True)),
            fingerprint=_fingerprint(train.table, valid.table),
            texts=_texts_fingerprint(train.table, valid.table),
            dataset=describe_folders(folders),
            preprocessing=preprocessing_of(data),
            features=FeatureUse.from_dataset(train),
            sentiment=train_constants(sentiment) if len(sentiment) else {},
            left_out={"train": train.left_out, "valid": valid.left_out},
            label_map=train.mapped.label_map if train.mapped else None,
            more_folders=[folder.as_posix() for folder in folders[1:]],
            without_counterpart={"train": without_counterpart(train), "valid": without_counterpart(valid)}
            if train.mapped
            else {},
        )

    @classmethod
    def read(cls, path: Path) -> "DataFacts":
        """The facts in a run's data.json.

        Raises:
            DataError: it cannot be read, or lacks something.
        """
        try:
            return TypeAdapter(cls).validate_python(read_json(path))
        except ValidationError as error:
            raise DataError(f"{path} is damaged ({first_problems(error)}); restore it or train again") from None

    def same_data(self, other: "DataFacts") -> bool:
        """True for the same utterances, labels, words and preprocessing, and features made in the same way.

        A scale is compared where both have one: it is fitted only when a training starts.
        """
        if None not in (self.texts, other.texts) and self.texts != other.texts:
            return False
        own, theirs = self.features, other.features
        if (self.fingerprint, self.preprocessing) != (other.fingerprint, other.preprocessing):
            return False
        if own is None or theirs is None:
            return own is theirs
        same_recipe = (own.name, own.sizes, own.settings) == (theirs.name, theirs.sizes, theirs.settings)
        return same_recipe and (own.scale is None or theirs.scale is None or own.scale == theirs.scale)

    @property
    def notice(self) -> str | None:
        """Notice that stands beside every score on this data; None where none is needed."""
        return notice_of(self.dataset)


def describe_folders(folders: Sequence[Path]) -> dict[str, Any]:
    """dataset.json of a data folder; of several, `dataset`, `split` and `standin` that hold for all of them.

    Raises:
        DataError: as `read_dataset_facts`.
    """
    if len(folders) == 1:
        return read_dataset_facts(folders[0])
    facts, names = [read_dataset_facts(folder) for folder in folders], [dataset_name(folder) for folder in folders]
    protocols = [str(about.get("split", "not stated")) for about in facts]
    alike = len(set(protocols)) == 1
    return {
        "dataset": joined_name(folders),
        "split": protocols[0] if alike else ", ".join(f"{p} of {n}" for p, n in zip(protocols, names, strict=True)),
        "standin": any(about.get("standin") for about in facts),
    }


def without_counterpart(dataset: UtteranceDataset) -> dict[str, int]:
    """Own emotion -> utterances of the data set that are left out because the label map has no counterpart of it."""
    return dict(sum((Counter(part.mapped.left_out) for part in dataset.parts if part.mapped), Counter()))


def first_problems(error: ValidationError) -> str:
    """The first three things that are wrong in a file, for a message."""
    return "; ".join(f"{'.'.join(map(str, e['loc']))[:60]}: {e['msg']:.120}" for e in error.errors()[:3])


def notice_of(dataset: Mapping[str, Any]) -> str | None:
    """Notice that stands beside every score on the data set of this dataset.json; None where none is needed."""
    return STANDIN_NOTICE if dataset.get("standin") else None


def dataset_name(data: Path) -> str:
    """The name of a data set: from its dataset.json, else of its folder.

    Raises:
        DataError: dataset.json is damaged, or its name cannot be a part of a file's.
    """
    if not (data / DATASET_FILE).is_file():
        return data.resolve().name
    return str(read_dataset_facts(data).get("dataset", data.name))


def joined_name(folders: Sequence[Path]) -> str:
    """The names of the data sets, each once, joined by `+`. Raises DataError as `dataset_name`."""
    return "+".join(dict.fromkeys(dataset_name(folder) for folder in folders))


def preprocessing_of(data: Path) -> dict[str, Any]:
    """The settings of stage 2 that made the store of a data folder; empty where it doesn't say."""
    return dict(read_store_facts(data).get("settings", {}))


def _fingerprint(*tables: pd.DataFrame) -> str:
    digest = hashlib.sha256()
    for table in tables:
        columns = [name for name in table.columns if name.startswith(LABEL_PREFIX)]
        digest.update(table[["utterance_id", *columns, "sentiment"]].to_csv(index=False).encode())
    return digest.hexdigest()[:16]


def _texts_fingerprint(*tables: pd.DataFrame) -> str:
    texts = [table[["utterance_id", "text"]].to_numpy().tolist() for table in tables]
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]
