"""`pipeline check` on a tree with the real release's counts, and on small ones with one thing wrong each."""

import importlib
import json
import os
import random
from collections import Counter

import numpy as np
import pytest

from data_tools.media.audio import write_wav
from data_tools.media.write import write_video
from pipeline import cli
from pipeline.check import check, failed
from pipeline.check_report import format_check
from pipeline.progress import Reporter
from pipeline.reorganize import ReorganizeSettings, reorganize
from pipeline.settings import load_config

stage = importlib.import_module("pipeline.check")  # `pipeline.check` is the function


# DATASETS.md A2: the published release.
SESSIONS = {"1": (28, 1819), "2": (30, 1811), "3": (32, 2136), "4": (30, 2103), "5": (31, 2170)}
CLASSES = {"xxx": 2507, "fru": 1849, "neu": 1708, "ang": 1103, "sad": 1084, "exc": 1041, "hap": 595, "sur": 107,
           "fea": 40, "oth": 3, "dis": 2}  # fmt: skip
PARTS = [f"impro0{n}" for n in range(1, 9)] + [f"script0{a}_{b}" for a in range(1, 4) for b in range(1, 4)]
SECONDS = 3.0


def picture(size=(720, 480), bars=True, seconds=SECONDS):
    frame = np.full((size[1], size[0], 3), 128, np.uint8)
    if bars:
        frame[:120] = frame[360:] = 0
    return (frame for _ in range(round(30 * seconds)))


@pytest.fixture(scope="session")
def media(tmp_path_factory):
    """One dialogue's video, 3 s, and one sentence's sound, 2 s; linked wherever a tree needs them."""
    folder = tmp_path_factory.mktemp("media")
    write_video(folder / "a.avi", picture(), (720, 480), 30, "mpeg4", tag="DIVX")
    write_wav(folder / "a.wav", np.random.default_rng(0).normal(0, 0.1, 32_000).astype(np.float32))
    return folder


def make_tree(root, media, sessions, codes):
    """`sessions`: name -> (dialogues, utterances). `codes`: a label for each utterance, in order."""
    left = iter(codes)
    for session, (dialogues, utterances) in sessions.items():
        names = [f"Ses0{session}{marker}_{part}" for part in PARTS for marker in "FM"][:dialogues]
        dialog = root / f"Session{session}" / "dialog"
        for folder in ("avi/DivX", "wav", "transcriptions", "EmoEvaluation"):
            (dialog / folder).mkdir(parents=True)
        for place, name in enumerate(names):
            ids = [f"{name}_{'FM'[turn % 2]}{turn:03}" for turn in range(len(range(place, utterances, dialogues)))]
            labels = [
                f"[0.5000 - 2.5000]\t{i}\t{next(left)}\t[2.5000, 2.5000, 2.5000]\nC-E2:\tNeutral;\t()" for i in ids
            ]
            (dialog / "EmoEvaluation" / f"{name}.txt").write_text("% [START_TIME - END_TIME]\n" + "\n".join(labels))
            lines = "\n".join(f"{i} [000.5000-002.5000]: Well, this is it." for i in ids)
            (dialog / "transcriptions" / f"{name}.txt").write_text(lines)
            os.link(media / "a.avi", dialog / "avi" / "DivX" / f"{name}.avi")
            os.link(media / "a.wav", dialog / "wav" / f"{name}.wav")
            sounds = root / f"Session{session}" / "sentences" / "wav" / name
            sounds.mkdir(parents=True)
            for utterance_id in ids:
                os.link(media / "a.wav", sounds / f"{utterance_id}.wav")
    return root


@pytest.fixture(scope="module")
def whole(tmp_path_factory, media):
    """151 dialogues and 10,039 utterances with the published numbers of sessions and classes. Not to be changed."""
    codes = [code for code, count in CLASSES.items() for _ in range(count)]
    random.Random(0).shuffle(codes)
    return make_tree(tmp_path_factory.mktemp("raw") / "IEMOCAP_full_release", media, SESSIONS, codes)


@pytest.fixture
def small(tmp_path, media):
    """Five sessions of two dialogues of six utterances, one of each of the six classes."""
    six = load_config("datasets", "iemocap")["emotions"]
    return make_tree(
        tmp_path / "raw", media, dict.fromkeys("12345", (2, 12)), [code for code in six for _ in range(10)]
    )


def settings(root, out, dataset="iemocap", **values):
    return ReorganizeSettings.checked(load_config("datasets", dataset) | {"root": root, "out": out} | values, "test")


def listing(root):
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in root.rglob("*")}


