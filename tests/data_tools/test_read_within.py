"""Frames and sound of many intervals in one pass are those of the clips that are cut there."""

import math
import tracemalloc

import numpy as np
import pytest

from data_tools.errors import DataError
from data_tools.faces.crop import crop_each, crop_mixed
from data_tools.faces.detector import Candidates
from data_tools.media.audio import audio_duration_s, read_audio, read_intervals, write_wav
from data_tools.media.cut import Cut, cut_video
from data_tools.media.frames import read_frames, read_frames_within
from data_tools.media.write import write_video

FPS = 10
INTERVALS = [
    (0.0, 1.0), (0.03, 0.94), (1.06, 2.3), (1.5, 4.2), (1.5, 1.6), (3.0, 3.02), (4.449, 6.001), (5.0, 5.75), (6.9, 7.95)
]  # fmt: skip


def numbered(count):
    """Pictures with the bits of their number as squares."""
    for number in range(count):
        bits = [255 if number >> bit & 1 else 0 for bit in range(8)]
        yield np.array(bits, np.uint8).reshape(2, 4).repeat(32, 0).repeat(32, 1)[..., None].repeat(3, 2)


def number_of(frame):
    return sum(int(frame[16 + 32 * (bit // 4), 16 + 32 * (bit % 4)].mean() > 128) << bit for bit in range(8))


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    folder = tmp_path_factory.mktemp("a film")
    samples = np.random.default_rng(0).normal(0, 0.1, 16_000 * 8).astype(np.float32)
    write_wav(folder / "sound.wav", samples, 16_000)
    write_video(folder / "film.mkv", numbered(80), (128, 64), FPS, audio=folder / "sound.wav")
    return folder


@pytest.mark.parametrize("every_ms", [500, 200, 70])
def test_frames_are_those_of_the_clips(film, tmp_path, every_ms):
    cuts = [Cut(start_s, end_s, tmp_path / f"{n}.mp4") for n, (start_s, end_s) in enumerate(INTERVALS)]
    assert [outcome.failure for outcome in cut_video(film / "film.mkv", cuts, crf=10)] == [None] * len(INTERVALS)
    found = [[] for _ in INTERVALS]
    ended = []
    for number, time_s, frame in read_frames_within(film / "film.mkv", INTERVALS, every_ms):
        if frame is None:
            ended.append(number)
        else:
            assert number not in ended
            found[number].append((time_s, number_of(frame)))
    assert sorted(ended) == list(range(len(INTERVALS)))
    for cut, seen in zip(cuts, found, strict=True):
        expected = [(time_s, number_of(frame)) for time_s, frame in read_frames(cut.out, every_ms)]
        assert [number for _, number in seen] == [number for _, number in expected]
        assert [time_s for time_s, _ in seen] == pytest.approx([time_s for time_s, _ in expected], abs=2e-3)


def test_an_interval_without_pictures_has_none(film):
    intervals = [(30.0, 31.0), (7.5, 40.0)]
    items = list(read_frames_within(film / "film.mkv", intervals, 500))
    assert [(number, frame is None) for number, _, frame in items] == [(1, False), (1, True), (0, True)]


@pytest.mark.parametrize("name", ["sound.wav", "film.mkv"])
@pytest.mark.parametrize("rate_hz", [16_000, 8_000])
def test_sound_is_that_of_the_intervals(film, name, rate_hz):
    intervals = [*sorted(INTERVALS), (7.0, math.inf)]
    found = list(read_intervals(film / name, intervals, rate_hz))
    assert len(found) == len(intervals)
    for samples, (start_s, end_s) in zip(found, intervals, strict=True):
        expected = read_audio(film / name, rate_hz, start_s, None if math.isinf(end_s) else end_s)
        np.testing.assert_array_equal(samples, expected)


def test_intervals_without_an_end_go_through_the_file(film):
    blocks = []
    for block in read_intervals(film / "film.mkv", ((i * 0.7, (i + 1) * 0.7) for i in range(10**9))):
        if not len(block):
            break
        blocks.append(block)
    np.testing.assert_array_equal(np.concatenate(blocks), read_audio(film / "film.mkv"))
    assert len(blocks) == math.ceil(audio_duration_s(film / "film.mkv") / 0.7)


def test_sound_beyond_the_file_is_empty_and_a_missing_stream_an_error(film, tmp_path):
    assert [len(block) for block in read_intervals(film / "sound.wav", [(9, 10), (11, 12)])] == [0, 0]
    write_video(tmp_path / "mute.mkv", numbered(5), (128, 64), FPS)
    with pytest.raises(DataError, match="no audio stream"):
        list(read_intervals(tmp_path / "mute.mkv", [(0, 1)]))


def test_mixed_clips_get_the_faces_that_they_get_alone():
    class Detector:
        """One face a frame, where the frame's first pixel says."""

        def detect(self, frames):
            return [
                Candidates(np.array([[x, 5, x + 20, 25]], np.float32), np.ones(1, np.float32), np.zeros((1, 5, 2)))
                for x in (float(frame[0, 0, 0]) for frame in frames)
            ]

    draw = np.random.default_rng(0)
    clips = [[draw.integers(0, 60, (40, 80, 3), dtype=np.uint8) for _ in range(count)] for count in (5, 3, 0)]
    order = [0, 1, 0, 1, 1, "1", 0, 0, "2", 0, "0"]
    frames = [iter(clip) for clip in clips]
    mixed = [(int(n), None) if isinstance(n, str) else (n, next(frames[n])) for n in order]
    found = dict(crop_mixed(mixed, Detector(), batch_frames=4))
    assert list(found) == [1, 2, 0]
    alone = list(crop_each([frame for clip in clips for frame in (*clip, None)], Detector(), batch_frames=4))
    for number, expected in enumerate(alone):
        for name, value in vars(expected).items():
            np.testing.assert_array_equal(getattr(found[number], name), value)


def test_memory_holds_an_interval_and_not_the_file(tmp_path):
    """Four minutes, 15 MB as float32."""
    write_wav(tmp_path / "long.wav", np.tile(np.arange(-500, 500) / 2000, 3840).astype(np.float32), 16_000)
    write_video(tmp_path / "long.mkv", numbered(20), (128, 64), FPS, audio=tmp_path / "long.wav")
    for name in ("long.wav", "long.mkv"):
        tracemalloc.start()
        seconds = (
            sum(len(block) for block in read_intervals(tmp_path / name, ((i, i + 1) for i in range(240)))) / 16_000
        )
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert seconds == pytest.approx(240, abs=0.1)
        assert peak < 3_000_000
