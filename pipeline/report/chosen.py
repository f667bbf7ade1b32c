"""Utterances that a page shows, and beside them the truth and a model's answer in words."""

import difflib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from data_tools.dataset import Sample, UtteranceDataset
from data_tools.errors import DataError
from data_tools.records import PRESENT_FROM
from pipeline.tasks.task import Task, present_of


def one_of_each(dataset: UtteranceDataset, task: Task, split: str) -> list[int]:
    """Positions of one utterance of each emotion, the first of `split` in the manifest's order.

    Of a sentiment task the lowest, the middle and the highest.
    """
    inside = np.flatnonzero((dataset.table["split"] == split).to_numpy())
    if task.settings.task == "sentiment":
        order = inside[dataset.table["sentiment"].to_numpy()[inside].argsort(kind="stable")]
        return sorted({int(order[i]) for i in (0, len(order) // 2, -1)}) if len(order) else []
    present = present_of(dataset)[inside]
    return [int(inside[present[:, e].argmax()]) for e in range(present.shape[1]) if present[:, e].any()]


def truth(task: Task, sample: Sample) -> str:
    """The labels that the utterance has."""
    if task.settings.task == "sentiment":
        return f"sentiment {sample.sentiment:+.2f}"
    return ", ".join(name for name, value in zip(task.emotions, sample.labels, strict=True) if value >= PRESENT_FROM)


def best_scores(task: Task, logits: Tensor) -> str:
    """The highest three scores of one utterance's logits, (outputs,), with their emotions; or the sentiment."""
    scores = task.scores(logits).tolist()
    if task.settings.task == "sentiment":
        return f"{scores[0]:+.2f}"
    best = sorted(zip(task.emotions, scores, strict=True), key=lambda found: -found[1])[:3]
    return ", ".join(f"{name} {score:.2f}" for name, score in best)


def check_known(ids: Sequence[str], known: Sequence[str], data: Path, which: str) -> None:
    """Refuse an id that is not in `known`; near ones are named.

    which: what `known` has, in words that end the sentence "no utterance X in the folder".

    Raises:
        DataError: the first such id.
    """
    for name in ids:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3)
            hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "none is like it"
            raise DataError(f"no utterance {name!r} in {data}{which}; {hint}")
