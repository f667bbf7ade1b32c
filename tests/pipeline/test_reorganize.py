"""Stage 1 on small releases made here; every frame carries its number, so every clip can be checked exactly."""

import hashlib
import importlib
import json
import shutil
import signal
import subprocess
import sys
from collections import Counter
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import soundfile

from data_tools.errors import DataError
from data_tools.files import folder_lock
from data_tools.manifest import read_manifest, read_rejects
from data_tools.media.audio import read_audio, write_wav
from data_tools.media.frames import read_frames
from data_tools.media.source import probe
from data_tools.media.write import write_video
from pipeline.jobs.local import died
from pipeline.progress import Reporter
from pipeline.reorganize import ReorganizeSettings, reorganize
from pipeline.settings import load_config

stage = importlib.import_module("pipeline.reorganize")  # `pipeline.reorganize` is the function


NTSC = Fraction(30000, 1001)
FRAMES = 150
DIALOGUES = ["Ses01F_impro01", "Ses02M_script01_1", "Ses03M_impro05a"]
# start, end, who speaks, label; the second one overlaps the first, the last one the task does not use.
TURNS = [(0.5, 2.1, "F", "ang"), (2.0, 3.5, "M", "sad"), (3.6, 4.9, "F", "neu"), (4.0, 4.5, "M", "xxx")]
KEPT = 3 * len(DIALOGUES)


