"""The samples that every model trains on: manifest and store put together, and packed into batches."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from data_tools import mel
from data_tools.batch import Batch
from data_tools.errors import DataError
from data_tools.manifest import LABEL_PREFIX, emotions_of, read_manifest, read_rejects
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
        DataError: no manifest, an unknown split, or utterances that are in neither the store nor the rejects.
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
        rejected = {r.utterance_id for r in read_rejects(self.data_dir) if r.stage == "preprocess"}
        kept = table[~table["utterance_id"].isin(rejected)].reset_index(drop=True)
        self.rejected = len(table) - len(kept)
        self.table = kept
        self._labels = torch.tensor(kept[[LABEL_PREFIX + name for name in self.emotions]].to_numpy(np.float32))
        self._stores: dict[str, DialogueStore] = {}
        self._check_store()

    def _check_store(self) -> None:
        absent = [path for d in self.table["dialogue_id"].unique() if not (path := self._path(d)).is_file()]
        if absent:
            raise DataError(
                f"{len(absent)} dialogues are not preprocessed, e.g. {absent[0]}; "
                f"run `pipeline preprocess --data {self.data_dir}`"
            )

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
        try:
            features = self._store(row["dialogue_id"])[row["utterance_id"]]
        except KeyError:
            raise DataError(
                f"{row['utterance_id']!r} is not in {self._path(row['dialogue_id'])}; "
                f"run `pipeline preprocess --data {self.data_dir}` again"
            ) from None
        return to_sample(features, row["utterance_id"], row["text"], self._labels[index], float(row["sentiment"]))

    def sizes(self) -> list[tuple[int, int]]:
        """Faces and chunks of every utterance, in order, without reading them: what a batch will cost."""
        found = []
        for dialogue_id, utterance_id in self.table[["dialogue_id", "utterance_id"]].itertuples(index=False):
            faces, rows = self._store(dialogue_id).sizes(utterance_id)
            found.append((faces, math.ceil(rows / mel.CHUNK_FRAMES)))
        return found


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
