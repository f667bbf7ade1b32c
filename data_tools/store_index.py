"""Index of the store: for each utterance how much lies there, so that a million of them are opened without a look."""

from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_tools.errors import DataError
from data_tools.manifest import STORE_FOLDER
from data_tools.parquet import read_parquet, write_parquet

INDEX_FILE = "index.parquet"
_REJECTED = -1
_COUNTS = ("faces", "mel_rows")


def write_index(data_dir: Path, counts: dict[str, tuple[int, int]], rejected: Iterable[str]) -> str:
    """Write store/index.parquet; returns the digest of its bytes, which store.json is to state.

    counts: (faces, rows of the mel) of each utterance in the store, by id. rejected: ids of those that stage 2 could
    not read.

    Raises:
        DataError: it cannot be written.
    """
    every = counts | dict.fromkeys(rejected, (_REJECTED, _REJECTED))
    ids = sorted(every)
    columns = {"utterance_id": pd.Series(ids, dtype="str")}
    for place, name in enumerate(_COUNTS):
        columns[name] = pd.Series([every[utterance_id][place] for utterance_id in ids], dtype="int64")
    path = data_dir / STORE_FOLDER / INDEX_FILE
    write_parquet(path, pd.DataFrame(columns))
    return _digest(path)


def read_index(data_dir: Path, digest: str, ids: pd.Series) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(faces, rows of the mel), (n,) each, of the utterances `ids`; negative for those that stage 2 could not read.

    digest: as store.json states it.

    Raises:
        DataError: there is no such index, it is damaged, or it lacks an utterance; names it.
    """
    path = data_dir / STORE_FOLDER / INDEX_FILE
    try:
        if _digest(path) != digest:
            raise ValueError("it is not the one that store.json speaks of")
        found = read_parquet(path).set_index("utterance_id")[list(_COUNTS)].reindex(ids)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} cannot be read ({error})") from error
    if missing := found.index[found["faces"].isna()].tolist():
        raise DataError(f"{missing[0]!r} is not in {path}")
    faces, rows = (found[name].to_numpy(np.int64) for name in _COUNTS)
    return faces, rows


def _digest(path: Path) -> str:
    return blake2b(path.read_bytes(), digest_size=16).hexdigest()
