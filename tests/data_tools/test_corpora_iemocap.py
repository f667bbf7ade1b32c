"""The IEMOCAP reader on hand-made trees whose answers are counted by hand."""

import re
import shutil
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.clips import make_clips
from data_tools.corpora.readers import read_release
from data_tools.errors import DataError
from data_tools.media.write import write_video
from data_tools.receipts import ClipSettings, Dialogue

SIX = ["ang", "exc", "fru", "hap", "neu", "sad"]

LABELS = """% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]

[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]
C-E2:\tNeutral;\t()
C-F1:\tNeutral;\t(curious)
A-E3:\tval 3; act 2; dom  2;\t()

[10.0100 - 11.3925]\tSes01F_impro01_M000\txxx\t[2.5000, 2.5000, 2.5000]
C-E2:\tAnger; Frustration;\t()

[1.5000 - 3.2500]\tSes01F_impro01_M001\tang\t[1.5000, 3.5000, 4.5000]
[14.8872 - 18.0175]\tSes01F_impro01_F001\toth\t[2.5, 2.5, 2.5]
"""
TEXTS = """Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me.
Ses01F_impro01_M000 [010.0100-011.3925]: Do you have your forms?
M: somebody off stage
F: [LAUGHTER]
Ses01F_impro01_M001 [001.5000-003.2500]: Yeah: I said "]: no".
Ses01F_impro01_F001 [014.8872-018.0175]: Yeah.
Ses01F_impro01_FXX0 [012.3400-013.4500]:
Ses01F_impro01_FXX0 [013.5000-013.6000]: hm
"""


@pytest.fixture
def root(tmp_path):
    return make_dialogue(tmp_path / "IEMOCAP_full_release", "Ses01F_impro01", LABELS, TEXTS)


def make_dialogue(root, dialogue, labels, texts, sounds=None):
    """One dialogue in the release's tree; media files are empty: a reader of text never opens them."""
    session = root / f"Session{dialogue[4]}"
    dialog = session / "dialog"
    for folder in ("EmoEvaluation/Attribute", "EmoEvaluation/Categorical", "transcriptions", "avi/DivX", "wav"):
        (dialog / folder).mkdir(parents=True, exist_ok=True)
    (dialog / "EmoEvaluation" / f"{dialogue}.txt").write_bytes(labels.encode())
    (dialog / "transcriptions" / f"{dialogue}.txt").write_bytes(texts.encode())
    (dialog / "avi" / "DivX" / f"{dialogue}.avi").touch()
    folder = session / "sentences" / "wav" / dialogue
    folder.mkdir(parents=True)
    ids = sounds if sounds is not None else {line.split("\t")[1] for line in labels.splitlines() if line[:1] == "["}
    for utterance_id in ids:
        (folder / f"{utterance_id}.wav").touch()
    return root


def reasons(release):
    return Counter((reject.utterance_id, reject.reason) for reject in release.rejects)


def test_a_dialogue_read_by_hand(root):
    release = read_release("iemocap", root, SIX)
    assert [u.utterance_id for u in release.utterances] == ["Ses01F_impro01_M001", "Ses01F_impro01_F000"]
    first, second = release.utterances
    assert (first.start_s, first.end_s, first.text) == (1.5, 3.25, 'Yeah: I said "]: no".')
    assert first.labels == {"ang": 1.0, "exc": 0.0, "fru": 0.0, "hap": 0.0, "neu": 0.0, "sad": 0.0}
    assert list(first.labels) == SIX
    assert (first.speaker, first.session, first.dialogue_id, first.half) == ("Ses01M", "1", "Ses01F_impro01", "right")
    assert (second.speaker, second.half, second.text) == ("Ses01F", "left", "Excuse me.")
    assert second.source_video == "Session1/dialog/avi/DivX/Ses01F_impro01.avi"
    assert second.source_audio == "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav"
    assert second.audio_is_cut
    assert second.sentiment is None
    assert reasons(release) == {
        ("Ses01F_impro01_M000", "label:xxx"): 1,
        ("Ses01F_impro01_F001", "label:oth"): 1,
        ("Ses01F_impro01_FXX0", "unlabelled"): 2,
    }


