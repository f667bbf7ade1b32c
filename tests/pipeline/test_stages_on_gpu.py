"""Preprocessing and training on a GPU; `make gpu-test` runs these."""

import cv2
import numpy as np
import pytest
import torch

from data_tools.batch import Batch
from data_tools.manifest import write_manifest, write_rejects
from data_tools.media.audio import write_wav
from data_tools.media.write import write_video
from data_tools.records import Clip
from data_tools.store import DialogueStore, store_path
from pipeline.counting.noise import random_batch
from pipeline.preprocess import PreprocessSettings, preprocess
from pipeline.progress import Reporter
from pipeline.settings import ModelSpec
from pipeline.train import train
from pipeline.training.settings import TrainSettings

spec = ModelSpec.from_dict

QUIET = Reporter(quiet=True)

pytestmark = pytest.mark.gpu


def write_clip(folder):
    import skimage.data

    portrait = cv2.resize(skimage.data.astronaut()[:240, 100:460], (180, 120))
    write_video(folder / "clips/a.mp4", (np.roll(portrait, i, axis=1) for i in range(12)), (180, 120), 10, "libx264")
    tone = 0.3 * np.sin(2 * np.pi * 220 * np.arange(19_200) / 16_000)
    write_wav(folder / "clips/a.wav", tone.astype(np.float32), 16_000)
    place = ("a", "d", "s", "1", "train", 0.0, 1.2, "hello", "clips/a.mp4", "clips/a.wav")
    write_manifest(folder, [Clip(*place, {"ang": 1.0}, None, "v", "a", 10.0)], ["ang"])
    write_rejects(folder, [])
    return folder


def test_preprocess_finds_the_same_faces_as_on_a_cpu(tmp_path):
    found = {}
    for device in ("cpu", "cuda"):
        data = write_clip(tmp_path / device)
        preprocess(PreprocessSettings.checked({"data": data, "device": device, "workers": 1}, "test"), QUIET)
        found[device] = DialogueStore(store_path(data, "d"))["a"]
    cpu, gpu = found["cpu"], found["cuda"]
    assert len(gpu.faces) == len(cpu.faces) == 3
    torch.testing.assert_close(gpu.face_score, cpu.face_score, rtol=0, atol=1e-2)
    assert (gpu.face_box - cpu.face_box).abs().max() <= 1
    assert torch.equal(gpu.logmel, cpu.logmel)


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed", "32-true"])
@pytest.mark.parametrize("name", ["fe2e", "mesm"])
def test_training_runs_and_learns_something(name, precision, toy_corpus, tmp_path):
    values = {"data": toy_corpus, "out": tmp_path / "run", "epochs": 2, "device": "cuda", "precision": precision}
    model = {"name": name, "text_encoder": "tiny", "width": 8, "layers": 1}
    summary = train(TrainSettings.checked(values, "test"), spec(model), QUIET)
    assert summary["epochs"] == 2
    assert np.isfinite(summary["train_seconds"])


def test_pinned_batches_arrive_as_they_were():
    batch = random_batch(2, 3, 2, 5)
    pinned: Batch = batch.pin_memory()
    assert pinned.faces.is_pinned()
    arrived = pinned.to("cuda")
    torch.cuda.synchronize()
    for name in ("faces", "face_counts", "chunks", "tokens", "token_mask", "labels"):
        assert torch.equal(getattr(arrived, name).cpu(), getattr(batch, name)), name
