"""The CMU-MOSEI reader on hand-made trees whose answers are counted by hand."""

import csv
import io
import os
import shutil
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.corpora.readers import read_release
from data_tools.errors import DataError
from data_tools.manifest import read_rejects, write_rejects
from data_tools.splits import SplitSpec, assign_splits

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


def make_mmsa(root, clips, fold="train"):
    """clips: `<video>/<clip>` -> sentiment."""
    with io.StringIO(newline="") as table:
        csv.writer(table).writerows(
            [["video_id", "clip_id", "text", "label", "label_T", "label_A", "label_V", "annotation", "mode"]]
            + [[*name.split("/"), f"Text, {name}.", label, "", "", "", "", fold] for name, label in clips.items()]
        )
        root.mkdir(parents=True, exist_ok=True)
        (root / "label.csv").write_text(table.getvalue(), newline="")
    for name in clips:
        (root / "Raw" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "Raw" / f"{name}.mp4").touch()
    return root


def test_mmsas_tree_takes_emotions_from_the_annotators_by_video_and_clip(tmp_path):
    clips = {"243646/10": "1.5", "243646/2": "-3.2", "-3g5yACwYnA/0": "0", "PtH_8O__EAY/1": "0.33"}
    root = make_mmsa(tmp_path / "MOSEI", clips)
    rows = [row("243646", "10", *"100000"), row("243646", "2", *"010000"), row("-3g5yACwYnA", "0", *"000000"),
            row("gone", "0", *"000000")]  # fmt: skip
    write_csv(root, "batch.csv", rows)
    release = read_release("mosei", tmp_path, SIX)
    found = {u.utterance_id: (u.sentiment, [e for e, v in u.labels.items() if v]) for u in release.utterances}
    assert found == {"243646_10": (1.5, ["anger"]), "243646_2": (-3.0, ["disgust"]), "-3g5yACwYnA_0": (0.0, [])}
    one = next(u for u in release.utterances if u.utterance_id == "243646_10")
    assert (one.text, one.source_audio, one.end_s, one.fold) == (
        "Text, 243646/10.", "Raw/243646/10.mp4", float("inf"), "train")  # fmt: skip
    assert reasons(release) == {("PtH_8O__EAY_1", "unlabelled"): 1}
    assert "the tree is that of MMSA: cut clips and label.csv" in release.notes
    assert "1 labels of emotions belong to no clip of label.csv" in release.notes


def test_mmsas_tree_without_emotions_says_what_to_do(tmp_path):
    make_mmsa(tmp_path / "MOSEI", {"v/0": "1"})
    with pytest.raises(DataError, match=r"CMU_MOSEI_Labels\.csd .*; or .*`--dataset mosei-sentiment`"):
        read_release("mosei", tmp_path, SIX)
    (utterance,) = read_release("mosei", tmp_path, []).utterances
    assert (utterance.sentiment, utterance.labels) == (1.0, {})


def test_which_tree_lies_there(tmp_path):
    collection = tmp_path / "MMSA"
    for name in ("MOSEI", "MOSI", "SIMS"):
        make_mmsa(collection / name, {f"{name}/0": "1"})
    assert read_release("mosei", collection, []).root == collection / "MOSEI"
    assert read_release("mosei", collection / "MOSEI" / "Raw", []).root == collection / "MOSEI"
    # A label.csv beside the folders of the zip does not make it the other tree.
    both = tmp_path / "both" / "CMU_MOSEI"
    make(both / "Raw", {"v": "v___0___0___5___A.\n"})
    make_mmsa(both, {"v/0": "1"})
    write_csv(both / "Raw", "a.csv", [row("v", "0", *"000000", sentiment="-2")])
    for start in (tmp_path / "both", both, both / "Raw"):
        release = read_release("mosei", start, [])
        assert release.root == both / "Raw"
        assert [u.sentiment for u in release.utterances] == [-2.0]
        assert "the tree is that of CMU_MOSEI.zip" in release.notes
    make(tmp_path / "rearranged", {"v": "v___0___0___5___A.\n"}, MESM)
    write_csv(tmp_path / "rearranged", "a.csv", [row("v", "0", *"000000")])
    notes = read_release("mosei", tmp_path / "rearranged", []).notes
    assert "the tree is that of MESM, a rearranged CMU_MOSEI.zip" in notes


@pytest.mark.parametrize(
    "content",
    [
        "b'v___0___0.0___5.0___It\\'s \\xc3\\xa9t\\xc3\\xa9.\\nv___1___5___6___B.\\n'",  # the whole file
        'b"v___0___0.0___5.0___It\'s \\xc3\\xa9t\\xc3\\xa9."\nv___1___5___6___B.',  # a line
        "v___0___0.0___5.0___b\"It's \\xc3\\xa9t\\xc3\\xa9.\"\nv___1___5___6___b'B.'",  # the text
    ],
)
def test_transcripts_written_as_pythons_bytes_are_decoded(tmp_path, content):
    make(tmp_path, {"v": content})
    write_csv(tmp_path, "a.csv", [row("v", str(c), *"000000") for c in range(2)])
    release = read_release("mosei", tmp_path, SIX)
    assert [(u.start_s, u.end_s, u.text) for u in release.utterances] == [(0.0, 5.0, "It's été."), (5.0, 6.0, "B.")]
    assert not release.rejects


