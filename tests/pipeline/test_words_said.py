"""`predict --transcript`: words are words, and what looks like a file is one or an error."""

import pytest

from pipeline.predict import words_said
from pipeline.settings import ConfigError


def test_words_are_taken_as_they_are():
    for words in ("I <3 you and 2 > 1", "yes", "he / she", "It was 3.50. Really?", "x" * 5000):
        assert words_said(words) == words


@pytest.mark.parametrize(
    "name", ["talk.vtt", "TALK.SRT", "two words.txt", "talk.json", "talk.docx", "words/talk", "a.eaf"]
)
def test_a_file_that_is_not_there_is_never_the_words(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"there is no transcript .*give one of \.srt, \.vtt"):
        words_said(name)


def test_a_file_gives_its_words_or_an_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Talk.VTT").write_text("WEBVTT\n\n00:01.000 --> 00:02.000\n<v Anna>How &amp; why?\n", encoding="utf-8")
    assert words_said("Talk.VTT") == words_said(str(tmp_path / "Talk.VTT")) == "How & why?"
    (tmp_path / "talk.docx").write_bytes(b"PK")
    (tmp_path / "words").write_text("no ending", encoding="utf-8")
    for name in ("talk.docx", "words"):
        with pytest.raises(ConfigError, match=f"{name} is no transcript that is read; expected one of"):
            words_said(name)
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1"))
    with pytest.raises(ConfigError, match="not utf-8 text.*save it as UTF-8$"):
        words_said("latin.txt")
