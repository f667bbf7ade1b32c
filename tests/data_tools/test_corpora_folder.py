"""One's own videos: what each column means, what is refused, and that no row gets lost. The videos here are empty."""

import csv
import json
import os
import re
import unicodedata
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.corpora.readers import read_release
from data_tools.errors import DataError
from data_tools.manifest import read_rejects, write_rejects
from data_tools.records import Reject

INF = float("inf")


def videos(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def write_csv(root, rows, name="labels.csv"):
    with (root / name).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def read(root, rows=None, emotions=(), **options):
    if rows is not None:
        write_csv(root, rows)
    return read_release("folder", root, emotions, options)


def reasons(release):
    return [(reject.utterance_id, reject.reason) for reject in release.rejects]


def test_every_column(tmp_path):
    videos(tmp_path, "day 1/anna.mp4", "day 1/anna.wav", "ben.mov")
    header = ["ID", "Video", "start", "end", "text", "label", "sentiment", "speaker", "session", "dialogue", "split",
              "audio", "rater"]  # fmt: skip
    rows = [
        header,
        ["", "day 1/anna.mp4", "0.5", "1:02.25", " Hello, you. ", "Happy", "-1.5", "Anna", "1", "talk", "TRAIN",
         "day 1/anna.wav", "x"],
        ["007", "ben", "01:00:00,500", "3601,5", "", "sad; happy | sad", "", "", "", "", "val", "", ""],
        ["", "day 1\\anna", "", "", "=1+1", "Sad", "2", "Anna", "1", "talk", "", "", ""],
    ]  # fmt: skip
    release = read(tmp_path, rows)
    assert release.rejects == []
    assert release.emotions == ("happy", "sad")
    one, two, three = release.utterances
    assert (one.utterance_id, one.dialogue_id, one.speaker, one.session, one.fold) == (
        "day 1__anna_1", "talk", "Anna", "1", "train",
    )  # fmt: skip
    assert (one.start_s, one.end_s, one.text, one.labels, one.sentiment) == (
        0.5, 62.25, "Hello, you.", {"happy": 1.0, "sad": 0.0}, -1.5,
    )  # fmt: skip
    assert (one.source_video, one.source_audio) == ("day 1/anna.mp4", "day 1/anna.wav")
    assert (two.utterance_id, two.dialogue_id, two.speaker, two.fold) == ("007", "ben", "ben", "valid")
    assert (two.start_s, two.end_s, two.labels, two.sentiment) == (3600.5, 3601.5, {"happy": 1.0, "sad": 1.0}, None)
    assert (two.source_video, two.source_audio) == ("ben.mov", "ben.mov")
    assert (three.utterance_id, three.start_s, three.end_s, three.text) == ("day 1__anna_2", 0.0, INF, "=1+1")
    assert three.labels == {"happy": 0.0, "sad": 1.0}
    assert release.notes == [
        "columns that are not used: 'rater'",
        "the table states a split: --split release keeps it",
    ]


def test_the_manifest_s_own_column_names_are_known(tmp_path):
    videos(tmp_path, "a.mp4")
    header = ["utterance_id", "dialogue_id", "source_video", "start_s", "end_s", "transcript", "emotion"]
    (utterance,) = read(tmp_path, [header, ["u", "d", "a.mp4", "0", "1", "hi", "joy"]]).utterances
    assert (utterance.utterance_id, utterance.dialogue_id, utterance.text) == ("u", "d", "hi")


def test_a_column_for_each_emotion(tmp_path):
    videos(tmp_path, "a.mp4")
    rows = [["video", "label_Joy", "label_anger", "joyful"], ["a", "1", "", "x"], ["a", "", "", "x"],
            ["a", "0,25", "0", ""], ["a", "0", "true", ""], ["a", "1.5", "0", ""], ["a", "yes", "0", ""]]  # fmt: skip
    release = read(tmp_path, rows)
    assert release.emotions == ("joy", "anger")  # as the columns stand
    assert [u.labels for u in release.utterances] == [
        {"joy": 1.0, "anger": 0.0}, {"joy": 0.25, "anger": 0.0}, {"joy": 0.0, "anger": 1.0},
    ]  # fmt: skip
    assert reasons(release) == [("a_2", "unlabelled"), ("a_5", "labels:unreadable"), ("a_6", "labels:unreadable")]
    assert release.rejects[1].detail == "line 6: the label 'joy' is '1.5'; expected a number from 0 to 1"
    # Columns without the prefix only when they are asked for: they might be anything.
    rows = [["video", "happy", "sad", "confidence"], ["a", "1", "0", "0.5"], ["a", "0", "0", "0.5"]]
    with pytest.raises(DataError, match="nothing to learn. Its columns: 'video', 'happy', 'sad', 'confidence'. Needed"):
        read(tmp_path, rows)
    release = read(tmp_path, rows, emotions=["sad", "Happy"])
    assert [u.labels for u in release.utterances] == [{"sad": 0.0, "Happy": 1.0}, {"sad": 0.0, "Happy": 0.0}]
    assert "columns that are not used: 'confidence'" in release.notes


def test_chosen_emotions_leave_the_other_labels_out(tmp_path):
    videos(tmp_path, "a.mp4")
    rows = [["video", "label"], ["a", "Sad"], ["a", "bored"], ["a", "bored;happy"], ["a", " ; "]]
    release = read(tmp_path, rows, emotions=["happy", "sad"])
    assert [list(u.labels.items()) for u in release.utterances] == [
        [("happy", 0.0), ("sad", 1.0)], [("happy", 1.0), ("sad", 0.0)],
    ]  # fmt: skip
    assert reasons(release) == [("a_2", "label:bored"), ("a_4", "unlabelled")]
    with pytest.raises(DataError, match=r"unknown: hapy; it has bored, happy, sad"):
        read(tmp_path, emotions=["hapy"])


def test_sentiment_alone(tmp_path):
    videos(tmp_path, "a.mp4")
    rows = [["video", "sentiment"], ["a", "-0,5"], ["a", ""], ["a", "good"], ["a", "1e9"], ["a", "nan"]]
    release = read(tmp_path, rows)
    assert release.emotions == ()
    assert [(u.labels, u.sentiment) for u in release.utterances] == [({}, -0.5)]
    assert [reason for _, reason in reasons(release)] == ["unlabelled"] + ["labels:unreadable"] * 3


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        ("0", "1", (0.0, 1.0)),
        ("1.5", "2.", (1.5, 2.0)),
        ("0:05", "75:30.5", (5.0, 4530.5)),
        ("0:00:01.250", "0:00:01,750", (1.25, 1.75)),
        ("1e0", "2E0", (1.0, 2.0)),
        ("", "", (0.0, INF)),
        ("", "1", None),
        ("1", "", None),
        ("2", "1", None),
        ("1", "1", None),
        ("-1", "1", None),
        ("0", "inf", None),
        ("0", "1e999", None),
        ("nan", "nan", None),
        ("0", "1:60", None),
        ("0", "1:60:00", None),
        ("0", "00:00:01:12", None),
        ("0", "1_0", None),
        ("0", "١", None),
        ("0", "1,000.5", None),
        ("0", "0x10", None),
    ],
)
def test_times(tmp_path, start, end, expected):
    videos(tmp_path, "a.mp4")
    release = read(tmp_path, [["video", "start", "end", "label"], ["a", start, end, "x"]])
    if expected:
        assert [(u.start_s, u.end_s) for u in release.utterances] == [expected]
    else:
        assert reasons(release) == [("a_1", "interval:invalid")]
        assert release.rejects[0].detail.startswith(f"line 2: {start!r} to {end!r} is not an interval")


