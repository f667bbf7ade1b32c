"""Words of transcript files: what is said and when, in the forms that people's programs write."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.errors import DataError
from data_tools.speech.transcript import (
    OTHER_SUFFIXES,
    TRANSCRIPT_SUFFIXES,
    Cue,
    OtherFormError,
    looks_like_a_file,
    read_transcript,
    words_of,
)

INF = math.inf
SRT = """1
00:00:01,000 --> 00:00:02,500
Hello <i>there</i>.

2
00:01:03,000 --> 01:00:04,000
<font color="#fff">{\\an8}Two</font>
lines &amp; more
"""
SRT_CUES = [Cue(1.0, 2.5, "Hello there."), Cue(63.0, 3604.0, "Two lines & more")]
VTT = """WEBVTT - a title
Kind: captions
Language: en

STYLE
::cue { color: red }

NOTE written by hand
00 not a time

first
00:01.000 --> 00:02.500 align:start position:0%
<v.loud Anna>Hello <i>there</i>.

NOTE
between

00:01:03.000 --> 01:00:04.000
Two
lines &amp; more
"""


def cues(folder, name, text, **options):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_transcript(path, **options)


def test_srt_and_vtt_give_words_and_times(tmp_path):
    assert cues(tmp_path, "a.srt", SRT) == SRT_CUES
    assert cues(tmp_path, "a.VTT", VTT) == SRT_CUES
    assert words_of(SRT_CUES) == "Hello there. Two lines & more"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\r\r\n"])
@pytest.mark.parametrize("name", ["a.srt", "a.vtt"])
def test_line_ends_and_a_mark_change_nothing(tmp_path, name, end):
    text = {"a.srt": SRT, "a.vtt": VTT}[name].replace("\n", end)
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
        assert cues(tmp_path, name, text.encode(encoding)) == SRT_CUES


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Neither numbers nor blank lines.
        ("00:00:01,000 --> 00:00:02,000\nOne\n00:00:03,000 --> 00:00:04,000\nTwo", [(1, 2, "One"), (3, 4, "Two")]),
        # Numbers, but no blank lines; a number that is said stays.
        ("1\n00:00:01,000 --> 00:00:02,000\nOne\n2\n00:00:03,000 --> 00:00:04,000\n42", [(1, 2, "One"), (3, 4, "42")]),
        ("1\n00:00:01,000 --> 00:00:02,000\nI count to\n10\n\n2\n00:00:03,000 --> 00:00:04,000\nand\n11\n",
         [(1, 2, "I count to 10"), (3, 4, "and 11")]),
        ("00:00:01,000 --> 00:00:02,000\nI count to\n10\n\n00:00:03,000 --> 00:00:04,000\nand\n11\n",
         [(1, 2, "I count to 10"), (3, 4, "and 11")]),
        ("00:00:01,000 --> 00:00:02,000\n10\n00:00:03,000 --> 00:00:04,000\n11", [(1, 2, "10"), (3, 4, "11")]),
        # Minutes alone, no milliseconds, few of them, points and commas, coordinates behind.
        ("01:02.5 --> 01:03,25\nOne\n\n0:02:05 --> 0:02:06 X1:40 X2:600\nTwo\n",
         [(62.5, 63.25, "One"), (125, 126, "Two")]),
        ("1:2 -> 1:3\nOne", [(62, 63, "One")]),
        # Empty cues, blank lines inside one, and more than a blank line between.
        ("1\n00:00:01,000 --> 00:00:02,000\n\n\n2\n00:00:03,000 --> 00:00:04,000\nOne\n\nTwo\n\n\n\n",
         [(3, 4, "One Two")]),
        # Out of order.
        ("00:03.000 --> 00:04.000\nTwo\n\n00:01.000 --> 00:02.000\nOne\n", [(1, 2, "One"), (3, 4, "Two")]),
        # What is no tag stays; times in the words too.
        ("00:01.000 --> 00:02.000\nI <3 you, a < b and 2 > 1 at 00:05:00,000 or 00:06:00,000 &lt;ok&gt;\n",
         [(1, 2, "I <3 you, a < b and 2 > 1 at 00:05:00,000 or 00:06:00,000 <ok>")]),
    ],
)  # fmt: skip
def test_loose_srt(tmp_path, text, expected):
    assert cues(tmp_path, "a.srt", text) == [Cue(*one) for one in expected]
    assert [cue.text for cue in cues(tmp_path, "a.vtt", "WEBVTT\n\n" + text)] == [said for _, _, said in expected]


def test_captions_that_roll_up_say_each_line_once(tmp_path):
    text = """WEBVTT
