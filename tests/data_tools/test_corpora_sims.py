"""The CH-SIMS reader on hand-made trees in both layouts, and once on real small media."""

import csv
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.corpora.readers import read_release
from data_tools.errors import DataError
from data_tools.manifest import read_manifest, read_rejects
from data_tools.media.audio import write_wav
from data_tools.media.source import probe
from data_tools.media.write import write_video
from pipeline.progress import Reporter
from pipeline.reorganize import ReorganizeSettings, reorganize
from pipeline.settings import load_config

MMSA = ["video_id", "clip_id", "text", "label", "label_T", "label_A", "label_V", "annotation", "mode"]


def write_csv(path, rows, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file).writerows(rows)


def touch_clips(root, ids):
    for video, clip in ids:
        (root / "Raw" / video).mkdir(parents=True, exist_ok=True)
        (root / "Raw" / video / f"{clip}.mp4").touch()


def make_mmsa(root, rows, encoding="utf-8"):
    """rows: (video_id, clip_id as the csv has it, text, label, mode)."""
    cells = [[v, c, text, label, "0.9", "-0.9", "0.1", "Positive", mode] for v, c, text, label, mode in rows]
    write_csv(root / "label.csv", [MMSA, *cells], encoding)
    return root


def make_original(root, labels, train=(), val=(), test=()):
    """labels: (video_id, clip_id, label); texts are 文<i> and Text <i>; the lists hold places in `labels`."""
    for kind in "MTAV":
        rows = [[v, c, label if kind == "M" else "0.4"] for v, c, label in labels]
        write_csv(root / "metadata" / "sentiment" / f"label_{kind}.csv", [["video_id", "clip_id", "label"], *rows])
    texts = [[v, c, f"文{i}", f"Text {i}"] for i, (v, c, _) in enumerate(labels)]
    write_csv(root / "metadata" / "Translation.csv", [["video_id", "clip_id", "Chinese", "English"], *texts])
    for name, places in (("train", train), ("val", val), ("test", test)):
        if places:
            write_csv(root / "metadata" / f"{name}_index.csv", [["index"], *([place] for place in places)])
    return root


def reasons(release):
    return Counter((reject.utterance_id, reject.reason) for reject in release.rejects)


