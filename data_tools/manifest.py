"""The Parquet files between the stages: one row an utterance, one row a reject."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data_tools.errors import DataError
from data_tools.impostor import check_genuine
from data_tools.names import is_inside, printable, unsafe_id
from data_tools.parquet import read_parquet, write_parquet
from data_tools.records import LABEL_PREFIX, Clip, Reject

UTTERANCES_FILE = "utterances.parquet"
REJECTS_FILE = "rejects.parquet"
# Written last by stage 2: without it the store is unfinished. Holds the settings and every dialogue's fingerprint.
STORE_FOLDER = "store"
STORE_FILE = "store.json"


_COLUMNS_BEFORE_LABELS = [
    "utterance_id",
    "dialogue_id",
    "speaker",
    "session",
    "split",
    "start_s",
    "end_s",
    "text",
    "clip",
    "wav",
]
_COLUMNS_AFTER_LABELS = ["sentiment", "source_video", "source_audio", "fps", "no_face_share"]
_TEXTS = [name for name in _COLUMNS_BEFORE_LABELS if not name.endswith("_s")] + ["source_video", "source_audio"]
_REJECT_COLUMNS = ["utterance_id", "source", "stage", "reason", "detail"]
_AGAIN = "run `pipeline reorganize` again"
# Ids and paths that are certain to be safe; of paths those without "..".
_PLAIN_ID = r"[A-Za-z0-9_][A-Za-z0-9_. -]{0,199}"
_PLAIN_PATH = r"[A-Za-z0-9_.-][A-Za-z0-9_./ -]*"


def write_manifest(data_dir: Path, clips: Sequence[Clip], emotions: Sequence[str]) -> None:
    """Write `utterances.parquet`, sorted by id, so that the same clips give the same bytes in any order of work.

    Raises:
        DataError: an id occurs twice, or a clip lacks one of `emotions`.
    """
    rows = sorted(clips, key=lambda clip: clip.utterance_id)
    for before, after in itertools.pairwise(rows):
        if before.utterance_id == after.utterance_id:
            raise DataError(f"utterance id {after.utterance_id!r} occurs twice in the manifest; ids must be unique")
    columns: dict[str, pd.Series] = {
        name: pd.Series([getattr(row, name) for row in rows], dtype="float64" if name.endswith("_s") else "str")
        for name in _COLUMNS_BEFORE_LABELS
    }
    for emotion in emotions:
        columns[LABEL_PREFIX + emotion] = pd.Series([row.labels[emotion] for row in rows], dtype="float32")
    columns["sentiment"] = pd.Series([row.sentiment for row in rows], dtype="float32")
    for name in ("source_video", "source_audio"):
        columns[name] = pd.Series([getattr(row, name) for row in rows], dtype="str")
    for name in ("fps", "no_face_share"):
        columns[name] = pd.Series([getattr(row, name) for row in rows], dtype="float32")
    _write_table(data_dir, pd.DataFrame(columns))


def write_no_face_shares(data_dir: Path, shares: Mapping[str, float]) -> None:
    """Put the share of frames without a face, by utterance id, into the manifest; the others have none then.

    Raises:
        DataError: as `read_manifest`.
    """
    table = read_manifest(data_dir)
    table["no_face_share"] = table["utterance_id"].map(shares).astype("float32")
    _write_table(data_dir, table)


def write_texts(data_dir: Path, texts: Mapping[str, str]) -> None:
    """Put the texts of utterances, by id, into the manifest; the others keep theirs.

    Raises:
        DataError: as `read_manifest`.
    """
    table = read_manifest(data_dir)
    table["text"] = table["utterance_id"].map(texts).fillna(table["text"]).astype(table["text"].dtype)
    _write_table(data_dir, table)


def _write_table(data_dir: Path, table: pd.DataFrame) -> None:
    write_parquet(data_dir / UTTERANCES_FILE, table)


def read_manifest(data_dir: Path) -> pd.DataFrame:
    """The manifest as a table, one row an utterance, sorted by id; label columns are `label_<emotion>` float32.

    Raises:
        DataError: there is no manifest (the message names the command that makes it), it is damaged, a column is
            missing or of another type, or an id or a path leads out of the folder.
    """
    path = data_dir / UTTERANCES_FILE
    if not path.is_file():
        raise DataError(f"no manifest: looked for {path}; make it with `{_command(data_dir)}`")
    table = _read_table(path)
    missing = [name for name in _COLUMNS_BEFORE_LABELS + _COLUMNS_AFTER_LABELS if name not in table.columns]
    if missing:
        raise DataError(f"{path} lacks the columns {missing}; run `pipeline reorganize` again")
    _check_types(path, table)
    _check_names(path, table)
    return table


def rows_by_dialogue(table: pd.DataFrame, columns: Sequence[str]) -> dict[str, list[tuple[Any, ...]]]:
    """Values of `columns` of each utterance of a manifest, by dialogue id, sorted."""
    found: dict[str, list[tuple[Any, ...]]] = {str(name): [] for name in sorted(table["dialogue_id"].unique())}
    values = (table[name].astype(object).tolist() for name in columns)
    for dialogue_id, *row in zip(table["dialogue_id"].tolist(), *values, strict=True):
        found[str(dialogue_id)].append(tuple(row))
    return found


def _check_types(path: Path, table: pd.DataFrame) -> None:
    """Refuse a column of another type than `write_manifest` gives it."""
    labels = [LABEL_PREFIX + name for name in emotions_of(table)]
    for name in [*_COLUMNS_BEFORE_LABELS, *labels, *_COLUMNS_AFTER_LABELS]:
        kind = table[name].dtype
        is_text = pd.api.types.is_string_dtype(kind) or pd.api.types.is_object_dtype(kind)
        if is_text is not (name in _TEXTS) or (not is_text and not pd.api.types.is_float_dtype(kind)):
            expected = "text" if name in _TEXTS else "numbers"
            raise DataError(
                f"{path} has the column {printable(name)!r:.100} of type {kind}, expected {expected}; {_AGAIN}"
            )
        if name in _TEXTS and name not in ("clip", "wav") and table[name].isna().any():
            raise DataError(f"{path} has a row without {name}; {_AGAIN}")
        if not is_text:
            known = table[name] if name in ("start_s", "end_s", *labels) else table[name].dropna()
            if not np.isfinite(known.to_numpy(np.float64)).all():
                raise DataError(f"{path} has a {printable(name)!r:.100} that is no finite number; {_AGAIN}")
    if LABEL_PREFIX in table.columns:
        raise DataError(f"{path} has an emotion without a name; {_AGAIN}")


def _check_names(path: Path, table: pd.DataFrame) -> None:
    """Refuse ids that cannot be names of files, or occur twice, and paths that lead out of the folder."""
    for name in ("utterance_id", "dialogue_id"):
        # Most ids are plain: only the others are looked at one by one.
        odd = table[name][~table[name].str.fullmatch(_PLAIN_ID)]
        if problem := next(filter(None, map(unsafe_id, odd.unique())), ""):
            raise DataError(f"{path}: {name}: {problem}; {_AGAIN}")
    twice = table["utterance_id"][table["utterance_id"].duplicated()]
    if len(twice):
        raise DataError(f"{path} has the utterance {twice.iloc[0]!r} twice; {_AGAIN}")
    for name in ("clip", "wav", "source_video", "source_audio"):
        paths = table[name].dropna()
        odd = paths[~paths.str.fullmatch(_PLAIN_PATH) | paths.str.contains("..", regex=False)]
        outside = [value for value in odd.unique() if value and not is_inside(value)]
        if outside:
            shown = printable(outside[0])[:200]
            raise DataError(f"{path} has the {name} {shown!r}, which leads out of the folder; {_AGAIN}")


def _command(data_dir: Path) -> str:
    from data_tools.corpora.readers import CORPORA

    # The default folders are data/<dataset>; of another one the name says nothing.
    dataset = data_dir.name if data_dir.name in CORPORA else "NAME"
    return f"pipeline reorganize --dataset {dataset} --out {data_dir}"


def _read_table(path: Path) -> pd.DataFrame:
    try:
        check_genuine(path)
        return read_parquet(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); delete it and run `pipeline reorganize` again") from error


def emotions_of(table: pd.DataFrame) -> list[str]:
    """The emotions of a manifest in label order, from its column names."""
    return [name.removeprefix(LABEL_PREFIX) for name in table.columns if name.startswith(LABEL_PREFIX)]


def has_media(table: pd.DataFrame) -> bool:
    """Return True if the utterances of a manifest have clips or wavs; those of imported features have none."""
    return bool(((table["clip"].fillna("") != "") | (table["wav"].fillna("") != "")).any())


def write_rejects(data_dir: Path, rejects: Iterable[Reject]) -> None:
    """Write `rejects.parquet`, sorted, one row a reject; an empty table has the columns too."""
    rows = sorted(rejects, key=lambda r: (r.stage, r.source, r.utterance_id or "", r.reason))
    columns = {name: pd.Series([getattr(row, name) for row in rows], dtype="str") for name in _REJECT_COLUMNS}
    table = pd.DataFrame(columns)
    write_parquet(data_dir / REJECTS_FILE, table)


def read_rejects(data_dir: Path) -> list[Reject]:
    """The rejects of a data folder; none where the file does not exist.

    Raises:
        DataError: the file is damaged.
    """
    path = data_dir / REJECTS_FILE
    if not path.is_file():
        return []
    table = _read_table(path)
    if missing := [name for name in _REJECT_COLUMNS if name not in table.columns]:
        raise DataError(f"{path} lacks the columns {missing}; delete it and run `pipeline reorganize` again")
    table = table[_REJECT_COLUMNS].astype(object)
    if not all(
        isinstance(value, str) or (name == "utterance_id" and pd.isna(value)) for name in table for value in table[name]
    ):
        raise DataError(f"{path} holds something else than texts; delete it and run `pipeline reorganize` again")
    table["utterance_id"] = table["utterance_id"].where(table["utterance_id"].notna(), None)
    return [Reject(*row) for row in zip(*(table[name].tolist() for name in _REJECT_COLUMNS), strict=True)]
