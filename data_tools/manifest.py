"""The Parquet files between the stages: one row an utterance, one row a reject."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from data_tools.errors import DataError
from data_tools.files import atomic_path
from data_tools.impostor import check_genuine
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


def _write_table(data_dir: Path, table: pd.DataFrame) -> None:
    with atomic_path(data_dir / UTTERANCES_FILE) as temporary:
        table.to_parquet(temporary, index=False)


def read_manifest(data_dir: Path) -> pd.DataFrame:
    """The manifest as a table, one row an utterance, sorted by id; label columns are `label_<emotion>` float32.

    Raises:
        DataError: there is no manifest (the message names the command that makes it) or a column is missing.
    """
    path = data_dir / UTTERANCES_FILE
    if not path.is_file():
        raise DataError(f"no manifest: looked for {path}; make it with `{_command(data_dir)}`")
    table = _read_table(path)
    missing = [name for name in _COLUMNS_BEFORE_LABELS + _COLUMNS_AFTER_LABELS if name not in table.columns]
    if missing:
        raise DataError(f"{path} lacks the columns {missing}; run `pipeline reorganize` again")
    if not emotions_of(table) and table["sentiment"].isna().all():
        raise DataError(f"{path} has neither a label_<emotion> column nor a sentiment; run `pipeline reorganize` again")
    return table


def _command(data_dir: Path) -> str:
    from data_tools.corpora.readers import CORPORA

    # The default folders are data/<dataset>; of another one the name says nothing.
    dataset = data_dir.name if data_dir.name in CORPORA else "NAME"
    return f"pipeline reorganize --dataset {dataset} --out {data_dir}"


def _read_table(path: Path) -> pd.DataFrame:
    try:
        check_genuine(path)
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise DataError(f"{path} cannot be read ({error}); delete it and run `pipeline reorganize` again") from error


def emotions_of(table: pd.DataFrame) -> list[str]:
    """The emotions of a manifest in label order, from its column names."""
    return [name.removeprefix(LABEL_PREFIX) for name in table.columns if name.startswith(LABEL_PREFIX)]


def has_media(table: pd.DataFrame) -> bool:
    """Return True if the utterances of a manifest have clips; those of imported features have none."""
    return bool((table["clip"] != "").any())


def write_rejects(data_dir: Path, rejects: Iterable[Reject]) -> None:
    """Write `rejects.parquet`, sorted, one row a reject; an empty table has the columns too."""
    rows = sorted(rejects, key=lambda r: (r.stage, r.source, r.utterance_id or "", r.reason))
    names = ["utterance_id", "source", "stage", "reason", "detail"]
    table = pd.DataFrame({name: pd.Series([getattr(row, name) for row in rows], dtype="str") for name in names})
    with atomic_path(data_dir / REJECTS_FILE) as temporary:
        table.to_parquet(temporary, index=False)


def read_rejects(data_dir: Path) -> list[Reject]:
    """The rejects of a data folder; none where the file does not exist.

    Raises:
        DataError: the file is damaged.
    """
    path = data_dir / REJECTS_FILE
    if not path.is_file():
        return []
    table = _read_table(path)
    return [
        Reject(None if pd.isna(row.utterance_id) else row.utterance_id, row.source, row.stage, row.reason, row.detail)
        for row in table.itertuples(index=False)
    ]
