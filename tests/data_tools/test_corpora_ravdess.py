"""The RAVDESS reader on the release's own names, whose counts follow from its design, and on small media."""

import itertools
import math
import shutil
from collections import Counter

import pytest
from acted import write_clip, write_performance
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.corpora.readers import read_release
from data_tools.errors import DataError
from data_tools.manifest import read_manifest, read_rejects
from pipeline.check import check
from pipeline.progress import Reporter
from pipeline.reorganize import ReorganizeSettings, reorganize
from pipeline.settings import load_config

EIGHT = ["neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"]
ACTORS = range(1, 25)


def performances(channel, actors=ACTORS):
    """The last six numbers of each performance, written out from the release's description."""
    emotions = range(1, 9) if channel == 1 else range(1, 7)
    for actor, emotion, intensity, statement, repetition in itertools.product(actors, emotions, (1, 2), (1, 2), (1, 2)):
        if (emotion, intensity) != (1, 2) and (channel, actor) != (2, 18):
            yield f"{channel:02}-{emotion:02}-{intensity:02}-{statement:02}-{repetition:02}-{actor:02}"


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def clip(actor=1, emotion=5, modality=1, channel=1, statement=1, suffix=None):
    suffix = suffix or (".wav" if modality == 3 else ".mp4")
    return f"{modality:02}-{channel:02}-{emotion:02}-01-{statement:02}-01-{actor:02}{suffix}"


def settings_of(root, out, name="ravdess", **values):
    return ReorganizeSettings.checked(load_config("datasets", name) | {"root": root, "out": out} | values, "test")


def reasons(release):
    return Counter((reject.utterance_id, reject.reason) for reject in release.rejects)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """All 7,356 names of the release as empty files. Not to be changed."""
    root = tmp_path_factory.mktemp("raw") / "RAVDESS"
    for modality, channel in itertools.product((1, 2, 3), (1, 2)):
        suffix = ".wav" if modality == 3 else ".mp4"
        touch(root, *(f"Actor_{name[-2:]}/{modality:02}-{name}{suffix}" for name in performances(channel)))
    return root


@pytest.mark.parametrize(("name", "count", "actors"), [("ravdess", 1440, 24), ("ravdess-song", 1012, 23)])
def test_a_whole_copy_has_every_published_count(whole, tmp_path, name, count, actors):
    assert sum(1 for _ in whole.rglob("*.*")) == 7356
    found = check(settings_of(whole, tmp_path / "out", name), samples=0)
    assert found["utterances"] == {"usable": count, "labelled": count, "published": count}
    assert [(files["found"], files["published"]) for files in found["files"].values()] == [(count, count)] * 3
    counted = [*found["labels"].values(), *(beside for kind in found["facts"].values() for beside in kind.values())]
    assert [beside for beside in counted if beside["found"] != beside["published"]] == []
    assert sum(beside["found"] for beside in found["labels"].values()) == count
    for kind in ("intensity", "statement", "repetition"):
        assert sum(beside["found"] for beside in found["facts"][kind].values()) == count
    assert sum(beside["found"] for beside in found["facts"]["actors"].values()) == actors
    assert found["problems"] == found["warnings"] == []
    assert found["rejects"] == {}


def test_splits_hold_whole_actors(whole, tmp_path):
    for spec in ("random", "speaker:Actor_07"):
        split = check(settings_of(whole, tmp_path / "out", split=spec), samples=0)["split"]
        assert all(part["utterances"] for part in split["splits"].values())
        assert set(split["shared"]["speakers"].values()) == {0}
    assert split["splits"]["test"]["utterances"] == 60
    lists = tmp_path / "lists"
    lists.mkdir()
    for name, actors in (("train", range(1, 17)), ("valid", range(17, 21)), ("test", range(21, 25))):
        (lists / f"{name}.txt").write_text("\n".join(f"Actor_{actor:02}" for actor in actors), encoding="utf-8")
    split = check(settings_of(whole, tmp_path / "out", split=f"lists:{lists}"), samples=0)["split"]
    assert {name: part["utterances"] for name, part in split["splits"].items()} == {
        "train": 16 * 60, "valid": 4 * 60, "test": 4 * 60,
    }  # fmt: skip


