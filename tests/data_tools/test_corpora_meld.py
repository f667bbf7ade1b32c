"""The MELD reader on hand-made trees whose answers are counted by hand, and once on real small media."""

import csv
import math
import shutil
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

SEVEN = ["neutral", "joy", "surprise", "anger", "sadness", "disgust", "fear"]
COLUMNS = ["Sr No.", "Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID", "Season",
           "Episode", "StartTime", "EndTime"]  # fmt: skip
FOLDERS = {"train": "train_splits", "dev": "dev_splits_complete", "test": "output_repeated_splits_test"}


def row(dialogue, turn, emotion="joy", sentiment="positive", text="Hi.", speaker="Ross", seconds=2):
    times = ["00:00:10,000", f"00:00:{10 + seconds:02},000"]
    return ["1", text, speaker, emotion, sentiment, dialogue, turn, "8", "21", *times]


def write_csv(path, rows, columns=COLUMNS, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file).writerows([columns, *rows])


def make(root, parts, level=False):
    """parts: name -> rows. Clips are empty files: a reader of text never opens them."""
    for part, rows in parts.items():
        folder = root / part / FOLDERS[part] if level else root / FOLDERS[part]
        folder.mkdir(parents=True)
        write_csv(root / f"{part}_sent_emo.csv", rows)
        for cells in rows:
            (folder / f"dia{cells[5]}_utt{cells[6]}.mp4").touch()
    return root


def reasons(release):
    return Counter((reject.utterance_id, reject.reason) for reject in release.rejects)


@pytest.mark.parametrize(
    ("level", "start"),
    [
        (False, "."),
        (False, "MELD.Raw"),
        (False, "MELD.Raw/dev_splits_complete"),
        (True, "."),
        (True, "MELD.Raw"),
        (True, "MELD.Raw/train"),
        (True, "MELD.Raw/train/train_splits"),
    ],
)
def test_both_trees_are_found_from_above_and_from_inside(tmp_path, level, start):
    root = make(tmp_path / "MELD.Raw", {part: [row("0", "0")] for part in FOLDERS}, level)
    release = read_release("meld", tmp_path / start, SEVEN)
    assert release.root == root
    assert [(u.utterance_id, u.dialogue_id, u.fold) for u in release.utterances] == [
        ("train_dia0_utt0", "train_dia0", "train"),
        ("dev_dia0_utt0", "dev_dia0", "valid"),
        ("test_dia0_utt0", "test_dia0", "test"),
    ]
    place = "train/train_splits" if level else "train_splits"
    assert release.utterances[0].source_video == f"{place}/dia0_utt0.mp4" == release.utterances[0].source_audio
    assert f"train: 1 rows in train_sent_emo.csv, 1 clips in {place}/" in release.notes


def test_a_row_becomes_an_utterance_of_the_whole_clip(tmp_path):
    rows = [row("3", "12", "anger", "negative", "  “No!” – he said ", "The Casting Director", 3)]
    make(tmp_path, {"train": rows})
    (one,) = read_release("meld", tmp_path, ["fear", "anger"]).utterances
    assert list(one.labels.items()) == [("fear", 0.0), ("anger", 1.0)]
    assert (one.sentiment, one.text, one.speaker) == (-1.0, "“No!” – he said", "The_Casting_Director")
    assert (one.start_s, one.end_s, one.stated_s, one.audio_is_cut) == (0.0, math.inf, 3.0, True)
    assert (one.session, one.half) == ("", None)


def test_seven_emotions_and_three_sentiments_and_the_rest_of_the_task(tmp_path):
    rows = [row("0", str(i), emotion.title(), "neutral") for i, emotion in enumerate(SEVEN)]
    make(tmp_path, {"test": rows})
    release = read_release("meld", tmp_path, ["joy", "fear"])
    assert [u.utterance_id for u in release.utterances] == ["test_dia0_utt1", "test_dia0_utt6"]
    assert reasons(release) == {
        (f"test_dia0_utt{i}", f"label:{e}"): 1 for i, e in enumerate(SEVEN) if e not in ("joy", "fear")
    }
    everything = read_release("meld", tmp_path, [])
    assert [(u.labels, u.sentiment) for u in everything.utterances] == [({}, 0.0)] * 7
    with pytest.raises(DataError, match="unknown: happy"):
        read_release("meld", tmp_path, ["happy"])


