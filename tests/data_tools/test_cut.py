"""Cutting, frame for frame: every frame of the sources carries its number in the picture."""

import os
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

from data_tools.media.audio import read_audio, write_wav
from data_tools.media.cut import Cut, cut_video
from data_tools.media.frames import read_frames
from data_tools.media.source import ClipError, probe
from data_tools.media.write import ffmpeg_exe, write_video

NTSC = Fraction(30000, 1001)
SIZE = (640, 80)
INTERVALS = [(0.0, 1.0), (0.5, 2.5), (2.345, 5.0), (0.42, 0.595), (3.0, 3.01), (5.0, 6.6733), (1.9, 2.1)]
# The first three as write_video makes them; the others as found in the wild: AVI files have no time stamps, so with
# B-frames the decoder makes up late and unordered ones; MPEG program streams have one a group of pictures.
OURS = {"a.avi": "mpeg4", "a.mp4": "libx264", "a.mkv": "libx264"}
WILD = {
    "b.avi": "-c:v mpeg4 -bf 2 -q:v 2 -vtag DIVX",
    "h264.avi": "-c:v libx264 -bf 3 -crf 12",
    "open.mp4": "-c:v libx264 -bf 3 -crf 12 -x264-params open-gop=1:keyint=30",
    "late.ts": "-c:v libx264 -bf 3 -crf 12",
    # With some noise, as cameras have it: ffmpeg gives frames of a hundred bytes the time of the next one now and then.
    "a.mpg": "-c:v mpeg2video -q:v 2 -vf noise=alls=4:allf=t",
}


def numbered(count):
    """The number stands in both halves; the right one has a white floor, the left one a black one."""
    for number in range(count):
        frame = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
        frame[40:, 320:] = 255
        for left in (0, 320):
            for bit in range(8):
                frame[:40, left + bit * 40 : left + bit * 40 + 40] = 255 if number >> bit & 1 else 0
        yield frame


def numbers(path):
    return [sum(int(f[20, 20 + 40 * bit, 0] > 128) << bit for bit in range(8)) for _, f in read_frames(path, 1)]


def expected(start_s, end_s, count=200, fps=NTSC):
    """The frame nearest to the start, and all later ones that begin before the end."""
    first = min(range(count), key=lambda i: abs(i / fps - start_s))
    return [first, *(i for i in range(first + 1, count) if i / fps < end_s - 1e-4)]


def cut_all(source, folder, intervals=INTERVALS, **cut):
    cuts = [Cut(start, end, folder / f"{i}.mp4", **cut) for i, (start, end) in enumerate(intervals)]
    return cuts, cut_video(source, cuts, crf=18)


