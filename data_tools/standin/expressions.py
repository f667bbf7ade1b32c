"""Looks and sounds of each emotion: caricatures, equal for all actors, made to be told apart.

They follow the textbook signs of each emotion (a smile, lowered brows, a slow low voice), greatly simplified.
"""

from dataclasses import dataclass

import numpy as np

from data_tools.standin.faces import MUSCLES, Face


@dataclass(frozen=True)
class Prosody:
    """Manner in which a line is spoken.

    words_per_minute, pitch (0-100), pitch_range (0-100): espeak-ng's scales. gap_ms: silence between words.
    loudness: RMS of the result relative to neutral. brightness_db: tilt of the spectrum, gain at 4 kHz against 500 Hz;
    tremble: depth (0 to 1) of an 11 Hz beat, a rough or shaking voice. breath: share of whispering noise.
    """

    words_per_minute: float
    pitch: float
    pitch_range: float
    gap_ms: float = 0.0
    loudness: float = 1.0
    brightness_db: float = 0.0
    tremble: float = 0.0
    breath: float = 0.0


@dataclass(frozen=True)
class Manner:
    """Face and voice of an emotion.

    restless: how fast and far the head moves, 1 is neutral. talk: how far speech opens the mouth, in pixels.
    """

    face: Face
    prosody: Prosody
    restless: float = 1.0
    talk: float = 5.0


MANNERS = {
    "neu": Manner(Face(), Prosody(170, 42, 30)),
    "hap": Manner(
        Face(corners=8, wide=6, open=6, teeth=1, brow_out=1, lids=-0.4, roll=3),
        Prosody(180, 80, 90, loudness=1.1, brightness_db=4),
        restless=1.3,
        talk=2.5,
    ),
    "exc": Manner(
        Face(corners=5, wide=3, open=12, upper=1, teeth=0.35, brow_in=5, brow_out=5, lids=0.5, shift_y=-4, zoom=0.04),
        Prosody(240, 95, 100, loudness=1.6, brightness_db=9),
        restless=2.5,
        talk=5,
    ),
    "ang": Manner(
        Face(
            corners=-5, wide=0, open=6, teeth=1, brow_in=-8, brow_out=2, brow_near=5, lids=-0.25, zoom=0.06, shift_y=3
        ),
        Prosody(210, 30, 90, loudness=1.9, brightness_db=16, tremble=0.3),
        restless=1.5,
        talk=3,
    ),
    "fru": Manner(
        Face(corners=-1, wide=-6, skew=7, brow_in=-4, brow_out=-4, lids=-0.85, roll=-6, shift_x=3),
        Prosody(165, 25, 50, gap_ms=80, loudness=1.0, brightness_db=4, tremble=0.9),
        restless=1.4,
        talk=3,
    ),
    "sad": Manner(
        Face(corners=-8, wide=-2, brow_in=7, brow_out=-5, brow_near=2, lids=-0.45, roll=5, shift_y=6, zoom=-0.03),
        Prosody(130, 20, 5, loudness=0.45, brightness_db=-14, breath=0.35),
        restless=0.5,
        talk=2.5,
    ),
    "sur": Manner(
        Face(wide=-5, open=13, upper=-1, brow_in=5, brow_out=5, lids=0.5, zoom=-0.02),
        Prosody(190, 78, 100, gap_ms=60, loudness=1.2, brightness_db=2),
        talk=5,
    ),
    "fea": Manner(
        Face(corners=-5, wide=6, open=6, teeth=0.4, brow_in=6, brow_near=4, lids=0.5, zoom=-0.05, roll=-3),
        Prosody(220, 70, 20, loudness=0.6, brightness_db=0, tremble=0.8, breath=0.35),
        restless=0.8,
        talk=3,
    ),
    "dis": Manner(
        Face(
            corners=-3,
            wide=1,
            skew=-3,
            open=2,
            teeth=1,
            upper=3,
            brow_in=-5,
            brow_out=-1,
            brow_near=2,
            lids=-0.7,
            roll=-6,
        ),
        Prosody(150, 26, 80, gap_ms=30, loudness=1.0, brightness_db=4, tremble=0.4),
        talk=2.5,
    ),
}
"""Emotion (IEMOCAP's codes) -> how it is played."""


def blended(emotions: tuple[str, ...]) -> Manner:
    """The mean of several manners, for a speaker who shows several emotions at once; neutral for none."""
    if len(emotions) < 2:
        return MANNERS[emotions[0] if emotions else "neu"]
    parts = [MANNERS[emotion] for emotion in emotions]
    face = np.mean([part.face.vector() for part in parts], axis=0)
    prosody = {
        name: float(np.mean([getattr(part.prosody, name) for part in parts])) for name in Prosody.__dataclass_fields__
    }
    return Manner(
        Face(**dict(zip(MUSCLES, face.tolist(), strict=True))),
        Prosody(**prosody),
        restless=float(np.mean([part.restless for part in parts])),
        talk=float(np.mean([part.talk for part in parts])),
    )