@pytest.mark.parametrize(
    ("dialogue", "speaker", "half"),
    [("Ses02F_impro01", "F", "left"), ("Ses02F_impro01", "M", "right"), ("Ses02M_impro01", "M", "left"),
     ("Ses02M_impro01", "F", "right"), ("Ses05M_script01_1b", "F", "right"), ("Ses03M_impro05a", "M", "left")],
)  # fmt: skip
def test_the_marker_wearer_sits_left_and_the_last_letter_speaks(tmp_path, dialogue, speaker, half):
    utterance_id = f"{dialogue}_{speaker}012"
    make_dialogue(
        tmp_path, dialogue, f"[0.5 - 1.5]\t{utterance_id}\tsad\t[2, 2, 2]\n", f"{utterance_id} [0.5-1.5]: No.\n"
    )
    (utterance,) = read_release("iemocap", tmp_path, SIX).utterances
    assert (utterance.half, utterance.dialogue_id) == (half, dialogue)
    assert utterance.speaker == dialogue[:5] + speaker
    assert utterance.session == dialogue[4]


def test_a_dialogue_whose_name_begins_like_another(tmp_path):
    for dialogue in ("Ses05M_script01_1", "Ses05M_script01_1b"):
        utterance_id = f"{dialogue}_M000"
        make_dialogue(
            tmp_path, dialogue, f"[0 - 1]\t{utterance_id}\tsad\t[2, 2, 2]\n", f"{utterance_id} [0-1]: {dialogue}\n"
        )
    release = read_release("iemocap", tmp_path, SIX)
    assert [(u.dialogue_id, u.text) for u in release.utterances] == [
        (d, d) for d in ("Ses05M_script01_1", "Ses05M_script01_1b")
    ]
    assert not release.rejects


@pytest.mark.parametrize("place", ["..", ".", "Session1", "Session1/dialog", "../../x"])
def test_the_root_is_found_from_near_it(root, place, tmp_path):
    if place == "../../x":
        shutil.move(root, tmp_path / "again" / root.name)
        assert len(read_release("iemocap", tmp_path, SIX).utterances) == 2
    else:
        assert read_release("iemocap", root / place, SIX).root.resolve() == root


def test_nothing_there_says_what_was_looked_for_and_how_to_make_a_stand_in(tmp_path):
    with pytest.raises(DataError) as error:
        read_release("iemocap", tmp_path / "raw" / "IEMOCAP_full_release", SIX)
    for part in (
        "does not exist",
        "Session1/dialog",
        str(tmp_path / "raw"),
        "pipeline standin --dataset iemocap --out raw",
        "--root",
    ):
        assert part in str(error.value)
    make_dialogue(tmp_path / "a", "Ses01F_impro01", LABELS, TEXTS)
    make_dialogue(tmp_path / "b", "Ses01F_impro01", LABELS, TEXTS)
    with pytest.raises(DataError, match="several"):
        read_release("iemocap", tmp_path, SIX)
    with pytest.raises(DataError, match="is a file"):
        read_release("iemocap", root_file(tmp_path), SIX)


def root_file(folder):
    (folder / "IEMOCAP.zip").touch()
    return folder / "IEMOCAP.zip"


def test_unknown_corpus_and_emotions(root):
    with pytest.raises(DataError, match="'iemocop'; known: iemocap, mosei"):
        read_release("iemocop", root, SIX)
    with pytest.raises(DataError, match="unknown: joy"):
        read_release("iemocap", root, ["ang", "joy"])
    with pytest.raises(DataError, match="twice"):
        read_release("iemocap", root, ["ang", "ang"])
    assert len(read_release("iemocap", root, ["oth", "xxx"]).utterances) == 2