@pytest.mark.parametrize("start", [".", "SIMS", "SIMS/Raw"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
def test_mmsa_layout_with_ids_that_lost_their_zeros(tmp_path, start, encoding):
    rows = [("video_0001", "1", "我不想嫁给李茶", "-0.6", "train"), ("video_0001", "0010", "好", "1.0", "valid"),
            ("video_0060", "20.0", "行", "0", "test")]  # fmt: skip
    root = make_mmsa(tmp_path / "SIMS", rows, encoding)
    touch_clips(root, [("video_0001", "0001"), ("video_0001", "0010"), ("video_0060", "0020")])
    release = read_release("sims", tmp_path / start, [])
    assert not release.rejects
    assert [(u.utterance_id, u.dialogue_id, u.fold, u.sentiment, u.text) for u in release.utterances] == [
        ("video_0001_0001", "video_0001", "train", -0.6, "我不想嫁给李茶"),
        ("video_0001_0010", "video_0001", "valid", 1.0, "好"),
        ("video_0060_0020", "video_0060", "test", 0.0, "行"),
    ]
    one = release.utterances[0]
    assert (one.start_s, one.end_s, one.audio_is_cut, one.labels, one.speaker) == (0, math.inf, True, {}, "video_0001")
    assert one.source_video == one.source_audio == "Raw/video_0001/0001.mp4"


LABELS = [
    ("video_0001", "1", "0.2"),
    ("video_0001", "2", "-1.0"),
    ("video_0002", "0001", "0.8"),
    ("video_0003", "1", "0"),
]


@pytest.mark.parametrize(("language", "text"), [("zh", "文{}"), ("en", "Text {}")])
def test_original_layout_joins_labels_texts_and_positions(tmp_path, language, text):
    root = make_original(tmp_path / "CH-SIMS", LABELS, train=[2, 0], val=[3], test=[1])
    touch_clips(root, [(v, c.zfill(4)) for v, c, _ in LABELS])
    release = read_release("sims", tmp_path, [], {"language": language})
    assert not release.rejects
    assert [(u.utterance_id, u.fold, u.sentiment, u.text) for u in release.utterances] == [
        ("video_0001_0001", "train", 0.2, text.format(0)),
        ("video_0001_0002", "test", -1.0, text.format(1)),
        ("video_0002_0001", "train", 0.8, text.format(2)),
        ("video_0003_0001", "valid", 0.0, text.format(3)),
    ]


def test_positions_count_damaged_rows_and_those_that_cannot_be_are_named(tmp_path):
    root = make_original(tmp_path, LABELS, train=["0", "3", "4", "x", "-1"], val=["2.0", "3"])
    table = root / "metadata" / "sentiment" / "label_M.csv"
    lines = table.read_text().splitlines()
    lines[2] = "video_0001,2"  # a row short of its label keeps its place
    table.write_text("\n".join(lines) + "\n")
    touch_clips(root, [(v, c.zfill(4)) for v, c, _ in LABELS])
    release = read_release("sims", tmp_path, [])
    assert [(u.utterance_id, u.fold) for u in release.utterances] == [
        ("video_0001_0001", "train"), ("video_0002_0001", "valid"), ("video_0003_0001", ""),
    ]  # fmt: skip
    assert reasons(release) == {
        (None, "labels:unreadable"): 1, (None, "split:unreadable"): 3, ("video_0001_0002", "unlabelled"): 1,
    }  # fmt: skip
    assert any("1 rows of label_M.csv are in two" in note for note in release.notes)
    assert any("no metadata/test_index.csv" in note for note in release.notes)


def test_texts_clips_and_labels_that_are_missing(tmp_path):
    labels = [*LABELS, ("video_0004", "1", ""), ("video_0005", "1", "much"), ("video_0006", "1", "0.4"), ("", "1", "0")]
    root = make_original(tmp_path, labels, train=range(7))
    ids = [(v, c.zfill(4)) for v, c, _ in labels if v not in ("", "video_0006")]
    touch_clips(root, [*ids, ("video_0009", "0001")])
    texts = (root / "metadata" / "Translation.csv").read_text().splitlines()
    (root / "metadata" / "Translation.csv").write_text("\n".join([*texts[:1], *texts[2:], texts[2]]))
    release = read_release("sims", tmp_path, [])
    assert [u.utterance_id for u in release.utterances] == ["video_0001_0002", "video_0002_0001", "video_0003_0001"]
    assert reasons(release) == {
        ("video_0001_0001", "no_transcript"): 1, ("video_0004_0001", "unlabelled"): 1,
        ("video_0005_0001", "labels:unreadable"): 1, ("video_0006_1", "no_video"): 1, (None, "labels:unreadable"): 1,
        ("video_0009_0001", "unlabelled"): 1, (None, "transcript:duplicate"): 1,
    }  # fmt: skip


def test_labels_beyond_one_are_moved_to_it_and_said(tmp_path):
    make_mmsa(tmp_path, [("video_0001", "1", "好", "1.4", "train")])
    touch_clips(tmp_path, [("video_0001", "0001")])
    release = read_release("sims", tmp_path, [])
    assert release.utterances[0].sentiment == 1.0
    assert any("1 labels lay beyond -1 ... 1" in note for note in release.notes)


def test_what_the_corpus_does_not_have(tmp_path):
    make_mmsa(tmp_path / "SIMS", [("video_0001", "1", "好", "0", "train")])
    touch_clips(tmp_path / "SIMS", [("video_0001", "0001")])
    with pytest.raises(DataError, match=r"emotions \['joy'\] for sims: unknown: joy; it has none, only sentiment"):
        read_release("sims", tmp_path, ["joy"])
    with pytest.raises(DataError, match="language is 'de' for sims; expected one of zh, en"):
        read_release("sims", tmp_path, [], {"language": "de"})
    with pytest.raises(DataError, match="has Chinese texts only"):
        read_release("sims", tmp_path, [], {"language": "en"})
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match="no sims release: looked for Raw/ with label.csv or metadata/sentiment"):
        read_release("sims", tmp_path / "other", [])


def test_english_is_taken_from_the_original_tables_where_both_layouts_are_there(tmp_path):
    make_original(tmp_path, LABELS[:1], train=[0])
    make_mmsa(tmp_path, [("video_0001", "1", "好", "0.4", "test")])
    touch_clips(tmp_path, [("video_0001", "0001")])
    assert [(u.text, u.sentiment) for u in read_release("sims", tmp_path, []).utterances] == [("好", 0.4)]
    english = read_release("sims", tmp_path, [], {"language": "en"})
    assert [(u.text, u.sentiment, u.fold) for u in english.utterances] == [("Text 0", 0.2, "train")]


@pytest.mark.parametrize("table", ["sentiment/label_M.csv", "Translation.csv", "val_index.csv"])
def test_a_table_without_its_columns_is_an_error(tmp_path, table):
    make_original(tmp_path, LABELS, train=[0], val=[1], test=[2])
    (tmp_path / "Raw").mkdir()
    (tmp_path / "metadata" / table).write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="has no column"):
        read_release("sims", tmp_path, [])