@pytest.fixture(scope="module", params=[*OURS, *WILD])
def source(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / request.param
    if request.param in OURS:
        write_video(path, numbered(200), SIZE, NTSC, OURS[request.param])
    else:
        first = tmp_path_factory.mktemp("first") / "a.mkv"
        write_video(first, numbered(200), SIZE, NTSC)
        subprocess.run([ffmpeg_exe(), "-v", "error", "-i", first, *WILD[request.param].split(), path], check=True)
    return path


def test_every_clip_has_exactly_its_frames(source, tmp_path):
    cuts, outcomes = cut_all(source, tmp_path)
    for cut, outcome in zip(cuts, outcomes, strict=True):
        assert outcome.failure is None, outcome
        assert numbers(cut.out) == expected(cut.start_s, cut.end_s)
        assert outcome.frames == len(expected(cut.start_s, cut.end_s))
        assert outcome.fps == pytest.approx(float(NTSC), abs=0.01)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{i}.mp4" for i in range(len(cuts))]
    assert [path.name for path in source.parent.iterdir()] == [source.name]


def test_the_order_of_cuts_and_a_second_run_change_no_byte(source, tmp_path):
    cut_all(source, tmp_path / "one")
    cuts = [Cut(*INTERVALS[i], tmp_path / "two" / f"{i}.mp4") for i in reversed(range(len(INTERVALS)))]
    cut_video(source, cuts, crf=18)
    for i in range(len(INTERVALS)):
        assert (tmp_path / "one" / f"{i}.mp4").read_bytes() == (tmp_path / "two" / f"{i}.mp4").read_bytes()


CUT = """
import sys
from pathlib import Path
from data_tools.media.cut import Cut, cut_video
cut_video(Path(sys.argv[1]), [Cut(0.0, 0.9, Path(sys.argv[2]))], crf=18)
"""


def test_what_memory_held_before_changes_no_byte(tmp_path):
    """glibc fills fresh memory with a given byte: an encoder that reads what it never wrote gives itself away."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (80, 45, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    frames = [np.roll(noise, (number % 7, 3 * number), (0, 1)) // (1 + number % 3) for number in range(25)]
    write_video(tmp_path / "a.mp4", frames, (360, 640), 25)
    made = []
    for fill in ("37", "201"):
        out = tmp_path / f"{fill}.mp4"
        environment = os.environ | {"MALLOC_PERTURB_": fill}
        subprocess.run([sys.executable, "-c", CUT, tmp_path / "a.mp4", out], check=True, env=environment)
        made.append(out.read_bytes())
    assert made[0] == made[1]


def test_half_of_the_picture_and_its_sound(source, tmp_path):
    noise = np.random.default_rng(0).normal(0, 0.1, 32_000).astype(np.float32)
    smooth = np.convolve(noise, np.ones(8) / 8, "same").astype(np.float32)
    write_wav(tmp_path / "s.wav", smooth)
    for name, box, floor in [("l.mp4", (0, 0, 320, 80), 0), ("r.mp4", (320, 0, 320, 80), 255)]:
        (outcome,) = cut_video(source, [Cut(1.0, 3.0, tmp_path / name, box, tmp_path / "s.wav")], crf=18)
        assert outcome.failure is None
        assert numbers(tmp_path / name) == expected(1.0, 3.0)
        _, frame = next(read_frames(tmp_path / name, 500))
        assert frame.shape == (80, 320, 3)
        assert np.abs(frame[50:].astype(int) - floor).max() < 20
        heard = read_audio(tmp_path / name)
        assert np.corrcoef(heard[:32_000], smooth)[0, 1] > 0.95


def test_frames_at_uneven_times_keep_their_times(tmp_path):
    write_video(tmp_path / "a.mp4", numbered(200), SIZE, 25)
    # Of 25 frames a second: all of the first two seconds, then every 20th, so 0.8 s apart.
    keep = "select='lt(n,50)+not(mod(n,20))'"
    command = [
        ffmpeg_exe(),
        "-v",
        "error",
        "-i",
        tmp_path / "a.mp4",
        "-vf",
        keep,
        "-fps_mode",
        "vfr",
        tmp_path / "v.mp4",
    ]
    subprocess.run(command, check=True)
    cuts, outcomes = cut_all(tmp_path / "v.mp4", tmp_path, [(1.0, 3.0), (3.0, 5.0), (2.6, 2.7)])
    assert [outcome.failure for outcome in outcomes] == [None] * 3
    assert numbers(cuts[0].out) == [*range(25, 50), 60]
    # 60 (at 2.4 s) is on display at 3.0 s, until 80 comes at 3.2 s.
    assert numbers(cuts[1].out) == [60, 80, 100, 120]
    assert [time_s for time_s, _ in read_frames(cuts[1].out, 1)] == pytest.approx([0.0, 0.2, 1.0, 1.8], abs=0.03)
    assert numbers(cuts[2].out) == [60]


def test_an_interval_outside_the_video_is_a_failure_and_a_little_over_is_not(source, tmp_path):
    end_s = float(200 / NTSC)
    cuts, outcomes = cut_all(source, tmp_path, [(6.0, end_s + 0.4), (6.0, end_s + 0.6), (8.0, 9.0), (1.0, 2.0)])
    assert [outcome.failure for outcome in outcomes] == [None, "interval:outside", "interval:outside", None]
    assert outcomes[0].end_s == pytest.approx(end_s, abs=0.01)
    assert outcomes[3].end_s == 2.0
    assert numbers(cuts[0].out) == list(range(180, 200))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.mp4", "3.mp4"]


def test_a_truncated_video_keeps_the_clips_before_its_end(tmp_path):
    write_video(tmp_path / "a.avi", numbered(200), SIZE, NTSC, "mpeg4")
    data = (tmp_path / "a.avi").read_bytes()
    (tmp_path / "a.avi").write_bytes(data[: len(data) // 2])
    cuts, outcomes = cut_all(tmp_path / "a.avi", tmp_path / "out", [(0.5, 1.5), (2.0, 6.0), (5.5, 6.5)])
    assert [outcome.failure is None for outcome in outcomes] == [True, False, False]
    assert numbers(cuts[0].out) == expected(0.5, 1.5)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["0.mp4"]


@pytest.mark.parametrize("name", ["a.avi", "a.mp4", "b.avi", "h264.avi"])
def test_damage_in_the_middle_never_gives_a_wrong_clip(tmp_path, name):
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 256, (40, SIZE[0], 3), np.uint8)
    frames = [frame.copy() for frame in numbered(200)]
    for number, frame in enumerate(frames):
        frame[40:] = np.roll(noise, number * 7, axis=1)  # so that the stream has bytes everywhere
    if name in OURS:
        write_video(tmp_path / name, frames, SIZE, NTSC, OURS[name])
    else:
        write_video(tmp_path / "a.mkv", frames, SIZE, NTSC)
        command = [ffmpeg_exe(), "-v", "error", "-i", tmp_path / "a.mkv", *WILD[name].split(), "-g", "30"]
        subprocess.run([*command, tmp_path / name], check=True)
    data = bytearray((tmp_path / name).read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4000] = rng.integers(0, 256, 4000, np.uint8).tobytes()
    (tmp_path / name).write_bytes(data)
    intervals = [(i / 2, i / 2 + 0.5) for i in range(12)]
    cuts, outcomes = cut_all(tmp_path / name, tmp_path / "out", intervals)
    assert outcomes[0].failure is None
    assert {outcome.failure for outcome in outcomes} - {None} == {"video:damaged"}
    for cut, outcome in zip(cuts, outcomes, strict=True):
        assert cut.out.exists() == (outcome.failure is None)
        if outcome.failure is None:
            off = np.subtract(numbers(cut.out), expected(cut.start_s, cut.end_s))
            # An AVI file whose packet is lost with its header counts one less from there on.
            assert np.abs(off).max() <= (1 if name.endswith("avi") else 0)


def test_nothing_after_the_last_interval_is_decoded(tmp_path):
    write_video(tmp_path / "a.avi", numbered(200), SIZE, NTSC, "mpeg4")
    data = (tmp_path / "a.avi").read_bytes()
    (tmp_path / "a.avi").write_bytes(data[: len(data) * 3 // 4] + b"\xff" * (len(data) // 4))
    cuts, (outcome,) = cut_all(tmp_path / "a.avi", tmp_path, [(1.0, 2.0)])
    assert outcome.failure is None
    assert numbers(cuts[0].out) == expected(1.0, 2.0)


def test_broken_sources_fail_every_cut_with_the_cause(tmp_path):
    (tmp_path / "empty.avi").touch()
    (tmp_path / "text.avi").write_text("no video")
    write_wav(tmp_path / "sound.wav", np.zeros(16_000, np.float32))
    for name, cause in [("none.avi", "no media"), ("empty.avi", "empty"), ("text.avi", ""), ("sound.wav", "no video")]:
        _, outcomes = cut_all(tmp_path / name, tmp_path / "out", [(0.0, 1.0), (1.0, 2.0)])
        assert [outcome.failure for outcome in outcomes] == ["video:unreadable"] * 2
        assert all(name in outcome.detail and cause in outcome.detail for outcome in outcomes)
    assert not (tmp_path / "out").exists()


def test_a_target_that_cannot_be_written_is_an_error(source, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ClipError, match="cannot write"):
        cut_video(source, [Cut(0.0, 1.0, tmp_path / "file" / "a.mp4")], crf=18)


def test_odd_sides_pixel_shape_and_rotation(tmp_path):
    write_video(tmp_path / "a.mp4", numbered(50), SIZE, 25)
    quiet = [ffmpeg_exe(), "-v", "error", "-i", tmp_path / "a.mp4"]
    odd = ["-vf", "crop=641-2:79:0:0,setsar=8/9", "-pix_fmt", "yuv444p", tmp_path / "odd.mkv"]
    subprocess.run([*quiet, *odd], check=True)
    turned = [ffmpeg_exe(), "-v", "error", "-display_rotation", "90", "-i", tmp_path / "a.mp4", "-c", "copy"]
    subprocess.run([*turned, tmp_path / "turned.mp4"], check=True)
    for name in ("odd.mkv", "turned.mp4"):
        (outcome,) = cut_video(tmp_path / name, [Cut(1.0, 2.0, tmp_path / f"{name}.mp4")], crf=0)
        assert outcome.failure is None
    shape = probe(tmp_path / "odd.mkv.mp4")
    assert (shape.width, shape.height) == (638, 78)
    said = subprocess.run([ffmpeg_exe(), "-i", tmp_path / "odd.mkv.mp4"], capture_output=True, text=True, check=False)
    assert "SAR 8:9" in said.stderr
    assert numbers(tmp_path / "odd.mkv.mp4") == list(range(25, 50))
    whole = [frame for _, frame in read_frames(tmp_path / "turned.mp4", 1)]
    clip = [frame for _, frame in read_frames(tmp_path / "turned.mp4.mp4", 1)]
    assert clip[0].shape == (640, 80, 3)
    assert all(np.abs(a.astype(int) - b).max() <= 2 for a, b in zip(clip, whole[25:], strict=True))