def test_encodings_line_ends_and_strays_change_nothing(root):
    expected = read_release("iemocap", root, SIX)
    dialog = root / "Session1" / "dialog"
    for folder in ("EmoEvaluation", "transcriptions"):
        path = dialog / folder / "Ses01F_impro01.txt"
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
        (dialog / folder / "._Ses01F_impro01.txt").write_bytes(b"\x00\x05\x16\x07[1 - 2]\tSes01F_impro01_F009\tang\t")
        (dialog / folder / ".DS_Store").write_bytes(b"\x00")
    (dialog / "avi" / "DivX" / "._Ses01F_impro01.avi").write_bytes(b"\x00")
    (dialog / "EmoEvaluation" / "Attribute" / "Ses01F_impro01_e2_atr.txt").write_text("nothing")
    assert read_release("iemocap", root, SIX) == expected


def test_bytes_that_are_not_utf8_cost_a_letter_only(root):
    path = root / "Session1" / "dialog" / "transcriptions" / "Ses01F_impro01.txt"
    path.write_bytes(path.read_bytes().replace(b"Excuse", b"Ex\xe9cuse"))
    assert read_release("iemocap", root, SIX).utterances[1].text == "Ex�cuse me."


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("[-0.5 - 1.0]\tSes01F_impro01_F000\tang\t[2, 2, 2]", "interval:invalid"),
        ("[2.0 - 2.0]\tSes01F_impro01_F000\tang\t[2, 2, 2]", "interval:invalid"),
        ("[3.0 - 2.0]\tSes01F_impro01_F000\tang\t[2, 2, 2]", "interval:invalid"),
        ("[1.0 - 2.0]\tSes01F_impro01_F000\tjoy\t[2, 2, 2]", "label:joy"),
        ("[1.0 - 2.0]\tSes01F_impro01_F000", "labels:unreadable"),
        ("[1.0 to 2.0]\tSes01F_impro01_F000\tang\t[2, 2, 2]", "labels:unreadable"),
        ("[1.0 - 2.0]\tSes01F_impro01_F777\tang\t[2, 2, 2]", "no_transcript"),
        ("[1.0 - 2.0]\t../../etc/passwd\tang\t[2, 2, 2]", "id:unknown"),
    ],
)
def test_a_bad_label_line_is_a_reject_that_names_the_file(root, line, reason):
    (root / "Session1" / "dialog" / "EmoEvaluation" / "Ses01F_impro01.txt").write_text(line + "\n")
    release = read_release("iemocap", root, SIX)
    assert not release.utterances
    reject = next(r for r in release.rejects if r.reason == reason)
    assert reject.utterance_id == next((u for u in line.split("\t") if "_" in u or "/" in u), None)
    assert reject.source.endswith("Ses01F_impro01.txt")
    assert reject.detail


def test_attributes_may_be_missing_and_spaces_odd(root):
    line = "[6.2901-8.2357]   Ses01F_impro01_F000   NEU\n[7 - 8]\tSes01F_impro01_F000\tang\t[2, 2, 2]\n"
    (root / "Session1" / "dialog" / "EmoEvaluation" / "Ses01F_impro01.txt").write_text(line)
    release = read_release("iemocap", root, SIX)
    assert [(u.labels["neu"], u.end_s) for u in release.utterances] == [(1.0, 8.2357)]
    assert reasons(release)[None, "duplicate"] == 1
    assert [reject.reason for reject in release.rejects if reject.utterance_id == "Ses01F_impro01_F000"] == []


