import os
import shutil
import signal
import subprocess
import sys
import time
from importlib import import_module

import cv2
import numpy as np
import pytest
import skimage.data
import torch

from data_tools import mel
from data_tools.checksums import checksum_path
from data_tools.dataset import UtteranceDataset
from data_tools.errors import DataError
from data_tools.manifest import read_rejects, write_manifest, write_rejects
from data_tools.media.audio import read_audio, write_wav
from data_tools.media.write import write_video
from data_tools.records import Clip, Reject
from data_tools.store import DialogueStore, store_path
from pipeline.jobs.local import timed_out
from pipeline.preprocess import SEEN_FILE, PreprocessSettings, preprocess
from pipeline.progress import Reporter
from pipeline.settings import ConfigError

FPS = 10
QUIET = Reporter(quiet=True)


def make_data(folder, dialogues=2, utterances=2):
    """Clips of 1.2 s with a photographed face that moves, and a tone; one utterance without any face."""
    portrait = cv2.resize(skimage.data.astronaut()[:240, 100:460], (180, 120))
    clips = []
    for d in range(dialogues):
        for u in range(utterances):
            name = f"d{d}_u{u}"
            face = not (d == 0 and u == 0)
            picture = portrait if face else np.broadcast_to(np.arange(180, dtype=np.uint8)[:, None], portrait.shape)
            frames = (np.roll(picture, d * 3 + u + i, axis=1) for i in range(12))
            write_video(folder / f"clips/d{d}/{name}.mp4", frames, (180, 120), FPS, "libx264")
            tone = 0.3 * np.sin(2 * np.pi * (220 + 50 * u) * np.arange(19_200) / 16_000)
            write_wav(folder / f"clips/d{d}/{name}.wav", tone.astype(np.float32), 16_000)
            clips.append(
                Clip(
                    name,
                    f"d{d}",
                    "s",
                    "1",
                    "train",
                    0.0,
                    1.2,
                    "hello",
                    f"clips/d{d}/{name}.mp4",
                    f"clips/d{d}/{name}.wav",
                    {"ang": 1.0},
                    None,
                    "v",
                    "a",
                    FPS,
                )
            )
    write_manifest(folder, clips, ["ang"])
    write_rejects(folder, [Reject("gone", "x", "reorganize", "label:xxx", "not used")])
    return folder


def settings(folder, **changes):
    values = {"data": folder, "workers": 1, "faces": {"min_face_px": 30}} | changes
    return PreprocessSettings.checked(values, "test")


def stored(folder):
    return {path.name: path.read_bytes() for path in sorted((folder / "store").glob("*"))}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = make_data(tmp_path_factory.mktemp("data"))
    return folder, preprocess(settings(folder), QUIET)


def test_samples_come_out(done):
    folder, summary = done
    assert summary["utterances"] == 4
    # 1.2 s every 500 ms: frames at 0, 0.5 and 1.0 s; one utterance shows no face.
    assert (summary["faces"], summary["faces_found"]) == (12, 9)
    data = UtteranceDataset(folder)
    # The middles of pictures without a face are stored, and no sample's faces.
    assert [len(data[i].faces) for i in range(4)] == [0, 3, 3, 3]
    assert (data[1].face_scores > 0.9).all()
    assert (DialogueStore(store_path(folder, data.table["dialogue_id"][0]))[data[0].id].face_score == 0).all()
    store = DialogueStore(store_path(folder, "d1"))
    torch.testing.assert_close(store["d1_u1"].face_time_s, torch.tensor([0.0, 0.5, 1.0]), atol=1e-4, rtol=0)
    # 1.2 s of sound are 96 rows of 12.5 ms, exactly 3 chunks, and the tone is the same as computed here.
    assert data[3].chunks.shape == (3, 1, 128, 32)
    waveform = torch.from_numpy(read_audio(folder / "clips/d1/d1_u1.wav", 16_000))
    torch.testing.assert_close(store["d1_u1"].logmel, mel.log_mel(waveform).half())