def test_the_published_release_has_the_published_counts(whole, tmp_path):
    found = check(settings(whole, tmp_path / "data", split="session:5"))
    assert not failed(found)
    assert found["warnings"] == []
    assert found["root"] == str(whole)
    for kind, column in (("videos", 0), ("labels", 0), ("transcripts", 0), ("dialogue wavs", 0), ("sentence wavs", 1)):
        by_session = found["files"][kind]["by_session"]
        assert by_session == {s: {"found": n[column], "published": n[column]} for s, n in SESSIONS.items()}
        assert found["files"][kind]["found"] == (151, 10_039)[column]
    assert found["utterances"] == {
        "usable": 7380, "labelled": 10_039, "published": 10_039,
        "by_session": {s: {"found": n, "published": n} for s, (_, n) in SESSIONS.items()},
    }  # fmt: skip
    assert found["labels"] == {code: {"found": n, "published": n} for code, n in CLASSES.items()}
    assert {reason: counts["utterances"] for reason, counts in found["rejects"].items()} == {
        f"label:{code}": CLASSES[code] for code in ("dis", "fea", "oth", "sur", "xxx")
    }
    assert sum(part["utterances"] for part in found["split"]["splits"].values()) == 7380
    assert found["split"]["shared"]["speakers"]["train/test"] == 0
    assert len(found["samples"]) == 8
    text = format_check(found).splitlines()
    assert text[-1] == "stage 1 would start well"
    assert next(line for line in text if line.startswith("videos")).split()[1:4] == ["151", "151", "same"]


def test_five_classes_are_those_four_and_frustration(whole, tmp_path):
    found = check(settings(whole, tmp_path / "data", "iemocap-5"), samples=0)
    assert found["utterances"]["usable"] == 7380
    five = {"ang": 1103, "fru": 1849, "hap": 1636, "neu": 1708, "sad": 1084}
    parts = found["split"]["splits"].values()
    assert Counter({name: sum(part["labels"][name] for part in parts) for name in five}) == five


def test_four_classes_with_excitement_as_happiness_are_5531(whole, tmp_path):
    found = check(settings(whole, tmp_path / "data", "iemocap-4"), samples=0)
    assert found["utterances"]["usable"] == 5531
    four = {"ang": 1103, "hap": 1636, "neu": 1708, "sad": 1084}
    assert {name: counts for name, counts in found["labels"].items() if name in four} == {
        name: {"found": count, "published": count} for name, count in four.items()
    }
    parts = found["split"]["splits"].values()
    assert Counter({name: sum(part["labels"][name] for part in parts) for name in four}) == four


def test_a_sample_says_what_the_media_are(small, tmp_path):
    found = check(settings(small, tmp_path / "data"), samples=3)
    assert len(found["samples"]) == 3
    for sample in found["samples"]:
        assert (sample["codec"], sample["width"], sample["height"], sample["fps"]) == ("mpeg4", 720, 480, 30.0)
        assert (sample["sound_codec"], sample["sound_hz"], sample["channels"]) == ("pcm_s16le", 16_000, 1)
        assert sample["duration_s"] == pytest.approx(SECONDS, abs=0.04)
        assert sample["longest_difference_s"] == 0.0
        assert sample["problems"] == sample["notes"] == []
    again = check(settings(small, tmp_path / "data"), samples=3)
    assert again["samples"] == found["samples"]
    drawn = {
        tuple(s["video"] for s in check(settings(small, tmp_path / "data", seed=seed), samples=3)["samples"])
        for seed in range(4)
    }
    assert len(drawn) > 1
    assert len(check(settings(small, tmp_path / "data"), samples=99)["samples"]) == 10


def test_nothing_is_touched(small, tmp_path):
    before = listing(tmp_path)
    check(settings(small, tmp_path / "data" / "iemocap"))
    assert listing(tmp_path) == before


def test_a_root_that_is_not_there(tmp_path):
    found = check(settings(tmp_path / "nowhere", tmp_path / "data"))
    assert failed(found)
    (problem,) = found["problems"]
    assert "does not exist" in problem
    assert "--root" in problem
    assert format_check(found).splitlines()[-1] == "1 problem: stage 1 would fail"


def test_lost_videos_are_counted_named_and_too_many(small, tmp_path):
    for path in (small / "Session2").rglob("*.avi"):
        path.unlink()
    found = check(settings(small, tmp_path / "data"))
    assert found["files"]["videos"]["by_session"]["2"] == {"found": 0, "published": 30}
    assert found["rejects"]["no_video"]["utterances"] == 12
    assert "Ses02" in found["rejects"]["no_video"]["example"]
    assert not failed(found)  # a fifth is not more than max_reject_share
    assert any("videos: 8 files, the published release has 151" in warning for warning in found["warnings"])
    next((small / "Session3").rglob("*.avi")).unlink()
    found = check(settings(small, tmp_path / "data"))
    assert any("18 of 60 utterances (30%) are broken" in problem for problem in found["problems"])