@pytest.mark.parametrize(
    "cell",
    ["/etc/passwd", "../films/a.mp4", "x/../../a.mp4", "x\\..\\..\\a.mp4", "..", "C:\\films\\a.mp4", "c:a.mp4",
     "\\\\server\\share\\a.mp4", "//server/share/a.mp4", "http://example.org/a.mp4", "file:///etc/passwd",
     "file:a.mp4", "concat:a.mp4|b.mp4", "rtmp://h/x", "data:text/plain,x", "pipe:0", "subfile,,start,0:a.mp4"],
)  # fmt: skip
def test_no_row_names_anything_but_a_file_of_the_folder(tmp_path, cell):
    videos(tmp_path, "films/b.mp4", "a.mp4")
    for column in ("video", "audio"):
        row = {"video": "b.mp4", "label": "x", "audio": ""} | {column: cell}
        release = read(tmp_path / "films", [list(row), list(row.values())])
        assert release.utterances == []
        ((_, reason),) = reasons(release)
        assert reason == ("path:outside" if "subfile" not in cell else f"no_{column}")
        assert release.rejects[0].detail.startswith("line 2: ")
        assert release.rejects[0].source == "labels.csv"


@pytest.mark.parametrize(
    "name",
    ["-rf.mp4", "a b.mp4", "it's.mp4", 'say "hi".mp4', "Zoë 视频.mp4", "$(x);&.mp4", "10:30.mp4", "a,b.mp4", "x"],
)
def test_odd_names_of_files_are_fine(tmp_path, name):
    videos(tmp_path, name)
    (utterance,) = read(tmp_path, [["video", "label"], [name, "x"]]).utterances
    assert utterance.source_video == name
    assert utterance.utterance_id == name.removesuffix(".mp4") + "_1"


