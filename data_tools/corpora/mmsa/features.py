"""MMSA's files of extracted features: a pickle of `train`, `valid` and `test`, each a dict of arrays by name.

What is read of each split: id (`video$_$clip`), raw_text, regression_labels, and of text, audio and vision, (N, L, D)
each, those that are there. `audio_lengths` and `vision_lengths` say how many steps are real, before or after padding
of zeros; for text the mask in `text_bert`, (N, 3, L), does. Where nothing says it, steps of zeros at both ends are
padding. A file in which all modalities have as many steps, and no lengths that differ, is aligned: step by step they
belong together, and what is padding in all of them is cut from all of them.

A split may have any of its usual names (`dev` for `valid`). What is not used is counted: an utterance as a reject,
anything else by name in `ImportedFile.unused`.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from data_tools.corpora.mmsa.plain_pickle import read_plain_pickle
from data_tools.errors import DataError
from data_tools.names import printable, unsafe_id
from data_tools.records import Reject
from data_tools.sequences.steps import Floats, Steps, untimed
from data_tools.splits import SPLIT_WORDS, SPLITS, Split

STAGE = "import"
NAMES = {"t": "text", "a": "audio", "v": "vision"}
_SEPARATOR = "$_$"
_READ = {"id", "raw_text", "regression_labels", "text_bert", *NAMES.values(), "audio_lengths", "vision_lengths"}
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
    beyond: utterances with values other than zero outside their stated length, which are left out, by letter.
    wrong_lengths: utterances whose stated length the array does not have, by letter. unused: names of what is not read.
    aligned: the splits whose modalities are cut together.
    """

    sizes: dict[str, int] = field(default_factory=dict)
    utterances: list[Imported] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    replaced: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    beyond: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    wrong_lengths: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    unused: set[str] = field(default_factory=set)
    aligned: list[str] = field(default_factory=list)


def read_mmsa(path: Path) -> ImportedFile:
    """The utterances of an MMSA-style pickle.

    Raises:
        DataError: no such file, one that is no plain data, or of another form; says which part.
    """
    content = read_plain_pickle(path)
    parts = content if type(content) is dict else {}
    splits = {name: SPLIT_WORDS.get(name.strip().lower()) if isinstance(name, str) else None for name in parts}
    named = [name for name, split in splits.items() if split]
    if not named or not all(type(parts[name]) is dict for name in named):
        raise DataError(
            f"{path} is no file of features: expected a dict with train, valid and test, each a dict of arrays"
        )
    found = ImportedFile()
    known: set[str] = set()
    for name in sorted(named, key=lambda name: SPLITS.index(cast(Split, splits[name]))):
        _Split(path, name, cast(Split, splits[name]), parts[name]).read(found, known)
    for name in parts.keys() - set(named):
        _leave_out(path, str(name), parts[name], found)
    return found


def _leave_out(path: Path, name: str, part: Any, found: ImportedFile) -> None:
    """Account for a part that is no split by its name: its utterances are rejects."""
    ids = part.get("id") if type(part) is dict else None
    if not isinstance(ids, np.ndarray | list) or (isinstance(ids, np.ndarray) and ids.ndim == 0):
        found.unused.add(printable(name)[:80])
        return
    if len(found.rejects) + len(ids) > path.stat().st_size:
        raise DataError(f"{path} has the same ids in many parts; expected train, valid and test")
    detail = f"the part {printable(name)[:80]!r} is none of {', '.join(SPLIT_WORDS)}"
    source = printable(f"{path.name}, {name}")[:200]
    for i, utterance_id in enumerate(ids):
        plain = utterance_id.replace(_SEPARATOR, "_") if isinstance(utterance_id, str) else f"entry {i}"
        found.rejects.append(Reject(printable(plain)[:200], source, STAGE, "fold:unknown", detail))


