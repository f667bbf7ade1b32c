"""Features of several sets side by side, each modality from one: `t=words,a=default,v=imported`."""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from data_tools.errors import DataError
from data_tools.sequences.store import DialogueFeatures, FeatureFacts, check_features_name, features_path, read_facts

_FORM = re.compile(r"[tav]=[^,=]+(,[tav]=[^,=]+)*")


def sets_of(features: str) -> dict[str, str]:
    """Modality letter -> name of its set, of a mixture; empty for the name of a single set.

    Raises:
        ValueError: a letter comes twice, or a name that no set can have.
    """
    if "=" not in features and "," not in features:
        check_features_name(features)
        return {}
    if not _FORM.fullmatch(features):
        raise ValueError(f"features is {features!r:.100}; give the name of a set, or t=NAME,a=NAME,v=NAME")
    pairs = [part.split("=") for part in features.split(",")]
    if len({letter for letter, _ in pairs}) < len(pairs):
        raise ValueError(f"features is {features!r:.100}: a modality comes twice")
    for _, name in pairs:
        check_features_name(name)
    return dict(sorted(pairs, key=lambda pair: "tav".index(pair[0])))


def read_features(data_dir: Path, features: str) -> FeatureFacts:
    """The facts of a set, or of a mixture: `settings` has under "sets" each letter's name and settings.

    Raises:
        DataError: as `read_facts`; a name of another form, or a set without the modality that it is to give.
    """
    try:
        sets = sets_of(features)
    except ValueError as error:
        raise DataError(str(error)) from None
    if not sets:
        return read_facts(data_dir, features)
    facts = {letter: read_facts(data_dir, name) for letter, name in sets.items()}
    if lacking := [letter for letter, found in facts.items() if letter not in found.sizes]:
        raise DataError(
            f"features is {features!r}, but the set {sets[lacking[0]]!r} has only {''.join(facts[lacking[0]].sizes)!r}"
        )
    dialogues = set.intersection(*(set(found.fingerprints) for found in facts.values()))
    return FeatureFacts(
        name=features,
        sizes={letter: found.sizes[letter] for letter, found in facts.items()},
        settings={"sets": {letter: {"name": sets[letter]} | found.settings for letter, found in facts.items()}},
        fingerprints={
            dialogue: "+".join(found.fingerprints[dialogue] for found in facts.values()) for dialogue in dialogues
        },
        store=next((found.store for found in facts.values() if found.store is not None), None),
        versions={},
    )


def open_features(data_dir: Path, features: str, dialogue_id: str) -> "DialogueFeatures | MixedFeatures":
    """The features of one dialogue, of a set or a mixture. Raises DataError as `DialogueFeatures`."""
    sets = sets_of(features)
    if not sets:
        return DialogueFeatures(features_path(data_dir, features, dialogue_id))
    opened = {name: DialogueFeatures(features_path(data_dir, name, dialogue_id)) for name in sets.values()}
    return MixedFeatures({letter: opened[name] for letter, name in sets.items()})


class MixedFeatures:
    """The features of one dialogue from several sets, used as `DialogueFeatures` is.

    An utterance is there where all sets have it; it counts as rejected where one of them rejected it.
    """

    def __init__(self, parts: Mapping[str, DialogueFeatures]) -> None:
        self._parts = dict(parts)
        self.letters = "".join(parts)
        self.sizes = {letter: part.sizes[letter] for letter, part in parts.items()}
        self.fingerprint = "+".join(part.fingerprint for part in parts.values())
        self.rejected: frozenset[str] = frozenset().union(*(part.rejected for part in parts.values()))

    def __contains__(self, utterance_id: str) -> bool:
        return all(utterance_id in part for part in self._parts.values())

    def __getitem__(self, utterance_id: str) -> dict[str, Tensor]:
        """(N, D) float32 by modality letter."""
        return {letter: part[utterance_id][letter] for letter, part in self._parts.items()}

    def count(self, utterance_id: str, letter: str) -> int:
        """Steps of one modality."""
        return self._parts[letter].count(utterance_id, letter)
