"""Reading and writing media: files made here, answers counted by hand."""

import subprocess
from fractions import Fraction

import numpy as np
import pytest
import soundfile

from data_tools.errors import DataError
from data_tools.media.audio import audio_duration_s, read_audio, seekable_sound, write_wav
from data_tools.media.frames import read_frames
from data_tools.media.source import has_audio, probe
from data_tools.media.write import ffmpeg_exe, write_video

NTSC = Fraction(30000, 1001)
KINDS = [("a.avi", "mpeg4", "DIVX"), ("a.mp4", "libx264", None), ("a.mkv", "libx264", None)]


def numbered(count, size=(320, 64)):
    """Frames that carry their number as eight black or white squares along the top."""
    for number in range(count):
        frame = np.full((size[1], size[0], 3), 128, np.uint8)
        for bit in range(8):
            frame[:40, bit * 40 : bit * 40 + 40] = 255 if number >> bit & 1 else 0
        yield frame


def number_of(frame):
    return sum(int(frame[20, 20 + 40 * bit, 0] > 128) << bit for bit in range(8))


def tone(seconds, rate_hz=16_000, hz=440.0):
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate_hz)) / rate_hz)).astype(np.float32)


@pytest.mark.parametrize(("name", "codec", "tag"), KINDS)
@pytest.mark.parametrize("every_ms", [500, 300, 33])
def test_frames_are_the_first_ones_at_or_after_each_moment(tmp_path, name, codec, tag, every_ms):
    write_video(tmp_path / name, numbered(100), (320, 64), NTSC, codec, tag=tag)
    got = [(time_s, number_of(frame)) for time_s, frame in read_frames(tmp_path / name, every_ms)]
    moments = [k * every_ms / 1000 for k in range(1000) if k * every_ms / 1000 <= 99 / NTSC]
    expected = sorted({next(i for i in range(100) if i / NTSC >= moment - 0.001) for moment in moments})
    assert [number for _, number in got] == expected
    assert np.allclose([time_s for time_s, _ in got], [float(i / NTSC) for i in expected], atol=1.1e-3)


def test_a_short_video_gives_one_frame(tmp_path):
    write_video(tmp_path / "a.mp4", numbered(3), (320, 64), 25)
    ((time_s, frame),) = read_frames(tmp_path / "a.mp4", 500)
    assert time_s == 0.0
    assert frame.shape == (64, 320, 3)
    assert frame.dtype == np.uint8
    with pytest.raises(DataError, match="every_ms is 0"):
        list(read_frames(tmp_path / "a.mp4", 0))


def test_a_turned_video_comes_upright_as_ffmpeg_shows_it(tmp_path):
    write_video(tmp_path / "a.mp4", (frame for frame in list(numbered(8))[5:]), (320, 64), 25)
    for turn in ("90", "180", "270"):
        turned, shown = tmp_path / f"{turn}.mp4", tmp_path / f"{turn}.avi"
        quiet = [ffmpeg_exe(), "-v", "error", "-y"]
        subprocess.run([*quiet, "-display_rotation", turn, "-i", tmp_path / "a.mp4", "-c", "copy", turned], check=True)
        subprocess.run([*quiet, "-i", turned, "-pix_fmt", "bgr24", "-c:v", "rawvideo", shown], check=True)
        (_, mine), (_, theirs) = next(read_frames(turned, 500)), next(read_frames(shown, 500))
        assert mine.shape == theirs.shape
        assert np.abs(mine.astype(int) - theirs).max() <= 2


def test_the_same_frames_give_the_same_bytes(tmp_path):
    write_wav(tmp_path / "s.wav", tone(1))
    for name, codec, tag in KINDS:
        twice = []
        for _ in range(2):
            write_video(tmp_path / name, numbered(25), (320, 64), 25, codec, tag=tag, audio=tmp_path / "s.wav")
            twice.append((tmp_path / name).read_bytes())
        assert twice[0] == twice[1]
        info = probe(tmp_path / name)
        assert (info.width, info.height, info.fps, info.audio_rate_hz) == (320, 64, 25.0, 16_000)
        assert info.has_video
        assert info.duration_s == pytest.approx(1.0, abs=0.1)
    assert b"DIVX" in (tmp_path / "a.avi").read_bytes()


