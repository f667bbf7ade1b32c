"""Splits of a data folder as a run reads them: with the label of its task, its features and its preprocessing."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from data_tools.dataset import UtteranceDataset
from data_tools.errors import DataError
from data_tools.folds import resplit
from data_tools.joined import join
from data_tools.label_map import LabelMap
from data_tools.manifest import read_manifest
from data_tools.splits import SplitSpec
from pipeline.run import Folders, RunDir, as_folders
from pipeline.run_data import preprocessing_of
from pipeline.settings import ConfigError, ModelSpec
from pipeline.tasks.resolve import resolve_task, with_label
from pipeline.training.features import read_for
from pipeline.training.label_maps import emotions_to_learn, read_label_map, relabel, relabel_for_run
from pipeline.training.settings import TrainSettings


def load_fitting(run: RunDir, other: Path | None, split: str, label_map: LabelMap | None = None) -> UtteranceDataset:
    """`load_unseen` from the folder `other`, or the run's own ones, with the run's emotions and preprocessing.

    Raises:
        ConfigError: other emotions in the data, and no label map for them.
        DataError: as `load_unseen`, or the data was preprocessed in another way.
    """
    dataset = load_unseen(run, other or run.own_folders(), split, label_map)
    for part in dataset.parts:
        check_fits(run, part.data_dir, part)
    return dataset


def check_fits(run: RunDir, data: Path, dataset: UtteranceDataset) -> None:
    """Refuse a data set of `data` that isn't like the one which `run` was trained on.

    Raises:
        ConfigError: other emotions in the data.
        DataError: the data was preprocessed in another way.
    """
    facts = run.facts()
    has_emotions = run.read_settings()[0].task != "sentiment"
    if has_emotions and dataset.mapped is None and dataset.emotions != facts.emotions:
        raise ConfigError(
            f"{data} has the emotions {dataset.emotions}, the run {run.path} knows {facts.emotions}; where they "
            "are the same under other names, `pipeline evaluate --labels common` scores the run on those"
        )
    if (found := preprocessing_of(data)) != facts.preprocessing:
        raise DataError(
            f"{data} was preprocessed with {found}, the data of {run.path} with {facts.preprocessing}; "
            "run `pipeline preprocess` with the settings of the run"
        )


def load_split(
    data: Path, split: str, features: str | None = None, protocol: SplitSpec | None = None
) -> UtteranceDataset:
    """The utterances of one split, at least one; with extracted features in place of faces and chunks where named.

    protocol: how the data are split for this run; None for the folder's own splits.

    Raises:
        DataError: no manifest, nothing in the split, or not preprocessed; the message has the command that helps.
    """
    return _open_split(data, _table_of(data, protocol), split, features)


def _table_of(data: Path, protocol: SplitSpec | None) -> pd.DataFrame:
    """The manifest, split by a protocol; None: as it is."""
    table = read_manifest(data)
    return table if protocol is None else resplit(table, protocol)


def _open_split(data: Path, table: pd.DataFrame, split: str, features: str | None) -> UtteranceDataset:
    """`load_split` of the folder whose manifest is `table`."""
    counts = Counter(table["split"])
    dataset = UtteranceDataset(data, split, features, table) if counts.get(split) else None
    if not dataset:
        found = ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"
        rejected = f"; preprocessing rejected all {counts[split]} of them" if counts.get(split) else ""
        raise DataError(
            f"no utterances in the split {split!r} of {data} (the manifest has: {found}{rejected}); make other splits "
            "with `pipeline reorganize --split ...`"
        )
    return dataset


def load_both(settings: TrainSettings, features: str | None = None) -> tuple[UtteranceDataset, UtteranceDataset]:
    """Train and valid of all data folders that the settings name, in the emotions of their label map.

    Raises:
        ConfigError: a label map that cannot be used, or emotions that the map or the data do not have.
        DataError: as `load_split`; folders that were preprocessed in another way, share an utterance, or have other
            emotions and no label map.
    """
    parts = {"train": [load_split(folder, "train", features, settings.split) for folder in settings.folders]}
    parts["valid"] = load_parts(settings.folders, "valid", features, settings.split)
    if settings.more_data:
        check_together(settings.folders)
    if settings.labels is not None:
        label_map = read_label_map(settings.labels)
        own = [(part.data_dir, part.emotions) for part in parts["train"]]
        emotions = emotions_to_learn(settings.learn_emotions, own, label_map)
        parts = {split: relabel(found, label_map, emotions) for split, found in parts.items()}
    return join(parts["train"]), join(parts["valid"])


def check_together(folders: Sequence[Path]) -> None:
    """Refuse data folders that were not preprocessed alike, or share an utterance.

    Raises:
        DataError: they are such.
    """
    made = {folder: preprocessing_of(folder) for folder in folders}
    if odd := [folder for folder in folders if made[folder] != made[folders[0]]]:
        raise DataError(
            f"{odd[0]} was preprocessed with {made[odd[0]]}, {folders[0]} with {made[folders[0]]}; run `pipeline "
            "preprocess` on one of them with the settings of the other"
        )
    owner: dict[str, Path] = {}
    for folder in folders:
        for name in read_manifest(folder)["utterance_id"]:
            if owner.setdefault(name, folder) != folder:
                raise DataError(
                    f"{name!r} is an utterance of {owner[name]} and of {folder}: it may be in two splits; train on "
                    "one of the folders, or give the utterances of one other ids"
                )


def load_parts(
    folders: Sequence[Path], split: str, features: str | None = None, protocol: SplitSpec | None = None
) -> list[UtteranceDataset]:
    """`load_split` of each folder that has the split; one of several may lack it.

    Raises:
        DataError: as `load_split`; all lack it.
    """
    tables = {folder: _table_of(folder, protocol) for folder in folders}
    having = [folder for folder, table in tables.items() if _has(table, split)]
    return [_open_split(folder, tables[folder], split, features) for folder in (having or folders[:1])]


def folders_with_test(settings: TrainSettings) -> list[Path]:
    """The data folders of a run that have a test split."""
    return [folder for folder in settings.folders if _has(_table_of(folder, settings.split), "test")]


def _has(table: pd.DataFrame, split: str) -> bool:
    return bool((table["split"] == split).any())


def load_unseen(run: RunDir, data: Folders, split: str, label_map: LabelMap | None = None) -> UtteranceDataset:
    """`load_split` for the task of `run`, which was trained on none of it unless the split is `train` itself.

    Utterances without the label of the task are left out, and counted. The splits of a data folder can be other ones
    than when the run was trained. A run on extracted features gets those of the same name, on the scale that it was
    trained with. With a label map, or one that the run was trained with, it has the emotions that both have.

    Raises:
        ConfigError: the run and the data have too few emotions in common by the label map.
        DataError: as `load_split` and `with_label`, or the run was trained on some of the utterances (names a few), or
            on features that were extracted in another way.
    """
    facts = run.facts()
    use, label_map = facts.features, label_map or facts.label_map
    settings, model_settings = run.read_settings()
    folders = as_folders(data)
    # The split of a run is one of its own data.
    protocol = settings.split if run.is_own(folders) else None
    parts = load_parts(folders, split, None if use is None else use.name, protocol)
    if label_map is not None:
        parts = relabel_for_run(facts, settings.task, parts, label_map)
    dataset = join(parts)
    read_for(ModelSpec.from_dict(model_settings).config, dataset)
    dataset = with_label(dataset, resolve_task(settings.task, dataset.emotions))
    if use is not None:
        use.apply(dataset)
    trained_on = run.learned_from()["train"]
    known = [name for name in dataset.table["utterance_id"] if name in trained_on]
    if split != "train" and known:
        then = facts.dataset.get("split", "not stated")
        raise DataError(
            f"{run.path} was trained on {len(known)} of the {len(dataset)} utterances in {split!r} of "
            f"{', '.join(str(part.data_dir) for part in parts)}, "
            f"e.g. {', '.join(known[:3])}: the splits are others than in training (then: {then}), and these scores "
            "would be too good; make the folder as it was with `pipeline reorganize --split ...`, or train again on it"
        )
    return dataset