@pytest.mark.parametrize(
    ("values", "said"),
    [({"split": "session:9"}, "sessions: 1, 2, 3, 4, 5"), ({"split": "lists:/nowhere"}, "no such folder"),
     ({"min_duration_s": 5.0, "max_duration_s": 4.0}, "min_duration_s 5.0 is not below"),
     ({"emotions": ["dis"]}, "no utterance of"), ({"emotions": ["joy"]}, "unknown: joy"),
     ({"reader": {"fast": True}}, "no option fast"), ({"reader": {"merge": {"oth": "joy"}}}, "reader.merge")],
)  # fmt: skip
def test_settings_that_cannot_work_are_problems(small, tmp_path, values, said):
    found = check(settings(small, tmp_path / "data", **values), samples=1)
    assert any(said in problem for problem in found["problems"])


def test_a_target_that_cannot_be_written_is_a_problem(small, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "dataset.json").write_text('{"dataset": "mosei"}')
    for out, said in ((small / "data", "inside the release"), (tmp_path / "file" / "data", "is a file"),
                      (tmp_path / "other", "holds the data set 'mosei'")):  # fmt: skip
        (problem,) = check(settings(small, out), samples=0)["problems"]
        assert said in problem
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    (problem,) = check(settings(small, tmp_path / "data"), samples=0)["problems"]
    assert "cannot be written to" in problem


def test_a_disk_that_is_too_small_is_a_problem(small, tmp_path, monkeypatch):
    found = check(settings(small, tmp_path / "data"))
    disk = found["disk"]
    assert disk["seconds"] == 60 * 2.0
    density = next(small.rglob("*.avi")).stat().st_size / found["samples"][0]["duration_s"]
    # 16-bit sound at 16 kHz; 2 faces of 48x48 in 3 bytes; 80 rows of 128 bands in 2 bytes: each second.
    expected = 120 * (density + 32_000 + 2 * 48 * 48 * 3 + 80 * 128 * 2)
    assert disk["need_bytes"] == pytest.approx(expected, abs=1)
    usage = type("Usage", (), {"free": disk["need_bytes"] - 1})
    monkeypatch.setattr(stage.shutil, "disk_usage", lambda folder: usage)
    (problem,) = check(settings(small, tmp_path / "data"))["problems"]
    assert "GB free" in problem
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dataset.json").write_text('{"dataset": "iemocap"}')
    found = check(settings(small, tmp_path / "data"))
    assert not failed(found)
    assert any("GB free" in warning for warning in found["warnings"])


def spoil_picture(path):
    write_video(path, picture((640, 480)), (640, 480), 25, "mpeg4", tag="DIVX")


def spoil_bars(path):
    write_video(path, picture(bars=False), (720, 480), 30, "mpeg4", tag="DIVX")


def shorten(path):
    write_video(path, picture(seconds=1.5), (720, 480), 30, "mpeg4", tag="DIVX")


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        (spoil_picture, "notes", "640x480, not 720x480"),
        (spoil_picture, "notes", "published about 30"),
        (spoil_bars, "notes", "no black bars"),
        (shorten, "problems", "6 of 6 intervals end after the video, which lasts 1.50 s"),
        (lambda path: path.write_bytes(b"RIFF" + bytes(2000)), "problems", "cannot be read as media"),
        (lambda path: path.write_bytes(b""), "problems", "empty file"),
    ],
)
def test_what_is_wrong_with_a_sampled_video(small, tmp_path, change, kind, said):
    path = next(small.rglob("*.avi"))
    path.unlink()  # it is a link to a file that other trees use
    change(path)
    found = check(settings(small, tmp_path / "data"), samples=10)
    (sample,) = [s for s in found["samples"] if s["problems"] or s["notes"]]
    assert sample["video"].endswith(path.name)
    assert any(said in text for text in sample[kind])
    assert not failed(found)  # one of ten
    assert any(said in line for line in format_check(found).splitlines())


