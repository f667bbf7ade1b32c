"""The benchmark of recognised words: what is counted, on turns and words made by hand."""

import pytest

from benchmarks.words import as_markdown, plain, read_stm, share_near
from data_tools.errors import DataError


def test_each_segment_finds_one_turn():
    assert share_near([1.0, 2.0, 3.0, 9.0], [1.4, 2.6, 3.2]) == 0.5
    assert share_near([1.0, 1.2], [1.1]) == 0.5
    assert share_near([1.0], []) == 0


def test_words_are_compared_without_marks():
    assert plain("Okay, Mr. Lee: ill-disposed?") == plain("ok mister lee ill disposed")
    assert plain("I’m") == plain("i'm") == "i'm"


def test_turns_are_read_as_they_stand(tmp_path):
    path = tmp_path / "a.stm"
    path.write_text("a 1 Ann 0.5 1.25 Well, so it is.\na 1 Ben 1.5 2 Oh.\n", encoding="utf-8")
    assert read_stm(path) == [(0.5, 1.25, "Well, so it is."), (1.5, 2.0, "Oh.")]
    path.write_text("SPEAKER a 1 0.5 1.25\n", encoding="utf-8")
    with pytest.raises(DataError, match="no line of file, channel, speaker"):
        read_stm(path)


def test_the_page_has_every_figure():
    about = {"device": "here", "model": "tiny.en", "versions": {"python": "3"}, "date": "2026-01-01"}
    error = {"work": "words of a talk", "words": 40, "substitutions": 1, "deletions": 2, "insertions": 3}
    turns = {"work": "turns by words", "turns": 4, "segments": 5, "begins_found": 0.75, "ends_found": 0.5}
    page = as_markdown([row | about for row in (error | {"word_error_rate": 0.15}, turns)])
    for part in ("| a talk | 40 | 1 | 2 | 3 | 15.0% |", "| words | 4 | 5 | 75% | 50% |"):
        assert part in page