def test_a_name_that_cannot_be_shown_is_a_reject_with_its_line(tmp_path):
    videos(tmp_path, "a\nb.mp4", ".hidden.mp4")
    release = read(tmp_path, [["video", "label"], ["a\nb.mp4", "x"], [".hidden.mp4", "x"]])
    assert [reason for _, reason in reasons(release)] == ["id:unsafe"] * 2
    assert [reject.detail.split(": ")[0] for reject in release.rejects] == ["line 2", "line 4"]


def test_names_without_a_suffix_and_of_another_unicode_form(tmp_path):
    videos(tmp_path, "one.mp4", "two.mp4", "two.avi", "notes.txt", unicodedata.normalize("NFD", "Zoë.mp4"), "v1.2.mkv")
    cells = ["one", "two", "two.avi", "notes", "gone.mp4", unicodedata.normalize("NFC", "Zoë"), "v1.2", ""]
    release = read(tmp_path, [["video", "label"], *([cell, "x"] for cell in cells)])
    assert [u.source_video for u in release.utterances] == [
        "one.mp4", "two.avi", unicodedata.normalize("NFD", "Zoë.mp4"), "v1.2.mkv",
    ]  # fmt: skip
    assert [(reject.detail.split(": ")[0], reject.reason) for reject in release.rejects] == [
        ("line 3", "video:ambiguous"), ("line 5", "no_video"), ("line 6", "no_video"), ("line 9", "no_video"),
    ]  # fmt: skip
    assert "two.avi, two.mp4: write the whole name" in release.rejects[0].detail


def test_videos_of_one_name_do_not_collide(tmp_path):
    names = ["a/x.mp4", "b/x.mp4", "a__x.mp4", "a__x.mov"]
    videos(tmp_path, *names)
    rows = [["video", "label"], *([name, "y"] for name in names), ["a/x", "y"]]
    ids = [u.utterance_id for u in read(tmp_path, rows).utterances]
    assert len(set(ids)) == 5
    assert ids[1] == "b__x_1"
    assert re.fullmatch("a__x_[0-9a-f]{8}_1", ids[0])
    assert ids[4] == ids[0].removesuffix("1") + "2"
    assert len({u.dialogue_id for u in read(tmp_path).utterances}) == 4
    # The order of the rows gives the videos no other names.
    assert set(ids) == {u.utterance_id for u in read(tmp_path, [rows[0], *reversed(rows[1:])]).utterances}


