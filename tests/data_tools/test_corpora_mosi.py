"""The CMU-MOSI reader on hand-made trees in each layout, and once on real small media."""

import csv
import math
import shutil
from collections import Counter

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.corpora.mosi import KNOWN_BAD
from data_tools.corpora.readers import read_release
from data_tools.errors import DataError
from data_tools.manifest import read_manifest, read_rejects
from data_tools.media.audio import read_audio, write_wav
from data_tools.media.source import probe
from data_tools.media.write import write_video
from pipeline.progress import Reporter
from pipeline.reorganize import ReorganizeSettings, reorganize
from pipeline.settings import load_config

CSV, CSD = "OpinionLevelSentiment.csv", "CMU_MOSI_Opinion_Labels.csd"
MMSA = ["video_id", "clip_id", "text", "label", "label_T", "label_A", "label_V", "annotation", "mode"]


def touch(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def make(root, texts, full=(), segmented=()):
    """texts: video id -> lines of its transcript. root: the folder Raw. Media files are empty."""
    for video, lines in texts.items():
        touch(root / "Transcript" / "Segmented", f"{video}.annotprocessed")
        text = "".join(f"{line}\n" for line in lines)
        (root / "Transcript" / "Segmented" / f"{video}.annotprocessed").write_text(text)
    touch(root / "Video" / "Full", *(f"{name}.mp4" for name in full))
    touch(root / "Video" / "Segmented", *(f"{name}.mp4" for name in segmented))
    return root


def write_csv(root, lines, folder="Labels"):
    (root / folder).mkdir(parents=True, exist_ok=True)
    (root / folder / CSV).write_text("".join(f"{line}\n" for line in lines))


def write_csd(path, videos, root="Opinion Segment Labels"):
    """videos: id -> rows (start, end, label)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for video, rows in videos.items():
            table = np.array(rows, dtype=float)
            file[f"{root}/data/{video}/intervals"] = table[:, :2]
            file[f"{root}/data/{video}/features"] = table[:, 2:]


def lines(*numbers):
    return [f"{number}_DELIM_TEXT NUMBER {number}" for number in numbers]


def reasons(release):
    return Counter((reject.utterance_id, reject.reason) for reject in release.rejects)


@pytest.mark.parametrize("labels", ["Labels", "Raw/Labels"])
@pytest.mark.parametrize("start", [".", "CMU-MOSI", "CMU-MOSI/Raw"])
def test_segments_are_cut_from_the_full_video_by_the_tables_times(tmp_path, labels, start):
    root = tmp_path / "CMU-MOSI"
    make(root / "Raw", {"-WX_tN": lines(1, 2), "_dI--e": lines(1)}, full=["-WX_tN", "_dI--e"], segmented=["-WX_tN_1"])
    touch(root / "Raw" / "Audio" / "WAV_16000" / "Full", "-WX_tN.wav")
    table = ["0.5,2.25,-WX_tN,1,2.4", "2.25,9.0,-WX_tN,2,-0.6", '1,2,"_dI--e",1.0,3.0']
    write_csv(root, table, labels)
    release = read_release("mosi", tmp_path / start, [])
    assert not release.rejects
    assert [(u.utterance_id, u.start_s, u.end_s, u.sentiment, u.text) for u in release.utterances] == [
        ("-WX_tN_1", 0.5, 2.25, 2.4, "TEXT NUMBER 1"),
        ("-WX_tN_2", 2.25, 9.0, -0.6, "TEXT NUMBER 2"),
        ("_dI--e_1", 1.0, 2.0, 3.0, "TEXT NUMBER 1"),
    ]
    raw = "" if start.endswith("Raw") and labels.startswith("Raw") else "Raw/"
    one, _, three = release.utterances
    assert (one.source_video, one.source_audio) == (
        f"{raw}Video/Full/-WX_tN.mp4", f"{raw}Audio/WAV_16000/Full/-WX_tN.wav",
    )  # fmt: skip
    assert three.source_audio == three.source_video
    assert (one.dialogue_id, one.speaker, one.labels, one.fold, one.audio_is_cut) == ("-WX_tN", "-WX_tN", {}, "", False)


def test_segmented_videos_are_taken_whole_where_there_is_no_full_one(tmp_path):
    make(tmp_path, {"v": lines(1, 2, 3)}, segmented=["v_1", "v_2", "v_9"])
    touch(tmp_path / "Audio" / "WAV_16000" / "Segmented", "v_1.wav")
    write_csv(tmp_path, ["10,12.5,v,1,1", "12.5,13,v,2,1", "13,14,v,3,1"])
    release = read_release("mosi", tmp_path, [])
    one, two = release.utterances
    assert (one.start_s, one.end_s, one.stated_s, one.audio_is_cut) == (0.0, math.inf, 2.5, True)
    assert (one.source_video, one.source_audio) == ("Video/Segmented/v_1.mp4", "Audio/WAV_16000/Segmented/v_1.wav")
    assert two.source_audio == two.source_video == "Video/Segmented/v_2.mp4"
    assert reasons(release) == {("v_3", "no_video"): 1}
    assert "1 files of Video/Segmented/ have neither a label nor a text and are not used" in release.notes


def test_labels_and_texts_that_do_not_fit_together(tmp_path):
    table = ["0,1,v,1,1", "1,2,v,2,3.2", "2,2,v,3,1", "-1,2,v,4,1", "0,1,v,6,nan", "0,1,v,7,1", "0,1,w,1,0"]
    odd = ["0,1,v,1,2", "start,end,video,n,label", "0,1,v,x,1", "0,1,,1,1", "1,2,v,8", "1,2,v,8,1,1"]
    make(tmp_path, {"v": [*lines(1, 2, 3, 4, 5, 6), "6_DELIM_AGAIN", "no number", ""]}, full=["v", "w"])
    write_csv(tmp_path, [*table, *odd, ""])
    release = read_release("mosi", tmp_path, [])
    assert [u.utterance_id for u in release.utterances] == ["v_1"]
    assert reasons(release) == {
        ("v_2", "labels:unreadable"): 1, ("v_3", "interval:invalid"): 1, ("v_4", "interval:invalid"): 1,
        ("v_5", "unlabelled"): 1, ("v_6", "labels:unreadable"): 1, ("v_7", "no_transcript"): 1,
        ("w_1", "no_transcript"): 1, (None, "duplicate"): 1, (None, "labels:unreadable"): 5,
        (None, "transcript:duplicate"): 1, (None, "transcript:unreadable"): 1,
    }  # fmt: skip
    assert any("line 9 is not start,end,video,number,label" in reject.detail for reject in release.rejects)


def test_a_text_may_hold_the_mark_and_anything_else(tmp_path):
    make(tmp_path, {"v": ["1_DELIM_A _DELIM_ B, 'C' 50%", "02_DELIM_", "3_DELIM_ SPACES  "]}, full=["v"])
    write_csv(tmp_path, [f"{n},{n + 1},v,{n},0" for n in (1, 2, 3)])
    assert [u.text for u in read_release("mosi", tmp_path, []).utterances] == ["A _DELIM_ B, 'C' 50%", "", "SPACES"]


def test_rows_of_the_csd_are_the_segments_from_one(tmp_path):
    make(tmp_path / "Raw", {"v": lines(1, 2, 3), "w": lines(1, 2), "x": lines(1)}, full=["v", "w", "x"])
    rows = {"v": [(0.5, 2, 1.4), (2, 2, 0), (2, 3.5, -1)], "w": [(0, 1, 1)], "y": [(0, 1, 1)]}
    write_csd(tmp_path / "Labels" / CSD, rows)
    with h5py.File(tmp_path / "Labels" / CSD, "a") as file:
        file["Opinion Segment Labels/data/x/features"] = np.zeros((1, 1))
    release = read_release("mosi", tmp_path, [])
    assert [(u.utterance_id, u.start_s, u.end_s, u.sentiment) for u in release.utterances] == [
        ("v_1", 0.5, 2.0, 1.4), ("v_3", 2.0, 3.5, -1.0),
    ]  # fmt: skip
    assert reasons(release) == {
        ("v_2", "interval:invalid"): 1,  # taken back by the authors: it has no length
        ("w_1", "labels:ambiguous"): 1, ("w_2", "unlabelled"): 1, ("x_1", "labels:unreadable"): 1,
        (None, "labels:unreadable"): 1, ("y_1", "no_transcript"): 1,
    }  # fmt: skip
    write_csv(tmp_path, ["0,1,w,2,2"])  # the table names its segments, so it goes first
    assert [u.utterance_id for u in read_release("mosi", tmp_path, []).utterances] == ["w_2"]


def known_bad_release(root):
    numbers = {video: [n for v, n in KNOWN_BAD if v == video] for video, _ in KNOWN_BAD}
    make(root, {video: lines(*own, 99) for video, own in numbers.items()}, full=numbers)
    write_csv(root, [f"{n},{n + 1},{v},{n},0" for v, own in numbers.items() for n in [*own, 99]])
    return root


def test_the_known_bad_segments_are_refused_unless_one_keeps_them(tmp_path):
    known_bad_release(tmp_path)
    release = read_release("mosi", tmp_path, [])
    assert len(KNOWN_BAD) == 12
    assert reasons(release) == {(f"{video}_{number}", "known:bad_segment"): 1 for video, number in KNOWN_BAD}
    assert {u.utterance_id.rpartition("_")[2] for u in release.utterances} == {"99"}
    kept = read_release("mosi", tmp_path, [], {"known_bad": "keep"})
    assert not kept.rejects
    assert len(kept.utterances) == 12 + len({video for video, _ in KNOWN_BAD})
    with pytest.raises(DataError, match="known_bad is True for mosi; expected reject or keep"):
        read_release("mosi", tmp_path, [], {"known_bad": True})


def make_mmsa(root, rows):
    """rows: (video_id, clip_id, text, label, mode)."""
    for video, clip, *_ in rows:
        touch(root / "Raw" / video, f"{clip}.mp4")
    with (root / "label.csv").open("w", newline="") as file:
        cells = [[v, c, text, label, "", "", "", "Positive", mode] for v, c, text, label, mode in rows]
        csv.writer(file).writerows([MMSA, *cells])
    return root


def test_mmsa_layout_states_its_split(tmp_path):
    rows = [("03bSnISJMiM", "1", "ANYHOW", "2.4", "train"), ("-tN_x", "11", "A, B", "-3", "valid"),
            ("9qR7uwkblbs", "32", "BAD", "0", "test"), ("v", "2", "C", "0.2", "test")]  # fmt: skip
    make_mmsa(tmp_path / "MOSI", rows)
    release = read_release("mosi", tmp_path, [])
    assert [(u.utterance_id, u.fold, u.sentiment, u.text, u.end_s) for u in release.utterances] == [
        ("03bSnISJMiM_1", "train", 2.4, "ANYHOW", math.inf),
        ("-tN_x_11", "valid", -3.0, "A, B", math.inf),
        ("v_2", "test", 0.2, "C", math.inf),
    ]
    assert reasons(release) == {("9qR7uwkblbs_32", "known:bad_segment"): 1}


def test_what_is_missing_is_named(tmp_path):
    make(tmp_path / "Raw", {"v": lines(1)}, full=["v"])
    with pytest.raises(DataError, match=f"no labels: looked for {CSV} and {CSD}"):
        read_release("mosi", tmp_path, [])
    write_csv(tmp_path, ["<html>not found</html>"])
    with pytest.raises(DataError, match="it is a saved web page, not the file itself; download again"):
        read_release("mosi", tmp_path, [])
    write_csv(tmp_path, ["not found"])
    with pytest.raises(DataError, match="no line that is start,end,video,number,label"):
        read_release("mosi", tmp_path, [])
    with pytest.raises(DataError, match="it has none, only sentiment: set emotions to"):
        read_release("mosi", tmp_path, ["happy"])
    shutil.rmtree(tmp_path / "Raw" / "Transcript")
    with pytest.raises(DataError, match="no mosi release: looked for Raw/Transcript/Segmented"):
        read_release("mosi", tmp_path, [])


def test_the_published_counts_of_mosi_add_up():
    published = ReorganizeSettings.checked(load_config("datasets", "mosi"), "test").published
    for split in published.splits:
        assert sum(split.utterances.values()) == published.utterances
        assert {part: sum(signs) for part, signs in split.sentiment.items()} == split.utterances
    assert sum(published.splits[1].ids.values()) == published.files["videos"].count


@pytest.fixture(scope="module")
def playground(tmp_path_factory):
    root = make(tmp_path_factory.mktemp("mosi"), {"v": lines(1, 2, 3)}, full=["v"])
    write_csv(root, [f"{n},{n + 1},v,{n},0" for n in (1, 2, 3)])
    return root


def read_and_check(root, expected):
    try:
        release = read_release("mosi", root, [])
    except DataError:
        return
    named = [u.utterance_id for u in release.utterances] + [r.utterance_id for r in release.rejects if r.utterance_id]
    assert len(set(named)) == len(named)
    assert expected <= set(named)


CELL = st.one_of(
    st.sampled_from(["0", "1", "2.5", "-1", "nan", "inf", "1e999", "v", "../v", "/v", "v\0", '"v"']), st.text()
)
LINE = st.one_of(
    st.lists(CELL, max_size=6).map(",".join),
    st.tuples(st.sampled_from(["1", "002", "7", "٣", ""]), st.text()).map("_DELIM_".join),
)
CONTENT = st.one_of(
    st.binary(), st.lists(LINE, max_size=6).map(lambda found: "\n".join(found).encode("utf-8", "replace"))
)


@settings(max_examples=120, deadline=None)
@given(content=CONTENT)
def test_any_label_table_loses_no_segment(playground, content):
    path = playground / "Labels" / CSV
    before = path.read_bytes()
    path.write_bytes(content)
    read_and_check(playground, {"v_1", "v_2", "v_3"})
    path.write_bytes(before)


@settings(max_examples=120, deadline=None)
@given(content=CONTENT)
def test_any_transcript_loses_no_label(playground, content):
    path = playground / "Transcript" / "Segmented" / "v.annotprocessed"
    before = path.read_bytes()
    path.write_bytes(content)
    read_and_check(playground, {"v_1", "v_2", "v_3"})
    path.write_bytes(before)


NUMBERS = st.one_of(st.sampled_from(["0", "1", "2", "-0.5", "x", ""]), st.floats().map(str))


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(st.tuples(NUMBERS, NUMBERS, st.sampled_from("vw"), st.integers(0, 5), NUMBERS), min_size=1))
def test_every_row_of_the_table_is_taken_or_rejected_once(playground, rows):
    path = playground / "Labels" / CSV
    before = path.read_text()
    path.write_text("\n".join(",".join(map(str, row)) for row in rows))
    try:
        release = read_release("mosi", playground, [])
    except DataError:
        release = None
    path.write_text(before)
    if release:
        about_texts = [reject for reject in release.rejects if reject.reason == "unlabelled"]
        assert len(release.utterances) + len(release.rejects) - len(about_texts) == len(rows)


def frames(first, count):
    """Pictures whose brightness is their number."""
    return (np.full((48, 64, 3), 4 * number, np.uint8) for number in range(first, first + count))


def noise(seconds, seed):
    return np.random.default_rng(seed).normal(0, 0.1, round(16_000 * seconds)).astype(np.float32)


def test_from_the_release_to_clips(tmp_path):
    root, raw = tmp_path / "MOSI", tmp_path / "MOSI" / "Raw"
    make(raw, {"v": lines(1, 2, 3), "w": lines(1, 2)})
    write_wav(raw / "Audio" / "WAV_16000" / "Full" / "v.wav", noise(5, 1))
    write_video(raw / "Video" / "Full" / "v.mp4", frames(0, 50), (64, 48), 10)
    wav = tmp_path / "sound.wav"
    for number in (1, 2):
        write_wav(wav, noise(1, number))
        write_video(raw / "Video" / "Segmented" / f"w_{number}.mp4", frames(0, 10), (64, 48), 10, audio=wav)
    table = ["1.0,2.5,v,1,2.4", "2.5,4.0,v,2,-1.2", "4.0,9.0,v,3,0", "30,31,w,1,0.4", "31,31.2,w,2,0.4", "1,2,w,3,0"]
    write_csv(root, table)
    values = load_config("datasets", "mosi") | {"root": root, "out": tmp_path / "out", "workers": 1}
    values["max_reject_share"] = 0.5
    with pytest.raises(
        DataError, match="split release: this release states no split of its own; choose another: random"
    ):
        reorganize(ReorganizeSettings.checked(values, "test"), Reporter(quiet=True))
    values["split"] = "random"
    summary = reorganize(ReorganizeSettings.checked(values, "test"), Reporter(quiet=True))
    manifest = read_manifest(tmp_path / "out").set_index("utterance_id")
    assert list(manifest.index) == ["v_1", "v_2", "w_1"]
    assert manifest["sentiment"].tolist() == pytest.approx([2.4, -1.2, 0.4])
    assert {r.utterance_id: r.reason for r in read_rejects(tmp_path / "out")} == {
        "v_3": "interval:outside", "w_2": "clip:length", "w_3": "no_transcript",
    }  # fmt: skip
    assert summary["kept"] + summary["rejected"] == summary["found"] == len(table)
    whole = read_audio(raw / "Audio" / "WAV_16000" / "Full" / "v.wav")
    assert np.array_equal(read_audio(tmp_path / "out" / manifest.loc["v_2", "wav"]), whole[40_000:64_000])
    assert probe(tmp_path / "out" / manifest.loc["v_1", "clip"]).duration_s == pytest.approx(1.5, abs=0.15)
    assert probe(tmp_path / "out" / manifest.loc["w_1", "clip"]).duration_s == pytest.approx(1.0, abs=0.15)


def test_mmsa_clips_with_the_standard_split(tmp_path):
    rows = [("v", "1", "A", "1", "train"), ("v", "2", "B", "-1", "train"), ("w", "1", "C", "0", "valid"),
            ("x", "1", "D", "3", "test"), ("x", "2", "E", "", "test")]  # fmt: skip
    make_mmsa(tmp_path / "MOSI", rows)
    wav = tmp_path / "sound.wav"
    write_wav(wav, noise(1, 3))
    for path in sorted((tmp_path / "MOSI").rglob("*.mp4")):
        write_video(path, frames(0, 10), (64, 48), 10, audio=wav)
    values = load_config("datasets", "mosi") | {"root": tmp_path / "MOSI", "out": tmp_path / "out", "workers": 1}
    summary = reorganize(ReorganizeSettings.checked(values, "test"), Reporter(quiet=True))
    manifest = read_manifest(tmp_path / "out").set_index("utterance_id")
    assert dict(manifest["split"]) == {"v_1": "train", "v_2": "train", "w_1": "valid", "x_1": "test"}
    assert summary["reasons"] == {"unlabelled": 1}
    assert summary["kept"] + summary["rejected"] == len(rows)
