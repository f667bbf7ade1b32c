"""Pixels that are not square, and turned and mirrored pictures: compared with ffmpeg's own showing, and with a face."""

import subprocess
from fractions import Fraction

import numpy as np
import pytest
from skimage import data as skimage_data
from skimage.transform import resize

from data_tools.errors import DataError
from data_tools.faces.detector import FaceDetector
from data_tools.media.cut import Cut, cut_video
from data_tools.media.frames import read_frames
from data_tools.media.source import MAX_SIDE_PX
from data_tools.media.write import ffmpeg_exe, write_video

# The options that ask ffmpeg for each of the eight orientations.
TURNS = [[], ["-display_hflip"], ["-display_vflip"], ["-display_rotation", "180"]]
TURNS += [["-display_rotation", angle, *more] for angle in ("90", "270") for more in ([], ["-display_hflip"])]


def run_ffmpeg(*arguments):
    command = [ffmpeg_exe(), "-nostdin", "-loglevel", "error", "-y", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True)


def shown_by_ffmpeg(path, folder):
    run_ffmpeg("-i", path, "-frames:v", "1", "-pix_fmt", "bgr24", "-c:v", "rawvideo", folder / "shown.avi")
    return first_frame(folder / "shown.avi")


def first_frame(path, **more):
    return next(read_frames(path, 500, **more))[1]


@pytest.fixture(scope="module")
def astronaut():
    return skimage_data.astronaut()


@pytest.mark.parametrize("turn", TURNS, ids=" ".join)
def test_every_orientation_is_shown_as_ffmpeg_shows_it(tmp_path, astronaut, turn):
    small = np.ascontiguousarray(astronaut[::4, ::4][:96])
    write_video(tmp_path / "plain.mp4", [small] * 5, (128, 96), 25)
    run_ffmpeg(*turn, "-i", tmp_path / "plain.mp4", "-c", "copy", tmp_path / "turned.mp4")
    theirs = shown_by_ffmpeg(tmp_path / "turned.mp4", tmp_path)
    mine = first_frame(tmp_path / "turned.mp4")
    assert mine.shape == theirs.shape
    assert np.abs(mine.astype(int) - theirs).max() <= 2
    # The clip's own pixels are upright, and no reader has to turn them again.
    cut_video(tmp_path / "turned.mp4", [Cut(0.0, 0.2, tmp_path / "clip.mp4")], 1)
    assert np.abs(first_frame(tmp_path / "clip.mp4").astype(int) - theirs).mean() <= 3
    assert np.abs(shown_by_ffmpeg(tmp_path / "clip.mp4", tmp_path).astype(int) - theirs).mean() <= 3


def face_proportion(frame):
    """Distance of the eyes over that from the eyes to the mouth, of the only face."""
    (found,) = FaceDetector("cpu", 40).detect([frame])
    assert len(found.scores) == 1
    left_eye, right_eye, _, left_mouth, right_mouth = found.landmarks[0]
    down = (left_mouth + right_mouth - left_eye - right_eye) / 2
    return float(np.linalg.norm(right_eye - left_eye) / np.linalg.norm(down))


@pytest.mark.parametrize("shape", [Fraction(2), Fraction(64, 45), Fraction(4, 3), Fraction(1, 2)], ids=str)
def test_a_face_keeps_its_shape_whatever_the_shape_of_the_pixels(tmp_path, astronaut, shape):
    width, height = round(512 / max(shape, 1)) // 2 * 2, round(512 * min(shape, 1)) // 2 * 2
    stored = (255 * resize(astronaut, (height, width), anti_aliasing=True)).astype(np.uint8)
    write_video(tmp_path / "square.mp4", [stored] * 5, (width, height), 25)
    sar = f"{shape.numerator}/{shape.denominator}"
    run_ffmpeg("-i", tmp_path / "square.mp4", "-c", "copy", "-bsf:v", f"h264_metadata=sample_aspect_ratio={sar}",
               tmp_path / "long.mp4")  # fmt: skip
    cut_video(tmp_path / "long.mp4", [Cut(0.0, 0.2, tmp_path / "clip.mp4")], 1)
    for path in (tmp_path / "long.mp4", tmp_path / "clip.mp4"):
        frame = first_frame(path)
        assert frame.shape[:2] == pytest.approx((512, 512), abs=2)
        assert face_proportion(frame) == pytest.approx(face_proportion(astronaut), rel=0.04)
        # The stored pixels: a clip keeps them, and the shape that it states.
        assert first_frame(path, square_pixels=False).shape == (height, width, 3)


def test_a_shape_that_nobody_can_mean_is_none(tmp_path, astronaut):
    small = np.ascontiguousarray(astronaut[::4, ::4])
    write_video(tmp_path / "a.mp4", [small] * 2, (128, 128), 25)
    run_ffmpeg("-i", tmp_path / "a.mp4", "-c", "copy", "-bsf:v", "h264_metadata=sample_aspect_ratio=100/1",
               tmp_path / "b.mp4")  # fmt: skip
    assert first_frame(tmp_path / "b.mp4").shape == (128, 128, 3)


def test_a_picture_that_grows_beyond_the_limit_is_refused(tmp_path):
    width = MAX_SIDE_PX // 2 + 200
    frame = np.zeros((16, width, 3), np.uint8)
    write_video(tmp_path / "a.mp4", [frame] * 2, (width, 16), 25)
    run_ffmpeg("-i", tmp_path / "a.mp4", "-c", "copy", "-bsf:v", "h264_metadata=sample_aspect_ratio=2/1",
               tmp_path / "b.mp4")  # fmt: skip
    with pytest.raises(DataError, match=f"is {2 * width}x16 pixels; the limit is {MAX_SIDE_PX}"):
        first_frame(tmp_path / "b.mp4")
