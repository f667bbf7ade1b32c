"""The cast: the ten actors of the stand-in IEMOCAP and the speakers of the stand-in MOSEI, faces and voices."""

import random
from dataclasses import dataclass

from data_tools.standin.portraits import Actor


@dataclass(frozen=True)
class Voice:
    """A voice of espeak-ng. name: e.g. `en-us+f2`. pitch: added to the 0-100 scale. rate: factor of words a minute."""

    name: str
    pitch: int = 0
    rate: float = 1.0


@dataclass(frozen=True)
class Performer:
    """One person of the stand-in: what is seen and what is heard."""

    actor: Actor
    voice: Voice


_WALLS = ((128, 134, 140), (146, 138, 122), (112, 126, 118), (138, 124, 128), (120, 128, 148))
_BROWS = ((58, 40, 28), (40, 32, 28), (74, 52, 34), (30, 26, 26), (66, 44, 40))
_LIPS = ((168, 84, 84), (150, 70, 74), (176, 100, 92), (140, 72, 66), (160, 90, 96))
_TINTS = ((1.0, 1.0, 1.0), (0.93, 0.97, 1.0), (0.98, 0.9, 0.82), (0.84, 0.78, 0.72), (1.0, 0.95, 0.9))
_STRETCH = ((1.0, 1.0), (1.06, 0.97), (0.95, 1.04), (1.03, 1.05), (0.97, 0.96))
_GAMMAS = (1.0, 0.9, 1.1, 1.0, 0.85)
_FEMALE = ("en-us+f1", "en-us+f2", "en-us+f3", "en-us+f5", "en-us+f2")
_MALE = ("en-us+m1", "en-us+m3", "en-us+m7", "en-us+m1", "en-us+m3")


def iemocap_performer(session: int, letter: str) -> Performer:
    """The actor of a session (1 to 5) whose speaker letter is F or M; always the same ten people."""
    number = session - 1
    astronaut = letter == "F"
    look = (number + (0 if astronaut else 2)) % 5
    actor = Actor(
        photograph="astronaut" if astronaut else "hopper",
        mirrored=number % 2 == 1,
        stretch=_STRETCH[look],
        tint=_TINTS[look],
        gamma=_GAMMAS[look],
        brow=_BROWS[look],
        brow_px=2.0 + look % 2,
        lips=_LIPS[look],
        wall=_WALLS[number],
    )
    voice = (_FEMALE if astronaut else _MALE)[number]
    return Performer(actor, Voice(voice, pitch=(0, 2, -2, 5, -4)[number], rate=(1.0, 1.04, 0.96, 1.0, 1.03)[number]))


def drawn_performer(rng: random.Random) -> Performer:
    """A person drawn at random, for the many speakers of MOSEI."""
    astronaut = rng.random() < 0.5
    actor = Actor(
        photograph="astronaut" if astronaut else "hopper",
        mirrored=rng.random() < 0.5,
        stretch=(rng.uniform(0.94, 1.07), rng.uniform(0.95, 1.05)),
        tint=rng.choice(_TINTS),
        gamma=rng.uniform(0.85, 1.1),
        brow=rng.choice(_BROWS),
        brow_px=rng.choice((2.0, 3.0)),
        lips=rng.choice(_LIPS),
        wall=rng.choice(_WALLS),
    )
    voice = rng.choice(_FEMALE if astronaut else _MALE)
    return Performer(actor, Voice(voice, pitch=rng.randint(-4, 4), rate=rng.uniform(0.95, 1.05)))