Kind: captions

00:00:00.000 --> 00:00:02.000 align:start position:0%
 
no<00:00:00.500><c> no</c><00:00:01.000><c> no</c>

00:00:02.000 --> 00:00:02.010 align:start position:0%
no no no
 

00:00:02.010 --> 00:00:04.000 align:start position:0%
no no no
no<00:00:02.500><c> more</c>

00:00:04.000 --> 00:00:04.010 align:start position:0%
no more
 
"""  # noqa: W293
    assert cues(tmp_path, "a.vtt", text) == [Cue(0.0, 2.0, "no no no"), Cue(2.01, 4.0, "no more")]
    plain = "WEBVTT\n\n00:00.000 --> 00:01.000\nNo.\n\n00:01.000 --> 00:02.000\nNo.\n"
    assert words_of(cues(tmp_path, "b.vtt", plain)) == "No. No."


def test_ass_without_comments_drawings_and_layers(tmp_path):
    text = r"""[Script Info]
Title: x

[V4+ Styles]
Format: Name, Fontname
Style: Default,Arial

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
Dialogue: 0,0:00:05.00,0:00:06.50,Default,Ben,0,0,0,,Later\Nhe said, AT&T.
Dialogue: 0,0:00:01.00,0:00:02.00,Default,Anna,0,0,0,,{\an8\i1}Hello{\i0} there
Dialogue: 1,0:00:01.00,0:00:02.00,Default,Anna,0,0,0,,{\an8\blur2}Hello there
Comment: 0,0:00:01.00,0:00:02.00,Default,,0,0,0,,a note
Dialogue: 0,0:00:03.00,0:00:04.00,Default,,0,0,0,,{\p1}m 0 0 l 100 0 100 100{\p0}
"""
    expected = [Cue(1.0, 2.0, "Hello there"), Cue(5.0, 6.5, "Later he said, AT&T.")]
    assert cues(tmp_path, "a.ass", text) == cues(tmp_path, "a.SSA", text) == expected


@pytest.mark.parametrize("name", ["a.srt", "a.vtt", "a.ass", "a.json", "a.txt"])
def test_no_words_are_none(tmp_path, name):
    heads = {"a.vtt": "WEBVTT\n\n", "a.ass": "[Script Info]\nTitle: x\n", "a.json": "[]"}
    assert cues(tmp_path, name, heads.get(name, "")) == []
    if name != "a.json":
        assert cues(tmp_path, name, "") == []


@pytest.mark.parametrize("piece", ["{", "{}", "{\\an8}", "<", "<a", "<1", "&", "00:"])
@pytest.mark.parametrize("name", ["a.ass", "a.vtt", "a.srt"])
def test_time_grows_with_the_file_alone(tmp_path, name, piece):
    head = "Dialogue: 0,0:00:01.00,0:00:02.00,Default,,0,0,0,," if name == "a.ass" else "00:01.000 --> 00:02.000\n"
    cues(tmp_path, name, head + piece * (500_000 // len(piece)))


def test_a_txt_stays_as_it_is(tmp_path):
    text = "\ufeffI <3 you\nand 2 > 1 &amp; {so}\n\n 00:01 --> 00:02 "
    assert cues(tmp_path, "a.txt", text) == [Cue(0.0, INF, "I <3 you and 2 > 1 &amp; {so} 00:01 --> 00:02")]
    assert cues(tmp_path, "b.txt", " \n\n") == []


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        # whisper and WhisperX; whisper.cpp; transformers; YouTube; lists of other programs.
        ({"text": "a b", "segments": [{"start": 1.5, "end": 2, "text": " a "}, {"start": 3, "end": 4, "text": "b"}]},
         [(1.5, 2, "a"), (3, 4, "b")]),
        ({"transcription": [{"timestamps": {}, "offsets": {"from": 1500, "to": 2000}, "text": " a"}]}, [(1.5, 2, "a")]),
        ({"text": "a b", "chunks": [{"timestamp": [1.5, 2], "text": "a"}, {"timestamp": [2, None], "text": "b"}]},
         [(1.5, 2, "a"), (2, INF, "b")]),
        ({"events": [{"tStartMs": 1500, "dDurationMs": 500, "segs": [{"utf8": "a "}, {"utf8": "b"}]}, {"tStartMs": 1}]},
         [(1.5, 2, "a b")]),
        ([{"text": "a", "start": 1.5, "duration": 0.5}, {"text": "", "start": 3, "duration": 1}], [(1.5, 2, "a")]),
        ([{"sentence": "a", "start_time": "00:01,5", "end_time": "2.0"}], [(1.5, 2, "a")]),
        ({"text": "no times"}, [(0, INF, "no times")]),
        ({"text": "of", "segments": []}, [(0, INF, "of")]),
        ([{"text": "no"}, {"text": "no"}], [(0, INF, "no")] * 2),
        ({"segments": []}, []),
        ([], []),
        ([{"text": "a", "start": None, "end": 10**400}], [(0, INF, "a")]),
    ],
)  # fmt: skip
def test_json_of_recognisers(tmp_path, value, expected):
    assert cues(tmp_path, "a.json", json.dumps(value)) == [Cue(*one) for one in expected]


@pytest.mark.parametrize("value", [{}, {"fps": 25}, [1, 2], "text", 5, None, [[]], {"segments": [1]}])
def test_json_of_another_form_is_no_transcript(tmp_path, value):
    with pytest.raises(OtherFormError, match="JSON of another form; expected"):
        cues(tmp_path, "a.json", json.dumps(value))


def test_what_cannot_be_read_is_named(tmp_path):
    for name in ("a.docx", "a", "a.xlsx"):
        with pytest.raises(DataError, match=r"is no transcript that is read; expected one of \.srt, \.vtt"):
            cues(tmp_path, name, "words")
    with pytest.raises(DataError, match=r"gone\.srt cannot be read: No such file"):
        read_transcript(tmp_path / "gone.srt")
    with pytest.raises(DataError, match=r"a\.txt is not utf-8 text \(line 2, byte b'\\xe9'\).*reader=\{encoding:"):
        cues(tmp_path, "a.txt", "\ncafé".encode("latin-1"))
    with pytest.raises(DataError, match="save it anew"):
        cues(tmp_path, "a.txt", b"\xe9", remedy="save it anew")
    with pytest.raises(DataError, match="holds NUL bytes"):
        cues(tmp_path, "a.srt", SRT.encode("utf-16-le"))
    with pytest.raises(DataError, match="no line of times"):
        cues(tmp_path, "a.srt", "just words")
    with pytest.raises(DataError, match="not JSON"):
        cues(tmp_path, "a.json", "[" * 100_000)


def test_a_named_encoding_holds_where_there_is_no_mark(tmp_path):
    assert (
        words_of(cues(tmp_path, "a.srt", SRT.replace("Two", "你好").encode("gbk"), encoding="gbk")).count("你好") == 1
    )
    assert words_of(cues(tmp_path, "a.txt", "你好".encode("utf-16"), encoding="gbk")) == "你好"
    with pytest.raises(DataError, match="known are e.g. utf-8"):
        cues(tmp_path, "a.txt", "x", encoding="utf-99")


@pytest.mark.parametrize(
    "value",
    ["talk.vtt", "TALK.JSON", "a b.srt", "./talk", "C:\\talk", "words/day1", "notes.docx", "x.TextGrid", "../x.eaf"],
)
def test_values_that_look_like_files(value):
    assert looks_like_a_file(value)


@pytest.mark.parametrize(
    "value", ["I am so glad you came.", "glad", "yes / no", "...", "It costs 3.50", "he/she said so", "", "Wait.what"]
)
def test_values_that_are_words(value):
    assert not looks_like_a_file(value)


def test_the_endings_are_written_small():
    assert all(suffix == suffix.lower() for suffix in (*TRANSCRIPT_SUFFIXES, *OTHER_SUFFIXES))


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)
PIECES = st.sampled_from(
    ["00:01 --> 00:02", "\n", "1", "WEBVTT", "NOTE", "<i>", "{\\an8}", "Dialogue: 0,", "&amp;", "{"]
)


@settings(max_examples=150, deadline=None)
@given(suffix=st.sampled_from(TRANSCRIPT_SUFFIXES), parts=st.lists(TEXTS | PIECES, max_size=12))
def test_any_text_ends_in_cues_or_one_sentence(tmp_path_factory, suffix, parts):
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    path.write_bytes("".join(parts).encode())
    try:
        found = read_transcript(path)
    except DataError:
        return
    assert all(cue.text and "\n" not in cue.text and cue.start_s >= 0 for cue in found)