def test_missing_clips_extra_clips_and_what_macos_leaves(tmp_path):
    make(tmp_path, {"dev": [row("110", "6"), row("110", "7")], "test": [row("279", "15"), row("0", "0")]})
    (tmp_path / FOLDERS["dev"] / "dia110_utt7.mp4").unlink()
    (tmp_path / FOLDERS["test"] / "dia279_utt15.mp4").unlink()
    for name in ("final_videos_testdia93_utt5.mp4", "final_videos_testdia93_utt6.mp4", "._dia0_utt0.mp4",
                 "dia9_utt1.mp4", "notes.txt", "dia1_utt01.mp4"):  # fmt: skip
        (tmp_path / FOLDERS["test"] / name).touch()
    (tmp_path / "__MACOSX" / FOLDERS["test"]).mkdir(parents=True)
    release = read_release("meld", tmp_path, SEVEN)
    assert [u.utterance_id for u in release.utterances] == ["dev_dia110_utt6", "test_dia0_utt0"]
    assert reasons(release) == {
        ("dev_dia110_utt7", "no_video"): 1, ("test_dia279_utt15", "no_video"): 1, ("test_dia9_utt1", "unlabelled"): 1,
    }  # fmt: skip
    assert "test: 2 second cuts (final_videos_test*) are not used" in release.notes
    assert "test: 1 hidden files of macOS (._*) are not used" in release.notes
    assert "test: 2 files are not dia<D>_utt<U>.mp4, e.g. 'dia1_utt01.mp4'" in release.notes
    assert "train: not there, neither train_sent_emo.csv nor train_splits/" in release.notes


def test_times_that_cannot_be_used_are_counted(tmp_path):
    rows = [row("0", str(i)) for i in range(5)]
    for cells, times in zip(rows, [("00:59:59,900", "01:00:01,050"), ("0:00:01.5", "0:00:02.25"), ("", ""),
                                   ("00:00:02,000", "00:00:02,000"), ("1 s", "2 s")], strict=True):  # fmt: skip
        cells[9:] = times
    make(tmp_path, {"train": rows})
    release = read_release("meld", tmp_path, SEVEN)
    assert [u.stated_s for u in release.utterances] == [1.15, 0.75, None, None, None]
    assert any(note.startswith("train: 3 rows state no StartTime before an EndTime") for note in release.notes)


def test_control_characters_are_kept_and_counted_and_windows_1252_is_read(tmp_path):
    make(tmp_path, {"train": [row("0", "0", text="It\x92s the end"), row("0", "1", text="it’s")]})
    write_csv(tmp_path / "dev_sent_emo.csv", [row("0", "0", text="It’s – ”")], encoding="cp1252")
    (tmp_path / FOLDERS["dev"]).mkdir()
    (tmp_path / FOLDERS["dev"] / "dia0_utt0.mp4").touch()
    release = read_release("meld", tmp_path, SEVEN)
    assert [u.text for u in release.utterances] == ["It\x92s the end", "it’s", "It’s – ”"]
    assert any(note.startswith("train: 1 texts hold control characters") for note in release.notes)
    assert "dev_sent_emo.csv is not UTF-8; it is read as cp1252: look at a few texts" in release.notes


def test_rows_that_cannot_be_used(tmp_path):
    rows = [row("0", "0"), row("0", "0", "fear"), row("0.0", "1.0"), row("x", "2"), row("", ""), row("0", "3", "rage"),
            row("0", "4", sentiment="mixed"), ["1", "short"], row("../0", "5")]  # fmt: skip
    make(tmp_path, {"train": [row("0", str(i)) for i in range(5)]})
    write_csv(tmp_path / "train_sent_emo.csv", rows)
    release = read_release("meld", tmp_path, SEVEN)
    assert [u.utterance_id for u in release.utterances] == ["train_dia0_utt0", "train_dia0_utt1"]
    assert reasons(release) == {
        (None, "duplicate"): 1, (None, "labels:unreadable"): 4, ("train_dia0_utt3", "labels:unreadable"): 1,
        ("train_dia0_utt4", "labels:unreadable"): 1, ("train_dia0_utt2", "unlabelled"): 1,
    }  # fmt: skip
    assert any(reject.detail.startswith("line 3: a second row of dia0_utt0") for reject in release.rejects)
    assert {reject.source for reject in release.rejects} == {"train_sent_emo.csv", "train_splits/dia0_utt2.mp4"}


