"""Choice of the task: from the settings and the data set to a `Task` that can be trained and scored."""

from collections.abc import Sequence

import numpy as np

from data_tools.dataset import UtteranceDataset
from data_tools.errors import DataError
from pipeline.run_data import DataFacts
from pipeline.settings import ConfigError
from pipeline.tasks.multi_label import MultiLabel
from pipeline.tasks.sentiment import Sentiment
from pipeline.tasks.single_label import SingleLabel
from pipeline.tasks.task import Task
from pipeline.training.settings import TrainSettings

TASKS: dict[str, type[Task]] = {"multi-label": MultiLabel, "single-label": SingleLabel, "sentiment": Sentiment}


def resolve_task(task: str, emotions: Sequence[str], stated: str | None = None) -> str:
    """`task`, or for `auto` what the data folder states, else multi-label where it has emotions, else sentiment.

    stated: `task` of dataset.json. A task of emotions counts for nothing where fewer than two were kept.

    Raises:
        ConfigError: a task of emotions where the data set has none (single-label: fewer than two).
    """
    if task == "auto":
        if stated in TASKS and (stated == "sentiment" or len(emotions) > 1):
            return stated
        return "multi-label" if emotions else "sentiment"
    if task != "sentiment" and len(emotions) < (2 if task == "single-label" else 1):
        raise ConfigError(
            f"task is {task!r}, but the data set has {'only ' + emotions[0] if emotions else 'no emotions'}; use "
            f"--set task={'multi-label' if emotions else 'sentiment'}"
        )
    return task


def with_label(dataset: UtteranceDataset, task: str) -> UtteranceDataset:
    """`dataset` without utterances that lack the label of `task`; they are counted in `left_out`.

    Raises:
        DataError: nothing is left.
    """
    kind = TASKS[task]
    labelled = kind.labelled(dataset)
    if not labelled.any():
        splits = ", ".join(sorted(dataset.table["split"].unique()))
        raise DataError(
            f"none of the {len(dataset)} utterances in {splits!r} of {dataset.data_dir} has the label of the task "
            f"{task!r} ({kind.unlabelled}); choose another one with --set task={'|'.join(TASKS)}"
        )
    return dataset if labelled.all() else dataset.only(labelled)


def check_same_range(dataset: UtteranceDataset) -> None:
    """Refuse data folders whose sentiments are on scales of their own, of 1 and of 3 at the end.

    Raises:
        ConfigError: they are.
    """
    ends = {part.data_dir: 3 if np.abs(part.table["sentiment"]).max() > 1 else 1 for part in dataset.parts if len(part)}
    if len(set(ends.values())) > 1:
        listed = ", ".join(f"{folder} to {end}" for folder, end in ends.items())
        raise ConfigError(
            f"sentiments of these data folders are on scales of their own ({listed}): train on them apart"
        )


def resolve_settings(settings: TrainSettings, task: str, splits: Sequence[UtteranceDataset]) -> TrainSettings:
    """`settings` with everything that is `auto` about the task filled in.

    splits: train and valid, their utterances `with_label`. The range of sentiment is 3 where one of them is beyond
    1, else 1.

    Raises:
        ConfigError: a loss or monitor that the task does not have, or sentiments beyond the stated range.
    """
    kind = TASKS[task]
    changes: dict[str, object] = {"task": task}
    limit = settings.sentiment_range
    if task == "sentiment":
        largest = max(float(np.abs(split.table["sentiment"]).max()) for split in splits)
        if limit == "auto":
            limit = 3 if largest > 1 else 1
        if limit == 1 and largest > 1:
            raise ConfigError(f"sentiment_range is 1, but the labels reach {largest:g}; use --set sentiment_range=3")
        changes["sentiment_range"] = limit
    monitors = kind.monitors(3 if limit == "auto" else limit)
    for name, known in (("loss", kind.losses), ("monitor", monitors)):
        given = getattr(settings, name)
        if given == "auto":
            changes[name] = known[0]
        elif given not in known:
            raise ConfigError(f"{name} is {given!r}, which the task {task!r} does not have; known: {', '.join(known)}")
    return settings.model_copy(update=changes)


def build_task(settings: TrainSettings, facts: DataFacts) -> Task:
    """The task of a run. settings: of `resolve_settings`.

    Raises:
        DataError: the settings leave the task open, or the facts lack what its scores are compared with.
    """
    if settings.task not in TASKS or "auto" in (settings.loss, settings.monitor):
        raise DataError(
            f"settings.yaml of the run says task {settings.task!r}, loss {settings.loss!r} and monitor "
            f"{settings.monitor!r}, of which none is open in a run; restore it or train again"
        )
    if settings.task == "sentiment":
        missing = [name for name in ("mean",) if name not in facts.sentiment]
    else:
        missing = [] if facts.emotions else ["emotions"]
    if missing:
        raise DataError(f"data.json of the run has no {missing[0]} for the task {settings.task}; train again")
    return TASKS[settings.task](settings, facts)
