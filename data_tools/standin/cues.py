"""The noise model: what each modality of an utterance shows, its own emotion or another one.

Every modality misleads in a share `noise` of the utterances, drawn for each modality on its own. So each alone is right
for 1 - noise of them at best, and a reader of all three is right more often (0.88 against 0.75 at the default 0.25):
that is what fusion can gain here.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

MODALITIES = ("text", "audio", "video")

Emotions = tuple[str, ...]
"""Emotions that are shown: IEMOCAP's codes, sorted; one for IEMOCAP, any number for MOSEI."""


@dataclass(frozen=True)
class Cues:
    """Emotions that each modality of one utterance shows."""

    text: Emotions
    audio: Emotions
    video: Emotions

    def majority(self) -> Emotions:
        """Every emotion that at least two modalities show."""
        shown = Counter(emotion for modality in MODALITIES for emotion in getattr(self, modality))
        return tuple(sorted(emotion for emotion, times in shown.items() if times >= 2))


def drawn_misleading(count: int, noise: float, rng: random.Random) -> list[frozenset[str]]:
    """For each of `count` utterances the modalities that mislead in it, each with probability `noise`.

    A modality misleads in `noise * count` utterances, rounded up or down at random, so that one session of a small
    stand-in is no luckier than another.
    """
    misled: list[set[str]] = [set() for _ in range(count)]
    for modality in MODALITIES:
        for index in rng.sample(range(count), int(noise * count + rng.random())):
            misled[index].add(modality)
    return [frozenset(modalities) for modalities in misled]


def drawn_cues(truth: Emotions, misleading: Iterable[str], another: Callable[[], Emotions]) -> Cues:
    """Cues of an utterance whose label is `truth`; `another` draws what a misleading modality shows instead."""

    def shown(modality: str) -> Emotions:
        other = truth
        while modality in misleading and other == truth:
            other = another()
        return other

    return Cues(**{modality: shown(modality) for modality in MODALITIES})
