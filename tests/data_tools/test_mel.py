import librosa
import numpy as np
import pytest
import torch

from data_tools import mel


def test_log_mel_is_librosas(tmp_path):
    rng = np.random.default_rng(0)
    waveform = rng.uniform(-0.5, 0.5, 16_000).astype(np.float32)
    power = librosa.feature.melspectrogram(
        y=waveform, sr=16_000, n_fft=1024, win_length=400, hop_length=200, n_mels=128, htk=True, norm=None,
        pad_mode="constant",
    )  # fmt: skip
    ours = mel.log_mel(torch.from_numpy(waveform))
    torch.testing.assert_close(ours, torch.from_numpy(np.log(power).T[:80]), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(("samples", "rows"), [(0, 0), (1, 1), (200, 1), (201, 2), (6400, 32), (6401, 33)])
def test_one_row_for_every_12_and_a_half_ms(samples, rows):
    assert mel.log_mel(torch.randn(samples) * 0.1).shape == (rows, 128)


@pytest.mark.parametrize(("rows", "count"), [(0, 0), (1, 1), (32, 1), (33, 2), (64, 2)])
def test_chunks_are_400_ms(rows, count):
    assert mel.chunks(torch.randn(rows, 128).half()).shape == (count, 1, 128, 32)


def test_chunks_keep_time_order_and_pad_with_zeros():
    logmel = torch.arange(40 * 128, dtype=torch.float32).view(40, 128)
    cut = mel.chunks(logmel)
    standard = (logmel - logmel.mean()) / logmel.std(correction=0)
    torch.testing.assert_close(cut[0, 0], standard[:32].T)
    torch.testing.assert_close(cut[1, 0, :, :8], standard[32:].T)
    assert (cut[1, 0, :, 8:] == 0).all()


def test_gain_changes_nothing_and_silence_stays_silent():
    waveform = torch.from_numpy(np.random.default_rng(1).uniform(-0.2, 0.2, 8000).astype(np.float32))
    torch.testing.assert_close(
        mel.chunks(mel.log_mel(waveform)), mel.chunks(mel.log_mel(waveform * 3)), atol=1e-2, rtol=0
    )
    assert (mel.chunks(mel.log_mel(torch.zeros(8000))) == 0).all()


def test_the_default_leaves_no_filter_empty_and_the_papers_leaves_four():
    def empty(n_fft):
        return int((mel._transform(n_fft).mel_scale.fb.sum(0) == 0).sum())

    assert empty(mel.DEFAULT_N_FFT) == 0
    mel._transform.cache_clear()
    with pytest.warns(UserWarning, match="mel filterbank"):
        papers = empty(400)
    assert papers == 4


@pytest.mark.parametrize("n_fft", [400, 1024])
def test_blocks_change_nothing(monkeypatch, n_fft):
    waveform = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, 200 * 70 + 31).astype(np.float32))
    whole = mel.log_mel(waveform, n_fft)
    for rows in (1, 7, 70, 71):
        monkeypatch.setattr(mel, "BLOCK_ROWS", rows)
        torch.testing.assert_close(mel.log_mel(waveform, n_fft), whole, atol=1e-5, rtol=0)
