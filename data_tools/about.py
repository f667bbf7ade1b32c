"""dataset.json and store/store.json of a data folder, read with the types that their writers gave them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_tools.errors import DataError
from data_tools.files import MAX_LIST_BYTES, read_json_if_any
from data_tools.manifest import STORE_FILE, STORE_FOLDER
from data_tools.names import unsafe_id

DATASET_FILE = "dataset.json"

# Of what is read again; the rest is for people.
_DATASET: Mapping[str, tuple[type, type | None]] = {
    "dataset": (str, None),
    "split": (str, None),
    "task": (str, None),
    "standin": (bool, None),
    "notes": (list, str),
    "listed_ids": (dict, int),
    "merged_labels": (dict, str),
    "faces": (dict, str),
    "modalities": (str, None),
}
_STORE: Mapping[str, tuple[type, type | None]] = {
    "fingerprints": (dict, str),
    "settings": (dict, dict),
    "index": (str, None),
}


def read_dataset_facts(data_dir: Path) -> dict[str, Any]:
    """dataset.json of a data folder; empty where there is none.

    Its `dataset` is a part of file names, and one that leads out of the folder is refused.

    Raises:
        DataError: it cannot be read, or holds something of another type.
    """
    path = data_dir / DATASET_FILE
    values = _typed(path, _DATASET, f"make it again with `pipeline reorganize`, or delete {path}")
    if "dataset" in values and (problem := unsafe_id(values["dataset"])):
        raise DataError(f"{path} names its data set badly: {problem}; write another name there")
    return values


def read_store_facts(data_dir: Path) -> dict[str, Any]:
    """store.json of a data folder, `fingerprints`, `settings` and `index` in it; empty where stage 2 has not finished.

    Raises:
        DataError: it cannot be read, or holds something of another type.
    """
    path = data_dir / STORE_FOLDER / STORE_FILE
    return _typed(path, _STORE, f"run `pipeline preprocess --data {data_dir}`")


def _typed(path: Path, types: Mapping[str, tuple[type, type | None]], remedy: str) -> dict[str, Any]:
    values = read_json_if_any(path, MAX_LIST_BYTES)
    for name, (kind, inner) in types.items():
        value = values.get(name)
        if value is None:  # as good as not there
            values.pop(name, None)
            continue
        parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        if not isinstance(value, kind) or (inner is not None and not all(isinstance(part, inner) for part in parts)):
            raise DataError(f"{path} is damaged: {name} is {value!r:.80}, which no such file has; {remedy}")
    return values