def test_ids_stay_text_and_are_unique(tmp_path):
    videos(tmp_path, "a.mp4")
    given_ids = ["007", "7", "1e5", "NA", "nan", "True", "2024-01-02", "7", "../up", "a/b", "x" * 300]
    release = read(tmp_path, [["video", "label", "id"], *(["a", "x", name] for name in given_ids)])
    assert [u.utterance_id for u in release.utterances] == given_ids[:7]
    assert [reason for _, reason in reasons(release)] == ["duplicate"] + ["id:unsafe"] * 3
    assert release.rejects[0].detail == "line 9: the id '7' is there already"


@pytest.mark.parametrize(
    ("header", "match"),
    [
        (["label"], "has no column video. Its columns: 'label'. Needed: video; start and end, or neither"),
        (["video", "start", "label"], "only one of the columns start and end"),
        (["video", "text"], "nothing to learn"),
        (["video", "label", "label_happy"], "both a column 'label' and columns for each emotion"),
        (["video", "Video", "label"], "'video' and 'Video' are the same"),
        (["video", "file", "label"], "'video', 'file' both mean video"),
        (["video", "label_"], "names no emotion"),
        (["video", "label_" + "x" * 65], "names no emotion"),
    ],
)
def test_a_table_that_cannot_be_used_says_what_is_there_and_what_is_needed(tmp_path, header, match):
    with pytest.raises(DataError, match=match):
        read(tmp_path, [header, ["1"] * len(header)])


def test_a_column_of_sentences_is_not_taken_for_labels(tmp_path):
    videos(tmp_path, "a.mp4")
    rows = [["video", "label"], *(["a", f"sentence {i}"] for i in range(101))]
    with pytest.raises(DataError, match="name 101 labels, e.g. 'sentence 0'.*at most 100"):
        read(tmp_path, rows)
    release = read(tmp_path, [["video", "label"], ["a", "x" * 65], ["a", "a\x1bb"], ["a", "fine"]])
    assert release.emotions == ("fine",)
    assert reasons(release) == [("a_1", "labels:unreadable"), ("a_2", "labels:unreadable")]


def test_which_table(tmp_path):
    videos(tmp_path, "a.mp4")
    (tmp_path / "labels.xlsx").touch()
    with pytest.raises(DataError, match=r"labels.xlsx is a spreadsheet; save it as CSV"):
        read(tmp_path)
    assert len(read(tmp_path, [["video", "label"], ["a", "x"]]).utterances) == 1
    (tmp_path / "more.json").write_text(json.dumps([{"video": "a", "label": "y"}] * 2))
    with pytest.raises(DataError, match="several tables lie in .*: labels.csv, more.json; name one"):
        read(tmp_path)
    assert read(tmp_path, table="more.json").emotions == ("y",)
    assert read_release("folder", tmp_path / "more.json", []).emotions == ("y",)
    with pytest.raises(DataError, match=r"reader.table is 5; expected a text"):
        read(tmp_path, table=5)
    with pytest.raises(DataError, match="no folder .*gone"):
        read(tmp_path / "gone")
    (tmp_path / "elsewhere").mkdir()
    videos(tmp_path / "elsewhere", "b.mp4")
    elsewhere = read_release("folder", tmp_path / "elsewhere", [], {"table": str(tmp_path / "labels.csv")})
    assert reasons(elsewhere) == [("a_1", "no_video")]


def test_latin_1_when_it_is_named(tmp_path):
    videos(tmp_path, "é.mp4")
    (tmp_path / "t.csv").write_bytes("video;label\r\né;gêné\r\n".encode("latin-1"))
    with pytest.raises(DataError, match="not utf-8 text"):
        read(tmp_path)
    assert read(tmp_path, encoding="latin-1").emotions == ("gêné",)


