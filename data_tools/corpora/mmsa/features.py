"""MMSA's files of extracted features: a pickle of `train`, `valid` and `test`, each a dict of arrays by name.

What is read of each split: id (`video$_$clip`), raw_text, regression_labels, and of text, audio and vision, (N, L, D)
each, those that are there. `audio_lengths` and `vision_lengths` say how many steps are real; for text the mask in
`text_bert`, (N, 3, L), does. Where nothing says it, steps of zeros at both ends are padding.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.corpora.mmsa.plain_pickle import read_plain_pickle
from data_tools.corpora.release import printable, unsafe_id
from data_tools.errors import DataError
from data_tools.records import Reject
from data_tools.sequences.steps import Floats, Steps, untimed
from data_tools.splits import SPLITS

STAGE = "import"
NAMES = {"t": "text", "a": "audio", "v": "vision"}
_SEPARATOR = "$_$"
# A label may be one number, or an array of one; of a list only the file's author knows how deep it goes.
_NUMBERS = int | float | np.generic | np.ndarray


@dataclass(frozen=True)
class Imported:
    """One utterance of the file. video: what stands before `$_$` in its id."""

    utterance_id: str
    video: str
    split: str
    text: str
    sentiment: float
    steps: dict[str, Steps]


@dataclass
class ImportedFile:
    """Content of a file: every utterance of it is in `utterances` or in `rejects`.

    sizes: values of a step, by modality letter. replaced: values that were no numbers and are 0 now, by letter.
    """

    sizes: dict[str, int] = field(default_factory=dict)
    utterances: list[Imported] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    replaced: dict[str, int] = field(default_factory=lambda: defaultdict(int))


def read_mmsa(path: Path) -> ImportedFile:
    """The utterances of an MMSA-style pickle.

    Raises:
        DataError: no such file, one that is no plain data, or of another form; says which part.
    """
    content = read_plain_pickle(path)
    parts = {split: content[split] for split in SPLITS if split in content} if type(content) is dict else {}
    if not parts or not all(type(part) is dict for part in parts.values()):
        raise DataError(
            f"{path} is no file of features: expected a dict with train, valid and test, each a dict of arrays"
        )
    found = ImportedFile()
    known: set[str] = set()
    for split, part in parts.items():
        _Split(path, split, part).read(found, known)
    return found


class _Split:
    """One split of a file, checked before anything is taken from it."""

    def __init__(self, path: Path, split: str, part: dict[str, Any]) -> None:
        self.path, self.split, self.part = path, split, part
        # Of the file's bytes, those that no utterance has taken yet.
        self.left = path.stat().st_size
        self.ids = self._column("id")
        self.texts = self._column("raw_text") if "raw_text" in part else [""] * len(self.ids)
        self.labels = self._column("regression_labels")
        self.letters = [letter for letter, name in NAMES.items() if name in part]
        if not self.letters:
            raise self._wrong("none of text, audio and vision")
        self.features = {letter: self._column(NAMES[letter]) for letter in self.letters}
        self.lengths = {letter: self._lengths(letter) for letter in self.letters}

    def _column(self, name: str) -> Any:
        """An array or list with an entry for each utterance."""
        values = self.part.get(name)
        if not isinstance(values, np.ndarray | list) or (isinstance(values, np.ndarray) and values.ndim == 0):
            raise self._wrong(f"no list or array {name!r}")
        if name != "id" and len(values) != len(self.ids):
            raise self._wrong(f"{len(values)} entries of {name!r} for {len(self.ids)} ids")
        return values

    def _wrong(self, what: str) -> DataError:
        return DataError(f"{self.path}, {self.split}: {what}; expected the arrays of an MMSA file of features")

    def _lengths(self, letter: str) -> Any:
        """Real steps of each utterance; None where the file doesn't say."""
        if letter != "t":
            name = f"{NAMES[letter]}_lengths"
            return self._column(name) if self.part.get(name) is not None else None
        masks = self.part.get("text_bert")
        features = self.features["t"]
        if not isinstance(masks, np.ndarray) or not isinstance(features, np.ndarray):
            return None
        if masks.dtype.kind not in "biuf" or masks.shape != (len(self.ids), 3, *features.shape[1:2]):
            return None  # of another tokenizer than the features
        return (masks[:, 1] > 0).sum(1)

    def read(self, found: ImportedFile, known: set[str]) -> None:
        """Put every utterance into `found`; known: ids of the splits before, and from now on of this one."""
        for i, name in enumerate(self.ids):
            if not isinstance(name, str):
                raise self._wrong(f"the id of entry {i} is a {type(name).__name__}, no text")
            utterance_id = name.replace(_SEPARATOR, "_")
            video = name.rpartition(_SEPARATOR)[0] or utterance_id.rpartition("_")[0] or utterance_id
            sentiment = self._sentiment(i)
            if problem := unsafe_id(utterance_id) or unsafe_id(video):
                self._reject(found, utterance_id, "id:unsafe", problem)
            elif utterance_id in known:
                self._reject(found, utterance_id, "duplicate", f"the id {utterance_id!r} occurs before")
            elif sentiment is None:
                self._reject(found, utterance_id, "no_labels", "its regression label is no number")
            else:
                known.add(utterance_id)
                steps = {letter: self._steps(letter, i, found) for letter in self.letters}
                if steps.keys() != found.sizes.keys():
                    raise self._wrong(
                        f"other modalities than the splits before: {', '.join(NAMES[letter] for letter in steps)}"
                    )
                text = self.texts[i] if isinstance(self.texts[i], str) else ""
                self._take(len(text))
                found.utterances.append(Imported(utterance_id, video, self.split, text, sentiment, steps))

    def _reject(self, found: ImportedFile, utterance_id: str, reason: str, detail: str) -> None:
        source = f"{printable(self.path.name)}, {self.split}"
        found.rejects.append(Reject(printable(utterance_id)[:200], source, STAGE, reason, printable(detail)))

    def _sentiment(self, i: int) -> float | None:
        if not isinstance(self.labels[i], _NUMBERS):
            return None
        value = np.asarray(self.labels[i])
        if value.dtype.kind not in "fiu" or value.size != 1 or not np.isfinite(value).all():
            return None
        return float(value.reshape(()))

    def _steps(self, letter: str, i: int, found: ImportedFile) -> Steps:
        raw = self.features[letter][i]
        if not isinstance(raw, np.ndarray) or raw.ndim != 2 or not raw.shape[1] or raw.dtype.kind not in "fiu":
            raise self._wrong(f"{NAMES[letter]!r} of entry {i} is no (steps, values) array of numbers")
        size = found.sizes.setdefault(letter, raw.shape[1]) if not found.utterances else found.sizes.get(letter)
        if size != raw.shape[1]:
            raise self._wrong(f"{NAMES[letter]!r} of entry {i} has {raw.shape[1]} values a step, those before {size}")
        self._take(raw.nbytes)
        lengths = self.lengths[letter]
        values = raw[: self._length(lengths[i], len(raw))] if lengths is not None else without_padding(raw)
        with np.errstate(over="ignore"):  # a number beyond float32 is none here
            numbers = values.astype(np.float32)
        strange = ~np.isfinite(numbers)
        found.replaced[letter] += int(strange.sum())
        numbers[strange] = 0
        return untimed(numbers)

    def _take(self, count: int) -> None:
        """Refuse more than the file has: a pickle may name one array as that of every utterance."""
        self.left -= count
        if self.left < 0:
            raise self._wrong("the same content for many utterances, more in all than the file has")

    def _length(self, value: Any, longest: int) -> int:
        if not isinstance(value, int | np.integer):
            raise self._wrong(f"a length that is a {type(value).__name__}, no whole number")
        return min(max(int(value), 0), longest)


def without_padding(values: Floats) -> Floats:
    """The steps from the first to the last that is not all zeros. values: (L, D)."""
    real = np.flatnonzero(values.any(1))
    return values[real[0] : real[-1] + 1] if len(real) else values[:0]