def test_the_name_says_everything(tmp_path):
    touch(tmp_path, "Actor_02/01-01-05-02-02-01-02.mp4")
    (one,) = read_release("ravdess", tmp_path, ["sad", "angry"]).utterances
    assert (one.utterance_id, one.dialogue_id, one.speaker) == ("01-01-05-02-02-01-02", "Actor_02", "Actor_02")
    assert list(one.labels.items()) == [("sad", 0.0), ("angry", 1.0)]
    assert (one.text, one.sentiment, one.session, one.fold) == ("Dogs are sitting by the door.", None, "", "")
    assert (one.start_s, one.end_s, one.audio_is_cut) == (0.0, math.inf, True)
    assert one.source_video == one.source_audio == "Actor_02/01-01-05-02-02-01-02.mp4"
    every = [f"Actor_01/{clip(emotion=code, statement=1)}" for code in range(1, 9)]
    touch(tmp_path, *every)
    found = {u.source_video: u for u in read_release("ravdess", tmp_path, EIGHT).utterances}
    assert [[name for name, value in found[file].labels.items() if value] for file in every] == [[e] for e in EIGHT]
    assert {found[file].text for file in every} == {"Kids are talking by the door."}


def test_emotions_that_the_task_leaves_out_and_no_emotions_at_all(tmp_path):
    touch(tmp_path, *(f"Actor_01/{clip(emotion=code)}" for code in (1, 2, 8)))
    release = read_release("ravdess", tmp_path, ["calm"])
    assert [u.utterance_id for u in release.utterances] == [clip(emotion=2)[:-4]]
    assert reasons(release) == {
        (clip(emotion=1)[:-4], "label:neutral"): 1,
        (clip(emotion=8)[:-4], "label:surprised"): 1,
    }
    release = read_release("ravdess", tmp_path, [])
    assert (release.emotions, len(release.utterances)) == (tuple(EIGHT), 3)
    assert read_release("ravdess", tmp_path, [], {"channel": "song"}).emotions == tuple(EIGHT[:6])
    with pytest.raises(DataError, match="unknown: joy"):
        read_release("ravdess", tmp_path, ["joy"])


@pytest.mark.parametrize(
    ("layout", "start"),
    [
        ("Actor_{actor:02}", "."),
        ("Actor_{actor:02}", "copy of RAVDESS"),
        ("Actor_{actor:02}", "copy of RAVDESS/Actor_01"),
        ("Video_Speech_Actor_{actor:02}/Actor_{actor:02}", "."),
        ("Video_Speech_Actor_{actor:02}/Actor_{actor:02}", "copy of RAVDESS/Video_Speech_Actor_01"),
        ("Video_Speech_Actor_{actor:02}", "copy of RAVDESS"),
        ("VIDEO_SPEECH_ACTOR_{actor:02}/ACTOR_{actor:02}", "copy of RAVDESS"),
        ("speech/Actor_{actor:02}", "copy of RAVDESS"),
        (".", "copy of RAVDESS"),
    ],
)
def test_zips_are_unpacked_with_and_without_their_folders(tmp_path, layout, start):
    root = tmp_path / "copy of RAVDESS"
    for actor in (1, 2):
        touch(root / layout.format(actor=actor), clip(actor), clip(actor, modality=2))
    release = read_release("ravdess", tmp_path / start, EIGHT)
    assert release.root == root
    assert [(u.utterance_id, u.speaker) for u in release.utterances] == [
        (clip(1)[:-4], "Actor_01"), (clip(2)[:-4], "Actor_02"),
    ]  # fmt: skip
    assert release.rejects == []


def test_a_folder_of_speech_is_a_release_of_its_own_where_it_is_named(tmp_path):
    touch(tmp_path, f"speech/Actor_01/{clip()}", f"song/Actor_01/{clip(channel=2)}")
    for start, root in ((".", tmp_path), ("speech", tmp_path / "speech")):
        release = read_release("ravdess", tmp_path / start, EIGHT)
        assert (release.root, len(release.utterances)) == (root, 1)


def test_files_in_capital_letters(tmp_path):
    touch(tmp_path, "ACTOR_01/" + clip(suffix=".MP4"), "ACTOR_01/" + clip(modality=3, suffix=".WAV"))
    (one,) = read_release("ravdess", tmp_path, EIGHT).utterances
    assert (one.utterance_id, one.source_video) == (clip()[:-4], "ACTOR_01/" + clip(suffix=".MP4"))


def test_three_files_of_one_performance_are_one_utterance(tmp_path):
    touch(tmp_path, *(f"Actor_01/{clip(modality=m)}" for m in (1, 2, 3)))
    release = read_release("ravdess", tmp_path, EIGHT)
    assert [u.utterance_id for u in release.utterances] == [clip()[:-4]]
    assert release.notes == [
        "speech: 1 performances, 1 of them with picture and sound (01); 1 files without sound (02) and 1 without "
        "picture (03) are the same performances again and are not used"
    ]