@pytest.mark.parametrize("table", ["meta.csv", "label.csv"])
def test_the_second_release_with_its_own_table(tmp_path, table):
    rows = [("aqgy3_0001", "23", "好", "-0.6", "train"), ("aqgy4_0004", "00002", "行", "1.0", "test")]
    root = make_mmsa(tmp_path / "ch-simsv2s", rows)
    (root / "label.csv").rename(root / table)
    touch_clips(root, [("aqgy3_0001", "00023"), ("aqgy4_0004", "00002"), ("aqgy4_0004", "00003")])
    release = read_release("sims-v2", tmp_path, [])
    assert [(u.utterance_id, u.fold, u.sentiment, u.text) for u in release.utterances] == [
        ("aqgy3_0001_00023", "train", -0.6, "好"),
        ("aqgy4_0004_00002", "test", 1.0, "行"),
    ]
    assert reasons(release) == {("aqgy4_0004_00003", "unlabelled"): 1}
    with pytest.raises(DataError, match="no sims-v2 release: looked for Raw/ with meta.csv or label.csv"):
        (root / table).unlink()
        read_release("sims-v2", root, [])


@pytest.mark.parametrize("name", ["sims", "sims-v2"])
def test_the_published_counts_of_sims_add_up(name):
    published = ReorganizeSettings.checked(load_config("datasets", name), "test").published
    for split in published.splits:
        assert sum(split.utterances.values()) == published.utterances


@pytest.fixture(scope="module")
def playgrounds(tmp_path_factory):
    """A tree in each layout, each with the same three clips."""
    roots = [tmp_path_factory.mktemp("original"), tmp_path_factory.mktemp("mmsa")]
    for root in roots:
        touch_clips(root, [("video_0001", "0001"), ("video_0001", "0002"), ("video_0002", "0001")])
    make_original(roots[0], LABELS[:3], train=[0], val=[1], test=[2])
    return roots


CELLS = st.one_of(st.sampled_from(["video_0001", "video_0002", "1", "0002", "1.0", "0.5", "nan", '"', "\n"]), st.text())


def tables(header):
    rows = st.lists(st.lists(CELLS, min_size=len(header), max_size=len(header)), max_size=5)
    text = rows.map(lambda rows: "\n".join(",".join(row) for row in [header, *rows]).encode("utf-8", "replace"))
    return st.one_of(st.binary(), text, st.binary().map(lambda tail: ",".join(header).encode() + b"\r\n" + tail))


