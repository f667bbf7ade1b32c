"""The CREMA-D reader on a tree of the release's size with tables of our own, and on small Flash videos."""

import csv
import itertools
import math
import random
import shutil
from collections import Counter

import pytest
from acted import write_display, write_sound
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.corpora.readers import read_release
from data_tools.errors import DataError
from data_tools.manifest import read_manifest, read_rejects
from data_tools.media.source import probe
from pipeline.check import check
from pipeline.progress import Reporter
from pipeline.reorganize import ReorganizeSettings, reorganize
from pipeline.settings import load_config

SIX = ["anger", "disgust", "fear", "happy", "neutral", "sad"]
CODES = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")
PLAIN = ("TIE", "IOM", "IWW", "TAI", "MTI", "IWL", "ITH", "DFA", "ITS", "TSI", "WSI")
FAULTY = {"1064_IEO_DIS_MD", "1064_TIE_SAD_XX", "1076_MTI_NEU_XX", "1076_MTI_SAD_XX"}
TIES = {"A:N": 378, "D:F:S": 40, "A:D:F:N": 2}
SINGLE = {"N": 1972, "H": 1219, "D": 1139, "F": 1084, "A": 1019, "S": 589}


def displays():
    """Ids with the release's design: all sentences in all emotions, IEO also by level. One actor lacks three sentences,
    two lack one neutral display each: which ones is invented, how many is not."""
    for actor in range(1001, 1092):
        yield f"{actor}_IEO_NEU_XX"
        for code, level in itertools.product(set(CODES) - {"NEU"}, ("LO", "MD", "HI")):
            yield f"{actor}_IEO_{code}_{level}"
        for sentence, code in itertools.product(PLAIN, CODES):
            lacks = (actor == 1010 and sentence in ("ITH", "MTI", "WSI")) or (
                (actor, sentence, code) in ((1020, "ITS", "NEU"), (1030, "TIE", "NEU"))
            )
            if not lacks:
                yield f"{actor}_{sentence}_{code}_XX"


def write_csv(path, header, rows, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file, quoting=csv.QUOTE_NONNUMERIC).writerows([header, *rows])


def write_votes(root, votes, place="processedResults/summaryTable.csv"):
    """votes: id -> (voice, face, both)."""
    header = ["", "FileName", "VoiceVote", "VoiceLevel", "FaceVote", "FaceLevel", "MultiModalVote", "MultiModalLevel"]
    rows = [[str(n), i, v, "60", f, "61.5", m, "62"] for n, (i, (v, f, m)) in enumerate(votes.items(), start=1)]
    write_csv(root / place, header, rows)


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def display(root, *names):
    """The files of each display, empty: a reader of names never opens them."""
    for name in names:
        touch(root, f"VideoFlash/{name}.flv", f"AudioWAV/{name}.wav", f"AudioMP3/{name}.mp3")
    return root


def settings_of(root, out, name="crema-d", **values):
    return ReorganizeSettings.checked(load_config("datasets", name) | {"root": root, "out": out} | values, "test")


