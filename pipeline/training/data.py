"""Splits of a data folder as a run reads them: with the label of its task, its features and its preprocessing."""

from collections import Counter
from pathlib import Path

from data_tools.dataset import UtteranceDataset
from data_tools.errors import DataError
from data_tools.folds import resplit
from data_tools.manifest import read_manifest
from data_tools.splits import SplitSpec
from pipeline.run import RunDir
from pipeline.run_data import preprocessing_of
from pipeline.settings import ConfigError, ModelSpec
from pipeline.tasks.resolve import resolve_task, with_label
from pipeline.training.features import read_for
from pipeline.training.settings import TrainSettings


def load_fitting(run: RunDir, other: Path | None, split: str) -> UtteranceDataset:
    """`load_unseen` from the folder `other`, or the run's own, with the run's emotions and preprocessing.

    Raises:
        ConfigError: other emotions in the data.
        DataError: as `load_unseen`, or the data was preprocessed in another way.
    """
    data = other or run.own_data()
    dataset = load_unseen(run, data, split)
    check_fits(run, data, dataset)
    return dataset


def check_fits(run: RunDir, data: Path, dataset: UtteranceDataset) -> None:
    """Refuse a data set of `data` that isn't like the one which `run` was trained on.

    Raises:
        ConfigError: other emotions in the data.
        DataError: the data was preprocessed in another way.
    """
    facts = run.facts()
    if run.read_settings()[0].task != "sentiment" and dataset.emotions != facts.emotions:
        raise ConfigError(f"{data} has the emotions {dataset.emotions}, the run {run.path} knows {facts.emotions}")
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
    table = read_manifest(data)
    splits = (
        dict(zip(table["utterance_id"], table["split"], strict=True)) if protocol is None else resplit(table, protocol)
    )
    counts = Counter(splits.values())
    dataset = UtteranceDataset(data, split, features, splits) if counts.get(split) else None
    if not dataset:
        found = ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"
        rejected = f"; preprocessing rejected all {counts[split]} of them" if counts.get(split) else ""
        raise DataError(
            f"no utterances in the split {split!r} of {data} (the manifest has: {found}{rejected}); make other splits "
            "with `pipeline reorganize --split ...`"
        )
    return dataset


def has_test(settings: TrainSettings) -> bool:
    """Return True if the data of a run have a test split."""
    table = read_manifest(settings.data)
    splits = table["split"] if settings.split is None else resplit(table, settings.split).values()
    return "test" in set(splits)


def load_unseen(run: RunDir, data: Path, split: str) -> UtteranceDataset:
    """`load_split` for the task of `run`, which was trained on none of it unless the split is `train` itself.

    Utterances without the label of the task are left out, and counted. The splits of a data folder can be other ones
    than when the run was trained. A run on extracted features gets those of the same name, on the scale that it was
    trained with.

    Raises:
        DataError: as `load_split` and `with_label`, or the run was trained on some of the utterances (names a few), or
            on features that were extracted in another way.
    """
    use = run.facts().features
    settings, model_settings = run.read_settings()
    # The split of a run is one of its own data.
    is_own = not run.is_shared and data.resolve() == run.own_data().resolve()
    dataset = load_split(data, split, None if use is None else use.name, settings.split if is_own else None)
    read_for(ModelSpec.from_dict(model_settings).config, dataset)
    dataset = with_label(dataset, resolve_task(settings.task, dataset.emotions))
    if use is not None:
        use.apply(dataset)
    trained_on = run.learned_from()["train"]
    known = [name for name in dataset.table["utterance_id"] if name in trained_on]
    if split != "train" and known:
        protocol = run.facts().dataset.get("split", "not stated")
        raise DataError(
            f"{run.path} was trained on {len(known)} of the {len(dataset)} utterances in {split!r} of {data}, "
            f"e.g. {', '.join(known[:3])}: the splits are others than in training (then: {protocol}), and these scores "
            "would be too good; make the folder as it was with `pipeline reorganize --split ...`, or train again on it"
        )
    return dataset
