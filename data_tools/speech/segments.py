"""Utterances of a film: out of its voice activity, or out of the cues of a transcript with times."""

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from data_tools.sequences.align import Word
from data_tools.speech.activity import WINDOW_S, Activity
from data_tools.speech.transcript import Cue

MIN_S = 0.4
# A pause of at least this much is a border between two utterances.
PAUSE_S = 0.3
# Speech that is too short for an utterance goes to a neighbour that is no further away than this.
REACH_S = 1.0
# Cues of one word that last no longer than this on the average are the words of an alignment, not subtitles.
_LONGEST_WORD_S = 1.0
# The speech probability is averaged over about this time where an utterance without a pause has to be cut.
_BREATH_S = 0.1
# A word with which a sentence ends, whatever quotes and brackets follow its mark.
_SENTENCE_END = re.compile(r"""[.!?…。！？]["'”’»)\]]*$""")
_ABBREVIATIONS = frozenset(("mr.", "mrs.", "ms.", "dr.", "prof.", "st.", "vs."))
_NO_BLANK_LETTER = "[\u0e00-\u0eff\u1000-\u109f\u3000-\u30ff\u3400-\u9fff\uff00-\uffef]"
_NO_BLANK = re.compile(f"(?<={_NO_BLANK_LETTER}) (?={_NO_BLANK_LETTER})")

Span = tuple[float, float]


@dataclass(frozen=True)
class Segment:
    """A part of a film that is scored as one utterance.

    start_s, end_s: in the film. text: what is said, if known. words: with their times in the film, where those are
    known.
    """

    start_s: float
    end_s: float
    text: str = ""
    words: tuple[Word, ...] = ()

    @property
    def duration_s(self) -> float:
        """Seconds from start to end."""
        return self.end_s - self.start_s


def utterances(activity: Activity, max_s: float, borders: Sequence[float] = ()) -> tuple[list[Segment], int]:
    """Utterances of the speech in a film, and the number of shorter sounds of speech that were left out.

    They are sorted, disjoint and have `MIN_S` to `max_s` seconds. Pauses of `PAUSE_S` or more are borders, and so are
    the times `borders`, rising. Speech that is too short is joined with its nearest neighbour within `REACH_S`, or left
    out where there is none; what is too long is cut at its longest pause, and without a pause where speech is least
    likely.

    max_s: 2 * MIN_S or more.
    """
    groups: list[list[Span]] = []
    for span in _split(activity.spans, borders):
        if groups and span[0] - groups[-1][-1][1] < PAUSE_S and not _lies_in(borders, groups[-1][-1][1], span[0]):
            groups[-1].append(span)
        else:
            groups.append([span])
    groups, dropped = _joined(groups, max_s)
    cut = [piece for group in groups for piece in _cut(group, max_s, activity.probability)]
    return [Segment(start_s, end_s) for start_s, end_s in cut], dropped


def worded_utterances(activity: Activity, words: Sequence[Word], max_s: float) -> tuple[list[Segment], int]:
    """As `utterances`, which end with sentences too, with their words; those beyond `REACH_S` of all are left out.

    words: rising and disjoint.
    """
    segments, dropped = utterances(activity, max_s, sentence_ends(words, activity.spans))
    said: list[list[Word]] = [[] for _ in segments]
    middles = [(before.end_s + after.start_s) / 2 for before, after in pairwise(segments)]
    for word in words if segments else ():
        middle_s = (word.start_s + word.end_s) / 2
        place = bisect_left(middles, middle_s)
        if segments[place].start_s - REACH_S <= middle_s <= segments[place].end_s + REACH_S:
            said[place].append(word)
    parts = zip(segments, said, strict=True)
    return [replace(part, text=joined(inside), words=tuple(inside)) for part, inside in parts], dropped


def sentence_ends(words: Sequence[Word], spans: Sequence[Span]) -> list[float]:
    """Times between the last word of a sentence and the next word: in a pause between two spans where there is one."""
    pauses = [(before[1] + after[0]) / 2 for before, after in pairwise(spans)]
    ends = []
    for word, following in pairwise(words):
        if _SENTENCE_END.search(word.text) and word.text.lower() not in _ABBREVIATIONS:
            from_s, to_s = (word.start_s + word.end_s) / 2, (following.start_s + following.end_s) / 2
            between = pauses[bisect_left(pauses, from_s) : bisect_right(pauses, to_s)]
            middle_s = (word.end_s + following.start_s) / 2
            ends.append(min(between, key=lambda pause_s: abs(pause_s - middle_s), default=middle_s))
    return ends


def joined(words: Iterable[Word]) -> str:
    """The words as a text; in scripts without blanks (Chinese, Japanese, Thai, ...) without them."""
    return _NO_BLANK.sub("", " ".join(word.text for word in words))


def regular(length_s: float, max_s: float) -> list[Segment]:
    """A film of `length_s` seconds in equal parts of at most `max_s`."""
    count = max(1, math.ceil(length_s / max_s))
    return [Segment(length_s * i / count, length_s * (i + 1) / count) for i in range(count)]


def has_times(cues: Sequence[Cue]) -> bool:
    """Return True if the cues say when their words are said; plain text does not."""
    return any(cue.start_s > 0 or math.isfinite(cue.end_s) for cue in cues)


