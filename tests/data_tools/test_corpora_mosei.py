"""The CMU-MOSEI reader on hand-made trees whose answers are counted by hand."""

import csv
import os
from collections import Counter

import pytest

from data_tools.corpora import read_release
from data_tools.errors import DataError
from data_tools.manifest import read_rejects, write_rejects

SIX = ["anger", "disgust", "fear", "happy", "sad", "surprise"]
COLUMNS = ["HITId", "Input.VIDEO_ID", "Input.CLIP", "WorkerId", "Answer.anger", "Answer.disgust", "Answer.fear",
           "Answer.happiness", "Answer.sadness", "Answer.surprise", "Answer.sentiment"]  # fmt: skip
ORIGINAL = ("Transcript/Segmented/Combined", "Videos/Full/Combined", "Audio/Full/WAV_16000")
MESM = ("Transcript/Combined", "Videos/Full/Combined", "Audio/WAV_16000")
# The odd ids of the release: all digits, a leading hyphen, two underscores inside, a leading zero.
IDS = ["243646", "-3g5yACwYnA", "PtH_8O__EAY", "0123456"]


def row(video, clip, *answers, sentiment="0"):
    return ["h", video, clip, "w", *answers, sentiment]


def write_csv(root, name, rows, columns=COLUMNS):
    (root / "Labels").mkdir(parents=True, exist_ok=True)
    with (root / "Labels" / name).open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def make(root, texts, tree=ORIGINAL, wavs=True):
    """texts: video id -> transcript file. Media files are empty: a reader of text never opens them."""
    for folder in tree:
        (root / folder).mkdir(parents=True, exist_ok=True)
    for video, text in texts.items():
        (root / tree[0] / f"{video}.txt").write_bytes(text.encode())
        (root / tree[1] / f"{video}.mp4").touch()
        if wavs:
            (root / tree[2] / f"{video}.wav").touch()
    return root


def reasons(release):
    return Counter((reject.utterance_id, reject.reason) for reject in release.rejects)


@pytest.mark.parametrize("tree", [ORIGINAL, MESM])
def test_both_trees_odd_ids_and_labels_by_hand(tmp_path, tree):
    make(tmp_path / "Raw", {v: f"{v}___10___1.5___9.25___Second.\n{v}___2___0.0___2.0___First.\n" for v in IDS}, tree)
    rows = [row(prefix + v, clip, "0", "0", "0", "1", "0", "0", sentiment="2") for v in IDS
            for clip, prefix in [("2", ""), ("2", "pom/"), ("10", "pom/")]]  # fmt: skip
    write_csv(tmp_path / "Raw", "mturk_extra_v2.csv", rows)
    write_csv(tmp_path / "Raw", "extra.csv", [row("243646", "10", "2", "0", "0", "0", "0", "0", sentiment="-1")])
    release = read_release("mosei", tmp_path, SIX)
    assert not release.rejects
    assert [u.utterance_id for u in release.utterances] == [f"{v}_{c}" for v in sorted(IDS) for c in (2, 10)]
    by_id = {u.utterance_id: u for u in release.utterances}
    one = by_id["243646_10"]
    assert one.labels == {"anger": 1.0, "disgust": 0.0, "fear": 0.0, "happy": 1.0, "sad": 0.0, "surprise": 0.0}
    assert one.sentiment == 0.5
    assert (one.start_s, one.end_s, one.text, one.dialogue_id) == (1.5, 9.25, "Second.", "243646")
    assert by_id["PtH_8O__EAY_2"].sentiment == 2.0
    assert by_id["-3g5yACwYnA_2"].source_video == f"{tree[1]}/-3g5yACwYnA.mp4"
    assert by_id["-3g5yACwYnA_2"].source_audio == f"{tree[2]}/-3g5yACwYnA.wav"
    assert not one.audio_is_cut
    assert one.half is None


