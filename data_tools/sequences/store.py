"""Extracted features on disk: one safetensors file a dialogue, and features.json, written last."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import blake2b
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from data_tools.about import read_store_facts
from data_tools.checksums import check_sum, write_checksum
from data_tools.errors import DataError
from data_tools.files import MAX_LIST_BYTES, atomic_path, parse_json, read_limited, write_json
from data_tools.impostor import check_genuine
from data_tools.sequences.steps import Steps
from data_tools.tensor_file import check_tensor, checked, checked_ids, read_header, read_offsets

FEATURES_FOLDER = "features"
FEATURES_FILE = "features.json"
IMPORTED = "imported"
# Raised when the meaning of the stored tensors changes, so that old features are made anew instead of misread.
FEATURES_VERSION = 1

_REMEDY = "run `pipeline extract` again (of imported features: `pipeline import-features`)"
_LETTERS = {"".join(some) for size in range(4) for some in combinations("tav", size)}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class FeatureFacts:
    """Content of features.json, about a set of features.

    sizes: features of a step, by modality letter. settings: with these and the data the features come out the same.
    fingerprints: of every dialogue. store: digest of the store of stage 2 that they were made from; None for
    features that were imported. versions: of the packages that made them.
    """

    name: str
    sizes: dict[str, int]
    settings: dict[str, Any]
    fingerprints: dict[str, str]
    store: str | None
    versions: dict[str, str]


def features_folder(data_dir: Path, name: str) -> Path:
    """Folder of the features called `name`: data/<name>/features/<name of the features>.

    Raises:
        DataError: the name cannot be a folder's.
    """
    try:
        check_features_name(name)
    except ValueError as error:
        raise DataError(str(error)) from None
    return data_dir / FEATURES_FOLDER / name


def check_features_name(name: str) -> None:
    """Raise ValueError where features cannot be called so: the name is a folder's."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"features are called {name!r:.100}; give letters, digits, '-', '_' and '.', e.g. default")


def features_path(data_dir: Path, name: str, dialogue_id: str) -> Path:
    """Path of the features of one dialogue."""
    return features_folder(data_dir, name) / f"{dialogue_id}.safetensors"


def write_facts(data_dir: Path, facts: FeatureFacts) -> None:
    """Write features.json: from now on these features count as finished."""
    values = {"version": FEATURES_VERSION} | asdict(facts)
    write_json(features_folder(data_dir, facts.name) / FEATURES_FILE, values)


def read_facts(data_dir: Path, name: str) -> FeatureFacts:
    """The facts of finished features that fit the store as it is now.

    Raises:
        DataError: none of that name, unfinished, damaged, or made from another preprocessing; names the command.
    """
    path = features_folder(data_dir, name) / FEATURES_FILE
    command = f"run `pipeline extract --data {data_dir} --features {name}`"
    try:
        values = checked(parse_json(read_limited(path, MAX_LIST_BYTES)), dict)
        if values.pop("version") != FEATURES_VERSION:
            raise DataError(f"{path} is of another version of this program; {command}")
        facts = TypeAdapter(FeatureFacts).validate_python(values)
        if facts.name != name or any(letter not in "tav" or size < 1 for letter, size in facts.sizes.items()):
            raise ValueError(f"its name is {facts.name!r:.60}, its sizes are {facts.sizes!r:.60}")
    except FileNotFoundError:
        others = [found for found in feature_names(data_dir) if found != name]
        hint = f" (there are: {', '.join(others)}; name one with --set features=NAME)" if others else ""
        raise DataError(f"no extracted features {name!r}: {path} is not there{hint}; {command}") from None
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} is damaged ({' '.join(str(error).split()):.300}); {command}") from None
    if facts.store is not None and facts.store != store_digest(data_dir):
        raise DataError(f"the features {name!r} of {data_dir} were made from another preprocessing; {command}")
    return facts


def feature_names(data_dir: Path) -> list[str]:
    """The names of the finished features of a data folder, sorted."""
    return sorted(path.parent.name for path in (data_dir / FEATURES_FOLDER).glob(f"*/{FEATURES_FILE}"))


def store_digest(data_dir: Path) -> str | None:
    """Of what stage 2 wrote, all dialogues and settings; None where it has not finished."""
    try:
        values = read_store_facts(data_dir)
        content = [values["fingerprints"], values.get("settings")]
    except (DataError, KeyError):
        return None
    return blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()