def test_performances_without_picture_or_without_sound_name_the_zip(tmp_path):
    touch(
        tmp_path, f"Actor_01/{clip(modality=3)}", f"Actor_02/{clip(2, modality=2)}", f"Actor_02/{clip(2, modality=3)}"
    )
    release = read_release("ravdess", tmp_path, EIGHT)
    assert release.utterances == []
    assert reasons(release) == {(clip()[:-4], "no_video"): 1, (clip(2)[:-4], "no_audio"): 1}
    assert release.rejects[0].detail == (
        f"there is no {clip()}, only {clip(modality=3)}; it is in Video_Speech_Actor_01.zip"
    )


def test_doubled_copies_are_used_once_and_the_larger_one(tmp_path):
    touch(tmp_path, f"Actor_01/{clip()}", f"Actor_01/{clip(emotion=3)}")
    shutil.copytree(tmp_path / "Actor_01", tmp_path / "audio_speech_actors_01-24" / "Actor_01")
    release = read_release("ravdess", tmp_path, EIGHT)
    assert [u.source_video for u in release.utterances] == [f"Actor_01/{clip(emotion=3)}", f"Actor_01/{clip()}"]
    assert release.notes[0] == (
        f"2 files are further copies of others and are not used, e.g. audio_speech_actors_01-24/Actor_01/"
        f"{clip(emotion=3)} of Actor_01/{clip(emotion=3)}"
    )
    (tmp_path / "audio_speech_actors_01-24" / "Actor_01" / clip()).write_bytes(b"longer")
    release = read_release("ravdess", tmp_path, EIGHT)
    assert release.utterances[1].source_video == f"audio_speech_actors_01-24/Actor_01/{clip()}"
    assert release.notes[0].endswith("; 1 differ in size: the largest is taken")


def test_song_beside_speech(tmp_path):
    touch(tmp_path, f"Actor_01/{clip()}", f"Actor_01/{clip(channel=2)}", f"Actor_01/{clip(channel=2, emotion=7)}")
    chosen = {c: [u.utterance_id for u in read_release("ravdess", tmp_path, EIGHT, {"channel": c}).utterances]
              for c in ("speech", "song", "both")}  # fmt: skip
    assert chosen == {
        "speech": [clip()[:-4]],
        "song": [clip(channel=2)[:-4]],
        "both": [clip()[:-4], clip(channel=2)[:-4]],
    }
    release = read_release("ravdess", tmp_path, EIGHT)
    assert any(note.startswith("song: 1 performances") and "channel: both" in note for note in release.notes)
    assert [(r.utterance_id, r.reason, r.detail) for r in release.rejects] == [
        (None, "id:unknown", "nobody sings 'disgust' in RAVDESS")
    ]
    with pytest.raises(DataError, match="channel is 'sing' for ravdess; expected one of speech, song, both"):
        read_release("ravdess", tmp_path, EIGHT, {"channel": "sing"})


def test_names_that_are_none_of_the_release(tmp_path):
    names = ["01-01-01-02-01-01-01.mp4", "01-01-09-01-01-01-01.mp4", "01-01-05-01-01-01-25.mp4", "take 1.mp4",
             "01-01-05-01-01-01.mp4", "1-1-5-1-1-1-1.wav"]  # fmt: skip
    touch(tmp_path, f"Actor_01/{clip()}", *(f"Actor_01/{name}" for name in names), f"Actor_01/._{clip(emotion=2)}")
    touch(tmp_path / "__MACOSX", f"Actor_01/{clip(emotion=4)}")
    touch(tmp_path, f"Actor_01/{clip(suffix='.wav')}", "Actor_01/01-01-05-01-01-01-01.csv", f"Actor_02/{clip(3)}")
    release = read_release("ravdess", tmp_path, EIGHT)
    assert [u.speaker for u in release.utterances] == ["Actor_01", "Actor_03"]
    assert reasons(release) == {(None, "id:unknown"): len(names)}
    assert {r.source for r in release.rejects} == {f"Actor_01/{name}" for name in names}
    assert (
        "1 files are not used, as 01 and 02 are .mp4 and 03 is .wav in the release, "
        f"e.g. Actor_01/{clip(suffix='.wav')}" in release.notes
    )
    assert f"1 files lie in another actor's folder: their names hold, e.g. Actor_02/{clip(3)}" in release.notes