def test_one_file_a_clip(tmp_path):
    videos(tmp_path, "Happy/one.mp4", "Happy/two.MOV", "Happy/two.wav", "sad/one.mp4", "lost.mp4", "sad/.hidden.mp4",
           "sad/._one.mp4", "sad/notes.txt", ".cache/x.mp4", "sad/bad.mp4", "sad/big.mp4")  # fmt: skip
    (tmp_path / "Happy/one.txt").write_text("\ufeffHow\nnice.\n")
    (tmp_path / "sad/one.srt").write_text(
        "1\r\n00:00:00,000 --> 00:00:01,000\r\n<i>Oh</i> no.\r\n\r\n2\r\n00:00:01,500 --> 00:00:02,000\r\n-Yes.\r\n"
    )
    (tmp_path / "sad/bad.txt").write_bytes(b"\xff\xfe\xff")
    (tmp_path / "sad/big.txt").write_text("x" * 200_000)
    release = read(tmp_path)
    assert release.emotions == ("happy", "sad")
    assert [(u.utterance_id, u.dialogue_id, u.text, u.source_audio) for u in release.utterances] == [
        ("Happy__one", "Happy__one", "How nice.", "Happy/one.mp4"),
        ("Happy__two", "Happy__two", "", "Happy/two.wav"),
        ("sad__one", "sad__one", "Oh no. -Yes.", "sad/one.mp4"),
    ]
    assert [u.labels["sad"] for u in release.utterances] == [0.0, 0.0, 1.0]
    assert {(u.start_s, u.end_s, u.sentiment, u.fold) for u in release.utterances} == {(0.0, INF, None, "")}
    assert sorted(reasons(release)) == [
        ("lost", "unlabelled"), ("sad__bad", "transcript:unreadable"), ("sad__big", "transcript:unreadable"),
    ]  # fmt: skip
    chosen = read(tmp_path, emotions=["sad"])
    assert Counter(reason for _, reason in reasons(chosen))["label:happy"] == 2
    with pytest.raises(DataError, match="unknown: joy; it has happy, sad"):
        read(tmp_path, emotions=["joy"])


def test_words_and_sound_beside_a_clip_in_any_case(tmp_path):
    names = (
        "MVI_01.MP4",
        "MVI_01.WAV",
        "b.mp4",
        "c.Mov",
        "d.mp4",
        "e.mkv",
        "f.mp4",
        "g.mp4",
        "g.en.mp4",
        "h.mp4",
        "H.mp4",
    )
    videos(tmp_path, *(f"joy/{name}" for name in (*names, "i.mp4")))
    vtt = "WEBVTT\n\n00:01.000 --> 00:02.000\nwords of {}\n"
    texts = {
        "MVI_01.TXT": "words of MVI_01",
        "B.SRT": "00:00:01 --> 00:00:02\nwords of b\n",
        "c.vtt": vtt.format("c"),
        "d.en.srt": "00:00:01 --> 00:00:02\nwords of d\n",
        "D.EN.VTT": "not needed, the .srt comes first",
        "e.pt-BR.vtt": vtt.format("e"),
        "e.json": '{"fps": 25}',
        "f.json": '{"text": "words of f"}',
        "g.en.srt": "00:00:01 --> 00:00:02\nwords of g.en\n",
        "h.txt": "words of h",
        "i.de.srt": "00:00:01 --> 00:00:02\nWorte\n",
        "i.en.srt": "00:00:01 --> 00:00:02\nwords of i\n",
    }
    for name, text in texts.items():
        (tmp_path / "joy" / name).write_text(text, encoding="utf-8")
    release = read(tmp_path)
    found = {Path(u.source_video).stem: u.text for u in release.utterances}
    assert found == {name: f"words of {name}" for name in ("MVI_01", "b", "c", "d", "e", "f", "g.en", "h")} | {
        "g": "",
        "H": "",
    }
    assert next(u.source_audio for u in release.utterances if "MVI" in u.source_video) == "joy/MVI_01.WAV"
    ((name, reason),) = reasons(release)
    assert (name, reason) == ("joy__i", "transcript:ambiguous")
    assert "i.de.srt, i.en.srt: keep one" in release.rejects[0].detail
    (note,) = (note for note in release.notes if ".json" in note)
    assert note.startswith("1 .json, .TextGrid or .eaf files beside clips hold no words")


