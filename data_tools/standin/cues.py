"""The noise model: what each modality of an utterance shows, its own emotion or another one.

Every modality is wrong with probability `noise`, drawn on its own. So each alone is right for 1 - noise of the
utterances at best, and a reader of all three is right more often (0.88 against 0.75 at the default 0.25): that is what
fusion can gain here.
"""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

MODALITIES = ("text", "audio", "video")

Emotions = tuple[str, ...]
"""What is shown: IEMOCAP's emotion codes, sorted; one for IEMOCAP, any number for MOSEI."""


@dataclass(frozen=True)
class Cues:
    """What each modality of one utterance shows."""

    text: Emotions
    audio: Emotions
    video: Emotions

    def majority(self) -> Emotions:
        """Every emotion that at least two modalities show."""
        shown = Counter(emotion for modality in MODALITIES for emotion in getattr(self, modality))
        return tuple(sorted(emotion for emotion, times in shown.items() if times >= 2))


def drawn_cues(truth: Emotions, noise: float, another: Callable[[], Emotions], rng: random.Random) -> Cues:
    """Cues of an utterance whose label is `truth`; `another` draws what a misleading modality shows instead."""

    def shown() -> Emotions:
        if rng.random() >= noise:
            return truth
        while (other := another()) == truth:
            pass
        return other

    return Cues(**{modality: shown() for modality in MODALITIES})