def reasons(release):
    return Counter((reject.utterance_id, reject.reason) for reject in release.rejects)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The files of all 7,442 displays, and tables with the published totals. Not to be changed."""
    root = tmp_path_factory.mktemp("raw") / "CREMA-D"
    names = sorted(displays())
    display(root, *names)
    write_csv(root / "SentenceFilenames.csv", ["Stimulus_Number", "Filename"], list(enumerate(names, start=1)))
    people = [[1001 + n, 30, "Male" if n < 48 else "Female", "x", "x"] for n in range(91)]
    write_csv(root / "VideoDemographics.csv", ["ActorID", "Age", "Sex", "Race", "Ethnicity"], people)
    votes = [vote for vote, count in (TIES | SINGLE).items() for _ in range(count)]
    random.Random(0).shuffle(votes)
    write_votes(root, {name: ("N", "A:S", vote) for name, vote in zip(names, votes, strict=True)})
    return root


@pytest.mark.parametrize("name", ["crema-d", "crema-d-votes"])
def test_a_whole_copy_of_crema_d_has_every_published_count(whole, tmp_path, name):
    reader = load_config("datasets", name)["reader"] | {"known_bad": "keep"}
    found = check(settings_of(whole, tmp_path / "out", name, reader=reader), samples=0)
    tied = 0 if name == "crema-d" else 378 + 40 + 2
    assert found["utterances"] == {"usable": 7442 - tied, "labelled": 7442, "published": 7442}
    assert [(files["found"], files["published"]) for files in found["files"].values()] == [(7442, 7442)] * 3
    counted = [*found["labels"].values(), *(beside for kind in found["facts"].values() for beside in kind.values())]
    assert [beside for beside in counted if beside["found"] != beside["published"]] == []
    assert sum(beside["found"] for beside in found["labels"].values()) == 7442
    assert {kind: sum(beside["found"] for beside in facts.values()) for kind, facts in found["facts"].items()} == {
        kind: 91 if kind == "actors" else 7442 for kind in found["facts"]
    }
    assert found["problems"] == found["warnings"] == []


def test_the_published_labels_are_the_design_and_the_votes():
    intended, votes = (load_config("datasets", name)["published"]["labels"] for name in ("crema-d", "crema-d-votes"))
    assert intended == dict.fromkeys(SIX, 1271) | {"neutral": 1087}
    assert sum(intended.values()) == sum(votes.values()) == 7442
    assert [votes[name] for name in SIX] == [SINGLE[letter] for letter in "ADFHNS"]
    assert votes["tie"] == sum(TIES.values())


def test_splits_hold_whole_actors_of_crema_d(whole, tmp_path):
    split = check(settings_of(whole, tmp_path / "out"), samples=0)["split"]
    parts = {name: part["utterances"] for name, part in split["splits"].items()}
    assert set(split["shared"]["speakers"].values()) == {0}
    for name, share in (("train", 0.7), ("valid", 0.1), ("test", 0.2)):
        assert parts[name] == pytest.approx(share * sum(parts.values()), abs=82)  # the displays of an actor
    split = check(settings_of(whole, tmp_path / "out", split="speaker:1011"), samples=0)["split"]
    assert split["splits"]["test"]["utterances"] == 1 + 15 + 66


def test_the_name_says_actor_sentence_and_intended_emotion(tmp_path):
    display(tmp_path, "1001_WSI_HAP_XX")
    (one,) = read_release("crema-d", tmp_path, ["sad", "happy"]).utterances
    assert (one.utterance_id, one.dialogue_id, one.speaker, one.session) == ("1001_WSI_HAP_XX", "1001", "1001", "")
    assert (one.text, one.sentiment) == ("We'll stop in a couple of minutes.", None)
    assert list(one.labels.items()) == [("sad", 0.0), ("happy", 1.0)]
    assert (one.source_video, one.source_audio) == ("VideoFlash/1001_WSI_HAP_XX.flv", "AudioWAV/1001_WSI_HAP_XX.wav")
    assert (one.start_s, one.end_s, one.audio_is_cut) == (0.0, math.inf, True)
    display(tmp_path, *(f"1002_DFA_{code}_XX" for code in CODES))
    found = [u for u in read_release("crema-d", tmp_path, []).utterances if u.speaker == "1002"]
    assert [[name for name, value in u.labels.items() if value] for u in found] == [[name] for name in SIX]
    assert {u.text for u in found} == {"Don't forget a jacket."}
    release = read_release("crema-d", tmp_path, ["fear"])
    assert reasons(release)["1002_DFA_SAD_XX", "label:sad"] == 1
    with pytest.raises(DataError, match="unknown: happiness"):
        read_release("crema-d", tmp_path, ["happiness"])


def test_votes_are_of_voice_face_or_both_and_ties_are_rejects_or_several(tmp_path):
    names = [f"1001_{sentence}_ANG_XX" for sentence in ("DFA", "IOM", "TAI", "TSI")]
    display(tmp_path, *names)
    votes = {names[0]: ("N", "A", "A:D"), names[1]: ("S:F", "H", "F"), names[2]: ("D", "D", "N")}
    write_votes(tmp_path, votes)

    def read(emotions=SIX, **options):
        release = read_release("crema-d", tmp_path, emotions, options)
        labels = {u.utterance_id: [e for e, value in u.labels.items() if value] for u in release.utterances}
        return labels, {r.utterance_id: r.reason for r in release.rejects}, release

    assert read(labels="voice")[0] == {names[0]: ["neutral"], names[2]: ["disgust"]}
    assert read(labels="face")[0] == {names[0]: ["anger"], names[1]: ["happy"], names[2]: ["disgust"]}
    found, rejected, _ = read(labels="multimodal")
    assert found == {names[1]: ["fear"], names[2]: ["neutral"]}
    assert rejected == {names[0]: "label:tie", names[3]: "unlabelled"}
    found, rejected, release = read(labels="multimodal", ties="keep")
    assert found[names[0]] == ["anger", "disgust"]
    assert "1 displays have more than one emotion: train with --set task=multi-label" in release.notes
    found, rejected, _ = read(["disgust", "fear"], labels="multimodal", ties="keep")
    assert found == {names[0]: ["disgust"], names[1]: ["fear"]}
    assert rejected[names[2]] == "label:neutral"
    with pytest.raises(DataError, match="labels is 'sound' for crema-d; expected one of intended, voice, face"):
        read(labels="sound")
    with pytest.raises(DataError, match="ties is 'all'"):
        read(ties="all")


def test_rows_of_votes_that_cannot_be_used(tmp_path):
    names = [f"1001_{sentence}_ANG_XX" for sentence in ("DFA", "IOM", "TAI")]
    display(tmp_path, *names)
    path = tmp_path / "summaryTable.csv"
    path.write_text(
        "FileName,MultiModalVote\n" + f"{names[0]},A\n{names[0]},S\n{names[1]},X\n{names[2]},\n1001_ABC,A\none cell\n",
        encoding="utf-8",
    )
    release = read_release("crema-d", tmp_path, SIX, {"labels": "multimodal"})
    assert [u.utterance_id for u in release.utterances] == [names[0]]
    assert reasons(release) == {
        (None, "duplicate"): 1, (None, "id:unknown"): 1, (None, "labels:unreadable"): 1,
        (names[1], "labels:unreadable"): 1, (names[2], "labels:unreadable"): 1,
    }  # fmt: skip
    path.write_text(f"FileName,FaceVote\n{names[0]},A\n", encoding="utf-8")
    with pytest.raises(DataError, match="has no column MultiModalVote"):
        read_release("crema-d", tmp_path, SIX, {"labels": "multimodal"})
    path.unlink()
    with pytest.raises(DataError, match="no votes: looked for summaryTable.csv"):
        read_release("crema-d", tmp_path, SIX, {"labels": "multimodal"})
    assert len(read_release("crema-d", tmp_path, SIX).utterances) == 3


def test_displays_that_the_makers_call_faulty(tmp_path):
    display(tmp_path, *FAULTY, "1076_MTI_ANG_XX")
    release = read_release("crema-d", tmp_path, SIX)
    assert [u.utterance_id for u in release.utterances] == ["1076_MTI_ANG_XX"]
    assert reasons(release) == dict.fromkeys(((name, "known:bad_segment") for name in FAULTY), 1)
    assert len(read_release("crema-d", tmp_path, SIX, {"known_bad": "keep"}).utterances) == 5


def test_sound_is_the_wav_else_the_mp3_else_that_of_the_video(tmp_path):
    names = [f"1001_{sentence}_ANG_XX" for sentence in ("DFA", "IOM", "TAI", "TSI")]
    display(tmp_path, *names)
    for name in names[1:]:
        (tmp_path / "AudioWAV" / f"{name}.wav").unlink()
    (tmp_path / "AudioMP3" / f"{names[2]}.mp3").unlink()
    (tmp_path / "VideoFlash" / f"{names[3]}.flv").unlink()
    release = read_release("crema-d", tmp_path, SIX)
    assert [u.source_audio for u in release.utterances] == [
        f"AudioWAV/{names[0]}.wav", f"AudioMP3/{names[1]}.mp3", f"VideoFlash/{names[2]}.flv",
    ]  # fmt: skip
    assert [(r.utterance_id, r.reason, r.detail) for r in release.rejects] == [
        (names[3], "no_video", f"there is no {names[3]}.flv, only its .mp3")
    ]
    assert release.notes == ["there is no wav of some displays; their sound is taken from 1 .flv, 1 .mp3"]


def test_listed_displays_without_files_are_rejects(tmp_path):
    display(tmp_path, "1001_DFA_ANG_XX")
    rows = [[1, "1001_DFA_ANG_XX"], [2, "1001_DFA_SAD_XX"], [3, "1001_DFA"]]
    write_csv(tmp_path / "SentenceFilenames.csv", ["Stimulus_Number", "Filename"], rows)
    release = read_release("crema-d", tmp_path, SIX)
    assert reasons(release) == {("1001_DFA_SAD_XX", "no_video"): 1, (None, "id:unknown"): 1}
    assert {reject.source for reject in release.rejects} == {"SentenceFilenames.csv"}


@pytest.mark.parametrize(
    ("names", "start"),
    [
        (["VideoFlash/{}.flv", "AudioWAV/{}.wav"], "."),
        (["VideoFlash/{}.flv", "AudioWAV/{}.wav"], "CREMA D/AudioWAV"),
        (["VIDEOFLASH/{}.FLV", "AUDIOWAV/{}.WAV"], "."),
        (["VideoMP4/{}.mp4", "AudioWAV/{}.wav"], "CREMA D"),
        (["{}.mp4", "{}.wav"], "."),
    ],
)
def test_trees_and_endings_of_copies(tmp_path, names, start):
    root = tmp_path / "CREMA D"
    touch(root, *(name.format("1001_dfa_ang_xx" if name.islower() else "1001_DFA_ANG_XX") for name in names))
    release = read_release("crema-d", tmp_path / start, SIX)
    assert (release.root, release.rejects) == (root, [])
    (one,) = release.utterances
    assert (one.utterance_id, one.text) == ("1001_DFA_ANG_XX", "Don't forget a jacket.")
    assert one.source_audio.lower().endswith(".wav")


def test_a_display_without_video_is_its_sound_alone(tmp_path):
    root = display(tmp_path, "1001_DFA_ANG_XX", "1002_DFA_HAP_XX")
    (root / "VideoFlash" / "1002_DFA_HAP_XX.flv").unlink()
    assert reasons(read_release("crema-d", root, [])) == {("1002_DFA_HAP_XX", "no_video"): 1}
    release = read_release("crema-d", root, [], modalities="a")
    assert [(u.source_video, u.source_audio) for u in release.utterances] == [
        ("VideoFlash/1001_DFA_ANG_XX.flv", "AudioWAV/1001_DFA_ANG_XX.wav"),
        ("", "AudioWAV/1002_DFA_HAP_XX.wav"),
    ]
    assert release.rejects == []


def test_doubled_copies_and_other_media(tmp_path):
    display(tmp_path, "1001_DFA_ANG_XX")
    shutil.copytree(tmp_path / "AudioWAV", tmp_path / "AudioWAV copy")
    touch(tmp_path, "VideoMP4/1001_DFA_ANG_XX.mp4", "VideoFlash/1001_DFA_ANG.flv", "VideoFlash/._1001_DFA_SAD_XX.flv")
    release = read_release("crema-d", tmp_path, SIX)
    (one,) = release.utterances
    assert (one.source_video, one.source_audio) == ("VideoFlash/1001_DFA_ANG_XX.flv", "AudioWAV/1001_DFA_ANG_XX.wav")
    assert reasons(release) == {(None, "id:unknown"): 1}
    assert release.notes == [
        "1 files are further copies of others and are not used, "
        "e.g. AudioWAV copy/1001_DFA_ANG_XX.wav of AudioWAV/1001_DFA_ANG_XX.wav"
    ]


def test_a_clone_without_its_media_is_said_once(tmp_path):
    names = [f"10{actor}_DFA_ANG_XX" for actor in range(10, 20)]
    display(tmp_path, *names)
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 123456\n"
    for path in [*tmp_path.rglob("*.flv"), *tmp_path.rglob("*.wav")]:
        path.write_bytes(pointer)
    found = check(settings_of(tmp_path, tmp_path.parent / "out"), samples=0)
    assert found["rejects"]["file:pointer"]["utterances"] == len(names)
    assert [note for note in found["notes"] if "pointer" in note] == [
        "20 files are Git LFS pointers, not the files themselves, e.g. AudioWAV/1010_DFA_ANG_XX.wav; "
        "run `git lfs pull` where it was cloned"
    ]
    assert len(found["problems"]) == 1
    assert "git lfs pull" in found["problems"][0]


NAMES = st.builds(
    "_".join,
    st.tuples(*(st.sampled_from(parts) for parts in (("1001", "1002", "x"), ("IEO", "DFA", "ABC"),
                                                     ("ANG", "NEU", "ang"), ("XX", "LO", "X")))),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    files=st.sets(st.tuples(NAMES, st.sampled_from([".flv", ".wav", ".mp4"])), max_size=8),
    rows=st.lists(st.tuples(NAMES, st.sampled_from(["A", "N", "A:N", "", "Q", "a"])), min_size=1, max_size=8),
)
def test_every_display_is_taken_or_rejected_once(tmp_path_factory, files, rows):
    root = display(tmp_path_factory.mktemp("any"), "1003_DFA_SAD_XX")
    touch(root, *(f"VideoFlash/{name}{kind}" for name, kind in files))
    write_csv(root / "summaryTable.csv", ["FileName", "FaceVote"], rows)
    release = read_release("crema-d", root, SIX[:3], {"labels": "face", "ties": "keep"})
    named = [u.utterance_id for u in release.utterances] + [r.utterance_id for r in release.rejects if r.utterance_id]
    known = {name.upper() for name, _ in [*files, *rows] if not set(name.split("_")) & {"x", "ABC", "X"}}
    assert sorted(named) == sorted(known | {"1003_DFA_SAD_XX"})


def test_from_flash_videos_to_clips_split_by_actor(tmp_path):
    root = tmp_path / "raw" / "CREMA-D"
    names = [f"{actor}_DFA_{code}_XX" for actor in (1001, 1002, 1003, 1064) for code in ("ANG", "HAP")]
    for seed, name in enumerate(names):
        write_display(root, name, seed=seed)
    write_display(root, "1064_IEO_DIS_MD", seconds=3.0)
    write_sound(root / "AudioWAV" / "1064_IEO_DIS_MD.wav", seconds=0.5)
    assert probe(root / "VideoFlash" / f"{names[0]}.flv").video_codec == "flv"
    values = settings_of(tmp_path / "raw", tmp_path / "out", workers=1, reader={"known_bad": "keep"})
    summary = reorganize(values, Reporter(quiet=True))
    table = read_manifest(tmp_path / "out").set_index("utterance_id")
    assert sorted(table.index) == names
    assert summary["shared"]["speakers"] == {"train/valid": 0, "train/test": 0, "valid/test": 0}
    assert set(table["split"]) == {"train", "valid", "test"}
    assert [(r.utterance_id, r.reason) for r in read_rejects(tmp_path / "out")] == [("1064_IEO_DIS_MD", "clip:length")]
    assert table.loc["1002_DFA_HAP_XX", "label_happy"] == 1.0
    for clip in table["clip"]:
        info = probe(tmp_path / "out" / clip)
        assert (info.width, info.height, info.has_audio) == (64, 48, True)
        assert info.duration_s == pytest.approx(0.6, abs=0.1)