def test_encodings_of_words_beside_clips(tmp_path):
    videos(tmp_path, "joy/a.mp4", "joy/b.mp4")
    (tmp_path / "joy/a.txt").write_bytes("你好".encode("utf-16"))
    (tmp_path / "joy/b.txt").write_bytes("早上好".encode("gbk"))
    release = read(tmp_path)
    assert [u.text for u in release.utterances] == ["你好"]
    assert reasons(release) == [("joy__b", "transcript:unreadable")]
    assert "b.txt is not utf-8 text" in release.rejects[0].detail
    assert "reader={encoding:" in release.rejects[0].detail
    assert str(tmp_path) not in release.rejects[0].detail
    assert [u.text for u in read(tmp_path, encoding="gbk").utterances] == ["你好", "早上好"]


def test_usual_other_names_of_columns(tmp_path):
    videos(tmp_path, "a.mp4", "b.mp4")
    for header in (["filename", "start_time", "end_time", "Utterance", "Emotion"],
                   ["path", "Start Time", "End-Time", "sentence", "labels"]):  # fmt: skip
        release = read(tmp_path, [header, ["a.mp4", "0", "1.5", "hi", "joy"]])
        (one,) = release.utterances
        assert (one.source_video, one.start_s, one.end_s, one.text, one.labels) == (
            "a.mp4",
            0.0,
            1.5,
            "hi",
            {"joy": 1.0},
        )
        assert f"columns that are read under another name: {header[0]!r} as video" in ";".join(release.notes)
    # The names of the page hold where both are there.
    (one,) = read(tmp_path, [["video", "path", "label"], ["b", "a.mp4", "joy"]]).utterances
    assert one.source_video == "b.mp4"


def test_tables_that_were_glued_make_no_class_of_a_header(tmp_path):
    videos(tmp_path, "a.mp4", "b.mp4")
    rows = [["video", "label", "text"], ["a", "joy", "one"], ["Video ", "label", "text"], ["b", "sad", "two"],
            ["text", "video", "label"], ["three", "a", "joy"]]  # fmt: skip
    release = read(tmp_path, rows)
    assert release.emotions == ("joy", "sad")
    assert [(u.source_video, u.text, u.labels["sad"]) for u in release.utterances] == [
        ("a.mp4", "one", 0.0), ("b.mp4", "two", 1.0), ("a.mp4", "three", 0.0),
    ]  # fmt: skip
    assert reasons(release) == [(None, "row:unreadable")] * 2
    assert [r.detail for r in release.rejects] == [f"line {line}: it repeats the header" for line in (3, 5)]


def test_classes_are_those_of_rows_that_are_kept(tmp_path):
    videos(tmp_path, "a.mp4")
    rows = [["video", "label", "split", "id"], ["a", "joy", "", "1"], ["gone", "fear", "", "2"],
            ["a", "bored", "odd", "3"], ["a", "rage", "", "1"], ["a", "joy; calm", "", "4"],
            ["a", "odd", "", "../x"]]  # fmt: skip
    release = read(tmp_path, rows)
    assert release.emotions == ("calm", "joy")
    assert [u.labels for u in release.utterances] == [{"calm": 0.0, "joy": 1.0}, {"calm": 1.0, "joy": 1.0}]
    assert [reason for _, reason in reasons(release)] == ["no_video", "fold:unknown", "duplicate", "id:unsafe"]