def write_dialogue(
    path: Path,
    features: Mapping[str, Mapping[str, Steps]],
    sizes: Mapping[str, int],
    fingerprint: str,
    parts: Mapping[str, str] | None = None,
    rejected: tuple[str, ...] = (),
) -> None:
    """Write all utterances of one dialogue, packed one after the other; whole or not at all.

    features: utterance id -> modality letter -> steps, the same letters for all. sizes: features of a step, by letter.
    fingerprint: of all that the file was made from; parts: the same for each letter alone. rejected: utterances that
    stage 2 could not read, so that a reader doesn't miss them.
    """
    tensors: dict[str, Tensor] = {}
    for letter, size in sizes.items():
        steps = [by_letter[letter] for by_letter in features.values()]
        counts = torch.tensor([0, *map(len, steps)], dtype=torch.int64)
        tensors[f"{letter}.offsets"] = counts.cumsum(0)
        tensors[f"{letter}.values"] = torch.cat([torch.zeros(0, size), *(torch.from_numpy(s.values) for s in steps)])
        tensors[f"{letter}.times"] = torch.cat([torch.zeros(0, 2), *(torch.from_numpy(s.times) for s in steps)])
    header = {
        "version": FEATURES_VERSION,
        "fingerprint": fingerprint,
        "parts": dict(parts or {}),
        "letters": "".join(letter for letter in "tav" if letter in sizes),
        "utterance_ids": list(features),
        "rejected": list(rejected),
    }
    with atomic_path(path) as temporary:
        # One entry: safetensors writes several in an order that changes from run to run, and so do the bytes.
        save_file(tensors, temporary, metadata={"features": json.dumps(header)})
        write_checksum(temporary, path)


class DialogueFeatures:
    """The features of one dialogue; `[utterance_id]` reads just that utterance's slices.

    Attributes:
        fingerprint, parts, rejected: as given to `write_dialogue`.
        letters: the modalities that are there, in the order t, a, v. sizes: values of a step, by letter.

    Raises:
        DataError: the file is missing or not one of this version.
    """

    def __init__(self, path: Path) -> None:
        try:
            check_genuine(path)
            check_sum(path, _REMEDY)
            self._file = safe_open(path, framework="pt").__enter__()
            header = read_header(self._file, "features")
        except (OSError, SafetensorError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise DataError(f"{path} cannot be read ({reason}); {_REMEDY}") from error
        if header.get("version") != FEATURES_VERSION:
            raise DataError(
                f"{path} has version {header.get('version')!r:.40}, this program reads {FEATURES_VERSION}; {_REMEDY}"
            )
        try:
            self.fingerprint = checked(header["fingerprint"], str)
            self.parts: dict[str, str] = checked(header["parts"], dict)
            self.letters = checked(header["letters"], str)
            self.rejected = frozenset(checked_ids(header["rejected"]))
            ids = checked_ids(header["utterance_ids"])
            if self.letters not in _LETTERS:
                raise ValueError(f"its modalities are {self.letters!r}")
            self._offsets = {
                letter: read_offsets(self._file, f"{letter}.offsets", len(ids), (f"{letter}.values", f"{letter}.times"))
                for letter in self.letters
            }
            self.sizes = {
                letter: check_tensor(self._file, f"{letter}.values", "F32", (None,))[1] for letter in self.letters
            }
            for letter in self.letters:
                check_tensor(self._file, f"{letter}.times", "F32", (2,))
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path} is damaged ({error!s:.200}); {_REMEDY}") from error
        self._position = {utterance_id: i for i, utterance_id in enumerate(ids)}

    def __contains__(self, utterance_id: str) -> bool:
        return utterance_id in self._position

    def __getitem__(self, utterance_id: str) -> dict[str, Tensor]:
        """(N, D) float32 by modality letter."""
        return {letter: self._slice(utterance_id, letter, "values") for letter in self.letters}

    def steps(self, utterance_id: str, letter: str) -> Steps:
        """One modality with its times."""
        values, times = (self._slice(utterance_id, letter, name).numpy() for name in ("values", "times"))
        return Steps(values, times)

    def count(self, utterance_id: str, letter: str) -> int:
        """Steps of one modality."""
        i, offsets = self._position[utterance_id], self._offsets[letter]
        return offsets[i + 1] - offsets[i]

    def _slice(self, utterance_id: str, letter: str, name: str) -> Tensor:
        i, offsets = self._position[utterance_id], self._offsets[letter]
        part: Tensor = self._file.get_slice(f"{letter}.{name}")[offsets[i] : offsets[i + 1]]
        return part