def test_archives_that_are_not_unpacked_are_named_with_the_command(tmp_path):
    root = tmp_path / "my MELD.Raw"
    root.mkdir()
    (root / "MELD.Raw.tar.gz").touch()
    with pytest.raises(DataError, match="not unpacked") as caught:
        read_release("meld", tmp_path, SEVEN)
    assert f"`tar -xzf '{root}/MELD.Raw.tar.gz' -C '{root}'`" in str(caught.value)
    make(root, {"train": [row("0", "0")]})
    (root / "train.tar.gz").touch()
    (root / "dev.tar.gz").touch()
    with pytest.raises(DataError, match="not unpacked") as caught:
        read_release("meld", root, SEVEN)
    assert f"run `tar -xzf '{root}/dev.tar.gz' -C '{root}'`" in str(caught.value)
    (root / "dev.tar.gz").unlink()
    assert len(read_release("meld", root, SEVEN).utterances) == 1


def test_tables_are_looked_for_two_levels_down_and_their_absence_is_said(tmp_path):
    make(tmp_path, {"train": [row("0", "0")], "dev": [row("0", "0"), row("0", "1")]})
    (tmp_path / "data" / "MELD").mkdir(parents=True)
    (tmp_path / "train_sent_emo.csv").rename(tmp_path / "data" / "MELD" / "train_sent_emo.csv")
    (tmp_path / "dev_sent_emo.csv").unlink()
    (tmp_path / "dev" / FOLDERS["dev"]).mkdir(parents=True)
    release = read_release("meld", tmp_path, SEVEN)
    assert [u.utterance_id for u in release.utterances] == ["train_dia0_utt0"]
    assert reasons(release) == {("dev_dia0_utt0", "no_labels"): 1, ("dev_dia0_utt1", "no_labels"): 1}
    assert "dev/dev_splits_complete is another dev_splits_complete and is not used" in release.notes
    shutil.rmtree(tmp_path / "data")
    with pytest.raises(DataError, match="no labels: looked for train_sent_emo.csv"):
        read_release("meld", tmp_path, SEVEN)


def test_a_table_without_clips_or_without_a_column(tmp_path):
    make(tmp_path, {"train": [row("0", "0")]})
    write_csv(tmp_path / "test_sent_emo.csv", [row("0", "0")])
    release = read_release("meld", tmp_path, SEVEN)
    assert reasons(release) == {("test_dia0_utt0", "no_video"): 1}
    write_csv(tmp_path / "test_sent_emo.csv", [["0"] * 10], COLUMNS[:3] + COLUMNS[4:])
    with pytest.raises(DataError, match="test_sent_emo.csv has no column Emotion"):
        read_release("meld", tmp_path, SEVEN)
    with pytest.raises(DataError, match="no meld release") as caught:
        read_release("meld", tmp_path / "train_splits" / "a", SEVEN)
    assert "standin" not in str(caught.value)  # there is no stand-in of MELD to offer


def test_the_published_counts_of_meld_add_up():
    published = ReorganizeSettings.checked(load_config("datasets", "meld"), "test").published
    for split in published.splits:
        assert sum(split.utterances.values()) == published.utterances
        for part, count in split.utterances.items():
            assert sum(getattr(label, part) for label in split.labels.values()) == count
    assert sum(published.labels.values()) == published.utterances
    assert list(published.labels) == SEVEN == list(load_config("datasets", "meld")["emotions"])


@pytest.fixture(scope="module")
def playground(tmp_path_factory):
    return make(tmp_path_factory.mktemp("meld"), {"train": [row("0", str(i)) for i in range(3)]})


CELLS = st.one_of(st.sampled_from([*SEVEN, "positive", "0", "1", "2", "00:00:01,000", '"', "\n", ","]), st.text())
TABLES = st.one_of(
    st.binary(),
    st.lists(st.lists(CELLS, min_size=11, max_size=11), max_size=6).map(
        lambda rows: "\n".join([",".join(COLUMNS), *(",".join(cells) for cells in rows)]).encode("utf-8", "replace")
    ),
    st.lists(st.binary(), max_size=6).map(lambda lines: b"\r\n".join([",".join(COLUMNS).encode(), *lines])),
)


