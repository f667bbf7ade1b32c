"""The readers of MER2023, MER2024 and MER2025 on small trees in the real layouts."""

import csv
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.corpora.mer import EMOTIONS
from data_tools.corpora.readers import read_release
from data_tools.errors import DataError
from data_tools.splits import SplitSpec, assign_splits
from pipeline.check import check
from pipeline.reorganize import ReorganizeSettings
from pipeline.settings import load_config
from pipeline.training.label_maps import read_label_map

SIX = list(EMOTIONS)


def write_csv(path, header, rows, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file).writerows([header, *rows])


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def make_2023(root):
    write_csv(root / "train-label.csv", ["name", "discrete", "valence"], [
        ["sample_00000001", "happy", "2.5"], ["sample_00000002", "worried", "-1.2"], ["sample_00000003", "sad", "-3"],
    ])  # fmt: skip
    write_csv(root / "test1-label.csv", ["name", "discrete", "valence"], [["sample_00000004", "angry", "-2"]])
    write_csv(root / "test3-label.csv", ["name", "discrete"], [["sample_00000005", "neutral"]])
    touch(root, *(f"train/sample_0000000{i}.avi" for i in (1, 2, 3)), "test1/sample_00000004.mp4")
    touch(root, "test3/sample_00000005.avi", "test3/sample_00000006.avi")
    return root


def make_2024(root):
    rows = [["samplenew3_1", "surprise", "0.1"], ["samplenew3_2", "neutral", "0"]]
    write_csv(root / "label-disdim.csv", ["name", "discrete", "valence"], rows)
    write_csv(root / "label-transcription.csv", ["name", "chinese"], [["samplenew3_1", "好"]], "gb18030")
    touch(root, "video-labeled/samplenew3_1.mp4", "video-labeled/samplenew3_2.mp4")
    touch(root, "video-unlabeled-with-test2noise/samplenew3_3.mp4")
    return root


def make_2025(root):
    write_csv(
        root / "track1_train_disdim.csv", ["name", "discrete", "valence"], [["a_1", "happy", "3"], ["a_2", "sad", ""]]
    )
    write_csv(root / "track_all_candidates.csv", ["name"], [["a_1"], ["a_2"], ["a_3"]])
    write_csv(root / "subtitle_chieng.csv", ["name", "chinese", "english"], [["a_1", "你好", "Hello"], ["a_2", "", ""]])
    touch(root, *(f"video/a_{i}.mp4" for i in (1, 2, 3)), "audio/a_1.wav")
    return root


MAKERS = {"mer2023": make_2023, "mer2024": make_2024, "mer2025": make_2025}


def reasons(release):
    return {(reject.utterance_id, reject.reason) for reject in release.rejects}


def settings_of(name, root, out):
    return ReorganizeSettings.checked(load_config("datasets", name) | {"root": root, "out": out}, "test")


def test_mer2023_has_its_parts_as_splits(tmp_path):
    release = read_release("mer2023", make_2023(tmp_path / "deep" / "mer2023").parent, SIX)
    found = {u.utterance_id[-1]: (u.fold, u.sentiment, [e for e in SIX if u.labels[e]]) for u in release.utterances}
    assert found == {
        "1": ("train", 2.5, ["happy"]),
        "2": ("train", -1.2, ["worried"]),
        "3": ("train", -3.0, ["sad"]),
        "4": ("test", -2.0, ["angry"]),
        "5": ("test", None, ["neutral"]),
    }
    assert reasons(release) == {("sample_00000006", "unlabelled")}
    assert any("test2: 0 rows" in note and "there is no test2-label.csv" in note for note in release.notes)
    one = release.utterances[0]
    assert (one.start_s, one.end_s, one.audio_is_cut, one.dialogue_id, one.speaker) == (
        0.0, math.inf, True, one.utterance_id, one.utterance_id
    )  # fmt: skip
    assert one.source_video == one.source_audio == "train/sample_00000001.avi"
    split = assign_splits(release.utterances, SplitSpec("release"), 0)
    assert sorted(split.by_id.values()) == ["test", "test", "train", "train", "valid"]
    assert "the release states no valid: it is 20 % of its train's dialogues, drawn with seed 0" in split.notes


def test_parts_of_mer2023_can_be_chosen(tmp_path):
    root = make_2023(tmp_path / "mer2023")
    release = read_release("mer2023", root, SIX, {"parts": ["test1"]})
    assert [(u.utterance_id, u.fold) for u in release.utterances] == [("sample_00000004", "test")]
    assert assign_splits(release.utterances, SplitSpec("release"), 0).by_id == {"sample_00000004": "test"}
    with pytest.raises(DataError, match="parts has dev for mer2023; expected some of train, test1"):
        read_release("mer2023", root, SIX, {"parts": ["dev"]})