def numbered(count=FRAMES, size=(720, 480)):
    """A letterboxed picture with the number in both halves; the left half is dark below it, the right one bright."""
    for number in range(count):
        frame = np.zeros((size[1], size[0], 3), np.uint8)
        frame[160:360, : size[0] // 2], frame[160:360, size[0] // 2 :] = 40, 220
        for left in (0, size[0] // 2):
            for bit in range(8):
                frame[120:160, left + 40 * bit : left + 40 * bit + 40] = 255 if number >> bit & 1 else 0
        yield frame


def numbers(clip):
    return [sum(int(f[20, 20 + 40 * b, 0] > 128) << b for b in range(8)) for _, f in read_frames(clip, 1)]


def expected_numbers(start_s, end_s):
    first = min(range(FRAMES), key=lambda i: abs(i / NTSC - start_s))
    return [first, *(i for i in range(first + 1, FRAMES) if i / NTSC < end_s)]


def noise(seconds, seed):
    return np.random.default_rng(seed).normal(0, 0.1, round(16_000 * seconds)).astype(np.float32)


def make_iemocap(root):
    for number, dialogue in enumerate(DIALOGUES):
        session = root / f"Session{dialogue[4]}"
        dialog = session / "dialog"
        write_video(dialog / "avi" / "DivX" / f"{dialogue}.avi", numbered(), (720, 480), NTSC, "mpeg4", tag="DIVX")
        labels, texts = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n", f"{dialogue}_FXX0 [1-2]: hm\n"
        for turn, (start_s, end_s, who, code) in enumerate(TURNS):
            name = f"{dialogue}_{who}{turn:03}"
            labels += f"[{start_s:.4f} - {end_s:.4f}]\t{name}\t{code}\t[2.5000, 2.5000, 2.5000]\nC-E2:\tNeutral;\t()\n"
            texts += f"{name} [{start_s:08.4f}-{end_s:08.4f}]: This is turn {turn}.\n"
            write_wav(
                session / "sentences" / "wav" / dialogue / f"{name}.wav", noise(end_s - start_s, number * 9 + turn)
            )
        for folder, text in (("EmoEvaluation", labels), ("transcriptions", texts)):
            (dialog / folder).mkdir()
            (dialog / folder / f"{dialogue}.txt").write_text(text)
    return root


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """Not to be changed."""
    return make_iemocap(tmp_path_factory.mktemp("raw") / "IEMOCAP_full_release")


@pytest.fixture
def own_release(release, tmp_path):
    """A copy that a test may damage."""
    subprocess.run(["cp", "-r", release, tmp_path / "raw"], check=True)
    return tmp_path / "raw"


def run(root, out, dataset="iemocap", **settings):
    values = load_config("datasets", dataset) | {"root": root, "out": out, "workers": 1, "split": "random"} | settings
    return reorganize(ReorganizeSettings.checked(values, "test"), Reporter(quiet=True))


def tree(folder):
    """Every file but the lock, with the hash of its bytes."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def receipts(out):
    """Dialogues whose receipt says that they are done."""
    lines = (
        (out / "clips" / "receipts.jsonl").read_text().splitlines() if (out / "clips/receipts.jsonl").exists() else []
    )
    return [json.loads(line.split("\t")[0]) for line in lines]


def times(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix in (".mp4", ".wav")}


def reasons(out):
    return Counter(reject.reason for reject in read_rejects(out) if reject.utterance_id)


@pytest.fixture(scope="module")
def done(release, tmp_path_factory):
    """The data folder of an uninterrupted run; not to be changed."""
    out = tmp_path_factory.mktemp("data") / "iemocap"
    run(release, out)
    return out


def test_manifest_and_rejects_account_for_every_utterance(release, done):
    table = read_manifest(done)
    assert len(table) == KEPT
    assert reasons(done) == {"label:xxx": 3, "unlabelled": 3}
    assert list(table.columns) == [
        "utterance_id", "dialogue_id", "speaker", "session", "split", "start_s", "end_s", "text", "clip", "wav",
        "label_ang", "label_exc", "label_fru", "label_hap", "label_neu", "label_sad",
        "sentiment", "source_video", "source_audio", "fps", "no_face_share",
    ]  # fmt: skip
    row = table.set_index("utterance_id").loc["Ses02M_script01_1_F002"]
    assert (row["speaker"], row["session"], row["start_s"], row["end_s"]) == ("Ses02F", "2", 3.6, 4.9)
    assert (row["text"], row["label_neu"], row["label_ang"]) == ("This is turn 2.", 1.0, 0.0)
    assert row["fps"] == pytest.approx(29.97, abs=0.001)
    assert row["source_video"] == "Session2/dialog/avi/DivX/Ses02M_script01_1.avi"
    assert pd.isna(row["sentiment"])
    assert Counter(table["split"]) == {"train": 3, "valid": 3, "test": 3}
    assert (release / row["source_audio"]).is_file()


def test_clips_show_the_speakers_half_frame_for_frame_with_the_sentences_sound(release, done):
    for row in read_manifest(done).itertuples():
        assert numbers(done / row.clip) == expected_numbers(row.start_s, row.end_s)
        _, frame = next(read_frames(done / row.clip, 500))
        assert frame.shape == (240, 360, 3)
        speaker, marker = row.speaker[-1], row.dialogue_id[5]
        assert abs(frame[60:].mean() - (40 if speaker == marker else 220)) < 10
        assert np.array_equal(read_audio(done / row.wav), read_audio(release / row.source_audio))
        info = soundfile.info(done / row.wav)
        assert (info.samplerate, info.channels, info.subtype) == (16_000, 1, "PCM_16")
        assert probe(done / row.clip).has_audio


def test_the_folder_holds_exactly_what_the_manifest_names(done):
    table = read_manifest(done)
    assert set(tree(done)) == {
        "utterances.parquet", "rejects.parquet", "dataset.json", *table["clip"], *table["wav"],
        "clips/receipts.jsonl",
    }  # fmt: skip


def test_the_summary_adds_up_and_names_no_place_of_this_machine(release, done, tmp_path):
    summary = run(release, tmp_path / "out", split="session:3")
    assert (summary["found"], summary["labelled"], summary["kept"], summary["rejected"]) == (15, 12, KEPT, 6)
    assert summary["broken"] == 0
    assert summary["splits"]["test"] == {
        "utterances": 3, "labels": {"ang": 1, "exc": 0, "fru": 0, "hap": 0, "neu": 1, "sad": 1},
    }  # fmt: skip
    assert summary["shared"]["speakers"]["train/test"] == 0
    assert (summary["split"], summary["dataset"], summary["standin"]) == ("session:3", "iemocap", False)
    assert "task" not in summary
    assert run(release, tmp_path / "single", task="single-label")["task"] == "single-label"
    text = (tmp_path / "out" / "dataset.json").read_text()
    assert str(tmp_path) not in text
    assert str(release.parent) not in text


def test_a_second_run_does_nothing_twice_and_changes_no_byte(release, done):
    before, made_at = tree(done), times(done)
    run(release, done, workers=2)
    assert tree(done) == before
    assert times(done) == made_at


def test_a_folder_with_a_receipt_beside_each_dialogue_is_read_and_brought_up_to_date(release, done, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(done, out)
    made_at = times(out)
    lines = (out / "clips" / "receipts.jsonl").read_text().splitlines()
    (out / "clips" / "receipts.jsonl").unlink()
    for line in lines:
        dialogue, _, receipt = line.partition("\t")
        (out / "clips" / json.loads(dialogue) / "receipt.json").write_text(json.dumps(json.loads(receipt), indent=2))
    run(release, out)
    assert (tree(out), times(out)) == (tree(done), made_at)


def test_processes_and_the_place_of_the_release_change_no_byte(own_release, done, tmp_path):
    own_release.rename(tmp_path / "IEMOCAP_full_release")
    run(tmp_path, tmp_path / "out", workers=2)
    assert tree(tmp_path / "out") == tree(done)


def test_only_what_depends_on_a_change_is_done_again(own_release, tmp_path):
    out = tmp_path / "out"
    run(own_release, out)
    first = times(out)
    run(own_release, out, split="random:utterance", seed=3)
    assert times(out) == first
    wav = next(own_release.rglob("Ses01F_impro01_F000.wav"))
    write_wav(wav, noise(1.6, 99))
    next(out.rglob("Ses02M_script01_1_M001.mp4")).unlink()
    run(own_release, out)
    second = times(out)
    assert {name for name in first if second[name] != first[name]} == {n for n in first if n[:5] in ("Ses01", "Ses02")}
    assert np.array_equal(read_audio(out / "clips" / "Ses01F_impro01" / wav.name), read_audio(wav))
    run(own_release, out, crf=30)
    third = times(out)
    assert all(third[name] != second[name] for name in second)


def test_clips_that_the_task_no_longer_uses_go_away(release, done, tmp_path):
    out = tmp_path / "out"
    run(release, out, emotions=("xxx",), split="random:utterance")
    assert len(read_manifest(out)) == 3
    run(release, out)
    assert tree(out) == tree(done)
    lists = tmp_path / "lists"
    lists.mkdir()
    for split, dialogue in zip(("train", "valid", "test"), ("Ses01F_impro01", "gone", "Ses03M_impro05a"), strict=True):
        (lists / f"{split}.txt").write_text(f"{dialogue}\n")
    run(release, out, split=f"lists:{lists}")
    assert reasons(out)["split:not_listed"] == 3
    assert sorted(path.name for path in (out / "clips").glob("Ses*")) == ["Ses01F_impro01", "Ses03M_impro05a"]
    assert receipts(out) == ["Ses01F_impro01", "Ses03M_impro05a"]


KILLED = """
import os, signal, sys
from pathlib import Path
import data_tools.media.clip as clip
from pipeline.progress import Reporter
from pipeline.reorganize import ReorganizeSettings, reorganize
from pipeline.settings import load_config

finished, finish = [], clip.Clip.finish

def finish_or_die(self):
    if len(finished) == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    finished.append(self)
    finish(self)

clip.Clip.finish = finish_or_die
values = load_config("datasets", "iemocap") | {"root": Path(sys.argv[1]), "out": Path(sys.argv[2]), "workers": 1}
reorganize(ReorganizeSettings.checked(values, "test"), Reporter(quiet=True))
"""


@pytest.mark.parametrize("clips", [1, 4])
def test_killed_in_the_middle_of_a_clip_and_started_again(release, done, tmp_path, clips):
    out = tmp_path / "out"
    killed = subprocess.run([sys.executable, "-c", KILLED, release, out, str(clips)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (out / "utterances.parquet").exists()
    finished = [out / "clips" / name for name in receipts(out)]
    assert len(finished) == clips // 3
    assert any(".tmp." in path.name for path in out.rglob("*.mp4"))
    complete = [path for path in out.rglob("*.mp4") if path.parent in finished]
    made_at = {path: path.stat().st_mtime_ns for path in complete}
    run(release, out)
    assert tree(out) == tree(done)
    assert {path: path.stat().st_mtime_ns for path in complete} == made_at


def test_a_changed_setting_takes_the_old_manifest_away_before_the_clips(release, tmp_path, monkeypatch):
    out = tmp_path / "out"
    run(release, out)

    def full(dialogue):
        raise DataError("cannot write: no space left")

    monkeypatch.setattr(stage, "make_clips", full)
    with pytest.raises(DataError, match="no space left"):
        run(release, out, crf=30)
    assert not (out / "utterances.parquet").exists()


def damage(root, what):
    """Break one thing of Ses01F_impro01; the reasons that its three utterances must get."""
    avi = next(root.rglob("Ses01F_impro01.avi"))
    wav = next(root.rglob("Ses01F_impro01_M001.wav"))
    if what == "empty video":
        avi.write_bytes(b"")
    elif what == "no video":
        avi.unlink()
    elif what == "not a video":
        avi.write_text("broken " * 1000)
    elif what == "truncated video":
        avi.write_bytes(avi.read_bytes()[: avi.stat().st_size * 6 // 10])
    elif what == "empty wav":
        wav.write_bytes(b"")
    elif what == "no wav":
        wav.unlink()
    elif what == "not a wav":
        wav.write_text("broken " * 1000)
    elif what == "truncated wav":
        wav.write_bytes(wav.read_bytes()[:1000])
    elif what == "label after the end":
        path = next(root.rglob("EmoEvaluation/Ses01F_impro01.txt"))
        path.write_text(path.read_text().replace("[2.0000 - 3.5000]", "[9.0000 - 10.5000]"))
    elif what == "tiny interval":
        path = next(root.rglob("EmoEvaluation/Ses01F_impro01.txt"))
        path.write_text(path.read_text().replace("[2.0000 - 3.5000]", "[2.0000 - 2.0500]"))


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("empty video", {"video:unreadable": 3}),
        ("no video", {"no_video": 3}),
        ("not a video", {"video:unreadable": 3}),
        ("truncated video", {"video:damaged": 2}),
        ("empty wav", {"audio:unreadable": 1}),
        ("no wav", {"no_audio": 1}),
        ("not a wav", {"audio:unreadable": 1}),
        ("truncated wav", {"audio:length": 1}),
        ("label after the end", {"interval:outside": 1}),
        ("tiny interval", {"interval:short": 1}),
    ],
)
def test_broken_media_cost_only_what_they_hold(own_release, tmp_path, what, expected):
    damage(own_release, what)
    summary = run(own_release, tmp_path / "out", max_reject_share=0.5)
    lost = sum(expected.values())
    assert summary["reasons"] == {"label:xxx": 3, "unlabelled": 3} | expected
    assert (summary["kept"], summary["broken"]) == (KEPT - lost, lost)
    for reject in read_rejects(tmp_path / "out"):
        if reject.reason in expected:
            assert "Ses01F_impro01" in reject.source
            assert reject.detail
            assert str(own_release) not in reject.detail
    assert set(times(tmp_path / "out")) == {
        path.rsplit("/")[-1] for column in ("clip", "wav") for path in read_manifest(tmp_path / "out")[column]
    }


def test_too_many_broken_is_a_failure_after_everything_is_written(own_release, tmp_path):
    damage(own_release, "empty video")
    with pytest.raises(DataError, match=r"3 of 9 utterances \(33%\) are broken, more than max_reject_share 20%"):
        run(own_release, tmp_path / "out")
    assert len(read_manifest(tmp_path / "out")) == KEPT - 3
    for avi in own_release.rglob("*.avi"):
        avi.write_bytes(b"")
    with pytest.raises(DataError, match=r"no utterance of .* is left"):
        run(own_release, tmp_path / "out", max_reject_share=1.0)
    assert not (tmp_path / "out" / "utterances.parquet").exists()


@pytest.mark.parametrize("gone", ["avi", "sentences", "EmoEvaluation"])
def test_sources_that_are_away_for_a_moment_cost_nothing_that_is_done(own_release, tmp_path, gone):
    out = tmp_path / "out"
    run(own_release, out)
    before, made_at = tree(out), times(out)
    places = sorted(own_release.rglob(gone))
    assert len(places) == 3
    for place in places:
        place.rename(place.with_name("away"))
    with pytest.raises(DataError, match=rf"no utterance of .* is left .*e\.g\. Ses0.*nothing in {out} was touched"):
        run(own_release, out)
    places[0].with_name("away").rename(places[0])
    with pytest.raises(DataError, match=r"are broken, more than max_reject_share 20%.*was touched"):
        run(own_release, out)
    assert tree(out) == before
    for place in places[1:]:
        place.with_name("away").rename(place)
    run(own_release, out)
    assert (tree(out), times(out)) == (before, made_at)


def test_clips_of_a_dialogue_wait_while_its_video_is_away(own_release, tmp_path):
    out = tmp_path / "out"
    run(own_release, out)
    before = tree(out)
    avi = next(own_release.rglob("Ses01F_impro01.avi"))
    kept = avi.rename(avi.with_suffix(".away"))
    run(own_release, out, max_reject_share=0.5)
    assert len(read_manifest(out)) == KEPT - 3
    clips = {path: made for path, made in tree(out).items() if path.startswith("clips/")}
    assert clips == {path: made for path, made in before.items() if path.startswith("clips/")}
    kept.rename(avi)
    run(own_release, out)
    assert tree(out) == before


def test_a_killed_runs_dialogue_that_is_not_wanted_any_more_goes_away(release, tmp_path):
    out, lists = tmp_path / "out", tmp_path / "lists"
    subprocess.run([sys.executable, "-c", KILLED, release, out, "4"], check=False)
    assert len(list(out.glob("clips/*/*.mp4"))) > 3
    lists.mkdir()
    wanted = out / "clips" / receipts(out)[0]
    for split, name in (("train", wanted.name), ("valid", "none"), ("test", "nobody")):
        (lists / f"{split}.txt").write_text(name)
    run(release, out, split=f"lists:{lists}")
    assert {path.name for path in (out / "clips").iterdir()} == {wanted.name, "receipts.jsonl"}
    assert not list(out.rglob("*.tmp.*"))


def test_files_of_others_are_never_deleted(release, done, tmp_path):
    """A folder of home videos, a folder of ours with a note in it, a receipt that names a file outside, a link."""
    out = tmp_path / "out"
    run(release, out, emotions=("xxx",), split="random:utterance")
    foreign = [out / "clips" / "holidays" / name for name in ("beach.mp4", "sea.wav", "notes.json", ".x.tmp.mp4")]
    foreign += [out / "clips" / DIALOGUES[0] / "mine.wav", out / "clips" / "gone" / "mine.mp4", out / "film.mp4"]
    foreign += [tmp_path / "elsewhere" / name for name in ("a.mp4", "receipt.json")]
    for path in foreign:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"files": {"a.mp4": 1}}))
    (out / "clips" / "link").symlink_to(tmp_path / "elsewhere")
    (out / "clips" / "gone" / "receipt.json").write_text(json.dumps({"files": {"../../film.mp4": 1}}))
    run(release, out)
    assert all(path.is_file() for path in foreign)
    names = {str(path.relative_to(out)) for path in foreign if out in path.parents}
    assert {name: made for name, made in tree(out).items() if name not in names} == tree(done)


@pytest.mark.parametrize(
    ("content", "message"),
    [('{"dataset": "mosei"}', "holds the data set 'mosei', not 'iemocap'"), ("{}", "not one that reorganize wrote")],
)
def test_the_folder_of_another_data_set_is_refused(release, tmp_path, content, message):
    (tmp_path / "dataset.json").write_text(content)
    (tmp_path / "utterances.parquet").write_text("of that one")
    with pytest.raises(DataError, match=message):
        run(release, tmp_path)
    assert (tmp_path / "dataset.json").read_text() == content
    assert (tmp_path / "utterances.parquet").read_text() == "of that one"
    assert not (tmp_path / "clips").exists()


def test_the_release_that_is_read_is_named(release, tmp_path):
    said = []

    class Listening(Reporter):
        def say(self, text):
            said.append(text)

    values = load_config("datasets", "iemocap") | {"root": release.parent, "out": tmp_path / "out", "workers": 1}
    reorganize(ReorganizeSettings.checked(values, "test"), Listening(quiet=True))
    assert said[0] == f"reading {release}"


def test_a_dead_worker_costs_its_own_dialogue_and_the_next_run_tries_again(release, done, tmp_path, monkeypatch):
    real = stage.run_jobs

    def one_dies(function, tasks, workers, **options):
        for task, result in real(function, tasks, workers, **options):
            yield task, died(task) if task.folder.name == "Ses02M_script01_1" else result

    monkeypatch.setattr(stage, "run_jobs", one_dies)
    run(release, tmp_path / "out", max_reject_share=0.5)
    assert reasons(tmp_path / "out")["worker:died"] == 3
    assert len(read_manifest(tmp_path / "out")) == KEPT - 3
    monkeypatch.undo()
    run(release, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(done)


def test_targets_that_cannot_be(release, tmp_path):
    with pytest.raises(DataError, match="inside the release"):
        run(release, release / "data")
    assert not (release / "data").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        run(release, tmp_path / "file" / "data")
    with folder_lock(tmp_path / "busy"), pytest.raises(DataError, match="another run"):
        run(release, tmp_path / "busy")


def test_later_stages_rejects_stay_while_their_utterance_does(release, tmp_path):
    out = tmp_path / "out"
    run(release, out)
    mine = read_rejects(out)
    row = {"utterance_id": "Ses01F_impro01_F000", "source": "x", "stage": "preprocess", "reason": "r", "detail": "d"}
    table = pd.concat([pd.read_parquet(out / "rejects.parquet"), pd.DataFrame([row, row | {"utterance_id": "gone"}])])
    table.to_parquet(out / "rejects.parquet", index=False)
    run(release, out)
    later = [reject for reject in read_rejects(out) if reject.stage == "preprocess"]
    assert [reject.utterance_id for reject in later] == ["Ses01F_impro01_F000"]
    assert len(read_rejects(out)) == len(mine) + 1


def make_mosei(root):
    """Video v has a wav at 44.1 kHz in stereo, w sound in the mp4 alone, x none at all; all last 6 s."""
    columns = ["Input.VIDEO_ID", "Input.CLIP", *(f"Answer.{e}" for e in
               ("anger", "disgust", "fear", "happiness", "sadness", "surprise")), "Answer.sentiment"]  # fmt: skip
    rows = []
    for name in ("0-v", "w", "x"):
        sound = root / "sound.wav"
        write_wav(sound, noise(6, 5))
        video = root / "Videos" / "Full" / "Combined" / f"{name}.mp4"
        write_video(video, numbered(), (720, 480), 25, audio=sound if name == "w" else None)
        lines = [(0, -0.5, 2.0), (1, 1.5, 4.0), (2, 3.5, 6.3), (3, 5.0, 7.0), (4, 8.0, 9.0)]
        text = root / "Transcript" / "Segmented" / "Combined" / f"{name}.txt"
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text("".join(f"{name}___{clip}___{start}___{end}___Text {clip}.\n" for clip, start, end in lines))
        rows += [[name, str(clip), "1", "0", "0", "0", "2", "0", "-1.5"] for clip, _, _ in lines]
    stereo = np.stack([noise(6 * 44.1 / 16, 1), noise(6 * 44.1 / 16, 2)], axis=1)
    (root / "Audio" / "Full" / "WAV_16000").mkdir(parents=True)
    soundfile.write(root / "Audio" / "Full" / "WAV_16000" / "0-v.wav", stereo, 44_100)
    (root / "Labels").mkdir()
    pd.DataFrame(rows, columns=columns).to_csv(root / "Labels" / "batch.csv", index=False)
    (root / "sound.wav").unlink()
    return root


def test_mosei_clips_overlap_take_the_wav_first_and_know_the_medias_end(tmp_path):
    root, out = make_mosei(tmp_path / "Raw"), tmp_path / "out"
    summary = run(root, out, dataset="mosei", max_reject_share=1.0)
    table = read_manifest(out).set_index("utterance_id")
    assert list(table.index) == [f"{name}_{clip}" for name in ("0-v", "w") for clip in range(3)]
    assert summary["reasons"] == {"interval:outside": 4, "no_audio": 5}
    assert table["label_sad"].tolist() == [1.0] * 6
    assert table["sentiment"].tolist() == [-1.5] * 6
    assert table.loc["w_2", "end_s"] == pytest.approx(6.0, abs=0.05)
    spans = {0: (0, 50), 1: (38, 100), 2: (88, 150)}
    for name in ("0-v", "w"):
        for clip, (first, end) in spans.items():
            path = out / table.loc[f"{name}_{clip}", "clip"]
            got = [sum(int(f[140, 20 + 40 * b, 0] > 128) << b for b in range(8)) for _, f in read_frames(path, 1)]
            assert got == list(range(first, end))
    whole = read_audio(root / "Audio" / "Full" / "WAV_16000" / "0-v.wav")
    cut = read_audio(out / table.loc["0-v_1", "wav"])
    assert len(cut) == 40_000
    assert np.abs(cut[200:-200] - whole[24_200 : 64_000 - 200]).max() < 2e-3
    mp4 = read_audio(root / "Videos" / "Full" / "Combined" / "w.mp4")
    assert np.abs(read_audio(out / table.loc["w_1", "wav"]) - mp4[24_000:64_000]).max() < 1e-4
    assert any("3 intervals began before 0" in note for note in summary["notes"])
    assert not list(out.rglob("*.tmp.*"))