def test_the_index_says_what_lies_in_the_store(done, monkeypatch):
    folder, _ = done
    opened = UtteranceDataset(folder)
    monkeypatch.setattr("data_tools.dataset.OPEN_FILES", 1)
    indexed = UtteranceDataset(folder)
    assert {name: counts.tolist() for name, counts in indexed.counts().items()} == {
        name: counts.tolist() for name, counts in opened.counts().items()
    }
    assert indexed.table.equals(opened.table)


def test_processes_change_no_byte(done, tmp_path):
    folder, _ = done
    preprocess(settings(make_data(tmp_path), workers=2), QUIET)
    assert stored(tmp_path) == stored(folder)


def test_a_dialogue_that_takes_too_long_is_rejected_and_the_next_run_tries_again(done, tmp_path, monkeypatch):
    folder, _ = done
    make_data(tmp_path)
    stage = import_module("pipeline.preprocess")
    real = stage.run_jobs

    def one_hangs(function, jobs, workers, **options):
        assert options["limit_s"](jobs[0]) == 600.0 + 30 * 2.4  # two utterances of 1.2 s
        for job, result in real(function, jobs, workers, **options):
            yield job, timed_out(job, 672.0) if job.dialogue_id == "d1" else result

    monkeypatch.setattr(stage, "run_jobs", one_hangs)
    summary = preprocess(settings(tmp_path), QUIET)
    assert summary["reasons"] == {"worker:time": 2}
    assert {(r.utterance_id, r.reason) for r in read_rejects(tmp_path) if r.stage == "preprocess"} == {
        ("d1_u0", "worker:time"),
        ("d1_u1", "worker:time"),
    }
    data = UtteranceDataset(tmp_path)
    assert (data.table["utterance_id"].tolist(), data.rejected) == (["d0_u0", "d0_u1"], 2)
    monkeypatch.undo()
    preprocess(settings(tmp_path), QUIET)
    assert stored(tmp_path) == stored(folder)


def test_what_is_done_is_kept_and_a_new_setting_does_it_again(tmp_path):
    make_data(tmp_path, utterances=1)
    preprocess(settings(tmp_path), QUIET)
    path = store_path(tmp_path, "d1")
    before = path.stat().st_mtime_ns
    preprocess(settings(tmp_path), QUIET)
    assert path.stat().st_mtime_ns == before
    preprocess(settings(tmp_path, faces={"min_face_px": 30, "margin_px": 6}), QUIET)
    assert path.stat().st_mtime_ns != before


def test_what_is_done_is_not_read_again(done, tmp_path, monkeypatch):
    folder, summary = done
    make_data(tmp_path)
    assert preprocess(settings(tmp_path), QUIET) == summary
    with monkeypatch.context() as patch:
        patch.setattr(import_module("pipeline.preprocess"), "_preprocess_dialogue", lambda job: pytest.fail("again"))
        assert preprocess(settings(tmp_path), QUIET) == summary
    assert stored(tmp_path) == stored(folder)


@pytest.mark.parametrize("name", ["clips/d1/d1_u0.wav", "store/d1.safetensors", "store/d1.safetensors.sha256"])
def test_a_file_that_was_written_to_is_read_again_whatever_its_time_says(done, tmp_path, monkeypatch, name):
    folder, _ = done
    make_data(tmp_path)
    preprocess(settings(tmp_path), QUIET)
    stage = import_module("pipeline.preprocess")
    read, real = [], stage._preprocess_dialogue
    monkeypatch.setattr(stage, "_preprocess_dialogue", lambda job: read.append(job.dialogue_id) or real(job))
    path = tmp_path / name
    content, about = path.read_bytes(), path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    preprocess(settings(tmp_path), QUIET)
    assert read == ["d1"]
    assert stored(tmp_path) == stored(folder)


def test_what_is_remembered_of_a_copy_or_by_another_version_is_not_used(done, tmp_path):
    folder, summary = done
    make_data(tmp_path)
    preprocess(settings(tmp_path), QUIET)
    seen = tmp_path / SEEN_FILE
    for text in (
        "",
        "torn",
        seen.read_text().replace('"faces_found"', '"other"'),
        seen.read_text().replace("d1", "d0"),
    ):
        seen.write_text(text)
        assert preprocess(settings(tmp_path), QUIET) == summary
        assert stored(tmp_path) == stored(folder)
    shutil.copytree(tmp_path, tmp_path.parent / f"{tmp_path.name}_copy")
    assert preprocess(settings(tmp_path.parent / f"{tmp_path.name}_copy"), QUIET) == summary