def test_mer2024_takes_the_labelled_clips_with_their_texts(tmp_path):
    release = read_release("mer2024", make_2024(tmp_path / "mer2024"), [])
    assert release.emotions == EMOTIONS
    assert [(u.utterance_id, u.text, u.sentiment) for u in release.utterances] == [
        ("samplenew3_1", "好", 0.1),
        ("samplenew3_2", "", 0.0),
    ]
    assert reasons(release) == {("samplenew3_3", "unlabelled")}
    assert "1 clips have no text: `pipeline transcribe` recognises words" in release.notes
    assert "label-transcription.csv is not UTF-8; it is read as gb18030: look at a few texts" in release.notes


def test_mer2025_takes_the_wavs_where_they_are_and_either_language(tmp_path):
    root = make_2025(tmp_path / "mer2025")
    release = read_release("mer2025", root, SIX, {"language": "en"})
    assert [(u.utterance_id, u.text, u.sentiment, u.source_audio) for u in release.utterances] == [
        ("a_1", "Hello", 3.0, "audio/a_1.wav"),
        ("a_2", "", None, "video/a_2.mp4"),
    ]
    assert [u.text for u in read_release("mer2025", root, SIX).utterances] == ["你好", ""]
    with pytest.raises(DataError, match="language is 'de' for mer2025; expected one of zh, en"):
        read_release("mer2025", root, SIX, {"language": "de"})


def test_clips_without_a_label_can_be_kept(tmp_path):
    release = read_release("mer2025", make_2025(tmp_path / "mer2025"), SIX, {"unlabelled": "keep"})
    assert [(u.utterance_id, any(u.labels.values()), u.sentiment) for u in release.utterances][2] == (
        "a_3",
        False,
        None,
    )
    assert release.rejects == []


def test_rows_that_cannot_be_used(tmp_path):
    root = make_2025(tmp_path / "mer2025")
    rows = [["a_1", "Happy", "x"], ["a_1", "sad", "1"], ["a_2", "bored", ""], ["a_9", "sad", ""], ["", "sad", ""]]
    write_csv(root / "track1_train_disdim.csv", ["name", "discrete", "valence"], [*rows, ["a_3", "", ""]])
    release = read_release("mer2025", root, ["happy", "angry"])
    assert reasons(release) == {
        (None, "labels:unreadable"),  # a valence, and a row without a name
        (None, "duplicate"),
        ("a_2", "labels:unreadable"),
        ("a_9", "label:sad"),
        ("a_3", "unlabelled"),
    }
    assert [(u.utterance_id, u.sentiment) for u in release.utterances] == [("a_1", None)]
    assert ("a_9", "no_video") in reasons(read_release("mer2025", root, ["happy", "sad"]))


@pytest.mark.parametrize("name", MAKERS)
def test_check_finds_each_year(tmp_path, name):
    root = MAKERS[name](tmp_path / name)
    found = check(settings_of(name, tmp_path, tmp_path / "out"), samples=0)
    assert found["root"] == str(root)
    if name == "mer2025":
        assert found["files"]["videos"] == {"path": "video/*.mp4", "found": 3, "published": 132_171}
        assert found["utterances"] == {"usable": 2, "labelled": 2, "published": 7369}


def test_worried_counts_as_fear():
    for year in MAKERS:
        assert read_label_map("common").counterparts(year, SIX)["worried"] == "fear"


NAMES = st.sampled_from(["a_1", "a_2", "b", "../up", ".x"])


@settings(max_examples=40, deadline=None)
@given(
    files=st.sets(NAMES, max_size=4),
    rows=st.lists(
        st.tuples(NAMES, st.sampled_from(["happy", "sad", "", "?"]), st.text(max_size=4)), min_size=1, max_size=6
    ),
)
def test_every_clip_is_taken_or_rejected_once(tmp_path_factory, files, rows):
    root = tmp_path_factory.mktemp("any") / "mer2025"
    (root / "video").mkdir(parents=True)
    touch(root, *(f"video/{name}.mp4" for name in files if "/" not in name))
    write_csv(root / "track1_train_disdim.csv", ["name", "discrete", "valence"], rows)
    release = read_release("mer2025", root, ["happy"])
    named = [u.utterance_id for u in release.utterances] + [r.utterance_id for r in release.rejects if r.utterance_id]
    expected = {name for name, *_ in rows} | {name for name in files if "/" not in name and not name.startswith(".")}
    assert sorted(named) == sorted(expected)