@pytest.mark.parametrize("wrapped", ["b'\\x'", "b'\\u2028'", "b'\\N{DASH}'", "b'é'", "b'", "b\"a'"])
def test_what_only_looks_like_bytes_is_text(tmp_path, wrapped):
    make(tmp_path, {"v": f"v___0___0___5___{wrapped}\n{wrapped}\n"})
    write_csv(tmp_path, "a.csv", [row("v", "0", *"000000")])
    release = read_release("mosei", tmp_path, SIX)
    assert [u.text for u in release.utterances] == [wrapped]
    assert [reject.reason for reject in release.rejects] == ["transcript:unreadable"]


def test_the_releases_own_clips_stand_in_for_a_missing_video(tmp_path):
    make(tmp_path, {"v_w": "v_w___0___0.5___5___A.\nv_w___1___5___9___B.\n", "x": "x___0___0___5___C.\n"})
    write_csv(tmp_path, "a.csv", [row("v_w", "0", *"000000"), row("v_w", "1", *"000000"), row("x", "0", *"000000")])
    (tmp_path / "Videos/Segmented/Combined").mkdir(parents=True)
    for name in ("v_w_0", "x_0"):
        (tmp_path / "Videos/Segmented/Combined" / f"{name}.mp4").touch()
    (tmp_path / ORIGINAL[1] / "v_w.mp4").unlink()
    release = read_release("mosei", tmp_path, SIX)
    one, other = release.utterances
    assert one.source_video == one.source_audio == "Videos/Segmented/Combined/v_w_0.mp4"
    assert (one.start_s, one.end_s, one.stated_s, one.audio_is_cut) == (0.0, float("inf"), 4.5, True)
    assert (other.source_video, other.end_s, other.stated_s, other.audio_is_cut) == (
        f"{ORIGINAL[1]}/x.mp4",
        5.0,
        None,
        False,
    )
    assert reasons(release) == {("v_w_1", "no_video"): 1}
    assert "1 utterances are clips that the release cut itself: their full video is missing" in release.notes


def test_columns_are_found_by_name_wherever_they_stand(tmp_path):
    make(tmp_path, {"0123": "0123___0___0___5___A.\n"})
    columns = ["Answer.surprise", "x" * 9, "Answer.sentiment", "Input.CLIP", *COLUMNS[4:9], "Input.VIDEO_ID"]
    values = ["0", "", "2", "0", "0", "0", "0", "3", "0", "clips/0123"]
    write_csv(tmp_path, "mturk_extra_v2.csv", [values], columns)
    # A comma at the end of every row, as one more column, moves nothing.
    write_csv(tmp_path, "trailing.csv", [[*values[:7], "0", "1", "0123", ""]], columns)
    (utterance,) = read_release("mosei", tmp_path, SIX).utterances
    assert [name for name, value in utterance.labels.items() if value] == ["happy", "sad"]
    assert utterance.sentiment == 2.0


def test_sentiment_alone_from_the_annotators(tmp_path):
    make(tmp_path, {"v": "".join(f"v___{c}___{c}___{c + 1}___A.\n" for c in range(3))})
    rows = [row("v", "0", *"900000", sentiment="3"), row("v", "0", *"000000", sentiment="-1"),
            row("v", "1", *"000000", sentiment=""), row("v", "2", *"000000", sentiment="0")]  # fmt: skip
    write_csv(tmp_path, "a.csv", rows)
    write_csv(tmp_path, "b.csv", [row("v", "0", *"000000")[:-1]], COLUMNS[:-1])
    release = read_release("mosei", tmp_path, [])
    assert [(u.utterance_id, u.sentiment, u.labels) for u in release.utterances] == [("v_0", 1.0, {}), ("v_2", 0.0, {})]
    assert reasons(release) == {("v_1", "labels:unreadable"): 1}
    assert any("b.csv is not used: it has no column Answer.sentiment" in note for note in release.notes)