def test_labels_between_commas_are_as_many_labels(tmp_path):
    videos(tmp_path, "a.mp4")
    release = read(tmp_path, [["video", "label"], ["a", "Happy, surprised"], ["a", "happy"], ["a", "sad,"]])
    assert release.emotions == ("happy", "sad", "surprised")
    assert [u.labels["surprised"] for u in release.utterances] == [1.0, 0.0, 0.0]
    assert any(note.startswith("1 cells name several labels between commas") for note in release.notes)


def test_a_name_of_another_case(tmp_path):
    videos(tmp_path, "Day 1/a.mp4", "b.MP4", "C.mov")
    rows = [
        ["video", "label"],
        ["day 1/A.MP4", "x"],
        ["B.MP4", "x"],
        ["b.mp4", "x"],
        ["c", "x"],
        ["C.MOV", "x"],
        ["d", "x"],
    ]
    release = read(tmp_path, rows)
    assert [u.source_video for u in release.utterances] == ["b.MP4", "C.mov"]
    hints = [r.detail.rpartition("; ")[2] for r in release.rejects]
    assert hints == [
        *(f"only the case of letters differs from {name!r}: write it so" for name in ("Day 1/a.mp4", "b.MP4", "C.mov")),
        "line 7: there is no file 'd' below the folder",
    ]


def test_clips_that_are_split_already(tmp_path):
    videos(tmp_path, "train/joy/a.mp4", "val/joy/a.mp4", "test/anna/joy/a.mp4", "test/b.mp4")
    release = read(tmp_path)
    assert {u.utterance_id: u.fold for u in release.utterances} == {
        "train__joy__a": "train", "val__joy__a": "valid", "test__anna__joy__a": "test",
    }  # fmt: skip
    assert release.emotions == ("joy",)
    assert reasons(release) == [("test__b", "unlabelled")]
    assert "the folders state a split: --split release keeps it" in release.notes


def test_names_that_are_not_utf_8_are_rejects(tmp_path):
    folder = os.fsencode(tmp_path) + b"/joy"
    os.mkdir(folder)  # noqa: PTH102 - a name of bytes
    for name in (folder + b"/\xff.mp4", folder + b"/fine.mp4"):
        with open(name, "w"):  # noqa: PTH123
            pass
    release = read(tmp_path)
    assert [u.utterance_id for u in release.utterances] == ["joy__fine"]
    assert reasons(release) == [("joy__\\xff", "id:unsafe")]
    write_rejects(tmp_path, release.rejects)
    assert read_rejects(tmp_path) == release.rejects