@settings(max_examples=200, deadline=None)
@given(content=TABLES)
def test_any_table_gives_utterances_rejects_or_an_error_and_loses_no_clip(playground, content):
    (playground / "train_sent_emo.csv").write_bytes(content)
    try:
        release = read_release("meld", playground, SEVEN)
    except DataError:
        return
    named = [u.utterance_id for u in release.utterances] + [r.utterance_id for r in release.rejects if r.utterance_id]
    assert len(set(named)) == len(named)
    assert {f"train_dia0_utt{i}" for i in range(3)} <= set(named)


@settings(max_examples=100, deadline=None)
@given(
    rows=st.lists(
        st.builds(
            row,
            st.sampled_from(["0", "1", "00", "x", ""]),
            st.sampled_from(["0", "1", "2", "3.0"]),
            st.sampled_from([*SEVEN, "Joy", "rage"]),
            st.sampled_from(["positive", "neutral", "negative", "?"]),
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
        ),
        min_size=1,
    )
)
def test_every_row_is_taken_or_rejected_once(playground, rows):
    write_csv(playground / "train_sent_emo.csv", rows)
    release = read_release("meld", playground, ["joy", "anger"])
    about_rows = [reject for reject in release.rejects if reject.reason != "unlabelled"]
    assert len(release.utterances) + len(about_rows) == len(rows)


def make_clip(path, seconds, sound=True, seed=0):
    rng = np.random.default_rng(seed)
    frames = (np.full((48, 64, 3), 10 * (number % 20), np.uint8) for number in range(round(10 * seconds)))
    wav = path.with_suffix(".wav")
    if sound:
        write_wav(wav, rng.normal(0, 0.1, round(16_000 * seconds)).astype(np.float32))
    write_video(path, frames, (64, 48), 10, audio=wav if sound else None)
    wav.unlink(missing_ok=True)


def test_from_the_release_to_clips_with_its_own_splits(tmp_path):
    root = tmp_path / "MELD.Raw"
    train = [row("0", "0", seconds=1), row("0", "1", "neutral", "neutral", seconds=1), row("125", "3"), row("1", "0")]
    dev = [row("110", "6", "fear", "negative", seconds=1), row("110", "7")]
    test = [row("0", "0", "anger", "negative", seconds=1), row("220", "0", seconds=1)]
    make(root, {"train": train, "dev": dev, "test": test})
    (root / FOLDERS["dev"] / "dia110_utt7.mp4").unlink()
    for path in sorted(root.rglob("*.mp4")):
        make_clip(path, 4 if path.name == "dia220_utt0.mp4" else 1, sound=path.name != "dia1_utt0.mp4")
    corrupt = root / FOLDERS["train"] / "dia125_utt3.mp4"
    corrupt.write_bytes(corrupt.read_bytes()[:600])
    values = load_config("datasets", "meld") | {"root": root, "out": tmp_path / "out", "workers": 1}
    values["max_reject_share"] = 0.5
    summary = reorganize(ReorganizeSettings.checked(values, "test"), Reporter(quiet=True))
    table = read_manifest(tmp_path / "out").set_index("utterance_id")
    assert dict(table["split"]) == {
        "train_dia0_utt0": "train", "train_dia0_utt1": "train", "dev_dia110_utt6": "valid", "test_dia0_utt0": "test",
    }  # fmt: skip
    assert {r.utterance_id: r.reason for r in read_rejects(tmp_path / "out")} == {
        "train_dia125_utt3": "video:unreadable", "train_dia1_utt0": "no_audio", "dev_dia110_utt7": "no_video",
        "test_dia220_utt0": "clip:length",
    }  # fmt: skip
    assert (summary["kept"], summary["rejected"]) == (4, 4)
    assert summary["found"] == len(train) + len(dev) + len(test)
    assert table.loc["dev_dia110_utt6", "label_fear"] == 1.0
    assert table["sentiment"].tolist() == [-1.0, -1.0, 1.0, 0.0]
    assert table.loc["test_dia0_utt0", "end_s"] == pytest.approx(1.0, abs=0.15)
    for clip in table["clip"]:
        info = probe(tmp_path / "out" / clip)
        assert (info.width, info.height, info.has_audio) == (64, 48, True)
        assert info.duration_s == pytest.approx(1.0, abs=0.15)
