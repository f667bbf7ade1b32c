"""The sound of a clip as a model's input: beside the faces, standardised, damaged as sound is."""

from dataclasses import replace

import numpy as np
import torch

from data_tools.batch import WAVEFORM
from data_tools.damage import Blank, drop_modalities, drop_steps
from data_tools.dataset import collate, to_sample
from data_tools.media.audio import write_wav
from data_tools.store import EMPTY
from data_tools.waveform import waveform


def test_it_is_the_clip_s_samples_with_mean_0_and_deviation_1(tmp_path):
    samples = np.random.default_rng(0).normal(0.1, 0.2, 1600).clip(-0.9, 0.9).astype(np.float32)
    write_wav(tmp_path / "a.wav", samples)
    found = waveform(tmp_path / "a.wav")
    assert found.shape == (1600, 1)
    assert found.dtype == torch.float32
    expected = (samples - samples.mean()) / samples.std()
    np.testing.assert_allclose(found[:, 0], expected, atol=1e-3)  # a wav has 16 bits


def test_silence_stays_silent_and_no_sound_has_no_samples(tmp_path):
    write_wav(tmp_path / "a.wav", np.zeros(800, np.float32))
    assert torch.equal(waveform(tmp_path / "a.wav"), torch.zeros(800, 1))
    assert waveform(None).shape == (0, 1)


def test_it_is_damaged_as_sound_is():
    def sample(name):
        steps = {WAVEFORM: torch.ones(100, 1)}
        return replace(to_sample(EMPTY, name, "hm", torch.zeros(1)), features=steps)

    words = (torch.tensor([[5], [6]]), torch.ones(2, 1, dtype=torch.bool))
    batch = collate([sample("a"), sample("b")], lambda texts: words)
    blank = Blank(0, frozenset(), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    silent = drop_modalities(batch, "tv", 0, blank)
    assert (silent.features[WAVEFORM].values == 0).all()
    assert silent.tokens.tolist() == [[5], [6]]
    assert torch.equal(drop_modalities(batch, "a", 0, blank).features[WAVEFORM].values, torch.ones(200, 1))
    assert 60 < drop_steps(batch, 0.5, 0, blank).features[WAVEFORM].values.sum() < 140
