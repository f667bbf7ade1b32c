"""The readers by the names of their corpora."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_tools.corpora.crema_d import read_crema_d
from data_tools.corpora.folder.reader import read_folder
from data_tools.corpora.iemocap import read_iemocap
from data_tools.corpora.meld import read_meld
from data_tools.corpora.mosei.reader import read_mosei
from data_tools.corpora.mosi import read_mosi
from data_tools.corpora.ravdess import read_ravdess
from data_tools.corpora.release import Release
from data_tools.corpora.sims import read_sims
from data_tools.errors import DataError
from data_tools.impostor import Impostor, find_impostor

# Reader: (root, emotions, its own options by name) -> Release.
CORPORA: dict[str, Callable[..., Release]] = {
    "iemocap": read_iemocap,
    "mosei": read_mosei,
    "mosi": read_mosi,
    "sims": read_sims,
    "meld": read_meld,
    "ravdess": read_ravdess,
    "crema-d": read_crema_d,
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
    release = reader(root, emotions, **(options or {}))
    _set_aside_impostors(release)
    return release


def _set_aside_impostors(release: Release) -> None:
    """Reject the utterances whose files are pointers or web pages in place of media, with one note for all."""
    names = {name for utterance in release.utterances for name in (utterance.source_video, utterance.source_audio)}
    found = {name: impostor for name in sorted(names) if (impostor := _impostor(release.root / name))}
    good = []
    for utterance in release.utterances:
        name = next((n for n in (utterance.source_video, utterance.source_audio) if n in found), None)
        if name is None:
            good.append(utterance)
        else:
            detail = f"{name} is {found[name].one}; {found[name].remedy}"
            release.reject(utterance.utterance_id, release.root / name, found[name].reason, detail)
    release.utterances = good
    for impostor in dict.fromkeys(found.values()):
        files = [name for name, what in found.items() if what == impostor]
        release.notes.append(f"{len(files)} files are {impostor.many}, e.g. {files[0]}; {impostor.remedy}")


def _impostor(path: Path) -> Impostor | None:
    try:
        return find_impostor(path) if path.is_file() else None
    except OSError:
        return None  # whoever opens it says why it cannot be read