def test_an_empty_folder_and_links(tmp_path):
    with pytest.raises(DataError, match="holds neither a table .* nor videos .*docs/corpora/folder.md"):
        read(tmp_path)
    videos(tmp_path, "joy/a.mp4")
    (tmp_path / "joy" / "loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "joy" / "pipe.mp4")
    assert [u.utterance_id for u in read(tmp_path).utterances] == ["joy__a"]


CELLS = st.one_of(
    st.sampled_from(
        ["", "a", "a.mp4", "b", "../a.mp4", "/a.mp4", "happy", "sad;happy", "0", "1", "0:01", "nan", "train"]
    ),
    st.text(max_size=12),
)
HEADER = ["video", "start", "end", "text", "label", "sentiment", "split", "id", "dialogue", "audio"]


@settings(max_examples=200, deadline=None)
@given(rows=st.lists(st.lists(CELLS, min_size=9, max_size=11), min_size=1, max_size=6))
def test_every_row_is_an_utterance_or_a_reject_that_names_it(tmp_path_factory, rows):
    root = tmp_path_factory.getbasetemp() / "own"
    videos(root, "a.mp4", "b.mkv")
    with (root / "t.csv").open("w", newline="", encoding="utf-8", errors="replace") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([HEADER, *rows])
    filled = [row for row in rows if any(cell.strip() for cell in row)]
    if not any(len(row) == len(HEADER) and "\0" not in "".join(row) for row in filled):
        with pytest.raises(DataError, match="has no row that can be used"):
            read(root)
        return
    release = read(root)
    assert len(release.utterances) + len(release.rejects) == len(filled)
    lines = [reject.detail.split(": ")[0] for reject in release.rejects]
    assert all(re.fullmatch(r"line \d+", line) for line in lines)
    assert len(set(lines)) == len(lines)
    for utterance in release.utterances:
        assert utterance.source_video in {"a.mp4", "b.mkv"}
        assert list(utterance.labels) == list(release.emotions)
    write_rejects(root, release.rejects)
    assert Counter(read_rejects(root)) == Counter(release.rejects)
    (root / "rejects.parquet").unlink()


def test_formats_agree(tmp_path):
    videos(tmp_path, "films/a.mp4", "films/b.mp4")
    rows = [{"video": "a", "start": "0", "end": "1.5", "text": "x, y", "label": "happy", "id": "001"},
            {"video": "b", "start": "", "end": "", "text": "", "label": "sad", "id": "NA"}]  # fmt: skip
    frame = pd.DataFrame(rows)
    films = tmp_path / "films"
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_csv(tmp_path / "t.tsv", index=False, sep="\t")
    frame.to_json(tmp_path / "t.json", orient="records")
    frame.to_json(tmp_path / "t.jsonl", orient="records", lines=True)
    frame.to_parquet(tmp_path / "t.parquet")
    found = [
        read_release("folder", films, [], {"table": str(tmp_path / f"t.{kind}")}).utterances
        for kind in ("csv", "tsv", "json", "jsonl", "parquet")
    ]
    assert all(utterances == found[0] for utterances in found)
    assert [u.utterance_id for u in found[0]] == ["001", "NA"]


def test_a_row_that_is_ragged_is_an_utterance_that_is_lost(tmp_path):
    videos(tmp_path, "a.mp4")
    release = read(tmp_path, [["video", "label", "text"], ["a", "x", "fine"], ["a", "x", "no", "quotes"]])
    assert release.rejects == [
        Reject("labels.csv line 3", "labels.csv", "reorganize", "row:unreadable",
               "line 3: it has 4 cells, the header 3"),
    ]  # fmt: skip
    assert Path(release.root / release.rejects[0].source).is_file()


def test_a_table_names_one_of_several_audio_streams(tmp_path):
    videos(tmp_path, "a.mp4")
    rows = [["video", "label", "audio_stream"], ["a.mp4", "happy", "1"], ["a.mp4", "happy", ""], ["a.mp4", "sad", "-1"]]
    release = read(tmp_path, rows)
    assert [utterance.audio_stream for utterance in release.utterances] == [1, None]
    (reject,) = release.rejects
    assert reject.reason == "number:invalid"
    assert "audio_stream is '-1'; expected a whole number from 0 on" in reject.detail


def test_tables_beside_clips_are_not_their_words_and_tiers_are_where_they_say_so(tmp_path):
    """A csv of a clip's name is mostly a measurement of the face, and a tier may hold gestures."""
    videos(tmp_path, "joy/a.mp4", "joy/b.mp4", "joy/c.mp4")
    (tmp_path / "joy/a.csv").write_text("start,end,text\n0,1,no words\n", encoding="utf-8")
    grid = (
        'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0 1 <exists> 1 "IntervalTier" "{}" 0 1 1 0 1 "said"\n'
    )
    (tmp_path / "joy/b.TextGrid").write_text(grid.format("words"), encoding="utf-8")
    (tmp_path / "joy/c.TextGrid").write_text(grid.format("nods"), encoding="utf-8")
    release = read(tmp_path)
    assert {u.source_video: u.text for u in release.utterances} == {
        "joy/a.mp4": "",
        "joy/b.mp4": "said",
        "joy/c.mp4": "",
    }
    assert any(note.startswith("1 .json, .TextGrid or .eaf files") for note in release.notes)