def read_and_check(root):
    try:
        release = read_release("sims", root, [])
    except DataError:
        return
    named = [u.utterance_id for u in release.utterances] + [r.utterance_id for r in release.rejects if r.utterance_id]
    assert len(set(named)) == len(named)
    assert {"video_0001_0001", "video_0001_0002", "video_0002_0001"} <= set(named)


@settings(max_examples=100, deadline=None)
@given(content=tables(["video_id", "clip_id", "label"]))
def test_any_label_table_loses_no_clip(playgrounds, content):
    path = playgrounds[0] / "metadata" / "sentiment" / "label_M.csv"
    before = path.read_bytes()
    path.write_bytes(content)
    read_and_check(playgrounds[0])
    path.write_bytes(before)


@settings(max_examples=100, deadline=None)
@given(texts=tables(["video_id", "clip_id", "Chinese"]), index=tables(["index"]))
def test_any_texts_and_positions_lose_no_clip(playgrounds, texts, index):
    folder = playgrounds[0] / "metadata"
    before = {name: (folder / name).read_bytes() for name in ("Translation.csv", "val_index.csv")}
    (folder / "Translation.csv").write_bytes(texts)
    read_and_check(playgrounds[0])
    (folder / "Translation.csv").write_bytes(before["Translation.csv"])
    (folder / "val_index.csv").write_bytes(index)
    read_and_check(playgrounds[0])
    (folder / "val_index.csv").write_bytes(before["val_index.csv"])


@settings(max_examples=100, deadline=None)
@given(content=tables(MMSA))
def test_any_mmsa_table_loses_no_clip(playgrounds, content):
    (playgrounds[1] / "label.csv").write_bytes(content)
    read_and_check(playgrounds[1])


def make_clip(path, seconds=1, sound=True):
    frames = [np.full((48, 64, 3), 12 * number, np.uint8) for number in range(10 * seconds)]
    wav = path.with_suffix(".wav")
    write_wav(wav, np.random.default_rng(1).normal(0, 0.1, 16_000 * seconds).astype(np.float32))
    write_video(path, frames, (64, 48), 10, audio=wav if sound else None)
    wav.unlink()


@pytest.mark.parametrize("layout", ["mmsa", "original"])
def test_from_the_release_to_clips_with_its_own_splits(tmp_path, layout):
    root = tmp_path / "SIMS"
    labels = [*LABELS, ("video_0007", "1", "0.4")]
    if layout == "mmsa":
        modes = ["train", "train", "valid", "test", "train"]
        make_mmsa(root, [(v, c, f"文{i}", label, modes[i]) for i, (v, c, label) in enumerate(labels)])
    else:
        make_original(root, labels, train=[0, 1, 4], val=[2], test=[3])
    touch_clips(root, [(v, c.zfill(4)) for v, c, _ in labels[:4]])
    for path in sorted(root.rglob("*.mp4")):
        make_clip(path, sound=path.parent.name != "video_0003")
    values = load_config("datasets", "sims") | {"root": root, "out": tmp_path / "out", "workers": 1}
    values["max_reject_share"] = 0.5
    summary = reorganize(ReorganizeSettings.checked(values, "test"), Reporter(quiet=True))
    table = read_manifest(tmp_path / "out").set_index("utterance_id")
    assert dict(table["split"]) == {
        "video_0001_0001": "train", "video_0001_0002": "train", "video_0002_0001": "valid",
    }  # fmt: skip
    assert {r.utterance_id: r.reason for r in read_rejects(tmp_path / "out")} == {
        "video_0003_0001": "no_audio", "video_0007_1": "no_video",
    }  # fmt: skip
    assert summary["kept"] + summary["rejected"] == summary["found"] == len(labels)
    assert table["sentiment"].tolist() == pytest.approx([0.2, -1.0, 0.8])
    assert table["text"].tolist() == ["文0", "文1", "文2"]
    for clip in table["clip"]:
        assert probe(tmp_path / "out" / clip).duration_s == pytest.approx(1.0, abs=0.15)