def test_names_that_look_like_options_addresses_or_patterns(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = type(tmp_path)()
    write_wav(folder / "-s:a%d.wav", tone(1))
    write_video(folder / "-i:b%03d.mp4", numbered(25), (320, 64), 25, audio=folder / "-s:a%d.wav")
    assert len(list(read_frames(folder / "-i:b%03d.mp4", 500))) == 2
    assert len(read_audio(folder / "-s:a%d.wav")) == 16_000
    assert has_audio(folder / "-i:b%03d.mp4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["-i:b%03d.mp4", "-s:a%d.wav"]


def test_a_video_that_cannot_be_written_leaves_nothing(tmp_path):
    good = np.zeros((64, 320, 3), np.uint8)

    def interrupted():
        yield good
        raise RuntimeError("no more")

    for frames, size, error in [
        ([], (320, 64), "there are no frames"),
        ([good, good[:32]], (320, 64), r"frame 1 is uint8 \(32, 320, 3\)"),
        ([good.astype(np.float32)], (320, 64), "float32"),
        ([good[:, :319]], (319, 64), "even"),
    ]:
        with pytest.raises(DataError, match=error):
            write_video(tmp_path / "a.mp4", frames, size, 25)
    with pytest.raises(RuntimeError, match="no more"):
        write_video(tmp_path / "a.mp4", interrupted(), (320, 64), 25)
    with pytest.raises(DataError, match="nope"):
        write_video(tmp_path / "a.mp4", [good] * 2000, (320, 64), 25, audio=tmp_path / "nope.wav")
    assert list(tmp_path.iterdir()) == []


def test_sound_of_every_container(tmp_path):
    samples = tone(2)
    write_wav(tmp_path / "s.wav", samples)
    soundfile.write(tmp_path / "s.flac", samples, 16_000)
    for name, codec, _ in KINDS:
        write_video(tmp_path / name, numbered(50), (320, 64), 25, codec, audio=tmp_path / "s.wav")
    for name, tolerance in [("s.wav", 1e-4), ("s.flac", 1e-4), ("a.avi", 1e-4), ("a.mp4", 0.03), ("a.mkv", 0.03)]:
        got = read_audio(tmp_path / name)
        assert got.dtype == np.float32
        assert len(got) == pytest.approx(32_000, abs=1100)
        # The ends of a lossy codec ring; the middle must be the same wave at the same place.
        assert np.abs(got[2000:30_000] - samples[2000:30_000]).max() < tolerance, name
        assert audio_duration_s(tmp_path / name) == pytest.approx(2.0, abs=0.07)


def test_channels_are_averaged_and_rates_converted(tmp_path):
    left, right = tone(1, 44_100, 300), tone(1, 44_100, 700)
    soundfile.write(tmp_path / "s.wav", np.stack([left, right], axis=1), 44_100, subtype="FLOAT")
    got = read_audio(tmp_path / "s.wav")
    expected = (tone(1, 16_000, 300) + tone(1, 16_000, 700)) / 2
    assert len(got) == 16_000
    assert np.abs(got[200:-200] - expected[200:-200]).max() < 2e-3


@pytest.mark.parametrize("name", ["s.wav", "a.mp4"])
def test_an_interval_is_a_slice_of_the_whole(tmp_path, name):
    noise = np.random.default_rng(0).normal(0, 0.1, 48_000).astype(np.float32)
    write_wav(tmp_path / "s.wav", noise)
    write_video(tmp_path / "a.mp4", numbered(75), (320, 64), 25, audio=tmp_path / "s.wav")
    whole = read_audio(tmp_path / name)
    assert np.array_equal(read_audio(tmp_path / name, 16_000, 0.5, 1.25), whole[8000:20_000])
    assert np.array_equal(read_audio(tmp_path / name, 16_000, 2.5, 99.0), whole[40_000:])
    with pytest.raises(DataError, match="no sound from 9"):
        read_audio(tmp_path / name, 16_000, 9.0, 10.0)


def test_compressed_sound_is_decoded_once_into_a_file_that_goes_away(tmp_path):
    write_wav(tmp_path / "s.wav", tone(2))
    write_video(tmp_path / "a.mp4", numbered(50), (320, 64), 25, audio=tmp_path / "s.wav")
    temporary = tmp_path / "new" / "t.wav"
    with seekable_sound(tmp_path / "a.mp4", temporary) as sound:
        assert sound == temporary
        assert np.abs(read_audio(sound) - read_audio(tmp_path / "a.mp4")).max() < 1e-4
    assert not temporary.exists()
    with seekable_sound(tmp_path / "s.wav", temporary) as sound:
        assert sound == tmp_path / "s.wav"


def test_wav_is_16_bit_mono_and_loud_samples_are_clipped(tmp_path):
    write_wav(tmp_path / "s.wav", np.array([0.0, 0.5, 2.0, -2.0], np.float32), 8000)
    info = soundfile.info(tmp_path / "s.wav")
    assert (info.samplerate, info.channels, info.subtype) == (8000, 1, "PCM_16")
    assert soundfile.read(tmp_path / "s.wav", dtype="int16")[0].tolist() == [0, 16384, 32767, -32768]


def test_a_truncated_wav_gives_what_there_is(tmp_path):
    write_wav(tmp_path / "s.wav", tone(1))
    data = (tmp_path / "s.wav").read_bytes()
    (tmp_path / "s.wav").write_bytes(data[: 44 + 16_000])
    assert len(read_audio(tmp_path / "s.wav")) == 8000
    assert audio_duration_s(tmp_path / "s.wav") == 0.5


def test_broken_files_are_named_with_the_cause(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video " * 100)
    write_video(tmp_path / "good.mp4", numbered(50), (320, 64), 25)
    (tmp_path / "cut.mp4").write_bytes((tmp_path / "good.mp4").read_bytes()[:1500])
    write_wav(tmp_path / "s.wav", tone(1))
    soundfile.write(tmp_path / "nan.wav", np.full(100, np.nan), 16_000, subtype="FLOAT")
    for name, cause in [("none.mp4", "no "), ("empty.mp4", "empty file"), ("text.mp4", "text.mp4"), ("cut.mp4", "cut")]:
        with pytest.raises(DataError, match=cause):
            list(read_frames(tmp_path / name, 500))
        with pytest.raises(DataError, match=cause):
            read_audio(tmp_path / name)
    for reader, name, cause in [
        (lambda path: list(read_frames(path, 500)), "s.wav", "no video stream"),
        (read_audio, "good.mp4", "no audio stream"),
        (read_audio, "nan.wav", "NaN"),
    ]:
        with pytest.raises(DataError, match=cause):
            reader(tmp_path / name)
    assert not has_audio(tmp_path / "good.mp4")


def test_the_cover_of_a_sound_file_is_no_video(tmp_path):
    write_wav(tmp_path / "s.wav", tone(1))
    write_video(tmp_path / "cover.avi", numbered(1), (320, 64), 25, "mpeg4")
    inputs = [
        ffmpeg_exe(),
        "-v",
        "error",
        "-i",
        tmp_path / "s.wav",
        "-i",
        tmp_path / "cover.avi",
        "-map",
        "0",
        "-map",
        "1",
    ]
    subprocess.run([*inputs, "-c:v", "mjpeg", "-disposition:v", "attached_pic", tmp_path / "s.m4a"], check=True)
    info = probe(tmp_path / "s.m4a")
    assert (info.has_video, info.width, info.has_audio) == (False, 0, True)
    with pytest.raises(DataError, match="no video stream"):
        next(read_frames(tmp_path / "s.m4a", 500))


def test_limits_are_checked_before_anything_is_decoded(tmp_path):
    write_video(tmp_path / "wide.mp4", [np.zeros((16, 8200, 3), np.uint8)], (8200, 16), 25)
    write_video(tmp_path / "long.mkv", numbered(2), (320, 64), Fraction(1, 20_000))
    for name, cause in [("wide.mp4", "8200x16 pixels; the limit is 8192"), ("long.mkv", "the limit is 14400 s")]:
        with pytest.raises(DataError, match=cause):
            probe(tmp_path / name)
        with pytest.raises(DataError, match=cause):
            next(read_frames(tmp_path / name, 500))
