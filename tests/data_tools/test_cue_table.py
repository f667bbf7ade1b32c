"""Words out of tables with times: names of columns, separators, units, and what is refused."""

import math

import pytest

from data_tools.errors import DataError
from data_tools.speech.transcript import Cue, read_transcript

HELLO = [Cue(1.5, 3.0, "Hello, you"), Cue(62.25, 64.0, "Two")]


def cues(folder, name, content, **options):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_transcript(path, **options)


@pytest.mark.parametrize(
    "text",
    [
        'start,end,text\n1.5,3,"Hello, you"\n62.25,64,Two\n',
        'start_s;end_s;text\n1,5;3;"Hello, you"\n62,25;64;Two\n',
        "Start Time\tEnd Time\tTranscript\n00:00:01.5\t00:00:03\tHello, you\n00:01:02,250\t1:04\tTwo\n",
        'Begin (s),Duration (s),Sentence,other\n1.5,1.5,"Hello, you",x\n62.25,1.75,Two,y\n',
        'start_ms,end_ms,text\n1500,3000,"Hello, you"\n62250,64000,Two\n',
        # whisper.cpp's, in milliseconds; ELAN's and Praat's exports.
        'start,end,text\n1500,3000," Hello, you"\n62250,64000," Two"\n',
        "Tier\tBegin Time - ss.msec\tEnd Time - ss.msec\tAnnotation\n\t1.500\t3.000\tHello, you\n\t62.250\t64.0\tTwo\n",
        'tmin,text,tmax\n1.5,"Hello, you",3\n62.25,Two,64\n',
        # Unsorted, with rows that say nothing, and Excel's first line.
        "sep=;\nstart;end;text\n62.25;64;Two\n5;6; \n;;\n1.5;3;Hello, you\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_tables_of_people_and_programs(tmp_path, text, encoding):
    assert cues(tmp_path, "a.csv", text.encode(encoding)) == HELLO
    assert cues(tmp_path, "a.TSV", text.replace("\n", "\r\n").encode(encoding)) == HELLO


def test_speakers_and_rows_without_an_end(tmp_path):
    text = "speaker,start,text\nAnna,1.5,Hello\nBen,2,Hi\n"
    assert cues(tmp_path, "a.csv", text) == [Cue(1.5, math.inf, "Hello", "Anna"), Cue(2.0, math.inf, "Hi", "Ben")]


def test_whole_numbers_are_seconds_where_they_can_be(tmp_path):
    """An utterance of ten seconds, and chapters of five minutes in clock times."""
    assert cues(tmp_path, "a.csv", "start,end,text\n0,10,a\n10,19,b\n")[1] == Cue(10.0, 19.0, "b")
    assert cues(tmp_path, "a.csv", "start,end,text\n0:00,5:00,a\n5:00,10:00,b\n")[1] == Cue(300.0, 600.0, "b")


def test_names_of_words_in_a_table(tmp_path):
    """`text` counts before `word` and `label`: a table of this program's own may have several of them."""
    assert cues(tmp_path, "a.words.csv", "word,start_s,end_s\nHello,0.1,0.5\n") == [Cue(0.1, 0.5, "Hello")]
    text = "start_s,end_s,text,label,predicted,score_hap\n0,1,said,hap,hap,0.7\n"
    assert cues(tmp_path, "film.segments.csv", text) == [Cue(0.0, 1.0, "said")]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (
            "frame,confidence,AU01_r\n1,0.9,0.2\n",
            r"no column of start and none of text among 'frame, confidence, AU01_r'",
        ),
        ("start,end\n1,2\n", "no column of text among"),
        ("start,end,text\n1,2,a\nsoon,3,b\n", r"line 3: start is 'soon'; expected seconds"),
        ("start,end,text\n1,2,a\n-1,3,b\n", "line 3: start is '-1'"),
        ("start,end,text\n1,2,a\n1e400,3,b\n", "line 3: start is '1e400'"),
        ("start,end,text\n1,2,a\n,3,b\n", "line 3: no time in 'start'"),
        ("start,end,text\n1,2,a\n2,3,b,c\n", r"line 3: it has 4 cells, the header 3; mend or delete it \(1 such"),
        ("start,start,text\n1,2,a\n", "two columns called 'start'"),
        ('start,end,text\n1,2,"a\n', "line 2"),
        ("", "no row that can be used|is empty"),
        (b"start,end,text\n1,2,caf\xe9\n", "is not utf-8 text"),
    ],
)
def test_tables_that_are_no_transcripts_are_named(tmp_path, text, match):
    with pytest.raises(DataError, match=match):
        cues(tmp_path, "a.csv", text)