class _Split:
    """One split of a file, checked before anything is taken from it."""

    def __init__(self, path: Path, name: str, split: Split, part: dict[str, Any]) -> None:
        self.path, self.name, self.split, self.part = path, name, split, part
        # Of the file's bytes, those that no utterance has taken yet.
        self.left = path.stat().st_size
        self.ids = self._column("id")
        self.texts = self._column("raw_text") if "raw_text" in part else [""] * len(self.ids)
        self.labels = self._column("regression_labels")
        self.letters = [letter for letter, name in NAMES.items() if name in part]
        if not self.letters:
            raise self._wrong("none of text, audio and vision")
        self.features = {letter: self._column(NAMES[letter]) for letter in self.letters}
        self.lengths = {letter: self._lengths(letter) for letter in self.letters if letter != "t"}
        self.masks = self._masks() if "t" in self.letters else None
        self.aligned = self._is_aligned()

    def _column(self, name: str) -> Any:
        """An array or list with an entry for each utterance."""
        values = self.part.get(name)
        if not isinstance(values, np.ndarray | list) or (isinstance(values, np.ndarray) and values.ndim == 0):
            raise self._wrong(f"no list or array {name!r}")
        if name != "id" and len(values) != len(self.ids):
            raise self._wrong(f"{len(values)} entries of {name!r} for {len(self.ids)} ids")
        return values

    def _wrong(self, what: str) -> DataError:
        return DataError(
            f"{self.path}, {printable(self.name)}: {what}; expected the arrays of an MMSA file of features"
        )

    def _lengths(self, letter: str) -> Any:
        """Real steps of each utterance; None where the file doesn't say."""
        name = f"{NAMES[letter]}_lengths"
        return self._column(name) if self.part.get(name) is not None else None

    def _masks(self) -> Any:
        """(N, L) bool: the steps of text that are real; None where the file doesn't say."""
        masks, features = self.part.get("text_bert"), self.features["t"]
        if not isinstance(masks, np.ndarray) or not isinstance(features, np.ndarray):
            return None
        if masks.dtype.kind not in "biuf" or masks.shape != (len(self.ids), 3, *features.shape[1:2]):
            return None  # of another tokenizer than the features
        return masks[:, 1] > 0

    def _is_aligned(self) -> bool:
        """True where all modalities have the same steps: as many in every array, and the same lengths if any."""
        steps = [[len(v) if isinstance(v, np.ndarray) and v.ndim else -1 for v in f] for f in self.features.values()]
        stated = [lengths for lengths in self.lengths.values() if lengths is not None]
        if len(steps) < 2 or any(other != steps[0] for other in steps) or (stated and len(stated) < len(self.lengths)):
            return False
        return all(
            isinstance(length, int | np.integer) and length == lengths[0]
            for lengths in zip(*stated, strict=True)
            for length in lengths
        )

    def read(self, found: ImportedFile, known: set[str]) -> None:
        """Put every utterance into `found`; known: ids of the splits before, and from now on of this one."""
        found.unused |= {printable(str(name))[:80] for name in self.part if name not in _READ}
        if self.aligned:
            found.aligned.append(self.split)
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
                steps = self._steps(i, found)
                if steps.keys() != found.sizes.keys():
                    raise self._wrong(
                        f"other modalities than the splits before: {', '.join(NAMES[letter] for letter in steps)}"
                    )
                text = printable(self.texts[i]) if isinstance(self.texts[i], str) else ""
                self._take(len(text))
                found.utterances.append(Imported(utterance_id, video, self.split, text, sentiment, steps))

    def _reject(self, found: ImportedFile, utterance_id: str, reason: str, detail: str) -> None:
        source = printable(f"{self.path.name}, {self.name}")
        found.rejects.append(Reject(printable(utterance_id)[:200], source, STAGE, reason, printable(detail)))

    def _sentiment(self, i: int) -> float | None:
        if not isinstance(self.labels[i], _NUMBERS):
            return None
        value = np.asarray(self.labels[i])
        if value.dtype.kind not in "fiu" or value.size != 1 or not np.isfinite(value).all():
            return None
        return float(value.reshape(()))

    def _steps(self, i: int, found: ImportedFile) -> dict[str, Steps]:
        """The real steps of one utterance by modality letter."""
        raw = {letter: self._raw(letter, i, found) for letter in self.letters}
        real = {letter: self._real(letter, i, values, found) for letter, values in raw.items()}
        if self.aligned:
            there = [(first, stop) for first, stop in real.values() if first < stop]
            together = (min(first for first, _ in there), max(stop for _, stop in there)) if there else (0, 0)
            real = dict.fromkeys(real, together)
        steps = {}
        for letter, values in raw.items():
            first, stop = real[letter]
            with np.errstate(over="ignore"):  # a number beyond float32 is none here
                numbers = values[first:stop].astype(np.float32)
            strange = ~np.isfinite(numbers)
            found.replaced[letter] += int(strange.sum())
            numbers[strange] = 0
            steps[letter] = untimed(numbers)
        return steps

    def _raw(self, letter: str, i: int, found: ImportedFile) -> Floats:
        raw = self.features[letter][i]
        if not isinstance(raw, np.ndarray) or raw.ndim != 2 or not raw.shape[1] or raw.dtype.kind not in "fiu":
            raise self._wrong(f"{NAMES[letter]!r} of entry {i} is no (steps, values) array of numbers")
        size = found.sizes.setdefault(letter, raw.shape[1]) if not found.utterances else found.sizes.get(letter)
        if size != raw.shape[1]:
            raise self._wrong(f"{NAMES[letter]!r} of entry {i} has {raw.shape[1]} values a step, those before {size}")
        self._take(raw.nbytes)
        return raw

    def _real(self, letter: str, i: int, values: Floats, found: ImportedFile) -> tuple[int, int]:
        """First real step, and the one after the last. values: (L, D)."""
        if letter == "t" and self.masks is not None:
            return span(self.masks[i])
        lengths = self.lengths.get(letter)
        if lengths is None:
            return span(np.any(values, axis=1))
        stated = lengths[i]
        if not isinstance(stated, int | np.integer):
            raise self._wrong(f"a length that is a {type(stated).__name__}, no whole number")
        length = min(max(int(stated), 0), len(values))
        found.wrong_lengths[letter] += int(length != stated)
        before = len(values) - length
        if values[length:].any() and not values[:before].any():
            return before, len(values)  # padding at the start
        found.beyond[letter] += bool(values[length:].any())
        return 0, length

    def _take(self, count: int) -> None:
        """Refuse more than the file has: a pickle may name one array as that of every utterance."""
        self.left -= count
        if self.left < 0:
            raise self._wrong("the same content for many utterances, more in all than the file has")


def span(real: NDArray[np.bool_]) -> tuple[int, int]:
    """Place of the first True, and the one after the last; (0, 0) without any. real: (L,)."""
    places = np.flatnonzero(real)
    return (int(places[0]), int(places[-1]) + 1) if len(places) else (0, 0)
