"""Plan of the stand-in IEMOCAP: dialogues, speakers, labels and cues; no media yet."""

import random
from dataclasses import dataclass

from data_tools.standin.cues import Cues, drawn_cues, drawn_misleading
from data_tools.standin.sentences import drawn_sentence

SIX_CLASSES = ("ang", "exc", "fru", "hap", "neu", "sad")
_OTHER_CODES = ("xxx", "sur", "xxx", "fea", "xxx", "dis", "xxx", "oth")
_TAGS = ("[LAUGHTER]", "[BREATHING]", "[GARBAGE]", "[LIPSMACK]")
_ODD_SESSIONS = (3, 5)  # only these have XX lines and dialogues with odd names in the real release
_FIRST_DIALOGUES = {
    3: ("Ses03M_impro05a", "Ses03F_script01_1", "Ses03M_impro05b", "Ses03F_impro03"),
    5: ("Ses05M_script01_1b", "Ses05F_impro03", "Ses05M_script01_1", "Ses05M_impro03"),
}
_SCRIPTS = ("script01_1", "script01_2", "script01_3", "script02_1", "script02_2", "script03_1", "script03_2")


@dataclass(frozen=True)
class Line:
    """One turn of the script.

    speaker: F or M. label: IEMOCAP's code, None for an XX line (labelled nowhere, no sentence wav).
    """

    speaker: str
    label: str | None
    cues: Cues
    text: str
    spoken: str


@dataclass(frozen=True)
class DialoguePlan:
    """One dialogue in spoken order.

    marker: F or M. first_of_session: carries the oddities that the real release has once or twice.
    """

    name: str
    session: int
    marker: str
    lines: tuple[Line, ...]
    first_of_session: bool


def plan_dialogues(utterances: int, seed: int, noise: float) -> list[DialoguePlan]:
    """Dialogues that hold `utterances` lines of the six classes, about 10 % lines of other codes, and XX lines.

    Classes, sessions and speakers are balanced: in 60 utterances each of the ten speakers has each class once.
    """
    rng = random.Random(f"iemocap {seed} {utterances} {noise}")
    others = max(1, round(utterances / 10))
    plans = []
    for session in range(1, 6):
        # Five sessions and six classes have no common factor, so each session gets each class equally often.
        labels = [SIX_CLASSES[index % 6] for index in range(session - 1, utterances, 5)]
        # The classes of a session come round every 6 turns: every second round swaps the speakers.
        speakers = ["FM"[(turn + turn // 6 + session) % 2] for turn in range(len(labels))]
        extra = range(session - 1, others, 5)
        labels += [_OTHER_CODES[index % len(_OTHER_CODES)] for index in extra]
        speakers += ["FM"[index // 5 % 2] for index in extra]
        misleading = drawn_misleading(len(labels), noise, rng)
        lines = [_line(*what, rng) for what in zip(labels, speakers, misleading, strict=True)]
        plans += _session_dialogues(session, lines, rng)
    return plans


def _session_dialogues(session: int, lines: list[Line], rng: random.Random) -> list[DialoguePlan]:
    if not lines:
        return []
    rng.shuffle(lines)
    names = dialogue_names(session)
    count = min(max(round(len(lines) / 13), 2), len(lines), len(names))
    plans = []
    for place, name in enumerate(names[:count]):
        own = lines[place::count]
        if session in _ODD_SESSIONS:
            own.insert(len(own) // 2, _unlabelled_line("FM"[place % 2], rng))
        plans.append(DialoguePlan(name, session, name[5], tuple(own), first_of_session=place == 0))
    return plans


def dialogue_names(session: int) -> list[str]:
    """The dialogues of a session, those first that a small stand-in shall have: both markers, impro and script."""
    names = list(_FIRST_DIALOGUES.get(session, ()))
    for number, script in enumerate(_SCRIPTS, start=1):
        names += [f"Ses0{session}F_impro0{number}", f"Ses0{session}M_{script}"]
        names += [f"Ses0{session}M_impro0{number}", f"Ses0{session}F_{script}"]
    return list(dict.fromkeys(names))


def _line(label: str, speaker: str, misleading: frozenset[str], rng: random.Random) -> Line:
    def another() -> tuple[str]:
        return (rng.choice(SIX_CLASSES),)

    if label == "xxx":  # no majority: the modalities disagree
        cues = Cues(*((emotion,) for emotion in rng.sample(SIX_CLASSES, 3)))
    else:
        cues = drawn_cues(("neu",) if label == "oth" else (label,), misleading, another)
    spoken = drawn_sentence(cues.text[0], rng)
    text = spoken
    if rng.random() < 0.05:
        text = rng.choice((f"{rng.choice(_TAGS)} {spoken}", f"{spoken} {rng.choice(_TAGS)}"))
    return Line(speaker, label, cues, text, spoken)


def _unlabelled_line(speaker: str, rng: random.Random) -> Line:
    text = rng.choice(("Mm-hmm.", "Yeah.", "Uh, okay.", "[BREATHING]", ""))
    neutral = ("neu",)
    return Line(speaker, None, Cues(neutral, neutral, neutral), text, text if text[:1].isalpha() else "Mm.")
