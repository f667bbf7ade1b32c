"""MMSA's layout of cut clips, on trees whose answers are counted by hand, and on any bytes."""

import csv
import io
import shutil
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.corpora.mmsa.clips import is_mmsa, read_mmsa, whole_clip
from data_tools.corpora.release import Release
from data_tools.errors import DataError

HEADER = ["video_id", "clip_id", "text", "label", "label_T", "label_A", "label_V", "annotation", "mode"]


def table(*rows, header=HEADER, end="\r\n"):
    """rows: (video, clip, text, label, mode)."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator=end)
    writer.writerow(header)
    writer.writerows([video, clip, said, label, "", "", "", "Neutral", mode] for video, clip, said, label, mode in rows)
    return text.getvalue()


def make(root, content, *clips):
    """clips: `<video>/<clip>.mp4`, empty files. content: label.csv."""
    for clip in clips:
        (root / "Raw" / clip).parent.mkdir(parents=True, exist_ok=True)
        (root / "Raw" / clip).touch()
    (root / "Raw").mkdir(parents=True, exist_ok=True)
    (root / "label.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    return Release(root)


def read(release, bound=3, **options):
    return read_mmsa(release, release.root, bound, **options)


def reasons(release):
    return Counter((reject.utterance_id, reject.reason) for reject in release.rejects)


def test_a_clip_is_the_whole_file_with_the_releases_own_split(tmp_path):
    rows = [("03bSnISJMiM", "1", "Anyhow, it was\nreally good", "2.4", "train"), ("-abc", "0", "", "0", "valid"),
            ("PtH_8O__EAY", "10", 'He said "no"', "-3", "test"), ("0123", "2", "=1+1", "-0.5", "train")]  # fmt: skip
    release = make(tmp_path / "MOSEI", table(*rows), *(f"{video}/{clip}.mp4" for video, clip, *_ in rows))
    utterances = [whole_clip(release, clip, {"sad": 1.0}) for clip in read(release)]
    assert not release.rejects
    assert not release.notes
    assert [(u.utterance_id, u.text, u.sentiment, u.fold) for u in utterances] == [
        ("03bSnISJMiM_1", "Anyhow, it was\nreally good", 2.4, "train"), ("-abc_0", "", 0.0, "valid"),
        ("PtH_8O__EAY_10", 'He said "no"', -3.0, "test"), ("0123_2", "=1+1", -0.5, "train"),
    ]  # fmt: skip
    one = utterances[2]
    assert one.source_video == one.source_audio == "Raw/PtH_8O__EAY/10.mp4"
    assert (one.dialogue_id, one.speaker, one.start_s, one.end_s) == ("PtH_8O__EAY", "PtH_8O__EAY", 0.0, float("inf"))
    assert one.audio_is_cut
    assert one.labels == {"sad": 1.0}


@pytest.mark.parametrize(
    ("encoding", "fallback", "noted"),
    [("utf-8", "cp1252", False), ("utf-8-sig", "cp1252", False), ("utf-16", "cp1252", False),
     ("gb18030", "gb18030", True)],
)  # fmt: skip
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends(tmp_path, encoding, fallback, noted, end):
    rows = [("v", "1", "我不知道", "1", "train"), ("v", "2", "一，二", "-1", "test")]
    release = make(tmp_path / "SIMS", table(*rows, end=end).encode(encoding), "v/1.mp4", "v/2.mp4")
    assert [clip.text for clip in read(release, 1, fallback_encoding=fallback)] == ["我不知道", "一，二"]
    assert not release.rejects
    assert any("is not UTF-8" in note for note in release.notes) == noted


def test_western_bytes_are_read_as_such_and_said(tmp_path):
    release = make(tmp_path / "MOSI", table(("v", "1", "it’s", "1", "train")).encode("cp1252"), "v/1.mp4")
    assert [clip.text for clip in read(release)] == ["it’s"]
    assert ["cp1252" in note for note in release.notes] == [True]


def test_numbers_that_a_spreadsheet_changed_find_their_files(tmp_path):
    rows = [
        ("video_0001", "1", "a", "1", "train"),
        ("video_0001", "2.0", "b", "1", "train"),
        ("7", "0003", "c", "1", ""),
    ]
    files = ["video_0001/0001.mp4", "video_0001/0002.MP4", "0007/3.mp4"]
    release = make(tmp_path / "SIMS", table(*rows), *files)
    assert [clip.utterance_id for clip in read(release, 1)] == ["video_0001_0001", "video_0001_0002", "0007_3"]
    assert not release.rejects
    assert any("3 ids of label.csv" in note for note in release.notes)
    # Where two files have the same number, only the exact name is meant.
    both = make(tmp_path / "two" / "SIMS", table(("v", "1", "a", "1", "train")), "v/1.mp4", "v/0001.mp4")
    assert [clip.utterance_id for clip in read(both, 1)] == ["v_1"]
    assert reasons(both) == {("v_0001", "unlabelled"): 1}


def test_every_row_and_every_file_is_accounted_for(tmp_path):
    rows = [("v", "1", "a", "1", "train"), ("v", "1", "again", "2", "train"), ("v", "2", "no file", "1", "train"),
            ("v", "3", "no label", "", "train"), ("v", "4", "word", "often", "train"), ("v", "5", "far", "7.5", "dev"),
            ("v", "6", "nan", "NaN", "train"), ("v", "7", "inf", "-inf", "train"), ("", "8", "", "1", "train"),
            ("gone", "0", "", "1", "train"), ("../..", "x", "", "1", "train"), ("/etc", "passwd", "", "1", ""),
            ]  # fmt: skip
    release = make(
        tmp_path / "MOSI", table(*rows), *(f"v/{n}.mp4" for n in (1, 3, 4, 5, 6, 7, 9)), "v/._1.mp4", "w/.x.mp4"
    )
    clips = read(release)
    assert [(clip.utterance_id, clip.label, clip.fold) for clip in clips] == [
        ("v_1", 1.0, "train"),
        ("v_5", 3.0, "valid"),
    ]
    assert clips[0].siblings == set("12345679")
    assert reasons(release) == {
        (None, "duplicate"): 1, ("v_2", "no_video"): 1, ("v_3", "unlabelled"): 1, ("v_4", "labels:unreadable"): 1,
        ("v_6", "unlabelled"): 1, ("v_7", "labels:unreadable"): 1, (None, "labels:unreadable"): 1,
        ("gone_0", "no_video"): 1, ("../.._x", "no_video"): 1, ("/etc_passwd", "no_video"): 1, ("v_9", "unlabelled"): 1,
    }  # fmt: skip
    assert [note for note in release.notes if note.startswith("1 labels lay beyond -3 ... 3")]


def test_a_table_that_breaks_off_costs_the_clips_after_it(tmp_path):
    content = table(("v", "1", "a", "1", "train")) + 'v,2,"' + "never closed " * 20_000 + "\r\n"
    release = make(tmp_path / "MOSI", content, "v/1.mp4", "v/2.mp4")
    assert [clip.utterance_id for clip in read(release)] == ["v_1"]
    assert reasons(release) == {(None, "labels:unreadable"): 1, ("v_2", "no_labels"): 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no column video_id, clip_id, text, label; its columns are none"),
        (b"video_id,clip_id,label\nv,1,2\n", "no column text; its columns are video_id, clip_id, label"),
        (b"\x00\x01\x02\xff" * 50, "no column video_id"),
    ],
)
def test_a_table_of_another_kind_is_an_error(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        read(make(tmp_path / "MOSI", content, "v/1.mp4"))


def test_a_table_that_is_a_folder_is_an_error(tmp_path):
    (tmp_path / "label.csv").mkdir()
    with pytest.raises(DataError, match="label.csv cannot be read"):
        read(Release(tmp_path))


def test_the_three_corpora_are_told_apart_by_their_folders(tmp_path):
    for name in ("MOSI", "CMU-MOSEI", "SIMS", "clips"):
        make(tmp_path / name, table())
    found = {n: {kind for kind in ("mosi", "mosei", "sims") if is_mmsa(tmp_path / n, kind)} for n in
             ("MOSI", "CMU-MOSEI", "SIMS", "clips")}  # fmt: skip
    assert found == {"MOSI": {"mosi"}, "CMU-MOSEI": {"mosei"}, "SIMS": {"sims"}, "clips": {"mosi", "mosei", "sims"}}
    assert not is_mmsa(tmp_path, "mosi")


CELLS = st.one_of(
    st.sampled_from(
        ["v", "0", "1", "01", "1.0", "", "nan", "3", "-7", "train", '"', "\x00", "視", "a,b", "x\ny", "é\r"]
    ),
    st.text(max_size=6),
)
TABLES = st.one_of(
    st.binary(max_size=300),
    st.lists(st.tuples(CELLS, CELLS, CELLS, CELLS, CELLS), max_size=8).map(
        lambda rows: table(*rows).encode("utf-8", "surrogatepass")
    ),
    st.lists(st.lists(CELLS, max_size=11).map(",".join), max_size=8).map(
        lambda rows: "\n".join([",".join(HEADER), *rows]).encode("utf-8", "surrogatepass")
    ),
)


@settings(max_examples=60, deadline=None)
@given(content=TABLES)
def test_any_bytes_in_the_table_are_clips_rejects_or_an_error(tmp_path_factory, content):
    root = tmp_path_factory.getbasetemp() / "any" / "MOSI"
    shutil.rmtree(root, ignore_errors=True)
    release = make(root, content, "v/0.mp4", "v/1.mp4", "v/3.mp4")
    message = ""
    try:
        clips = read(release)
    except DataError as error:
        message = str(error)
    if message:
        assert "label.csv" in message
        return
    used = [clip.utterance_id for clip in clips]
    rejected = [reject.utterance_id for reject in release.rejects if reject.utterance_id is not None]
    assert len(set(used)) == len(used)
    assert all(-3 <= clip.label <= 3 for clip in clips)
    for name in ("v_0", "v_1", "v_3"):
        assert used.count(name) + rejected.count(name) == 1
    for reject in release.rejects:
        assert f"{reject.utterance_id}{reject.detail}".encode()


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8"), max_size=40).map(str.strip),
            st.floats(-3, 3),
            st.sampled_from(["train", "valid", "test"]),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_a_table_comes_back_as_it_was_written(tmp_path_factory, rows):
    root = tmp_path_factory.getbasetemp() / "round" / "MOSI"
    shutil.rmtree(root, ignore_errors=True)
    written = table(*(("v", i, text, repr(label), fold) for i, (text, label, fold) in enumerate(rows)))
    release = make(root, written, *(f"v/{i}.mp4" for i in range(len(rows))))
    assert [(clip.text, clip.label, clip.fold) for clip in read(release)] == rows
    assert not release.rejects