@pytest.mark.parametrize("content", [None, b"", b"\n\n", b"\x00\xff\xfe garbage"])
@pytest.mark.parametrize(
    ("folder", "reason", "each"),
    [("EmoEvaluation", "no_labels", "no_labels"), ("transcriptions", "no_transcript", "no_transcript")],
)
def test_a_missing_empty_or_broken_text_file_loses_nothing_silently(root, folder, reason, each, content):
    path = root / "Session1" / "dialog" / folder / "Ses01F_impro01.txt"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    release = read_release("iemocap", root, SIX)
    assert not release.utterances
    about_file = [r.reason for r in release.rejects if r.utterance_id is None]
    assert reason in about_file or (content and "transcript:unreadable" in about_file)
    about_utterances = Counter(r.reason for r in release.rejects if r.utterance_id)
    # 4 labelled turns, of which 2 the task uses; the 2 XX lines are there while the transcript is.
    assert about_utterances[each] == (4 if folder == "EmoEvaluation" else 2)
    assert about_utterances["unlabelled"] == (2 if folder == "EmoEvaluation" else 0)


def test_missing_media_are_named(root):
    next(root.rglob("*_F000.wav")).unlink()
    release = read_release("iemocap", root, SIX)
    assert [u.utterance_id for u in release.utterances] == ["Ses01F_impro01_M001"]
    (reject,) = [r for r in release.rejects if r.reason == "no_audio"]
    assert reject.source == "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav"
    next(root.rglob("*.avi")).unlink()
    release = read_release("iemocap", root, SIX)
    assert not release.utterances
    assert {r.source for r in release.rejects if r.reason == "no_video"} == {
        "Session1/dialog/avi/DivX/Ses01F_impro01.avi"
    }


def test_a_video_without_any_text_is_named(root):
    (root / "Session1" / "dialog" / "avi" / "DivX" / "Ses01M_impro07.avi").touch()
    release = read_release("iemocap", root, SIX)
    assert len(release.utterances) == 2
    assert {r.reason for r in release.rejects if "Ses01M_impro07" in r.source} == {"no_labels", "no_transcript"}


def test_a_mistyped_root_is_never_another_release(root):
    typed = root.with_name("IEMOCAP_ful_release")
    with pytest.raises(DataError, match=rf"{typed.name} does not exist \({root} beside it would do\)"):
        read_release("iemocap", typed, SIX)


def test_lines_about_one_utterance_count_it_once(root):
    """A readable, an unreadable and a second label line of F000; two unreadable lines of M001; a stranger's line."""
    path = root / "Session1" / "dialog" / "EmoEvaluation" / "Ses01F_impro01.txt"
    good = [line for line in LABELS.splitlines() if line.startswith("[") and "M001" not in line]
    bad = ["[1 to 2]\tSes01F_impro01_F000\tang", "[9.5 - 9.9]\tSes01F_impro01_F000\tsad\t[2, 2, 2]",
           "[1.5 to 3.2]\tSes01F_impro01_M001\tang", "[1.5 or 3.2]\tSes01F_impro01_M001\tang",
           "[1 - 2]\tSes01F_impro02_F000\tang\t[2, 2, 2]"]  # fmt: skip
    path.write_text("\n".join(good + bad))
    release = read_release("iemocap", root, SIX)
    assert [u.utterance_id for u in release.utterances] == ["Ses01F_impro01_F000"]
    assert reasons(release) == {
        ("Ses01F_impro01_M000", "label:xxx"): 1, ("Ses01F_impro01_F001", "label:oth"): 1,
        ("Ses01F_impro01_M001", "labels:unreadable"): 1, ("Ses01F_impro01_FXX0", "unlabelled"): 2,
        (None, "labels:unreadable"): 2, (None, "duplicate"): 1, (None, "id:unknown"): 1,
    }  # fmt: skip


def test_a_folder_that_may_not_be_looked_into_is_passed_by(root, monkeypatch):
    """The tests may run as root, whom no mode keeps out: so the calls themselves refuse, as the system's do."""
    closed = root.parent / "lost+found"
    closed.mkdir()
    stat, iterdir = Path.stat, Path.iterdir

    def refusing_stat(self, **options):
        if closed in self.parents:
            raise PermissionError(13, "Permission denied", str(self))
        return stat(self, **options)

    def refusing_iterdir(self):
        if self == closed:
            raise PermissionError(13, "Permission denied", str(self))
        return iterdir(self)

    monkeypatch.setattr(Path, "stat", refusing_stat)
    monkeypatch.setattr(Path, "iterdir", refusing_iterdir)
    with pytest.raises(PermissionError):
        (closed / "Session1").is_dir()
    assert read_release("iemocap", root.parent, SIX).root == root


