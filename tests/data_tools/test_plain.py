"""Plain passes of ffmpeg: frames that carry a brightness of their own say which ones came out."""

import numpy as np
import pytest

from data_tools.errors import DataError
from data_tools.media.audio import read_audio, write_wav
from data_tools.media.frames import read_frames
from data_tools.media.plain import PlainPass, loop_video, transcode
from data_tools.media.source import probe
from data_tools.media.write import write_video

FPS = 10


def grey(numbers):
    """Frames whose left half is as bright as 20 + 5 x number, the right half black."""
    for number in numbers:
        frame = np.zeros((64, 128, 3), np.uint8)
        frame[:, :64] = 20 + 5 * number
        yield frame


def numbers(path):
    return [round((float(frame[:, :30].mean()) - 20) / 5) for _, frame in read_frames(path, 1)]


@pytest.fixture
def videos(tmp_path):
    """Two videos, of 20 and 30 frames; the first one has a tone that is loud from its second second on."""
    loudness = np.repeat([0.05, 0.5], 16_000)
    write_wav(tmp_path / "s.wav", (loudness * np.sin(np.arange(32_000) / 5)).astype(np.float32))
    write_video(tmp_path / "a.avi", grey(range(20)), (128, 64), FPS, "mpeg4", audio=tmp_path / "s.wav")
    write_video(tmp_path / "b.mp4", grey(range(30)), (128, 64), FPS)
    return tmp_path / "a.avi", tmp_path / "b.mp4"


def test_one_process_cuts_several_videos(videos, tmp_path):
    first, second = (tmp_path / name for name in ("1.mp4", "2.mp4"))
    command = transcode(
        [
            PlainPass(videos[0], first, (0, 0, 64, 32), [(1.0, 1.55)], sound=True),
            PlainPass(videos[1], second, intervals_s=[(0.0, 0.45), (2.0, 2.25), (2.1, 2.35)]),
        ],
        crf=18,
    )
    assert numbers(first) == [10, 11, 12, 13, 14, 15]
    assert numbers(second) == [0, 1, 2, 3, 4, 20, 21, 22, 23]
    assert (probe(first).width, probe(first).height, probe(second).width) == (64, 32, 128)
    sound = read_audio(first)
    assert len(sound) / 16_000 == pytest.approx(0.55, abs=0.1)
    assert np.abs(sound[1600:8000]).max() > 0.3  # of the loud second
    assert not probe(second).has_audio
    assert command.startswith("ffmpeg -")
    assert command.count("libx264") == 2


def test_everything_is_kept_where_no_interval_is_named(videos, tmp_path):
    transcode([PlainPass(videos[0], tmp_path / "c.mp4", (0, 0, 64, 32))], crf=18)
    assert numbers(tmp_path / "c.mp4") == list(range(20))
    assert not probe(tmp_path / "c.mp4").has_audio


def test_a_loop_repeats_the_video(videos, tmp_path):
    loop_video(videos[1], tmp_path / "long.mp4", seconds=7)
    found = numbers(tmp_path / "long.mp4")
    assert found[:70] == [*range(30), *range(30), *range(10)]
    assert len(found) <= 73


def test_what_cannot_be_read_is_named_and_leaves_nothing(videos, tmp_path):
    (tmp_path / "text.avi").write_text("not a video " * 100)
    for name, cause in [("none.avi", "no media file"), ("text.avi", "text.avi")]:
        with pytest.raises(DataError, match=cause):
            transcode([PlainPass(videos[0], tmp_path / "1.mp4"), PlainPass(tmp_path / name, tmp_path / "2.mp4")], 18)
        with pytest.raises(DataError, match=cause):
            loop_video(tmp_path / name, tmp_path / "3.avi", 10)
    assert {path.name for path in tmp_path.iterdir()} == {"a.avi", "b.mp4", "s.wav", "text.avi"}
