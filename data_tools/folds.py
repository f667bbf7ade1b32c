"""Other splits of a data folder that is there already, and folds: each session or speaker is tested once."""

from typing import Literal

import pandas as pd

from data_tools.errors import DataError
from data_tools.names import unsafe_id
from data_tools.records import Utterance
from data_tools.splits import SplitSpec, assign_splits

FoldsBy = Literal["session", "speaker"]
# Of what is drawn: the same folds for every model and every seed of a training.
SEED = 0


def resplit(table: pd.DataFrame, spec: SplitSpec) -> pd.DataFrame:
    """A manifest with its column `split` by another protocol than its own; utterances that are in none are left out.

    Raises:
        DataError: as `assign_splits`; `release`, which a data folder no longer knows.
    """
    if spec.kind == "release":
        raise DataError("split release: the data folder no longer knows it; run `pipeline reorganize --split release`")
    utterances = [
        Utterance(
            utterance_id=row["utterance_id"],
            dialogue_id=row["dialogue_id"],
            speaker=row["speaker"],
            session=row["session"],
            start_s=0.0,
            end_s=0.0,
            text="",
            labels={},
            sentiment=None,
            source_video=row["source_video"],
            source_audio=row["source_audio"],
        )
        for row in table.to_dict("records")
    ]
    splits = assign_splits(utterances, spec, SEED).by_id
    return table.assign(split=table["utterance_id"].map(splits)).dropna(subset=["split"])


def folds_of(table: pd.DataFrame, by: FoldsBy) -> list[SplitSpec]:
    """A split for each session or speaker of a manifest, which is its test split, in the order of their names.

    Raises:
        DataError: fewer than two, or a name that cannot be a folder's.
    """
    names = sorted(set(table[by]) - {""})
    if len(names) < 2:
        listed = ", ".join(names) or "none"
        raise DataError(f"folds by {by}: the data have {len(names)} ({listed}); to leave one out takes two at least")
    if problem := next(filter(None, map(unsafe_id, names)), ""):
        raise DataError(f"folds by {by}: {problem}")
    return [SplitSpec(by, name) for name in names]