def test_the_standard_folds_are_lists_of_videos(tmp_path):
    make(tmp_path / "Raw", {v: f"{v}___0___0___5___A.\n{v}___1___5___6___B.\n" for v in IDS})
    write_csv(tmp_path / "Raw", "a.csv", [row(v, clip, *"000000") for v in IDS for clip in ("0", "1")])
    release = read_release("mosei", tmp_path, SIX)
    lists = {"train": ["-3g5yACwYnA", "0123456"], "valid": ["243646"], "test": ["7l3BNtSE0xc"]}
    (tmp_path / "lists").mkdir()
    for split, names in lists.items():
        (tmp_path / "lists" / f"{split}_split.txt").write_text("".join(f"{name}\n" for name in names))
    result = assign_splits(release.utterances, SplitSpec.parse(f"lists:{tmp_path / 'lists'}"), seed=0)
    assert result.by_id == {
        f"{video}_{clip}": split for split, names in lists.items() for video in names for clip in (0, 1) if video in IDS
    }
    assert [(r.utterance_id, r.reason) for r in result.rejects] == [
        ("PtH_8O__EAY_0", "split:not_listed"), ("PtH_8O__EAY_1", "split:not_listed")]  # fmt: skip
    assert any(note == "test list: 1 ids, 1 of them not in the data, e.g. 7l3BNtSE0xc" for note in result.notes)


def fresh(tmp_path_factory, name):
    root = tmp_path_factory.getbasetemp() / name
    shutil.rmtree(root, ignore_errors=True)
    return root


VIDEO_IDS = st.from_regex(r"[A-Za-z0-9_-]{1,12}", fullmatch=True)
# What a line can hold: anything but its ends, and no space round it.
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\ufeff"), max_size=30).map(str.strip)
TIMES = st.floats(0, 1e4).map(lambda start: (start, start + 1.5))


@settings(max_examples=30, deadline=None)
@given(video=VIDEO_IDS, clips=st.dictionaries(st.integers(0, 999_999), st.tuples(TIMES, TEXTS), min_size=1, max_size=5))
def test_a_transcript_comes_back_as_it_was_written(tmp_path_factory, video, clips):
    root = fresh(tmp_path_factory, "round")
    lines = [f"{video}___{clip}___{start!r}___{end!r}___{text}\n" for clip, ((start, end), text) in clips.items()]
    make(root, {video: "".join(lines)})
    write_csv(root, "a.csv", [row(video, str(clip), *"000000") for clip in clips])
    release = read_release("mosei", root, SIX)
    assert not release.rejects
    found = {u.utterance_id: ((u.start_s, u.end_s), u.text) for u in release.utterances}
    assert found == {f"{video}_{clip}": what for clip, what in clips.items()}


LINES = st.lists(
    st.sampled_from(["v", "w", "___", "0", "1", "-1.5", "9e9", "nan", "b'", "'", "\\x", "\n", "é", " ", "\0"])
)


@settings(max_examples=30, deadline=None)
@given(content=st.binary(max_size=200) | LINES.map("".join).map(str.encode))
def test_any_bytes_in_a_transcript_are_utterances_or_rejects(tmp_path_factory, content):
    root = make(fresh(tmp_path_factory, "any"), {"v": "", "good": "good___0___0___5___A.\n"})
    (root / ORIGINAL[0] / "v.txt").write_bytes(content)
    write_csv(root, "a.csv", [row(video, clip, *"000000") for video in ("v", "good") for clip in "01"])
    release = read_release("mosei", root, SIX)
    used = [u.utterance_id for u in release.utterances]
    rejected = [reject.utterance_id for reject in release.rejects if reject.utterance_id]
    assert len(set(used + rejected)) == len(used + rejected)
    assert {"v_0", "v_1", "good_0", "good_1"} <= set(used + rejected)
    assert "good_0" in used
    assert all(0 <= u.start_s < u.end_s for u in release.utterances)
    if not content.strip():
        assert "no_transcript" in [reject.reason for reject in release.rejects if not reject.utterance_id]


CELLS = st.sampled_from(
    ["v", "x/v", "0", "1", "3.0", "", "-1", "2", "1e400", "nan", "=1", '"', "\0", "é", "\ud800", "a b"]
)


@settings(max_examples=30, deadline=None)
@given(
    content=st.binary(max_size=200)
    | st.lists(st.lists(CELLS, max_size=13).map(",".join), max_size=6).map(
        lambda rows: "\n".join([",".join(COLUMNS), *rows]).encode("utf-8", "surrogatepass")
    )
)
def test_any_bytes_in_a_label_table_are_labels_or_a_reject(tmp_path_factory, content):
    root = make(fresh(tmp_path_factory, "tables"), {"v": "v___0___0___5___A.\nv___1___5___9___B.\n"})
    write_csv(root, "good.csv", [row("v", "1", *"100000", sentiment="2")])
    (root / "Labels" / "bad.csv").write_bytes(content)
    release = read_release("mosei", root, SIX)
    used = [u.utterance_id for u in release.utterances]
    rejected = [reject.utterance_id for reject in release.rejects if reject.utterance_id]
    assert len(set(used + rejected)) == len(used + rejected)
    assert {"v_0", "v_1"} <= set(used + rejected)
    assert "v_1" in used
    for utterance in release.utterances:
        assert set(utterance.labels.values()) <= {0.0, 1.0}
        assert utterance.sentiment is None or -3 <= utterance.sentiment <= 3
    for reject in release.rejects:
        assert f"{reject.utterance_id}{reject.detail}".encode()
