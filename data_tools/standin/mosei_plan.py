"""Plan of the stand-in CMU-MOSEI: videos, segments, labels and cues; no media yet."""

import random
import string
from dataclasses import dataclass
from fractions import Fraction

from data_tools.standin.cues import Cues, Emotions, drawn_cues, drawn_misleading
from data_tools.standin.sentences import drawn_sentence

EMOTIONS = {"ang": "anger", "dis": "disgust", "fea": "fear", "hap": "happiness", "sad": "sadness", "sur": "surprise"}
"""IEMOCAP's code (by which faces and voices are kept) -> MOSEI's column."""

_MOST_SEGMENTS_A_VIDEO = 5
_SIZES_PX = ((640, 360), (480, 360), (426, 240), (320, 240), (1280, 720), (360, 640))
_RATES = (Fraction(30), Fraction(30000, 1001), Fraction(25), Fraction(24))
_ID_LETTERS = string.ascii_letters + string.digits


@dataclass(frozen=True)
class Segment:
    """One clip. labelled: False for the few that no annotator saw. gap_before_s: silence since the one before."""

    number: int
    label: Emotions
    cues: Cues
    text: str
    spoken: str
    labelled: bool
    gap_before_s: float


@dataclass(frozen=True)
class VideoPlan:
    """One video of one speaker. starts_early: the first segment is given a start before 0, as 239 real ones are."""

    video_id: str
    place: int
    size_px: tuple[int, int]
    fps: Fraction
    segments: tuple[Segment, ...]
    starts_early: bool


def plan_videos(utterances: int, seed: int, noise: float) -> list[VideoPlan]:
    """Videos of up to five labelled segments, `utterances` in all; every second video has one without labels.

    Fewer a video where there are few, so that a small stand-in too has every shape of id, picture size and rate.
    """
    rng = random.Random(f"mosei {seed} {utterances} {noise}")
    labels = [_label(index, rng) for index in range(utterances)]
    seen = list(zip(labels, drawn_misleading(utterances, noise, rng), strict=True))
    plans = []
    each = min(_MOST_SEGMENTS_A_VIDEO, max(1, round(utterances / 8)))
    for place, first in enumerate(range(0, utterances, each)):
        own = seen[first : first + each]
        segments = [_segment(number, *what, rng, labelled=True) for number, what in enumerate(own)]
        if place % 2 == 1:
            segments.append(_segment(len(own), _random_emotions(rng), frozenset(), rng, labelled=False))
        if place == 0:
            segments[-1] = _with_separator_in_text(segments[-1])
        video_id = _video_id(place, rng)
        size, fps = _SIZES_PX[place % len(_SIZES_PX)], _RATES[place % len(_RATES)]
        plans.append(VideoPlan(video_id, place, size, fps, tuple(segments), starts_early=place % 3 == 0))
    return plans


def _label(index: int, rng: random.Random) -> Emotions:
    """Each emotion in turn; every seventh has none, and a third of the others have a second one."""
    if index % 7 == 6:
        return ()
    first = list(EMOTIONS)[index % 7]
    second = rng.choice([first, first, *EMOTIONS])
    return tuple(sorted({first, second}))


def _random_emotions(rng: random.Random) -> Emotions:
    return tuple(sorted(rng.sample(list(EMOTIONS), rng.choice((0, 1, 1, 1, 2)))))


def _segment(number: int, label: Emotions, misleading: frozenset[str], rng: random.Random, labelled: bool) -> Segment:
    cues = drawn_cues(label, misleading, lambda: _random_emotions(rng))
    text = " ".join(drawn_sentence(emotion, rng) for emotion in cues.text or ("neu",))
    return Segment(number, label, cues, text, text, labelled, gap_before_s=rng.uniform(0.4, 0.9))


def _with_separator_in_text(segment: Segment) -> Segment:
    """The text of a real transcript can itself hold the separator of its columns."""
    first, _, rest = segment.text.partition(" ")
    return Segment(**{**vars(segment), "text": f"{first} _____ {rest}"})


def _video_id(place: int, rng: random.Random) -> str:
    """Invented ids in all the shapes of real ones: digits alone, 11 characters, a leading `-`, `_`, `__`."""

    def letters(count: int) -> str:
        return "".join(rng.choice(_ID_LETTERS) for _ in range(count))

    shapes = (
        lambda: str(rng.randint(20_000, 290_000)),
        lambda: "-" + letters(10),
        lambda: f"{letters(5)}__{letters(4)}",
        lambda: letters(11),
        lambda: f"{letters(3)}_{letters(3)}-{letters(3)}",
    )
    return shapes[place % len(shapes)]()
