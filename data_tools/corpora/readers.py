"""The readers by the names of their corpora."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_tools.corpora.crema_d import read_crema_d
from data_tools.corpora.folder.reader import read_folder
from data_tools.corpora.iemocap import read_iemocap
from data_tools.corpora.librispeech import read_librispeech
from data_tools.corpora.meld import read_meld
from data_tools.corpora.mer import read_mer2023, read_mer2024, read_mer2025
from data_tools.corpora.mosei.reader import read_mosei
from data_tools.corpora.mosi import read_mosi
from data_tools.corpora.ravdess import read_ravdess
from data_tools.corpora.release import Release
from data_tools.corpora.sims import read_sims, read_sims_v2
from data_tools.errors import DataError
from data_tools.impostor import Impostor, find_impostor

# Reader: (root, emotions, its own options by name) -> Release.
CORPORA: dict[str, Callable[..., Release]] = {
    "iemocap": read_iemocap,
    "mosei": read_mosei,
    "mosi": read_mosi,
    "sims": read_sims,
    "sims-v2": read_sims_v2,
    "meld": read_meld,
    "ravdess": read_ravdess,
    "crema-d": read_crema_d,
    "mer2023": read_mer2023,
    "mer2024": read_mer2024,
    "mer2025": read_mer2025,
    "librispeech": read_librispeech,
    "folder": read_folder,
}


_LACKING = {
    "v": ("no_video", "the release has no picture of it"),
    "a": ("no_audio", "the release has no sound of it"),
    "t": ("no_words", "it has no words, and modalities asks for text"),
}
# Given to those readers that can take utterances without picture or without sound.
_MODALITIES = "modalities"


def read_release(
    dataset: str,
    root: Path,
    emotions: Sequence[str],
    options: Mapping[str, Any] | None = None,
    modalities: str = "av",
) -> Release:
    """Every utterance of the release at `root` (or a few levels from it) and a reject for each one that is unusable.

    emotions: label order, in the corpus' own names.
    options: arguments of this corpus' reader alone, by name.
    modalities: letters of text, audio and vision that each utterance must have. One without words is a reject
        `no_words` where t is among them; one without a file for sound or picture is for the reader to take or reject.

    Raises:
        DataError: unknown corpus or option, nothing that looks like it at `root`, or an emotion that it does not have.
    """
    if dataset not in CORPORA:
        raise DataError(f"no reader for the corpus {dataset!r}; known: {', '.join(CORPORA)}")
    reader = CORPORA[dataset]
    parameters = list(inspect.signature(reader).parameters)[2:]
    known = [name for name in parameters if name != _MODALITIES]
    unknown = sorted(set(options or {}) - set(known))
    if unknown:
        listed = ", ".join(known) or "none"
        raise DataError(f"the reader of {dataset} has no option {', '.join(unknown)}; it has: {listed}")
    given = {_MODALITIES: modalities} if _MODALITIES in parameters else {}
    release = reader(root, emotions, **(options or {}), **given)
    _set_aside_impostors(release)
    _set_aside_incomplete(release, modalities)
    return release


def _set_aside_incomplete(release: Release, modalities: str) -> None:
    """Reject the utterances that lack a modality which each must have, or both picture and sound."""
    good = []
    for utterance in release.utterances:
        there = {"v": utterance.source_video, "a": utterance.source_audio, "t": utterance.text.strip()}
        lacking = [letter for letter in "vat" if not there[letter] and letter in modalities]
        if not there["v"] and not there["a"]:
            lacking = ["v", *lacking]
        if not lacking:
            good.append(utterance)
            continue
        source = release.root / (utterance.source_video or utterance.source_audio)
        release.reject(utterance.utterance_id, source, *_LACKING[lacking[0]])
    release.utterances = good


def _set_aside_impostors(release: Release) -> None:
    """Reject the utterances whose files are pointers or web pages in place of media, with one note for all."""
    names = {name for utterance in release.utterances for name in (utterance.source_video, utterance.source_audio)}
    found = {name: impostor for name in sorted(names - {""}) if (impostor := _impostor(release.root / name))}
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
