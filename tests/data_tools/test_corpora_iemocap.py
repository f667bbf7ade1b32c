"""The IEMOCAP reader on hand-made trees whose answers are counted by hand."""

import shutil
from collections import Counter
from pathlib import Path

import pytest

from data_tools.corpora import read_release
from data_tools.errors import DataError

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