def test_zips_that_are_not_unpacked_are_named_with_the_command(tmp_path):
    root = tmp_path / "my RAVDESS"
    touch(root, "Video_Speech_Actor_01.zip", "Video_Song_Actor_01.zip", "Audio_Speech_Actors_01-24.zip")
    with pytest.raises(DataError, match="1 zips of RAVDESS are not unpacked") as caught:
        read_release("ravdess", tmp_path, EIGHT)
    assert f"run `unzip -n '{root}/Video_Speech_Actor_01.zip' -d '{root}'`" in str(caught.value)
    touch(root, f"Actor_01/{clip()}")
    assert len(read_release("ravdess", tmp_path, EIGHT).utterances) == 1
    with pytest.raises(DataError, match="Video_Song_Actor_01.zip"):
        read_release("ravdess", tmp_path, EIGHT, {"channel": "both"})
    (tmp_path / "empty" / "a" / "b").mkdir(parents=True)
    with pytest.raises(DataError, match="no ravdess release: looked for Actor_01"):
        read_release("ravdess", tmp_path / "empty" / "a" / "b", EIGHT)


def test_pointers_and_web_pages_are_named_once(tmp_path):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
    for actor in (1, 2, 3):
        touch(tmp_path, f"Actor_0{actor}/{clip(actor)}")
        (tmp_path / f"Actor_0{actor}" / clip(actor)).write_bytes(pointer)
    touch(tmp_path, f"Actor_04/{clip(4)}")
    release = read_release("ravdess", tmp_path, EIGHT)
    assert [u.speaker for u in release.utterances] == ["Actor_04"]
    assert set(reasons(release).values()) == {1}
    assert {reject.reason for reject in release.rejects} == {"file:pointer"}
    assert sum(note.startswith("3 files are Git LFS pointers") for note in release.notes) == 1


@settings(max_examples=100, deadline=None)
@given(
    st.sets(
        st.tuples(
            *(st.integers(0, n) for n in (4, 3, 9, 3, 3, 3, 3)), st.sampled_from([".mp4", ".wav", ".MP4", ".txt"])
        ),
        max_size=12,
    )
)
def test_every_performance_is_taken_or_rejected_once(tmp_path_factory, names):
    root = tmp_path_factory.mktemp("any")
    files = ["-".join(f"{n:02}" for n in numbers) + suffix for *numbers, suffix in names]
    touch(root, f"Actor_01/{clip()}", *(f"Actor_02/{file}" for file in files))
    release = read_release("ravdess", root, EIGHT[2:], {"channel": "both"})
    known = {
        f"{modality:02}-{name}": name for channel in (1, 2) for name in performances(channel) for modality in (1, 2, 3)
    }
    right = {known[file[:-4]] for file in [clip(), *files]
             if file[:-4] in known and file[-4:].lower() == (".wav" if file[:2] == "03" else ".mp4")}  # fmt: skip
    named = [u.utterance_id for u in release.utterances] + [r.utterance_id for r in release.rejects if r.utterance_id]
    assert sorted(named) == sorted(f"01-{name}" for name in right)


def test_from_the_release_to_clips_split_by_actor(tmp_path):
    root = tmp_path / "raw" / "RAVDESS"
    for number, (actor, emotion) in enumerate(itertools.product((1, 2, 3, 4), (1, 3))):
        write_performance(root, clip(actor, emotion)[3:-4], seed=number)
    write_clip(root / "Actor_04" / clip(4, emotion=5), sound=False)
    (root / "Actor_04" / clip(4, emotion=6)).write_bytes(b"\0" * 600)
    summary = reorganize(settings_of(tmp_path / "raw", tmp_path / "out", workers=1), Reporter(quiet=True))
    table = read_manifest(tmp_path / "out")
    assert (summary["kept"], summary["rejected"], summary["task"]) == (8, 2, "single-label")
    assert summary["shared"]["speakers"] == {"train/valid": 0, "train/test": 0, "valid/test": 0}
    assert set(table["split"]) == {"train", "valid", "test"}
    assert {r.utterance_id: r.reason for r in read_rejects(tmp_path / "out")} == {
        clip(4, emotion=5)[:-4]: "no_audio", clip(4, emotion=6)[:-4]: "video:unreadable",
    }  # fmt: skip
    assert table.set_index("utterance_id").loc[clip(1, 3)[:-4], "label_happy"] == 1.0
