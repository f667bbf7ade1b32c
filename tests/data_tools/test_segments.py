"""Utterances out of speech and cues: borders counted by hand, and laws that hold for all."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.sequences.align import Word
from data_tools.speech.activity import WINDOW_S, Activity
from data_tools.speech.segments import (
    MIN_S,
    REACH_S,
    Segment,
    cue_segments,
    has_times,
    join_words,
    joined,
    regular,
    sentence_ends,
    utterances,
    with_words,
    worded_utterances,
)
from data_tools.speech.transcript import Cue


def activity(*spans, duration_s=None, quiet=()):
    """quiet: times at which speech is unlikely."""
    duration_s = duration_s or spans[-1][1] + 1
    probability = np.ones(math.ceil(duration_s / WINDOW_S), np.float32)
    for time_s in quiet:
        probability[round(time_s / WINDOW_S) - 2 : round(time_s / WINDOW_S) + 2] = 0.4
    return Activity(list(spans), probability, duration_s)


def spans_of(found):
    return [(segment.start_s, segment.end_s) for segment in found[0]]


def test_pauses_are_borders():
    found = utterances(activity((1, 2), (2.2, 3), (3.35, 5)), 15)
    assert (spans_of(found), found[1]) == ([(1, 3), (3.35, 5)], 0)


def test_short_speech_goes_to_its_nearest_neighbour_or_out():
    assert spans_of(utterances(activity((1, 2), (2.5, 2.8), (3.2, 5)), 15)) == [(1, 2), (2.5, 5)]
    assert spans_of(utterances(activity((1, 2), (2.4, 2.7), (3.2, 5)), 15)) == [(1, 2.7), (3.2, 5)]
    # Two short ones together are long enough.
    assert spans_of(utterances(activity((1, 1.3), (1.6, 1.9)), 15)) == [(1, 1.9)]
    found = utterances(activity((1, 2), (4, 4.3), (7, 8)), 15)
    assert (spans_of(found), found[1]) == ([(1, 2), (7, 8)], 1)
    # It is never joined to what would be too long then.
    found = utterances(activity((1, 5), (5.5, 5.8)), 4.5)
    assert (spans_of(found), found[1]) == ([(1, 5)], 1)


def test_long_speech_is_cut_at_its_longest_pause_and_else_where_speech_is_least_likely():
    assert spans_of(utterances(activity((0, 3), (3.1, 6), (6.25, 9), (9.1, 12)), 10)) == [(0, 6), (6.25, 12)]
    (first, second) = spans_of(utterances(activity((0, 12), quiet=[7]), 10))
    assert first[0] == 0
    assert first[1] == second[0] == pytest.approx(7, abs=0.1)
    assert second[1] == 12


@st.composite
def speeches(draw):
    times = draw(st.lists(st.tuples(st.floats(0.05, 3), st.floats(0.1, 40)), min_size=1, max_size=20))
    at, spans = 0.0, []
    for pause_s, length_s in times:
        spans.append((at + pause_s, at + pause_s + length_s))
        at = spans[-1][1]
    probability = np.random.default_rng(draw(st.integers(0, 99))).random(math.ceil(at / WINDOW_S), dtype=np.float32)
    return Activity(spans, probability, at)


@settings(max_examples=150, deadline=None)
@given(speeches(), st.floats(1, 30))
def test_laws_of_utterances(speech, max_s):
    found, dropped = utterances(speech, max_s)
    tiny = 1e-6
    for segment in found:
        assert MIN_S - tiny <= segment.duration_s <= max_s + tiny
        assert 0 <= segment.start_s
        assert segment.end_s <= speech.duration_s + tiny
    assert all(one.end_s <= other.start_s + tiny for one, other in pairwise(found))
    left_out = 0
    for start_s, end_s in speech.spans:
        shared = sum(max(0.0, min(end_s, s.end_s) - max(start_s, s.start_s)) for s in found)
        if shared < end_s - start_s - tiny:
            assert shared == 0
            assert end_s - start_s < MIN_S
            left_out += 1
    assert left_out >= dropped
    assert (left_out == 0) == (dropped == 0)


def test_an_isolated_sound_is_far_from_everything():
    found, dropped = utterances(activity((1, 3), (3 + REACH_S + 0.1, 3 + REACH_S + 0.4)), 15)
    assert (found, dropped) == ([Segment(1, 3)], 1)


def test_cues_keep_their_times():
    cues = [
        Cue(5.001, 7.499, "third"),
        Cue(0.0, 1.234, "first"),
        Cue(1.0, 6.5, "it overlaps"),
        Cue(8.0, 99.0, "beyond the end"),
        Cue(10.0, 11.0, "outside"),
        Cue(3.0, 3.0, "no length"),
        Cue(4.0, 3.5, "backwards"),
    ]
    found, outside = cue_segments(cues, 9.5)
    assert found == [
        Segment(0.0, 1.234, "first"),
        Segment(1.0, 6.5, "it overlaps"),
        Segment(5.001, 7.499, "third"),
        Segment(8.0, 9.5, "beyond the end"),
    ]
    assert outside == 3


def test_a_cue_without_an_end_lasts_up_to_the_next_one():
    cues = [Cue(1.0, math.inf, "a"), Cue(1.0, math.inf, "b"), Cue(2.5, math.inf, "c")]
    expected = [Segment(1.0, 2.5, "a"), Segment(1.0, 2.5, "b"), Segment(2.5, 4.0, "c")]
    assert cue_segments(cues, 4.0) == (expected, 0)
    assert cue_segments(cues, math.inf) == (expected[:2], 1)
    assert has_times(cues)
    assert not has_times([Cue(0.0, math.inf, "a")])
    assert not has_times([])


def test_words_of_an_alignment_are_joined_up_to_a_pause():
    said = [("so", 1.0, 1.2), ("glad", 1.25, 1.6), ("yes", 1.95, 2.0), ("you", 2.05, 2.3), ("came", 2.3, 4.2)]
    cues = [Cue(start_s, end_s, text, "Anna") for text, start_s, end_s in said] + [Cue(1.1, 1.3, "hm", "Ben")]
    assert join_words(cues, 15) == [
        Cue(1.0, 1.6, "so glad", "Anna"),
        Cue(1.1, 1.3, "hm", "Ben"),
        Cue(1.95, 4.2, "yes you came", "Anna"),
    ]
    assert [cue.text for cue in join_words(cues, 1.0)] == ["so glad", "hm", "yes you", "came"]
    for other in (
        [Cue(0, 0.5, "two words"), Cue(0.5, 1, "a"), Cue(1, 1.5, "b")],
        [Cue(0, 2, "Hello."), Cue(2, 4, "Hi."), Cue(4, 6, "Bye.")],
        [Cue(0.0, math.inf, "glad")],
        [],
    ):
        assert join_words(other, 15) == other


def test_words_go_where_most_of_their_time_is():
    parts = [Segment(0, 2), Segment(2.5, 4)]
    cues = [Cue(0, 1, "one"), Cue(1.5, 4, "two"), Cue(2, 2.5, "in the pause"), Cue(9, 10, "after")]
    assert with_words(parts, cues) == [Segment(0, 2, "one"), Segment(2.5, 4, "two")]


def test_regular_parts_cover_the_film():
    parts = regular(31.0, 15.0)
    assert [(part.start_s, part.end_s) for part in parts] == [(0, 31 / 3), (31 / 3, 62 / 3), (62 / 3, 31)]
    assert regular(3.0, 15.0) == [Segment(0, 3)]


def words(*given):
    return [Word(text, start_s, end_s) for text, start_s, end_s in given]


def test_sentences_end_at_their_marks_and_not_at_abbreviations():
    said = words(("Mr.", 0, 1), ("Lee", 1, 2), ('left."', 2, 3), ("Why?", 3.2, 4), ("3.5", 4, 5), ("days", 5, 6))
    assert sentence_ends(said, [(0, 6)]) == [3.1, 4]
    # In the pause that is between the two words, even where their own times lie beside it.
    assert sentence_ends(said, [(0, 3.3), (3.5, 6)]) == [3.4, 4]
    assert sentence_ends(words(("吗？", 0, 1), ("好", 1.5, 2)), []) == [1.25]


def test_sentences_are_utterances_with_their_words():
    said = words(("Hello.", 1.0, 1.6), ("How", 1.7, 2.0), ("are", 2.0, 2.2), ("you?", 2.2, 3.0), ("Fine.", 5.1, 5.8))
    found, dropped = worded_utterances(activity((1, 3), (5, 6)), said, 15)
    assert dropped == 0
    assert [(part.start_s, part.end_s, part.text) for part in found] == [
        (1, pytest.approx(1.65), "Hello."),
        (pytest.approx(1.65), 3, "How are you?"),
        (5, 6, "Fine."),
    ]
    assert [word for part in found for word in part.words] == said
    # A sentence of less than 0.4 s is no utterance of its own.
    short = words(("No.", 1.0, 1.2), ("You", 1.2, 2.0), ("are.", 2.0, 3.0))
    assert [part.text for part in worded_utterances(activity((1, 3)), short, 15)[0]] == ["No. You are."]
    # Speech in which no words were recognised stays.
    assert [part.text for part in worded_utterances(activity((1, 3), (5, 6)), said[:1], 15)[0]] == ["Hello.", ""]
    assert worded_utterances(activity(duration_s=5), [], 15) == ([], 0)


@settings(max_examples=60, deadline=None)
@given(speeches(), st.integers(0, 9), st.floats(1, 20))
def test_no_word_near_speech_is_lost_and_the_laws_of_utterances_hold(speech, seed, max_s):
    random = np.random.default_rng(seed)
    times = np.sort(random.uniform(0, speech.duration_s, 40)).tolist()
    said = [Word(random.choice(["a", "b."]), start, end) for start, end in zip(times[::2], times[1::2], strict=True)]
    found, _ = worded_utterances(speech, said, max_s)
    near = [
        word
        for word in said
        if any(part.start_s - REACH_S <= (word.start_s + word.end_s) / 2 <= part.end_s + REACH_S for part in found)
    ]
    assert [word for part in found for word in part.words] == near
    assert all(MIN_S - 1e-9 <= part.duration_s <= max_s + 1e-9 for part in found)
    assert all(before.end_s <= after.start_s + 1e-9 for before, after in pairwise(found))
    assert all(part.text == joined(part.words) for part in found)


def test_scripts_without_blanks_are_joined_without():
    assert joined(words(("你", 0, 1), ("好", 1, 2), ("Anna", 2, 3), ("Lee", 3, 4))) == "你好 Anna Lee"
