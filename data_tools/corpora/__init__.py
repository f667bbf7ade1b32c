"""One reader per release: the tree on disk becomes utterances and rejects. Text parsing only; no media is opened."""

from collections.abc import Callable, Sequence
from pathlib import Path

from data_tools.corpora.iemocap import read_iemocap
from data_tools.corpora.mosei import read_mosei
from data_tools.corpora.release import Release
from data_tools.errors import DataError

CORPORA: dict[str, Callable[[Path, Sequence[str]], Release]] = {
    "iemocap": read_iemocap,
    "mosei": read_mosei,
}


def read_release(dataset: str, root: Path, emotions: Sequence[str]) -> Release:
    """Every utterance of the release at `root` (or a few levels from it) and a reject for each one that is unusable.

    emotions: label order, in the corpus' own names.

    Raises:
        DataError: unknown corpus, nothing that looks like it at `root`, or an emotion that it does not have.
    """
    if dataset not in CORPORA:
        raise DataError(f"no reader for the corpus {dataset!r}; known: {', '.join(CORPORA)}")
    return CORPORA[dataset](root, emotions)


__all__ = ["CORPORA", "Release", "read_release"]
