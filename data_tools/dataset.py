"""The samples that every model trains on: manifest and store put together, and packed into batches."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset

from data_tools import mel
from data_tools.batch import Batch
from data_tools.errors import DataError
from data_tools.manifest import LABEL_PREFIX, STORE_FILE, STORE_FOLDER, emotions_of, read_manifest
from data_tools.store import DialogueStore, Features, store_path

Tokenize = Callable[[list[str]], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Sample:
    """One utterance.

    faces: (F, 3, 48, 48) uint8 RGB. face_scores: (F,) float32, 0 where the centre crop stands in.
    chunks: (C, 1, 128, 32) float32 standardised log-mel. text: the transcript, may be empty.
    labels: (E,) float32 in [0, 1]. sentiment: NaN where the corpus has none.
    """

    id: str
    faces: Tensor
    face_scores: Tensor
    chunks: Tensor
    text: str
    labels: Tensor
    sentiment: float


def to_sample(
    features: Features, utterance_id: str, text: str, labels: Tensor, sentiment: float = float("nan")
) -> Sample:
    """Stored features as a model wants them: channels first, the sound standardised and cut into chunks."""
    return Sample(
        id=utterance_id,
        faces=features.faces.permute(0, 3, 1, 2).contiguous(),
        face_scores=features.face_score,
        chunks=mel.chunks(features.logmel),
        text=text,
        labels=labels,
        sentiment=sentiment,
    )


class UtteranceDataset(Dataset[Sample]):
    """The utterances of a data folder, or of one split of it, in the order of the manifest (by id).

    Utterances that preprocessing rejected are left out and counted in `rejected`.

    Attributes:
        emotions: names of the labels, in label order.
        table: the manifest's rows of these utterances.

    Raises:
        DataError: no manifest, an unknown split, an unfinished store, or one that lacks an utterance.
    """

    def __init__(self, data_dir: str | Path, split: str | None = None) -> None:
        self.data_dir = Path(data_dir)
        table = read_manifest(self.data_dir)
        self.emotions = emotions_of(table)
        if split is not None:
            known = sorted(table["split"].unique())
            if split not in known:
                raise DataError(f"split {split!r} is not in {self.data_dir}; it has {', '.join(known) or 'none'}")
            table = table[table["split"] == split]
        self._stores: dict[str, DialogueStore] = {}
        kept = table[self._stored(table)].reset_index(drop=True)
        self.rejected = len(table) - len(kept)
        self.table = kept
        self._labels = torch.tensor(kept[[LABEL_PREFIX + name for name in self.emotions]].to_numpy(np.float32))

    def _stored(self, table: pd.DataFrame) -> list[bool]:
        """For each row whether its features are there; those that preprocessing rejected are not."""
        fingerprints = self._fingerprints()
        for dialogue_id in table["dialogue_id"].unique():
            store = self._store(dialogue_id)
            if store.fingerprint != fingerprints.get(dialogue_id):
                raise self._unfinished(f"{self._path(dialogue_id)} is not of the run that {STORE_FILE} speaks of")
        found = []
        for dialogue_id, utterance_id in table[["dialogue_id", "utterance_id"]].itertuples(index=False):
            store = self._stores[dialogue_id]
            if utterance_id not in store and utterance_id not in store.rejected:
                raise self._unfinished(f"{utterance_id!r} is not in {self._path(dialogue_id)}")
            found.append(utterance_id in store)
        return found

    def _fingerprints(self) -> dict[str, str]:
        path = self.data_dir / STORE_FOLDER / STORE_FILE
        try:
            return dict(json.loads(path.read_text(encoding="utf-8"))["fingerprints"])
        except (OSError, ValueError, KeyError):
            raise self._unfinished(f"{path} is not there, or damaged") from None

    def _unfinished(self, why: str) -> DataError:
        return DataError(f"{why}: preprocessing has not finished; run `pipeline preprocess --data {self.data_dir}`")

    def _path(self, dialogue_id: str) -> Path:
        return store_path(self.data_dir, dialogue_id)

    def _store(self, dialogue_id: str) -> DialogueStore:
        # Opened on first use in whichever process reads: an open memory map doesn't travel to a loader's workers.
        if dialogue_id not in self._stores:
            self._stores[dialogue_id] = DialogueStore(self._path(dialogue_id))
        return self._stores[dialogue_id]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_stores": {}}

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> Sample:
        row = self.table.iloc[index]
        features = self._store(row["dialogue_id"])[row["utterance_id"]]
        return to_sample(features, row["utterance_id"], row["text"], self._labels[index], float(row["sentiment"]))


def collate(samples: Sequence[Sample], tokenize: Tokenize) -> Batch:
    """Samples packed into one batch, in their order. `tokenize` maps B texts to (B, L) tokens and mask."""
    tokens, token_mask = tokenize([sample.text for sample in samples])
    return Batch(
        faces=torch.cat([sample.faces for sample in samples]),
        face_counts=torch.tensor([len(sample.faces) for sample in samples]),
        chunks=torch.cat([sample.chunks for sample in samples]),
        chunk_counts=torch.tensor([len(sample.chunks) for sample in samples]),
        tokens=tokens,
        token_mask=token_mask,
        labels=torch.stack([sample.labels for sample in samples]),
        sentiment=torch.tensor([sample.sentiment for sample in samples], dtype=torch.float32),
        ids=tuple(sample.id for sample in samples),
    )