def test_without_a_sentence_wav_the_dialogues_sound_is_taken_and_said(root):
    next(root.rglob("*_F000.wav")).unlink()
    (root / "Session1" / "dialog" / "wav" / "Ses01F_impro01.wav").touch()
    release = read_release("iemocap", root, SIX)
    sound = {u.utterance_id: (u.source_audio, u.audio_is_cut) for u in release.utterances}
    sentences = "Session1/sentences/wav/Ses01F_impro01"
    assert sound == {
        "Ses01F_impro01_F000": ("Session1/dialog/wav/Ses01F_impro01.wav", False),
        "Ses01F_impro01_M001": (f"{sentences}/Ses01F_impro01_M001.wav", True),
    }
    (note,) = release.notes
    assert note.startswith("1 utterances have no sentence wav")
    assert "both channels" in note


def test_upper_case_endings_are_the_same_files(root):
    expected = read_release("iemocap", root, SIX)
    for path in [path for path in root.rglob("*.*") if path.is_file()]:
        path.rename(path.with_suffix(path.suffix.upper()))
    found = read_release("iemocap", root, SIX)
    assert [(u.utterance_id, u.text, u.labels) for u in found.utterances] == [
        (u.utterance_id, u.text, u.labels) for u in expected.utterances
    ]
    assert reasons(found) == reasons(expected)
    for utterance in found.utterances:
        assert (root / utterance.source_video).is_file()
        assert (root / utterance.source_audio).is_file()


@pytest.mark.parametrize("place", ["IEMOCAP_full_release/IEMOCAP_full_release", "IEMOCAP", "a/b"])
def test_a_nested_or_renamed_root(root, place, tmp_path):
    target = tmp_path / "unpacked" / place
    target.parent.mkdir(parents=True)
    shutil.move(root, target)
    assert read_release("iemocap", tmp_path / "unpacked", SIX).root == target


def test_the_forced_alignment_lab_and_mocap_files_are_never_needed(root):
    assert not [path for path in root.rglob("*") if path.name in {"ForcedAlignment", "lab", "MOCAP_head"}]
    assert len(read_release("iemocap", root, SIX).utterances) == 2


def test_merged_labels_count_as_one_emotion(tmp_path):
    codes = ["ang", "exc", "hap", "neu", "sad", "fru", "xxx"]
    ids = [f"Ses02F_impro01_M{turn:03}" for turn in range(len(codes))]
    labels = "".join(f"[{t} - {t}.5]\t{ids[t]}\t{code}\t[2, 2, 2]\n" for t, code in enumerate(codes))
    make_dialogue(tmp_path, "Ses02F_impro01", labels, "".join(f"{name} [0-1]: so\n" for name in ids))
    release = read_release("iemocap", tmp_path, ["ang", "hap", "neu", "sad"], {"merge": {"exc": "hap"}})
    assert [[e for e, value in u.labels.items() if value] for u in release.utterances] == [
        ["ang"], ["hap"], ["hap"], ["neu"], ["sad"],
    ]  # fmt: skip
    assert Counter(r.reason for r in release.rejects) == {"label:fru": 1, "label:xxx": 1}


@pytest.mark.parametrize(
    ("merge", "said"),
    [({"exc": "fru"}, "task's emotions"), ({"joy": "hap"}, "'joy'"), ({"ang": "hap"}, "ang is in emotions"),
     (["exc"], "expected a label"), ({"exc": ["hap"]}, "'exc'")],
)  # fmt: skip
def test_a_merge_that_contradicts_the_task_is_refused(root, merge, said):
    with pytest.raises(DataError, match=said):
        read_release("iemocap", root, ["ang", "hap"], {"merge": merge})


