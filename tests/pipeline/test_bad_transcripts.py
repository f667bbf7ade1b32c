"""Subtitles as people have them, given to `predict` as a whole, and work that is stopped or has nowhere to go."""

import os
import re
import sys

import numpy as np
import pytest

from data_tools.errors import DataError
from data_tools.media.audio import write_wav
from pipeline.predict import predict
from pipeline.progress import Reporter

QUIET = Reporter(quiet=True)
# Unsorted and overlapping, with styles and entities, one beyond the end and one of another film.
SRT = """3
00:00:02,500 --> 00:00:03,500
<font color="#ff0000">{\\an8}<i>Third</i></font>

1
00:00:00,500 --> 00:00:01,500
<b>First</b> &amp; foremost

2
00:00:01,000 --> 00:00:02,000
Se<u>cond</u>

4
00:00:03,600 --> 00:01:00,000
beyond the end

5
00:10:00,000 --> 00:10:02,000
of another film
"""
EXPECTED = [
    (0.5, 1.5, "First & foremost"),
    (1.0, 2.0, "Second"),
    (2.5, 3.5, "Third"),
    (3.6, 4.0, "beyond the end"),
]


@pytest.fixture
def talks(tmp_path):
    """Four seconds of noise, in three files."""
    noise = np.random.default_rng(0)
    paths = [tmp_path / f"{name}.wav" for name in "abc"]
    for path in paths:
        write_wav(path, noise.normal(0, 0.1, 64_000).astype(np.float32), 16_000)
    return paths


def as_vtt(text):
    return "WEBVTT\n\n" + text.replace(",", ".")


def as_csv(text):
    rows = [block.split("\n") for block in text.strip().split("\n\n")]
    lines = [f"{times.replace(',', '.').replace(' --> ', ';')};{said}" for _, times, said in rows]
    plain = re.sub(r"<[^>]*>|\{[^}]*\}", "", "\n".join(lines))  # a table has no styles
    return "start;end;text\n" + plain.replace("&amp;", "&")


@pytest.mark.parametrize(
    ("ending", "form", "encoding"),
    [("srt", str, "utf-16"), ("srt", str, "utf-8-sig"), ("vtt", as_vtt, "utf-16-be-mark"), ("csv", as_csv, "utf-16")],
)
def test_subtitles_as_people_have_them(run, talks, tmp_path, ending, form, encoding):
    text = form(SRT)
    content = b"\xfe\xff" + text.encode("utf-16-be") if encoding.endswith("mark") else text.encode(encoding)
    path = tmp_path / f"words.{ending}"
    path.write_bytes(content)
    (entry,) = predict(run, talks[:1], str(path), "cpu", QUIET)["files"]
    assert entry["error"] is None
    assert [(part["start_s"], part["end_s"], part["text"]) for part in entry["segments"]] == EXPECTED
    assert "1 of 5 cues lie outside of the film or have no length" in entry["absent"]


def test_an_interrupted_command_goes_on_where_it_was(run, talks, tmp_path, monkeypatch):
    """Stopped in the second of three films: the first one is not scored again, and the answer is that of one go."""
    module = sys.modules["pipeline.predict"]
    real, scored = module.predict_file, []

    def stops(path, *given):
        scored.append(path.name)
        if path.name == "b.wav" and len(scored) == 2:
            raise KeyboardInterrupt
        return real(path, *given)

    expected = predict(run, talks, None, "cpu", QUIET, out=tmp_path / "in one go")
    monkeypatch.setattr(module, "predict_file", stops)
    with pytest.raises(KeyboardInterrupt):
        predict(run, talks, None, "cpu", QUIET, out=tmp_path / "out")
    result = predict(run, talks, None, "cpu", QUIET, out=tmp_path / "out")
    assert scored == ["a.wav", "b.wav", "b.wav", "c.wav"]
    for one, other in zip(result["files"], expected["files"], strict=True):
        assert {**one, "written": []} == {**other, "written": []}
    made = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    whole = {path.name: path.read_bytes() for path in (tmp_path / "in one go").iterdir()}
    assert made.keys() == whole.keys()
    assert all(made[name] == whole[name] for name in made if not name.endswith(".eaf"))
    differing = [name for name in made if made[name] != whole[name]]
    # Only the place of the film, relative to the folder, may differ.
    assert all(made[name] == whole[name].replace(b"in one go", b"out") for name in differing)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the owner of everything may write anywhere"
)
def test_a_folder_that_takes_nothing_is_said_before_the_work(run, talks, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out").chmod(0o500)
    monkeypatch.setattr(sys.modules["pipeline.predict"], "predict_file", lambda *given: pytest.fail("work was done"))
    with pytest.raises(DataError, match="cannot write to .*out: Permission denied; check permissions"):
        predict(run, talks, None, "cpu", QUIET, out=tmp_path / "out")


def test_a_place_in_which_nothing_can_be_is_said_before_the_work(run, talks, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    monkeypatch.setattr(sys.modules["pipeline.predict"], "predict_file", lambda *given: pytest.fail("work was done"))
    with pytest.raises(DataError, match="cannot write to"):
        predict(run, talks, None, "cpu", QUIET, out=tmp_path / "file" / "out")
    with pytest.raises(DataError, match="cannot write to"):
        predict(run, talks, None, "cpu", QUIET, out=tmp_path / "file")
