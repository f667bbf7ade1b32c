"""The readers by the names of their corpora."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_tools.corpora.folder.reader import read_folder
from data_tools.corpora.iemocap import read_iemocap
from data_tools.corpora.meld import read_meld
from data_tools.corpora.mosei.reader import read_mosei
from data_tools.corpora.mosi import read_mosi
from data_tools.corpora.release import Release
from data_tools.corpora.sims import read_sims
from data_tools.errors import DataError

# Reader: (root, emotions, its own options by name) -> Release.
CORPORA: dict[str, Callable[..., Release]] = {
    "iemocap": read_iemocap,
    "mosei": read_mosei,
    "mosi": read_mosi,
    "sims": read_sims,
    "meld": read_meld,
    "folder": read_folder,
}


def read_release(
    dataset: str, root: Path, emotions: Sequence[str], options: Mapping[str, Any] | None = None
) -> Release:
    """Every utterance of the release at `root` (or a few levels from it) and a reject for each one that is unusable.

    emotions: label order, in the corpus' own names.
    options: arguments of this corpus' reader alone, by name.

    Raises:
        DataError: unknown corpus or option, nothing that looks like it at `root`, or an emotion that it does not have.
    """
    if dataset not in CORPORA:
        raise DataError(f"no reader for the corpus {dataset!r}; known: {', '.join(CORPORA)}")
    reader = CORPORA[dataset]
    known = list(inspect.signature(reader).parameters)[2:]
    unknown = sorted(set(options or {}) - set(known))
    if unknown:
        listed = ", ".join(known) or "none"
        raise DataError(f"the reader of {dataset} has no option {', '.join(unknown)}; it has: {listed}")
    return reader(root, emotions, **(options or {}))