def test_a_file_copied_over_anothers_name_counts_nobody_twice(tmp_path):
    """The texts of impro02 are those of impro01 again: impro01 is kept, and impro02 has no text."""
    for dialogue in ("Ses01F_impro01", "Ses01F_impro02"):
        names = [f"{dialogue}_F000", f"{dialogue}_FXX0"]
        texts = "".join(f"Ses01F_impro01{name[14:]} [0-1]: so\n" for name in names)
        make_dialogue(tmp_path, dialogue, f"[0 - 1]\t{names[0]}\tsad\t[2, 2, 2]\n", texts)
    release = read_release("iemocap", tmp_path, SIX)
    assert [u.utterance_id for u in release.utterances] == ["Ses01F_impro01_F000"]
    assert reasons(release) == {
        ("Ses01F_impro01_FXX0", "unlabelled"): 1, ("Ses01F_impro02_F000", "no_transcript"): 1,
        (None, "id:unknown"): 2,
    }  # fmt: skip


def test_a_time_beyond_all_numbers_is_no_interval(root):
    """An endless `end_s` would mean the whole file."""
    path = root / "Session1" / "dialog" / "EmoEvaluation" / "Ses01F_impro01.txt"
    path.write_text(f"[1.0 - {'9' * 400}]\tSes01F_impro01_F000\tang\t[2, 2, 2]\n")
    assert ("Ses01F_impro01_F000", "interval:invalid") in reasons(read_release("iemocap", root, SIX))


NUMBERS = st.decimals(min_value=0, max_value=600, places=4, allow_nan=False).map(str)
TURNS = st.lists(st.tuples(NUMBERS, NUMBERS, st.sampled_from("FM"), st.sampled_from([*SIX, "xxx", "oth"])), max_size=12)
# Any text that fits into one line: no line ends and, as files have it, no lone surrogates.
WORDS = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\r\n"), max_size=40)


@given(turns=TURNS, words=WORDS, line_end=st.sampled_from(["\n", "\r\n", "\r"]))
@settings(max_examples=40, deadline=None)
def test_what_is_written_in_the_releases_format_is_read_back(turns, words, line_end):
    ids = [f"Ses04M_script01_1b_{who}{place:03}" for place, (_, _, who, _) in enumerate(turns)]
    labels = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]"] + [
        f"[{start} - {end}]\t{name}\t{code}\t[2.5000, 2.5000, 2.5000]\nC-E2:\tNeutral;\t()\nA-E3:\tval 3; act 2;\t()"
        for name, (start, end, _, code) in zip(ids, turns, strict=True)
    ]
    texts = [f"{name} [000.0000-001.0000]: {words}" for name in ids]
    with TemporaryDirectory() as folder:
        root = make_dialogue(
            Path(folder), "Ses04M_script01_1b", "\n".join(labels).replace("\n", line_end), line_end.join(texts), ids
        )
        release = read_release("iemocap", root, SIX)
    expected = {
        name: (float(start), float(end), code, words.strip())
        for name, (start, end, _, code) in zip(ids, turns, strict=True)
        if code in SIX and float(start) < float(end)
    }
    found = {
        u.utterance_id: (u.start_s, u.end_s, next(e for e, v in u.labels.items() if v), u.text)
        for u in release.utterances
    }
    assert found == expected
    assert {r.utterance_id for r in release.rejects if r.utterance_id} == set(ids) - set(expected)


PIECES = st.sampled_from(
    [b"[", b"]", b"1.5", b" - ", b"2.5", b"\t", b"Ses01F_impro01_F000", b"Ses01F_impro01_M001", b"Ses01F_impro01_FXX0",
     b"Ses02M_impro01_F000", b"ang", b"xxx", b"]: hm", b"[1 - 2]\tSes01F_impro01_F000\tang\t[2, 2, 2]", b"\n", b"\r",
     b"Ses01F_impro01_F000 [1-2]: hm", b"\xff", b"\x00", b"%", b"M: ", "٣".encode()]
)  # fmt: skip
MESS = st.one_of(st.binary(max_size=200), st.lists(PIECES, max_size=40).map(b"".join))
OF_LABEL_LINES = {"duplicate", "id:unknown", "interval:invalid", "labels:unreadable"}