def test_any_annotator_is_enough_and_label_order_is_the_settings(tmp_path):
    make(tmp_path, {"v": "v___0___0___5___A.\n"})
    answers = [("0", "0", "3", "0", "0", "0"), ("0", "0", "0", "0", "1", "0"), ("", "0", "", "", "0", "0")]
    write_csv(
        tmp_path, "a.csv", [row("v", "0", *a, sentiment=s) for a, s in zip(answers, ("-3", "", "0"), strict=True)]
    )
    (utterance,) = read_release("mosei", tmp_path, ["surprise", "sad", "fear"]).utterances
    assert list(utterance.labels.items()) == [("surprise", 0.0), ("sad", 1.0), ("fear", 1.0)]
    assert utterance.sentiment == -1.5  # the mean of the two that answered


def test_text_may_hold_the_separator_be_empty_or_hold_line_separators(tmp_path):
    text = "v___0___0___5___a ___ b___c\nv___1___5___6___\nv___2___6___7___one\u2028line\x85still\r\n\n"
    make(tmp_path, {"v": text})
    write_csv(tmp_path, "a.csv", [row("v", str(c), *"000000") for c in range(3)])
    release = read_release("mosei", tmp_path, SIX)
    assert [u.text for u in release.utterances] == ["a ___ b___c", "", "one\u2028line\x85still"]
    assert not release.rejects


def test_starts_before_zero_are_clamped_and_said(tmp_path):
    make(tmp_path, {"v": "v___0____0.4875___5___A.\nv___1___-0.4875___5___B.\nv___2___-3___-1___C.\n"})
    write_csv(tmp_path, "a.csv", [row("v", str(c), *"000000") for c in range(3)])
    release = read_release("mosei", tmp_path, SIX)
    assert [(u.utterance_id, u.start_s) for u in release.utterances] == [("v_1", 0.0)]
    assert any("1 intervals began before 0" in note for note in release.notes)
    assert reasons(release)["v_2", "interval:invalid"] == 1


def test_labels_without_text_and_text_without_labels(tmp_path):
    make(tmp_path, {"v": "v___0___0___5___A.\nv___1___5___9___B.\nv___1___5___9___again\n", "w": "w___0___0___1___C\n"})
    write_csv(tmp_path, "a.csv", [row("v", "0", *"100000"), row("v", "7", *"000000"), row("gone", "0", *"000000")])
    release = read_release("mosei", tmp_path, SIX)
    assert [u.utterance_id for u in release.utterances] == ["v_0"]
    assert reasons(release) == {
        ("v_1", "unlabelled"): 1, (None, "duplicate"): 1, ("w_0", "unlabelled"): 1,
        ("v_7", "no_transcript"): 1, ("gone_0", "no_transcript"): 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    "line", ["b'v___0___0", "0.0 5.0", "other___0___0___5___A.", "v___x___0___5___A.", "v___0___nan___5___A."]
)
def test_a_transcript_line_of_another_form_is_named(tmp_path, line):
    make(tmp_path, {"v": f"{line}\nv___1___5___6___B.\n"})
    write_csv(tmp_path, "a.csv", [row("v", "1", *"000000")])
    release = read_release("mosei", tmp_path, SIX)
    assert [u.utterance_id for u in release.utterances] == ["v_1"]
    assert [(r.reason, r.source) for r in release.rejects] == [("transcript:unreadable", f"{ORIGINAL[0]}/v.txt")]
    assert "line 1" in release.rejects[0].detail


def test_answers_out_of_range_do_not_count(tmp_path):
    make(tmp_path, {"v": "v___0___0___5___A.\nv___1___5___6___B.\n"})
    rows = [row("v", "0", "9", "0", "0", "0", "0", "0"), row("v", "0", "0", "0", "0", "0", "2", "0", sentiment="77"),
            row("v", "1", "often", "0", "0", "0", "0", "0")]  # fmt: skip
    write_csv(tmp_path, "a.csv", rows)
    release = read_release("mosei", tmp_path, SIX)
    (utterance,) = release.utterances
    assert [name for name, value in utterance.labels.items() if value] == ["sad"]
    assert utterance.sentiment is None
    assert reasons(release) == {("v_1", "labels:unreadable"): 1}
    assert any("2 of 3 annotators' rows" in note for note in release.notes)


