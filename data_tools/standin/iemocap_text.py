"""The text files of an IEMOCAP dialogue, in the release's line formats with their odd lines."""

import random
from dataclasses import dataclass
from pathlib import Path

from data_tools.files import atomic_path, write_text

_LONG_NAMES = {
    "ang": "Anger", "exc": "Excited", "fru": "Frustration", "hap": "Happiness", "neu": "Neutral", "sad": "Sadness",
    "sur": "Surprise", "fea": "Fear", "dis": "Disgust", "oth": "Other",
}  # fmt: skip
# Valence, activation, dominance (1 to 5) round which raters vary.
_ATTRIBUTES = {
    "ang": (2, 4, 4), "exc": (4, 4, 3), "fru": (2, 3, 3), "hap": (4, 3, 3), "neu": (3, 2, 3), "sad": (2, 2, 2),
    "sur": (3, 4, 3), "fea": (2, 4, 2), "dis": (2, 3, 3), "oth": (3, 3, 3), "xxx": (3, 3, 3),
}  # fmt: skip
_NOTES = ("", "", "", "", "curious", "calm", "mildly aggravated but staying polite, attitude", "tired")


@dataclass(frozen=True)
class TimedLine:
    """A line of a dialogue with its place in time. label: None for an XX line."""

    utterance_id: str
    start_s: float
    end_s: float
    label: str | None
    text: str


def write_dialogue_texts(dialog: Path, name: str, lines: list[TimedLine], odd: bool, rng: random.Random) -> None:
    """EmoEvaluation (with its sub-folders), transcriptions and lab of one dialogue.

    dialog: the folder `SessionN/dialog`. lines: by start. odd: also the oddities that the release has here and there:
    a rater's missing `dom`, and a duplicated XX line.
    """
    labelled = [line for line in lines if line.label is not None]
    blocks = [_evaluation(line, missing_dom=odd and place == 0, rng=rng) for place, line in enumerate(labelled)]
    header = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
    write_text(dialog / "EmoEvaluation" / f"{name}.txt", header + "\n".join(blocks) + "\n")
    write_text(dialog / "transcriptions" / f"{name}.txt", _transcription(lines, odd, rng))
    rated = dialog / "EmoEvaluation"
    for folder, rater in (("Categorical", "e2"), ("Self-evaluation", "f1")):
        rows = [f"{line.utterance_id} :{_LONG_NAMES.get(line.label or '', 'Other')}; ()" for line in labelled]
        write_text(rated / folder / f"{name}_{rater}_cat.txt", "\n".join(rows) + "\n")
    rows = [_attribute_row(line) for line in labelled]
    write_text(rated / "Attribute" / f"{name}_e3_atr.txt", "\n".join(rows) + "\n")
    for letter in "FM":
        own = [line for line in labelled if line.utterance_id.rsplit("_", 1)[1].startswith(letter)]
        rows = ["#"] + [f"{line.start_s:.4f} {line.end_s:.4f} {line.utterance_id}" for line in own]
        write_text(dialog / "lab" / f"{name[:5]}_{letter}" / f"{name}.lab", "\n".join(rows) + "\n")


def write_word_alignment(path: Path, line: TimedLine) -> None:
    """A `.wdseg` of 10 ms frames. The words share the time by their letters: espeak-ng was not asked for its own."""
    words = line.text.upper().split()
    letters = [len(word) for word in words]
    frames = round((line.end_s - line.start_s) * 100)
    rows = ["\t SFrm\t EFrm\t    SegAScr\tWord"]
    for place, word in enumerate(words):
        first, last = (frames * sum(letters[:end]) // sum(letters) for end in (place, place + 1))
        rows.append(f"\t{first:5d}\t{last - 1:5d}\t{-100 * (last - first):11d}\t{word}")
    write_text(path, "\n".join(rows) + "\n")


def write_apple_double(path: Path) -> None:
    """A `._` file as macOS leaves them on copied folders: binary, no media or text in it."""
    with atomic_path(path.with_name(f"._{path.name}")) as temporary:
        temporary.write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(range(128, 256)) * 2)


def _evaluation(line: TimedLine, missing_dom: bool, rng: random.Random) -> str:
    """The label line of an utterance and what its raters said."""
    raters = [_rated(line.label or "", rng) for _ in range(3)]
    means = [sum(rater[axis] for rater in raters[:2]) / 2 for axis in range(3)]
    votes = _votes(line.label or "", rng)
    self_rater = line.utterance_id.rsplit("_", 1)[1][0] + "1"
    rows = [
        f"[{line.start_s:.4f} - {line.end_s:.4f}]\t{line.utterance_id}\t{line.label}\t"
        f"[{means[0]:.4f}, {means[1]:.4f}, {means[2]:.4f}]"
    ]
    rows += [f"C-E{number}:\t{vote};\t()" for number, vote in zip((2, 3, 4), votes, strict=True)]
    rows.append(f"C-{self_rater}:\t{votes[0]};\t({rng.choice(_NOTES)})")
    for who, (valence, activation, dominance) in zip(("E3", "E4", self_rater), raters, strict=True):
        dom = "" if missing_dom and who == "E4" else str(dominance)
        rows.append(f"A-{who}:\tval {valence}; act {activation}; dom  {dom};\t({rng.choice(_NOTES)})")
    return "\n".join(rows) + "\n"


def _rated(label: str, rng: random.Random) -> tuple[int, int, int]:
    valence, activation, dominance = (min(5, max(1, value + rng.choice((-1, 0, 0, 1)))) for value in _ATTRIBUTES[label])
    return valence, activation, dominance


def _votes(label: str, rng: random.Random) -> list[str]:
    """Three raters' words: at least two agree on the label, and on nothing where the label is xxx."""
    if label == "xxx":
        return rng.sample(list(_LONG_NAMES.values()), 3)
    word = _LONG_NAMES[label]
    third = rng.choice([word, word, word, f"{word}; {rng.choice(list(_LONG_NAMES.values()))}", "Other"])
    votes = [word, word, third]
    rng.shuffle(votes)
    return votes


def _attribute_row(line: TimedLine) -> str:
    valence, activation, dominance = _ATTRIBUTES[line.label or "oth"]
    return f"{line.utterance_id} :act {activation}; :val  {valence}; :dom  {dominance}; ()"


def _transcription(lines: list[TimedLine], odd: bool, rng: random.Random) -> str:
    """Almost in order of time, as in the release, with one line that has no id."""
    rows = [f"{line.utterance_id} [{line.start_s:08.4f}-{line.end_s:08.4f}]: {line.text}" for line in lines]
    for place in range(len(rows) - 1):
        if rng.random() < 0.1:
            rows[place], rows[place + 1] = rows[place + 1], rows[place]
    if odd:
        unlabelled = [line.utterance_id for line in lines if line.label is None]
        rows += [row for row in rows if row.split(" ", 1)[0] in unlabelled]
    rows.insert(len(rows) // 2, rng.choice(("M: Okay.", "F: Mm-hmm.", "M: [LAUGHTER]")))
    return "\n".join(rows) + "\n"
