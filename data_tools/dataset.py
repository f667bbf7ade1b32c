"""The samples that every model trains on: manifest and store put together, and packed into batches."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from data_tools import mel
from data_tools.about import read_store_facts
from data_tools.batch import WAVEFORM, Batch, Packed
from data_tools.checksums import State, found_sound, trust
from data_tools.errors import DataError
from data_tools.label_map import LabelMap, MappedLabels, map_labels
from data_tools.manifest import STORE_FILE, STORE_FOLDER, emotions_of, has_media, read_manifest
from data_tools.records import LABEL_PREFIX
from data_tools.sequences.mixed import MixedFeatures, open_features, read_features, sets_of
from data_tools.sequences.scale import FeatureScale
from data_tools.sequences.store import FEATURES_FILE, IMPORTED, DialogueFeatures, features_path
from data_tools.store import EMPTY, DialogueStore, SampleTensors, store_path
from data_tools.store_index import read_index
from data_tools.threads import one_thread
from data_tools.waveform import waveform

# Files of stores or features that a data set holds open, each of them a map of the process: Linux allows 65,530.
OPEN_FILES = 1024

Tokenize = Callable[[list[str]], tuple[Tensor, Tensor]]
AnyFeatures = DialogueFeatures | MixedFeatures


@dataclass(frozen=True)
class Sample:
    """One utterance.

    faces: (F, 3, 48, 48) uint8 RGB; none where no frame shows a face. face_scores: (F,) float32, 0 where the picture's
    centre stands in for the face of one frame.
    chunks: (C, 1, 128, 32) float32 standardised log-mel. text: the transcript, may be empty.
    labels: (E,) float32 in [0, 1]. sentiment: NaN where the corpus has none.
    features: (N, D) float32 by modality letter, where extracted features were asked for; faces and chunks are then
    empty. Or beside them the sound itself, see `Batch.features`.
    """

    id: str
    faces: Tensor
    face_scores: Tensor
    chunks: Tensor
    text: str
    labels: Tensor
    sentiment: float
    features: dict[str, Tensor] = field(default_factory=dict)


def to_sample(
    features: SampleTensors, utterance_id: str, text: str, labels: Tensor, sentiment: float = float("nan")
) -> Sample:
    """Stored features as a model wants them: channels first, the sound standardised and cut into chunks.

    Without a face in any frame the faces are absent: middles of pictures alone tell nothing of a person.
    """
    # More threads have nothing to share out here, wait for each other beside other work, and sum in another order.
    with one_thread():
        frames = len(features.faces) if bool((features.face_score > 0).any()) else 0
        return Sample(
            id=utterance_id,
            faces=features.faces[:frames].permute(0, 3, 1, 2).contiguous(),
            face_scores=features.face_score[:frames],
            chunks=mel.chunks(features.logmel),
            text=text,
            labels=labels,
            sentiment=sentiment,
        )


def feature_sample(
    features: dict[str, Tensor], utterance_id: str, text: str, labels: Tensor, sentiment: float = float("nan")
) -> Sample:
    """A sample of extracted features, (N, D) by letter, without faces and chunks."""
    return replace(to_sample(EMPTY, utterance_id, text, labels, sentiment), features=features)


class UtteranceDataset(Dataset[Sample]):
    """The utterances of a data folder, or of one split of it, in the order of the manifest (by id).

    Utterances that preprocessing rejected are left out and counted in `rejected`.

    features: the name of extracted features that the samples have in place of faces and chunks, or of a set for each
        modality, `t=words,a=default,v=imported`; no face is read then.
    table: the manifest of `data_dir` where the caller has read it, maybe split in another way; None: it is read.

    Attributes:
        emotions: names of the labels, in label order.
        table: the manifest's rows of these utterances.
        left_out: utterances that `only` left out.
        features: what features.json says of the extracted features; None without.
        scale: what the features are standardised with; None for as they are stored. `fit_scale` makes one.
        letters: modalities of the extracted features that samples have; all, unless a model reads fewer of them.
        waveforms: whether the samples also have the sound of their clip, as the feature `WAVEFORM`; set it.
        mapped: what `relabelled` did; None for the labels of the data folder.

    Raises:
        DataError: no manifest, an unknown split, an unfinished store or features, or one that lacks an utterance.
    """

    def __init__(
        self,
        data_dir: str | Path,
        split: str | None = None,
        features: str | None = None,
        table: pd.DataFrame | None = None,
    ) -> None:
        self.data_dir = Path(data_dir)
        table = read_manifest(self.data_dir) if table is None else table
        self.emotions = emotions_of(table)
        if split is not None:
            known = sorted(table["split"].unique())
            if split not in known:
                raise DataError(f"split {split!r} is not in {self.data_dir}; it has {', '.join(known) or 'none'}")
            table = table[table["split"] == split]
        if features is None and not has_media(table):
            raise DataError(
                f"{self.data_dir} has no clips, only imported features: add --set features={IMPORTED}, for a "
                "model that reads features"
            )
        self.features = None if features is None else read_features(self.data_dir, features)
        self.scale: FeatureScale | None = None
        self.letters = "tav"
        self.waveforms = False
        self.mapped: MappedLabels | None = None
        # The last used ones, the latest at the end.
        self._stores: dict[str, DialogueStore | AnyFeatures] = {}
        # Of each dialogue's file, and of the index of all of them, where the store has one.
        self._fingerprints, self._index = (self.features.fingerprints, None) if self.features else self._store_facts()
        is_kept, self._steps = self._stored(table)
        kept = table[is_kept].reset_index(drop=True)
        self.rejected = len(table) - len(kept)
        self.left_out = 0
        self.table = kept
        self._labels = _labels_of(kept, self.emotions)

    @property
    def parts(self) -> "tuple[UtteranceDataset, ...]":
        """The data set of each data folder that it is made of: itself."""
        return (self,)

    def only(self, kept: NDArray[np.bool_]) -> "UtteranceDataset":
        """The same data set with the utterances alone at which `kept`, (n,), is true."""
        part = copy(self)
        part.table = self.table[kept].reset_index(drop=True)
        part._labels = self._labels[torch.from_numpy(np.flatnonzero(kept))]
        part._steps = {name: counts[kept] for name, counts in self._steps.items()}
        part.left_out = self.left_out + int((~kept).sum())
        return part

    def relabelled(
        self, label_map: LabelMap, counterparts: Mapping[str, str], emotions: Sequence[str]
    ) -> "UtteranceDataset":
        """The same data set with `emotions` as its labels, see `data_tools.label_map.map_labels`.

        Utterances that have emotions without counterpart alone are left out; `mapped` counts them.
        """
        table, kept, mapped = map_labels(self.table, label_map, counterparts, emotions)
        part = copy(self)
        part.emotions, part.mapped = list(emotions), mapped
        part.table = table[kept].reset_index(drop=True)
        part._labels = _labels_of(part.table, part.emotions)
        part._steps = {name: counts[kept] for name, counts in self._steps.items()}
        return part

    def fit_scale(self) -> FeatureScale:
        """The mean and deviation of each feature over all of these utterances, as they are stored."""
        return FeatureScale.of(self.stored_features())

    def stored_features(self) -> Iterator[dict[str, Tensor]]:
        """The extracted features of each of these utterances in turn, (N, D) by letter, as they are stored."""
        for dialogue_id, name in self.table[["dialogue_id", "utterance_id"]].itertuples(index=False):
            yield self._features(dialogue_id, name)

    def counts(self) -> dict[str, NDArray[np.int64]]:
        """Number of steps of each utterance, (n,), from the stores' offsets: no sample is read.

        `faces` and `chunks`; of extracted features the steps by modality letter.
        """
        return dict(self._steps)

    @staticmethod
    def _counts(store: DialogueStore | AnyFeatures, utterance_id: str) -> dict[str, int]:
        if not isinstance(store, DialogueStore):
            return {letter: store.count(utterance_id, letter) for letter in store.letters}
        faces, rows = store.counts(utterance_id)
        return {"faces": faces, "chunks": -(-rows // mel.CHUNK_FRAMES)}

    def _stored(self, table: pd.DataFrame) -> tuple[NDArray[np.bool_], dict[str, NDArray[np.int64]]]:
        """For each row whether its tensors are there, and the steps of the rows that have some, by name.

        Those that preprocessing rejected have none.
        """
        names = table["dialogue_id"].unique()
        if len(names) > OPEN_FILES and self._index:
            return self._indexed(table, names, self._index)
        dialogues, utterances = table["dialogue_id"].tolist(), table["utterance_id"].tolist()
        is_there = np.zeros(len(table), np.bool_)
        steps: dict[str, NDArray[np.int64]] = {}
        # Dialogue by dialogue, whatever the order of the rows, so that no store is opened twice.
        for row in sorted(range(len(table)), key=dialogues.__getitem__):
            dialogue_id, utterance_id = dialogues[row], utterances[row]
            store = self._store(dialogue_id)
            if utterance_id in store:
                is_there[row] = True
                for name, count in self._counts(store, utterance_id).items():
                    steps.setdefault(name, np.zeros(len(table), np.int64))[row] = count
            elif utterance_id not in store.rejected:
                raise self._unfinished(f"{utterance_id!r} is not in {self._path(dialogue_id)}")
        return is_there, {name: counts[is_there] for name, counts in steps.items()}

    def _indexed(
        self, table: pd.DataFrame, dialogues: Iterable[str], index: str
    ) -> tuple[NDArray[np.bool_], dict[str, NDArray[np.int64]]]:
        """As `_stored`, without opening a store: each is compared with its checksum when it is first read."""
        files = {path.name for path in (self.data_dir / STORE_FOLDER).iterdir()}
        for dialogue_id in dialogues:
            path = self._path(dialogue_id)
            if path.name not in files or dialogue_id not in self._fingerprints:
                raise self._unfinished(f"{path} is not there, or not of the run that {STORE_FILE} speaks of")
        try:
            faces, rows = read_index(self.data_dir, index, table["utterance_id"])
        except DataError as error:
            raise self._unfinished(str(error)) from error
        is_there = faces >= 0
        steps = {"faces": faces, "chunks": -(-rows // mel.CHUNK_FRAMES)}
        return is_there, {name: counts[is_there] for name, counts in steps.items()}

    def _store_facts(self) -> tuple[dict[str, str], str | None]:
        path = self.data_dir / STORE_FOLDER / STORE_FILE
        try:
            facts = read_store_facts(self.data_dir)
            return dict(facts["fingerprints"]), facts.get("index")
        except (DataError, KeyError):
            raise self._unfinished(f"{path} is not there, or damaged") from None

    def _unfinished(self, why: str) -> DataError:
        if self.features:
            command = f"pipeline extract --data {self.data_dir} --features {self.features.name}"
            return DataError(f"{why}: the features are not of these data; run `{command}`")
        return DataError(f"{why}: preprocessing has not finished; run `pipeline preprocess --data {self.data_dir}`")

    def _path(self, dialogue_id: str) -> Path:
        if self.features:
            name = next(iter(sets_of(self.features.name).values()), self.features.name)
            return features_path(self.data_dir, name, dialogue_id)
        return store_path(self.data_dir, dialogue_id)

    def _store(self, dialogue_id: str) -> DialogueStore | AnyFeatures:
        # Opened on first use in whichever process reads: an open memory map doesn't travel to a loader's workers.
        store = self._stores.pop(dialogue_id, None) or self._opened(dialogue_id)
        self._stores[dialogue_id] = store
        if len(self._stores) > OPEN_FILES:
            del self._stores[next(iter(self._stores))]
        return store

    def _opened(self, dialogue_id: str) -> DialogueStore | AnyFeatures:
        about = FEATURES_FILE if self.features else STORE_FILE
        store = (
            open_features(self.data_dir, self.features.name, dialogue_id)
            if self.features
            else DialogueStore(store_path(self.data_dir, dialogue_id))
        )
        if store.fingerprint != self._fingerprints.get(dialogue_id):
            raise self._unfinished(f"{self._path(dialogue_id)} is not of the run that {about} speaks of")
        if not isinstance(store, DialogueStore) and self.features and store.sizes != self.features.sizes:
            raise self._unfinished(f"{self._path(dialogue_id)} has other sizes than {about} says")
        return store

    def _features(self, dialogue_id: str, utterance_id: str) -> dict[str, Tensor]:
        store = self._store(dialogue_id)
        if isinstance(store, DialogueStore):
            raise DataError("this data set was opened without features; open it with UtteranceDataset(features=NAME)")
        return {letter: values for letter, values in store[utterance_id].items() if letter in self.letters}

    def __getstate__(self) -> tuple[dict[str, object], frozenset[State]]:
        return {**self.__dict__, "_stores": {}}, found_sound()

    def __setstate__(self, state: tuple[dict[str, object], frozenset[State]]) -> None:
        values, compared = state
        self.__dict__.update(values)
        trust(compared)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> Sample:
        row = self.table.iloc[index]
        utterance_id, labels, sentiment = row["utterance_id"], self._labels[index], float(row["sentiment"])
        store = self._store(row["dialogue_id"])
        if isinstance(store, DialogueStore):
            sample = to_sample(store[utterance_id], utterance_id, row["text"], labels, sentiment)
            if not self.waveforms:
                return sample
            wav = row["wav"]
            return replace(
                sample, features={WAVEFORM: waveform(None if pd.isna(wav) or not wav else self.data_dir / wav)}
            )
        features = self._features(row["dialogue_id"], utterance_id)
        return feature_sample(
            self.scale(features) if self.scale else features, utterance_id, row["text"], labels, sentiment
        )


def _labels_of(table: pd.DataFrame, emotions: Sequence[str]) -> Tensor:
    return torch.tensor(table[[LABEL_PREFIX + name for name in emotions]].to_numpy(np.float32))


def collate(samples: Sequence[Sample], tokenize: Tokenize) -> Batch:
    """Samples packed into one batch, in their order; all have features of the same modalities, or none has any.

    tokenize: maps B texts to (B, L) tokens and mask.
    """
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
        features={letter: _pack([sample.features[letter] for sample in samples]) for letter in samples[0].features},
        has_words=torch.tensor([bool(sample.text.strip()) for sample in samples]),
    )


def _pack(sequences: Sequence[Tensor]) -> Packed:
    return Packed(torch.cat(list(sequences)), torch.tensor([len(values) for values in sequences]))