def test_missing_video_and_missing_wav(tmp_path):
    make(tmp_path, {"v": "v___0___0___5___A.\n", "w": "w___0___0___5___B.\n"}, wavs=False)
    write_csv(tmp_path, "a.csv", [row("v", "0", *"000000"), row("w", "0", *"000000")])
    (tmp_path / ORIGINAL[1] / "w.mp4").unlink()
    release = read_release("mosei", tmp_path, SIX)
    (utterance,) = release.utterances
    assert utterance.source_audio == utterance.source_video == f"{ORIGINAL[1]}/v.mp4"
    assert reasons(release) == {("w_0", "no_video"): 1}


def test_label_files_that_cannot_be_used(tmp_path):
    make(tmp_path, {"v": "v___0___0___5___A.\nv___1___5___6___B.\n"})
    with pytest.raises(DataError, match=r"no labels: looked for \*.csv in .*Labels"):
        read_release("mosei", tmp_path, SIX)
    write_csv(tmp_path, "other.csv", [["1", "2"]], ["a", "b"])
    (tmp_path / "Labels" / "empty.csv").touch()
    (tmp_path / "Labels" / "._a.csv").write_bytes(b"\x00")
    with pytest.raises(DataError, match="no labels"):
        read_release("mosei", tmp_path, SIX)
    write_csv(tmp_path, "good.csv", [row("v", "0.0", *"000000")])
    release = read_release("mosei", tmp_path, SIX)
    assert [u.utterance_id for u in release.utterances] == ["v_0"]
    assert [(r.utterance_id, r.reason, r.source) for r in release.rejects] == [
        (None, "labels:unreadable", "Labels/empty.csv"),
        ("v_1", "no_labels", f"{ORIGINAL[0]}/v.txt"),
    ]
    (tmp_path / "Labels" / "empty.csv").unlink()
    assert reasons(read_release("mosei", tmp_path, SIX)) == {("v_1", "unlabelled"): 1}
    assert any("other.csv is not used" in note for note in release.notes)


def test_empty_and_hidden_transcripts_and_unknown_emotions(tmp_path):
    make(tmp_path, {"v": "v___0___0___5___A.\n", "w": "\n"})
    (tmp_path / ORIGINAL[0] / "._v.txt").write_bytes(b"\x00")
    write_csv(tmp_path, "a.csv", [row("v", "0", *"000000")])
    release = read_release("mosei", tmp_path, SIX)
    assert [(r.utterance_id, r.reason) for r in release.rejects] == [(None, "no_transcript")]
    with pytest.raises(DataError, match="unknown: happiness"):
        read_release("mosei", tmp_path, ["happiness"])
    with pytest.raises(DataError, match="pipeline standin --dataset mosei"):
        read_release("mosei", tmp_path / "Labels" / "a" / "b" / "c", SIX)


def test_a_file_name_that_is_not_utf8_is_a_reject_that_can_be_written(tmp_path):
    make(tmp_path, {"v": "v___0___0___5___A.\n"})
    (tmp_path / ORIGINAL[0] / os.fsdecode(b"w\xff.txt")).write_text("w___0___0___5___A.\n")
    write_csv(tmp_path, "a.csv", [row("v", "0", *"000000")])
    release = read_release("mosei", tmp_path, SIX)
    assert [u.utterance_id for u in release.utterances] == ["v_0"]
    write_rejects(tmp_path, release.rejects)
    (reject,) = read_rejects(tmp_path)
    assert (reject.utterance_id, reject.source) == (None, f"{ORIGINAL[0]}/w\\xff.txt")
    assert "w\\xff___clip" in reject.detail
