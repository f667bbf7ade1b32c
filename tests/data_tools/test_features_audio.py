import os
import subprocess
import sys
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from data_tools import mel
from data_tools.sequences.audio import ACOUSTIC_SIZE, MEL_SIZE, acoustic, mel_summary

HOP = 512  # 32 ms


def buzz(hertz, seconds=1.0):
    """A voice-like tone: many harmonics."""
    at = np.arange(round(16_000 * seconds)) / 16_000
    return (0.3 * np.sign(np.sin(2 * np.pi * hertz * at))).astype(np.float32)


def noise(samples, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)


def test_numba_has_a_place_for_its_cache_where_nothing_else_can_be_written(tmp_path):
    """As with a read-only installation and a user without a home; for root, who may write anywhere, none is needed."""
    code = (
        "import os; os.access = lambda *_: False\n"
        "from data_tools.sequences.numba_cache import ensure_numba_cache; ensure_numba_cache()\n"
        "folder = os.environ['NUMBA_CACHE_DIR']; print(folder, oct(os.stat(folder).st_mode & 0o777))"
    )
    kept = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    environment = kept | {"TMPDIR": str(tmp_path)}
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    folder, mode = said.stdout.rsplit(maxsplit=1)
    assert Path(folder).parent == tmp_path
    assert mode == "0o700"
    assert not Path(folder).exists(), "it goes with the process"


@pytest.mark.filterwarnings("ignore:n_fft")
def test_cepstrum_and_chroma_are_librosas():
    sound = noise(20_000)
    found = acoustic(sound, 32).values
    assert found.shape == (40, ACOUSTIC_SIZE)  # 20,000 / 512 = 39.06
    mfcc = librosa.feature.mfcc(y=sound, sr=16_000, n_mfcc=20, n_fft=2048, hop_length=HOP)
    chroma = librosa.feature.chroma_cqt(y=sound, sr=16_000, hop_length=HOP, tuning=0.0)
    np.testing.assert_allclose(found[:, 1:21], mfcc.T[:40], rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(found[:, 21:], chroma.T[:40], rtol=1e-5, atol=1e-5)


def test_the_number_of_threads_changes_no_bit():
    found = []
    for threads in (1, 2, 4):
        with threadpool_limits(threads):
            found.append(acoustic(buzz(160, 2) + noise(32_000), 32).values.tobytes())
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("hertz", [90, 160, 250, 420])
def test_pitch_is_that_of_the_tone(hertz):
    pitch = acoustic(buzz(hertz), 32).values[2:-2, 0]
    # Candidates are 0.3 semitones apart, 1.7 %.
    assert (np.abs(pitch - np.log(hertz)) < 0.018).all()


def test_pitch_is_zero_where_nothing_is_voiced():
    assert not acoustic(np.zeros(16_000, np.float32), 32).values[:, 0].any()
    # Of white noise a few steps may pass as a voice.
    assert (acoustic(noise(48_000), 32).values[:, 0] == 0).mean() > 0.9


@pytest.mark.parametrize(
    ("samples", "steps"),
    [(0, 0), (1, 1), (511, 1), (512, 1), (513, 2), (1024, 2), (1600, 4), (8191, 16), (8192, 16), (8193, 17)],
)
def test_every_length_gives_steps_of_finite_numbers(samples, steps):
    found = acoustic(noise(samples), 32)
    assert found.values.shape == (steps, ACOUSTIC_SIZE)
    assert found.values.dtype == found.times.dtype == np.float32


def test_steps_follow_each_other_from_begin_to_end():
    times = acoustic(noise(1600), 32).times
    # Centres at 0, 512, 1024 and 1536 of 1600 samples.
    np.testing.assert_allclose(times * 16_000, [[0, 256], [256, 768], [768, 1280], [1280, 1600]], atol=1e-3)


def test_the_step_is_a_setting():
    assert len(acoustic(noise(16_000), 10).values) == 100


def test_mel_summary_is_mean_and_deviation_of_each_step():
    logmel = torch.randn(70, 128, generator=torch.Generator().manual_seed(0)).half()
    found = mel_summary(logmel, 400)
    assert found.values.shape == (3, MEL_SIZE)
    for step, rows in enumerate(logmel.double().split(32)):
        np.testing.assert_allclose(found.values[step, :128], rows.mean(0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found.values[step, 128:], rows.std(0, correction=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.times, [[0, 0.4], [0.4, 0.8], [0.8, 0.875]], atol=1e-6)


def test_mel_summary_of_nothing_is_empty():
    assert mel_summary(torch.zeros(0, mel.N_MELS), 400).values.shape == (0, MEL_SIZE)