def test_a_full_disk_is_an_error_with_a_sentence(tmp_path):
    make_data(tmp_path, dialogues=1, utterances=1)
    code = f"""
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
import sys; sys.argv = ["pipeline", "preprocess", "--data", {str(tmp_path)!r}, "--workers", "1"]
from pipeline.cli import main; main()
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "free space" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert [path.name for path in (tmp_path / "store").iterdir()] == []


def test_broken_clips_are_rejects_with_a_reason(tmp_path):
    make_data(tmp_path)
    (tmp_path / "clips/d0/d0_u1.mp4").write_bytes(b"not a video")
    (tmp_path / "clips/d1/d1_u0.wav").unlink()
    for _ in range(2):  # the second run finds the store of the first
        summary = preprocess(settings(tmp_path), QUIET)
        assert (summary["utterances"], summary["rejected"]) == (2, 2)
        rejects = {r.utterance_id: (r.stage, r.reason) for r in read_rejects(tmp_path)}
        assert rejects == {
            "gone": ("reorganize", "label:xxx"),
            "d0_u1": ("preprocess", "clip:unreadable"),
            "d1_u0": ("preprocess", "clip:unreadable"),
        }
    assert [UtteranceDataset(tmp_path)[i].id for i in range(2)] == ["d0_u0", "d1_u1"]


def test_when_nothing_can_be_read_it_fails(tmp_path):
    make_data(tmp_path, dialogues=1, utterances=1)
    (tmp_path / "clips/d0/d0_u0.mp4").write_bytes(b"")
    with pytest.raises(DataError, match="all 1 clips"):
        preprocess(settings(tmp_path), QUIET)


def test_missing_manifest_and_missing_cuda_are_said(tmp_path):
    with pytest.raises(DataError, match="pipeline reorganize"):
        preprocess(settings(tmp_path), QUIET)
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="cuda"):
            preprocess(settings(make_data(tmp_path), device="cuda"), QUIET)


@pytest.mark.slow
def test_killed_and_started_again_gives_the_same_bytes(done, tmp_path):
    folder, _ = done
    make_data(tmp_path)
    command = [sys.executable, "-m", "pipeline.cli", "preprocess", "--data", str(tmp_path), "--workers", "1"]
    command += ["--set", "faces={min_face_px: 30}"]
    child = subprocess.Popen(command, start_new_session=True)
    try:
        while not store_path(tmp_path, "d0").exists():
            assert child.poll() is None, "it ended before it wrote anything"
            time.sleep(0.001)
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    if len(stored(tmp_path)) < len(stored(folder)):
        with pytest.raises(DataError, match="pipeline preprocess"):  # half a store is not taken for a whole one
            UtteranceDataset(tmp_path)
    (tmp_path / "store" / ".left.1.tmp.safetensors").write_bytes(b"half")
    preprocess(settings(tmp_path), QUIET)
    assert stored(tmp_path) == stored(folder)


@pytest.mark.parametrize("has_checksum", [True, False])
@pytest.mark.parametrize("harm", ["body", "header", "cut short", "empty"])
def test_a_damaged_store_is_made_anew(done, tmp_path, harm, has_checksum):
    if harm == "body" and not has_checksum:
        return  # of an earlier version: nothing tells
    folder = tmp_path / "data"
    shutil.copytree(done[0], folder)
    before = stored(folder)
    path = store_path(folder, "d0")
    content = bytearray(path.read_bytes())
    if harm == "body":
        content[-100] ^= 8
    elif harm == "header":
        content[content.index(b"face_offsets") + 2] ^= 8
    path.write_bytes(
        content if harm in ("body", "header") else content[: len(content) // 2] if harm != "empty" else b""
    )
    if not has_checksum:
        checksum_path(path).unlink()
    with pytest.raises(DataError, match="run `pipeline preprocess` again"):
        DialogueStore(path)
    preprocess(settings(folder), QUIET)
    assert stored(folder) == before