@given(labels=MESS, texts=MESS)
@settings(max_examples=100, deadline=None)
def test_any_bytes_leave_every_line_accounted_for(labels, texts):
    with TemporaryDirectory() as folder:
        root = make_dialogue(Path(folder), "Ses01F_impro01", "", "", ["Ses01F_impro01_F000"])
        dialog = root / "Session1" / "dialog"
        (dialog / "EmoEvaluation" / "Ses01F_impro01.txt").write_bytes(labels)
        (dialog / "transcriptions" / "Ses01F_impro01.txt").write_bytes(texts)
        release = read_release("iemocap", root, SIX)
    lines = re.split(rb"\r\n|\r|\n", labels.removeprefix(b"\xef\xbb\xbf"))
    label_lines = sum(line.decode(errors="replace").lstrip().startswith("[") for line in lines)
    about = [r for r in release.rejects if r.source.startswith("Session1/dialog/EmoEvaluation")]
    of_lines = [r for r in about if r.reason in OF_LABEL_LINES or r.reason.startswith("label:")]
    without = [r for r in release.rejects if r.reason in {"no_transcript", "no_audio"} and r.utterance_id]
    assert label_lines == len(release.utterances) + len(of_lines) + len(without)
    once = [u.utterance_id for u in release.utterances]
    once += [r.utterance_id for r in release.rejects if r.utterance_id and "_FXX" not in r.utterance_id]
    assert len(once) == len(set(once))


def test_classes_that_are_left_out_are_rejects(root):
    release = read_release("iemocap", root, ["ang", "hap", "neu", "sad"])
    assert {u.utterance_id for u in release.utterances} == {"Ses01F_impro01_M001", "Ses01F_impro01_F000"}
    path = root / "Session1" / "dialog" / "EmoEvaluation" / "Ses01F_impro01.txt"
    path.write_text(path.read_text().replace("\tang\t", "\texc\t"))
    release = read_release("iemocap", root, ["ang", "hap", "neu", "sad"])
    assert reasons(release)["Ses01F_impro01_M001", "label:exc"] == 1
    assert len(release.utterances) == 1


def test_the_dialogues_sound_is_the_mean_of_both_channels_in_the_interval(tmp_path):
    name = "Ses02F_impro01_M000"
    labels, texts = f"[0.5000 - 1.2500]\t{name}\tsad\t[2, 2, 2]\n", f"{name} [000.5000-001.2500]: No.\n"
    root = make_dialogue(tmp_path / "raw", "Ses02F_impro01", labels, texts, sounds=[])
    dialog = root / "Session2" / "dialog"
    frames = (np.full((480, 720, 3), 128, np.uint8) for _ in range(60))
    write_video(dialog / "avi" / "DivX" / "Ses02F_impro01.avi", frames, (720, 480), 30, "mpeg4", tag="DIVX")
    both = np.random.default_rng(0).integers(-9000, 9000, (32_000, 2)).astype(np.int16)
    soundfile.write(dialog / "wav" / "Ses02F_impro01.wav", both, 16_000)
    (utterance,) = read_release("iemocap", root, SIX).utterances
    dialogue = Dialogue(root, tmp_path / "data", (utterance,), ClipSettings(18, 0.1, 600.0))
    assert not make_clips(dialogue).rejects
    samples, rate_hz = soundfile.read(dialogue.wav(utterance), dtype="int16")
    assert rate_hz == 16_000
    expected = both[8_000:20_000].mean(axis=1)
    assert len(samples) == len(expected)
    assert np.abs(samples - expected).max() <= 0.5
