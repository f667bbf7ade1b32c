"""Words of annotation files, whose tiers hold one speaker or one kind of label each: Praat's TextGrid and ELAN's eaf.

Both are read here and not by a library: of TextGrids libraries lose labels with brackets in them and the last of a file
that was cut off; of eaf files they believe what an XML document declares.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn
from xml.parsers import expat

from data_tools.errors import DataError
from data_tools.speech.cues import Cue, OtherFormError

TIER_SUFFIXES = (".textgrid", ".eaf")
# Parts of names that tiers of words have, whole utterances before single words, which say the same once more.
UTTERANCE_TIERS = (
    *("utterance", "utterances", "sentence", "sentences", "phrase", "phrases", "turn", "turns", "trn", "text"),
    *("transcript", "transcription", "orthography", "orthographic", "speech", "default"),
)
WORD_TIERS = ("word", "words", "ort", "token", "tokens")
# Parts of names of tiers that are never taken for words unless they are named.
OTHER_TIERS = (
    *("phone", "phones", "phoneme", "phonemes", "segment", "segments", "mau", "kan", "ipa", "syllable", "syllables"),
    *("translation", "gloss", "glosses", "pos", "lemma", "tone", "tones", "pitch", "breaks", "silences", "vad"),
    *("gesture", "gestures", "gaze", "head", "hand", "hands", "emotion", "emotions", "absent", "comment", "comments"),
    *("note", "notes", "id", "ids"),
)

# Of a TextGrid counts what stands free, as Praat itself reads it: numbers, flags, and text in quotes. The rest, such as
# "intervals [1]: xmin =" in the long form, is for people. The last alternative is a quote that nothing closes.
_TOKEN = re.compile(
    r'"([^"]*(?:""[^"]*)*)"|(?<!\S)([-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d{1,3})?)(?!\S)|(?<!\S)<(\w+)>(?!\S)|(?<!\S)!.*|(")'
)
# Elements in each other; an eaf file has six.
_MAX_DEPTH = 32
# Labels of aligners and of Praat for nothing said, and noises.
_NOT_SAID = re.compile(r"<[^<>]*>|\[[^\[\]]*\]|sil|sp|spn|pau|#|_|-|\.\.\.", re.IGNORECASE)
_NAME_PARTS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


@dataclass
class _Annotation:
    """An annotation of an eaf file. slots: the ids of its two times; None for one that has those of `parent`."""

    slots: tuple[str, str] | None
    parent: str
    text: str = ""


@dataclass
class _Eaf:
    """Contents of an eaf file: times in ms by slot, None for unaligned ones; tier -> ids; annotations by id."""

    slots: dict[str, int | None] = field(default_factory=dict)
    tiers: dict[str, list[str]] = field(default_factory=dict)
    annotations: dict[str, _Annotation] = field(default_factory=dict)


def tier_cues(path: Path, content: bytes, text: str, tiers: Sequence[str] = (), by_name: bool = False) -> list[Cue]:
    """The words of a .TextGrid or .eaf file; `speaker` of each cue is the tier that it stands in.

    content: the file. text: the same, decoded. tiers: names of those that hold the words; where none is named, those
    whose names say so (`UTTERANCE_TIERS`, else `WORD_TIERS`), and without any of these all but `OTHER_TIERS`. by_name:
    only tiers whose names say that they hold words are taken.

    Raises:
        DataError: the file is damaged, or has no tier of these names. OtherFormError: no tier that can be taken.
    """
    found = _read_eaf(path, content) if path.suffix.lower() == ".eaf" else _read_textgrid(path, text)
    chosen = _choose(path, list(found), tiers, by_name)
    return [cue for name in chosen for cue in found[name] if not _NOT_SAID.fullmatch(cue.text.strip())]


def _choose(path: Path, names: Sequence[str], wanted: Sequence[str], by_name: bool) -> list[str]:
    shown = ", ".join(map(repr, names[:20]))[:500] or "none"
    if wanted:
        if lacking := [name for name in wanted if name not in names]:
            raise DataError(f"{path} has no tier {lacking[0]!r:.100}; its tiers with times are {shown}")
        return list(dict.fromkeys(wanted))
    parts = {name: {part.lower() for part in _NAME_PARTS.findall(name)} for name in names}
    candidates = [name for name in names if parts[name].isdisjoint(OTHER_TIERS)]
    for level in (UTTERANCE_TIERS, WORD_TIERS):
        if of_words := [name for name in candidates if not parts[name].isdisjoint(level)]:
            return of_words
    if by_name or not candidates:
        raise OtherFormError(
            f"{path} has no tier whose name says that it holds words (its tiers with times: {shown}); name it: "
            "--tier NAME, or call it words"
        )
    return candidates


def _read_textgrid(path: Path, text: str) -> dict[str, list[Cue]]:
    """The interval tiers of a TextGrid in its long or short form, by name."""
    if text.startswith("ooBinaryFile"):
        raise DataError(f"{path} is a TextGrid in binary form; save it as text in Praat")
    tokens = _tokens(path, text)
    kind, content = next(tokens, None), next(tokens, None)
    if kind not in ("ooTextFile", "ooTextFile short") or content != "TextGrid":
        raise DataError(f'{path} is no TextGrid: it does not begin with "ooTextFile" and "TextGrid"')
    tiers: dict[str, list[Cue]] = {}
    try:
        _number(tokens), _number(tokens)
        flag = next(tokens)
        for _ in range(_count(tokens) if flag is True else 0):
            kind, name = _string(tokens), _string(tokens)
            _number(tokens), _number(tokens)
            cues = []
            for _ in range(_count(tokens)):
                start_s = _number(tokens)
                if kind == "IntervalTier":
                    cues.append(Cue(max(start_s, 0.0), _number(tokens), _string(tokens), name))
                else:
                    _string(tokens)
            if kind == "IntervalTier":
                tiers.setdefault(name, []).extend(cues)
    except StopIteration:
        raise DataError(f"{path} ends in the middle: it is not the whole TextGrid; copy it again") from None
    except ValueError as error:
        raise DataError(f"{path} is a damaged TextGrid: {error}; save it again in Praat") from None
    return tiers


def _tokens(path: Path, text: str) -> Iterator[str | float | bool]:
    """Texts, numbers and flags (True for <exists>) of a TextGrid, in their order."""
    for found in _TOKEN.finditer(text):
        quoted, number, flag, stray = found.groups()
        if stray:
            line = text.count("\n", 0, found.start()) + 1
            raise DataError(f"{path}, line {line}: a quote that nothing closes; it is damaged or not the whole file")
        if quoted is not None:
            yield quoted.replace('""', '"')
        elif number is not None:
            yield float(number)
        elif flag is not None:
            yield flag == "exists"


def _number(tokens: Iterator[str | float | bool]) -> float:
    value = next(tokens)
    if not isinstance(value, float) or not math.isfinite(value):
        raise ValueError(f"{value!r:.60} in place of a time")
    return value


def _count(tokens: Iterator[str | float | bool]) -> int:
    value = _number(tokens)
    if value < 0 or value != int(value):
        raise ValueError(f"{value:g} in place of a count")
    return int(value)


def _string(tokens: Iterator[str | float | bool]) -> str:
    value = next(tokens)
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.60} in place of a text")
    return value


def _read_eaf(path: Path, content: bytes) -> dict[str, list[Cue]]:
    """The tiers of an eaf file, by name, with the times of what they belong to where they have none of their own."""
    eaf = _parse_eaf(path, content)
    times = _aligned(eaf.slots)
    spans = _spans(path, eaf, times)
    return {
        name: [Cue(*spans[key], eaf.annotations[key].text, name) for key in keys] for name, keys in eaf.tiers.items()
    }


def _parse_eaf(path: Path, content: bytes) -> _Eaf:
    """Contents of an eaf file. A document type, with which XML can declare and fetch things, is refused."""
    eaf, parser = _Eaf(), expat.ParserCreate()
    place: dict[str, str] = {}
    value: list[str] | None = None
    root, depth = "", 0

    def refuse(*_: object) -> NoReturn:
        raise DataError(f"{path} declares a document type, which no eaf file has; save it again in ELAN")

    def start(tag: str, given: dict[str, str]) -> None:
        nonlocal value, root, depth
        root, depth = root or tag, depth + 1
        if depth > _MAX_DEPTH:
            raise ValueError(f"elements in each other deeper than {_MAX_DEPTH}")
        if tag == "TIME_SLOT":
            stated = given.get("TIME_VALUE")
            eaf.slots[given["TIME_SLOT_ID"]] = None if stated is None else int(stated)
        elif tag == "TIER":
            place["tier"] = given["TIER_ID"]
            eaf.tiers.setdefault(place["tier"], [])
        elif tag in ("ALIGNABLE_ANNOTATION", "REF_ANNOTATION"):
            slots = (given["TIME_SLOT_REF1"], given["TIME_SLOT_REF2"]) if tag.startswith("A") else None
            key = place["annotation"] = given["ANNOTATION_ID"]
            if key in eaf.annotations:
                raise ValueError(f"two annotations {key!r:.60}")
            eaf.annotations[key] = _Annotation(slots, "" if slots else given["ANNOTATION_REF"])
            eaf.tiers[place["tier"]].append(key)
        elif tag == "ANNOTATION_VALUE":
            value = []

    def end(tag: str) -> None:
        nonlocal value, depth
        depth -= 1
        if tag == "ANNOTATION_VALUE" and value is not None:
            eaf.annotations[place["annotation"]].text = "".join(value)
            value = None

    def said(text: str) -> None:
        if value is not None:
            value.append(text)

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, said
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, KeyError, ValueError, OverflowError, LookupError) as error:
        raise DataError(f"{path} is a damaged eaf file ({error!s:.200}); save it again in ELAN") from None
    if root != "ANNOTATION_DOCUMENT":
        raise DataError(f"{path} is no eaf file: its outermost element is {root!r:.60}, not ANNOTATION_DOCUMENT")
    return eaf


def _aligned(slots: Mapping[str, int | None]) -> dict[str, float]:
    """Seconds of each slot; those without a time lie evenly between their neighbours in the file."""
    times: dict[str, float] = {}
    last = 0.0
    waiting: list[str] = []
    for name, value in slots.items():
        if value is None:
            waiting.append(name)
            continue
        time_s = max(value, 0) / 1000
        for number, before in enumerate(waiting, start=1):
            times[before] = last + (time_s - last) * number / (len(waiting) + 1)
        times[name] = last = time_s
        waiting = []
    return times | dict.fromkeys(waiting, last)


def _spans(path: Path, eaf: _Eaf, times: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """Begin and end of each annotation in seconds.

    Annotations of one tier that belong to the same one share its time in equal parts, in the order of the file.
    """
    spans: dict[str, tuple[float, float]] = {}
    # Of each annotation without times of its own: its place among those that share a parent, and how many they are.
    shares: dict[str, tuple[int, int]] = {}
    for keys in eaf.tiers.values():
        children = defaultdict(list)
        for key in keys:
            children[eaf.annotations[key].parent].append(key)
        shares |= {key: (number, len(group)) for group in children.values() for number, key in enumerate(group)}
    for last in eaf.annotations:
        chain = [last]
        while chain[-1] not in spans and eaf.annotations[chain[-1]].slots is None:
            parent = eaf.annotations[chain[-1]].parent
            if parent not in eaf.annotations or len(chain) > len(eaf.tiers):
                raise DataError(f"{path} is damaged: annotation {chain[-1]!r:.60} belongs to none with times")
            chain.append(parent)
        for key in reversed(chain):
            slots = eaf.annotations[key].slots
            if slots is None:
                start_s, end_s = spans[eaf.annotations[key].parent]
                number, count = shares[key]
                step_s = (end_s - start_s) / count
                spans.setdefault(key, (start_s + number * step_s, start_s + (number + 1) * step_s))
            elif lacking := [slot for slot in slots if slot not in times]:
                raise DataError(f"{path} is damaged: there is no time slot {lacking[0]!r:.60}")
            else:
                spans[key] = times[slots[0]], times[slots[1]]
    return spans