def cue_segments(cues: Iterable[Cue], length_s: float) -> tuple[list[Segment], int]:
    """One segment a cue, with its times as they are, sorted; and the number of cues that lie outside of the film.

    An end beyond the film is moved to the film's, and a cue without an end lasts up to the next one. Cues that begin
    at the film's end or later, and those that end when they begin, are left out. length_s: of the film; may be
    infinite.
    """
    ordered = sorted(cues, key=lambda cue: (cue.start_s, cue.end_s))
    starts = sorted({cue.start_s for cue in ordered})
    following = dict(pairwise(starts))
    segments = []
    for cue in ordered:
        end_s = cue.end_s if math.isfinite(cue.end_s) else following.get(cue.start_s, length_s)
        segment = Segment(cue.start_s, min(end_s, length_s), cue.text)
        if segment.duration_s > 0 and math.isfinite(segment.end_s):
            segments.append(segment)
    return segments, len(ordered) - len(segments)


def join_words(cues: Sequence[Cue], max_s: float) -> list[Cue]:
    """Utterances of cues that are single words, such as an aligner's; any other cues stay as they are.

    A pause of `PAUSE_S` or more is a border, and so is `max_s`. Words of different speakers are not joined.
    """
    lengths = [cue.end_s - cue.start_s for cue in cues]
    if len(cues) < 3 or any(" " in cue.text for cue in cues) or sum(lengths) / len(cues) > _LONGEST_WORD_S:
        return list(cues)
    joined: list[Cue] = []
    for cue in sorted(cues, key=lambda cue: (cue.speaker, cue.start_s)):
        last = joined[-1] if joined else None
        if (
            last
            and last.speaker == cue.speaker
            and cue.start_s - last.end_s < PAUSE_S
            and cue.end_s - last.start_s <= max_s
        ):
            joined[-1] = replace(last, end_s=max(last.end_s, cue.end_s), text=f"{last.text} {cue.text}")
        else:
            joined.append(cue)
    return sorted(joined, key=lambda cue: cue.start_s)


def with_words(segments: Sequence[Segment], cues: Iterable[Cue]) -> list[Segment]:
    """The segments with the words of each cue in the one that it overlaps most; cues beside all segments are lost."""
    said: list[list[str]] = [[] for _ in segments]
    for cue in cues:
        shared = [min(cue.end_s, part.end_s) - max(cue.start_s, part.start_s) for part in segments]
        best = int(np.argmax(shared)) if shared else -1
        if best >= 0 and shared[best] > 0:
            said[best].append(cue.text)
    return [replace(part, text=" ".join(words)) for part, words in zip(segments, said, strict=True)]


def _split(spans: Iterable[Span], borders: Sequence[float]) -> Iterator[Span]:
    """The spans, each cut at the borders that lie in it."""
    for start_s, end_s in spans:
        inside = borders[bisect_right(borders, start_s) : bisect_left(borders, end_s)]
        yield from pairwise([start_s, *inside, end_s])


def _lies_in(borders: Sequence[float], from_s: float, to_s: float) -> bool:
    """Return True if one of the rising `borders` lies between the two times or at one of them."""
    return bisect_left(borders, from_s) < bisect_right(borders, to_s)


def _joined(groups: list[list[Span]], max_s: float) -> tuple[list[list[Span]], int]:
    """The groups after each one that is too short was joined with a neighbour, and how many were left out."""
    groups, dropped, at = list(groups), 0, 0
    while at < len(groups):
        start_s, end_s = groups[at][0][0], groups[at][-1][1]
        if end_s - start_s >= MIN_S:
            at += 1
            continue
        # (pause, place of the first of the two groups that would be joined)
        options = []
        if at > 0 and end_s - groups[at - 1][0][0] <= max_s:
            options.append((start_s - groups[at - 1][-1][1], at - 1))
        if at + 1 < len(groups) and groups[at + 1][-1][1] - start_s <= max_s:
            options.append((groups[at + 1][0][0] - end_s, at))
        pause_s, first = min(options, default=(math.inf, -1))
        if pause_s <= REACH_S:
            groups[first : first + 2] = [groups[first] + groups[first + 1]]
            at = first
        else:
            del groups[at]
            dropped += 1
    return groups, dropped


def _cut(group: list[Span], max_s: float, probability: np.ndarray) -> list[Span]:
    """A group of spans as parts of at most `max_s` and at least MIN_S."""
    start_s, end_s = group[0][0], group[-1][1]
    if end_s - start_s <= max_s:
        return [(start_s, end_s)]
    pauses = [
        (after[0] - before[1], place)
        for place, (before, after) in enumerate(pairwise(group), start=1)
        if before[1] - start_s >= MIN_S and end_s - after[0] >= MIN_S
    ]
    if pauses:
        place = max(pauses, key=lambda pause: (pause[0], -pause[1]))[1]
        return [part for half in (group[:place], group[place:]) for part in _cut(half, max_s, probability)]
    # The first part is half to all of what is allowed, and the rest no shorter than an utterance.
    at_s = _least_likely(probability, start_s + max_s / 2, min(start_s + max_s, end_s - MIN_S))
    return [(start_s, at_s), *_cut([(at_s, end_s)], max_s, probability)]


def _least_likely(probability: np.ndarray, from_s: float, to_s: float) -> float:
    """The time between the two at which speech is least likely; the first of several."""
    first, last = math.ceil(from_s / WINDOW_S), math.floor(to_s / WINDOW_S)
    if last <= first:
        return to_s
    wide = max(1, round(_BREATH_S / WINDOW_S))
    smooth = np.convolve(probability[first - 1 : last + 1], np.ones(wide) / wide, mode="same")[1:-1]
    return min(max((first + int(np.argmin(smooth)) + 0.5) * WINDOW_S, from_s), to_s)
