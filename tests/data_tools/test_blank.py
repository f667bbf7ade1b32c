"""What counts as a blank picture and as silent sound, on real files."""

import numpy as np
import pytest
import torch
from skimage import data as skimage_data

from data_tools.blank import FLAT_LEVELS, blank, deviation_levels, level_dbfs
from data_tools.media.audio import write_wav
from data_tools.media.write import write_video
from data_tools.store import SampleTensors

SIZE = (64, 48)
FLAT = np.full((48, 64, 3), (16, 40, 90), np.uint8)
HUM = (0.01 * np.sin(np.arange(16_000) / 20)).astype(np.float32)


def features(scores):
    count = len(scores)
    return SampleTensors(
        faces=torch.zeros(count, 48, 48, 3, dtype=torch.uint8),
        face_time_s=torch.zeros(count),
        face_score=torch.tensor(scores),
        face_landmarks=torch.zeros(count, 5, 2),
        face_box=torch.zeros(count, 4),
        logmel=torch.zeros(0, 128),
    )


def judged(folder, frames, samples, scores=(0.0, 0.0)):
    write_video(folder / "a.mp4", frames, SIZE, 10)
    write_wav(folder / "a.wav", samples)
    found = blank(folder / "a.mp4", folder / "a.wav", features(list(scores)), 500)
    return next(iter(found.values()), None)


def noisy(frame, deviation, seed=0):
    noise = np.random.default_rng(seed).normal(0, deviation, frame.shape)
    return np.clip(frame + noise, 0, 255).round().astype(np.uint8)


def test_one_colour_or_a_new_one_in_each_frame_is_blank(tmp_path):
    black = np.zeros_like(FLAT)
    for frames in ([black] * 10, [FLAT] * 10, [black] * 5 + [FLAT] * 5, [noisy(black + 16, 1.0)] * 10):
        reason, detail = judged(tmp_path, frames, HUM)
        assert reason == "video:blank"
        assert "of 255" in detail
        assert "limit is 2" in detail


def test_one_frame_with_something_in_it_is_enough(tmp_path):
    dark = (skimage_data.astronaut()[:480:10, :512:8] * 0.1).astype(np.uint8)  # (48, 64, 3), hardly to be seen
    assert judged(tmp_path, [FLAT] * 5 + [dark] * 5, HUM) is None
    spot = FLAT.copy()
    spot[20:28, 20:30] = 255  # a logo before one colour
    assert judged(tmp_path, [spot] * 10, HUM) is None


def test_a_clip_with_a_face_is_not_looked_at_again(tmp_path):
    write_wav(tmp_path / "a.wav", HUM)
    assert blank(tmp_path / "not there.mp4", tmp_path / "a.wav", features([0.0, 0.9]), 500) == {}


def test_silence_dither_and_an_offset_are_silent_and_a_whisper_is_not(tmp_path):
    rng = np.random.default_rng(0)
    step = np.float32(1 / 32768)
    dither = rng.integers(-1, 2, 16_000).astype(np.float32) * step
    for samples in (np.zeros(16_000, np.float32), dither, dither + np.float32(0.25)):
        reason, detail = judged(tmp_path, [FLAT] * 10, samples, scores=(0.9,))
        assert reason == "audio:silent"
        assert "dBFS; the limit is -80 dBFS" in detail
    room = rng.normal(0, 10 ** (-70 / 20), 16_000).astype(np.float32)
    assert judged(tmp_path, [FLAT] * 10, room, scores=(0.9,)) is None
    click = np.zeros(16_000, np.float32)
    click[8000:8160] = 0.5
    assert judged(tmp_path, [FLAT] * 10, click, scores=(0.9,)) is None


def test_the_measures_are_what_they_say():
    assert level_dbfs(np.array([0.1, -0.1], np.float32)) == pytest.approx(-20, abs=1e-4)
    assert level_dbfs(np.zeros(10, np.float32)) == -120
    checks = np.zeros((2, 2, 3), np.uint8)
    checks[0, :, 1] = 20  # half of the green is 20, half is 0
    assert deviation_levels(checks) == 10
    assert deviation_levels(FLAT) == 0 < FLAT_LEVELS
