"""Several channels into one, and wavs whose header states another length than they have."""

import subprocess

import numpy as np
import pytest
import soundfile

from data_tools.media.audio import WRONG_LENGTH, audio_duration_s, read_audio, seekable_sound, write_wav
from data_tools.media.mix import CANCELLING, ONE_CHANNEL, mix
from data_tools.media.sample_clock import TOLERANCE_S, SampleClock
from data_tools.media.write import ffmpeg_exe

RATE_HZ = 16_000


def tone(hz, seconds=1.0, level=0.5):
    return (level * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE_HZ)) / RATE_HZ)).astype(np.float32)


def level(samples):
    return float(np.sqrt(np.mean(samples.astype(float) ** 2)))


VOICE, OTHER = tone(300), tone(470)
MIXES = [
    ((VOICE, VOICE), VOICE, []),
    ((VOICE, OTHER), (VOICE + OTHER) / 2, []),
    ((VOICE, 0 * VOICE), VOICE, [ONE_CHANNEL]),
    ((0.01 * OTHER, VOICE), VOICE, [ONE_CHANNEL]),
    ((VOICE, -VOICE), VOICE, [CANCELLING]),
    ((VOICE, -0.8 * VOICE), VOICE, [CANCELLING]),
    ((0 * VOICE, 0 * VOICE), 0 * VOICE, []),
]


@pytest.mark.parametrize(("channels", "expected", "notes"), MIXES)
@pytest.mark.parametrize("suffix", ["wav", "flac", "mka"])
def test_neither_opposite_channels_nor_an_empty_one_lose_a_voice(tmp_path, channels, expected, notes, suffix):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(tmp_path / "a.wav", np.stack(channels, axis=1), RATE_HZ, subtype="PCM_16")
    if suffix != "wav":
        codec = ["-c:a", "flac" if suffix == "flac" else "pcm_s16le"]
        subprocess.run([ffmpeg_exe(), "-v", "error", "-i", tmp_path / "a.wav", *codec, path], check=True)
    said = []
    samples = read_audio(path, notes=said)
    assert np.abs(samples - expected).max() < 1e-3
    assert said == notes
    with seekable_sound(path, tmp_path / "temporary.wav") as seekable:
        assert np.abs(read_audio(seekable, start_s=0.25, end_s=0.75) - expected[4000:12_000]).max() < 1e-3


def test_who_speaks_alone_in_one_channel_keeps_the_level_in_every_interval():
    """Two people on the phone, a channel each, one after the other."""
    silent = 0 * VOICE
    both = np.stack([np.concatenate([VOICE, silent]), np.concatenate([silent, OTHER])])
    assert level(mix(both[:, :RATE_HZ])[0]) == pytest.approx(level(VOICE))
    assert level(mix(both[:, RATE_HZ:])[0]) == pytest.approx(level(OTHER))


def test_the_centre_of_six_channels_is_heard(tmp_path):
    """5.1: people speak in the centre, which a mean over six channels would make 16 dB quieter."""
    channels = np.zeros((6, RATE_HZ), np.float32)
    channels[2] = VOICE
    soundfile.write(tmp_path / "a.wav", channels.T, RATE_HZ, subtype="PCM_16")
    said = []
    assert level(read_audio(tmp_path / "a.wav", notes=said)) > level(VOICE) / 3
    assert audio_duration_s(tmp_path / "a.wav") == 1.0


def with_data_length(path, length):
    raw = bytearray(path.read_bytes())
    at = raw.index(b"data") + 4
    raw[at : at + 4] = length.to_bytes(4, "little")
    raw[4:8] = min(36 + length, 2**32 - 1).to_bytes(4, "little")
    path.write_bytes(raw)


@pytest.mark.parametrize("length", [0, 1000, 16_000])
def test_a_recorder_that_was_cut_off_leaves_all_its_sound(tmp_path, length):
    write_wav(tmp_path / "a.wav", tone(300, 2.0))
    with_data_length(tmp_path / "a.wav", length)
    said = []
    assert np.abs(read_audio(tmp_path / "a.wav", notes=said) - tone(300, 2.0)).max() < 1e-3
    assert said == [WRONG_LENGTH]
    assert audio_duration_s(tmp_path / "a.wav") == 2.0
    assert len(read_audio(tmp_path / "a.wav", start_s=1.5, end_s=1.75)) == RATE_HZ // 4


@pytest.mark.parametrize("length", [32_000 * 2, 2**31, 2**32 - 1])
def test_a_header_that_states_too_much_ends_with_the_file(tmp_path, length):
    write_wav(tmp_path / "a.wav", tone(300, 2.0))
    with_data_length(tmp_path / "a.wav", length)
    assert len(read_audio(tmp_path / "a.wav")) == 32_000


@pytest.mark.parametrize("tail", [b"LIST\x04\x00\x00\x00INFO", b"id3 \x02\x00\x00\x00ab", b"", b"\x00"])
def test_what_follows_the_sound_is_none(tmp_path, tail):
    write_wav(tmp_path / "a.wav", tone(300, 1.0))
    with (tmp_path / "a.wav").open("ab") as file:
        file.write(tail)
    said = []
    assert len(read_audio(tmp_path / "a.wav", notes=said)) == RATE_HZ
    assert not said


def placed(pieces, rate_hz=1000):
    """Give pieces (first sample's value, count, time) to a clock; the values of what it gives out."""
    clock, given = SampleClock(rate_hz), []
    for value, count, time_s in pieces:
        given += clock.place(np.full((1, count), value, np.float32), time_s)
    return np.concatenate([*given, *clock.finish()], axis=1)[0]


def test_stamps_that_jitter_change_nothing():
    noise = np.random.default_rng(0).uniform(-0.04, 0.04, 500)
    steady = [(k, 20, k * 0.02) for k in range(500)]
    assert np.array_equal(placed([(k, 20, t + j) for (k, _, t), j in zip(steady, [0, *noise[1:]], strict=True)][:2]),
                          placed(steady[:2]))  # fmt: skip
    one_off = [(k, 20, t + (0.03 if k == 9 else 0)) for k, _, t in steady]
    assert np.array_equal(placed(one_off), placed(steady))


@pytest.mark.parametrize("hole_s", [0.03, 0.3, 3.0])
def test_a_hole_is_filled_where_it_is_and_an_overlap_dropped(hole_s):
    pieces = [(1 + k, 20, k * 0.02 + (hole_s if k >= 10 else 0)) for k in range(50)]
    found = placed(pieces)
    assert len(found) == 1000 + round(hole_s * 1000)
    assert not found[200 : 200 + round(hole_s * 1000)].any()
    assert np.array_equal(found[found > 0], np.repeat(np.arange(1, 51), 20))
    pieces = [(1 + k, 20, k * 0.02 - (0.1 if k >= 10 else 0)) for k in range(50)]
    assert np.array_equal(placed(pieces), np.repeat([*range(1, 11), *range(16, 51)], 20))


@pytest.mark.parametrize("factor", [0.96, 0.98, 1.001, 1.02, 1.04])
def test_a_drifting_clock_never_leaves_its_stamps_by_more_than_the_tolerance(factor):
    pieces = [(k, 20, k * 0.02 * factor) for k in range(2000)]
    found = placed(pieces)
    begins = [int(np.searchsorted(found, k - 0.5)) / 1000 for k in range(2000)]
    off_s = np.array(begins) - np.arange(2000) * 0.02 * factor
    assert np.abs(off_s).max() <= TOLERANCE_S + 0.004