@pytest.mark.parametrize(
    ("samples", "rate_hz", "kind", "said"),
    [(48_000, 16_000, "problems", "1.00 s longer or shorter than its interval (1 of 6"),
     (16_000, 8_000, "notes", "has 8000 samples a second, published 16000"),
     (None, None, "problems", "empty file")],
)  # fmt: skip
def test_what_is_wrong_with_a_sentence_wav(small, tmp_path, samples, rate_hz, kind, said):
    # The first utterance of its dialogue in the order of time, which is the one that is opened.
    path = min(small.rglob("sentences/wav/Ses01F_impro01/*.wav"))
    path.unlink()
    if samples:
        write_wav(path, np.zeros(samples, np.float32), rate_hz)
    else:
        path.touch()
    found = check(settings(small, tmp_path / "data"), samples=10)
    (sample,) = [s for s in found["samples"] if s["problems"] or s["notes"]]
    assert any(said in text for text in sample[kind])


def test_most_samples_broken_is_a_problem(small, tmp_path):
    for path in list(small.rglob("*.avi"))[:3]:
        path.unlink()
        path.write_bytes(b"nothing")
    (problem,) = check(settings(small, tmp_path / "data"), samples=10)["problems"]
    assert "3 of 10 sampled videos have problems" in problem


def test_clips_of_ones_own_without_any_published_count(tmp_path, media):
    """Whole files, whose length nobody states, sorted by emotion."""
    for emotion in ("glad", "cross"):
        folder = tmp_path / "raw" / emotion
        folder.mkdir(parents=True)
        for name in ("a", "b", "c"):
            write_video(folder / f"{emotion}_{name}.mp4", picture(seconds=1), (720, 480), 30, audio=media / "a.wav")
    found = check(settings(tmp_path / "raw", tmp_path / "data", "folder", split="random:utterance"))
    assert found["utterances"] == {"usable": 6, "labelled": 6, "published": None}
    assert {name: counts["found"] for name, counts in found["labels"].items()} == {"cross": 3, "glad": 3}
    assert found["files"] == {}
    assert found["problems"] == []
    assert found["disk"]["seconds"] == pytest.approx(6 * found["samples"][0]["duration_s"], abs=0.5)
    json.dumps(found, allow_nan=False)


def test_the_command_prints_either_way_and_its_status_says_the_verdict(small, tmp_path, monkeypatch, capsys):
    def run(*arguments):
        command = ["pipeline", "check", "--dataset", "iemocap", "--out", tmp_path / "data", *arguments]
        monkeypatch.setattr("sys.argv", [str(part) for part in command])
        try:
            cli.main()
        except SystemExit as stopped:
            return stopped.code, capsys.readouterr().out
        return 0, capsys.readouterr().out

    status, out = run("--root", small, "--samples", "2", "--split", "speaker:Ses05F", "--json")
    found = json.loads(out)
    assert (status, len(found["samples"]), found["split"]["protocol"]) == (0, 2, "speaker:Ses05F")
    status, out = run("--root", tmp_path / "nowhere", "--json")
    assert (status, len(json.loads(out)["problems"])) == (1, 1)
    status, out = run("--root", tmp_path / "nowhere")
    assert status == 1
    assert out.startswith("problem: ")


@pytest.fixture
def sims(tmp_path, media):
    """MMSA's copy of CH-SIMS: sentiment alone, whole clips, a split of its own."""
    root = tmp_path / "raw" / "SIMS"
    rows = ["video_id,clip_id,text,label,label_T,label_A,label_V,annotation,mode"]
    for place, mode in enumerate(["train"] * 4 + ["valid", "test"]):
        (root / "Raw" / "video_0001").mkdir(parents=True, exist_ok=True)
        clip = root / "Raw" / "video_0001" / f"{place:04}.mp4"
        write_video(clip, picture((64, 64), bars=False, seconds=1), (64, 64), 30, audio=media / "a.wav")
        rows.append(f"video_0001,{place:04},好,{(place - 2) / 5},0,0,0,Neutral,{mode}")
    (root / "label.csv").write_text("\n".join(rows))
    return root


def test_what_is_checked_is_what_stage_1_then_does(sims, tmp_path):
    chosen = settings(sims, tmp_path / "data", "sims", workers=1)
    found = check(chosen)
    assert not failed(found)
    assert found["labels"] == {}
    assert found["split"]["splits"] == {
        name: {"utterances": count, "published": published, "labels": {}}
        for name, count, published in (("train", 4, 1368), ("valid", 1, 456), ("test", 1, 457))
    }
    assert (found["files"]["clips"]["found"], found["files"]["clips"]["published"]) == (6, 2281)
    made = reorganize(chosen, Reporter(quiet=True))
    assert made["kept"] == found["utterances"]["usable"] == 6
    assert made["shared"] == found["split"]["shared"]
    assert {name: part["utterances"] for name, part in made["splits"].items()} == {"train": 4, "valid": 1, "test": 1}
