"""Where the speaker's half of the picture is."""

import numpy as np
import pytest

from data_tools.letterbox import speaker_box


def picture(width=720, height=480, bars=True):
    frame = np.full((height, width, 3), 120, np.uint8)
    if bars:
        frame[: height // 4] = frame[-(height // 4) :] = 4
    return frame


@pytest.mark.parametrize(("half", "left"), [("left", 0), ("right", 360)])
def test_the_published_picture_loses_its_bars(half, left):
    frame = picture()
    frame[:2, :40] = 255  # a few bright pixels at the very edge, as analogue video has them
    assert speaker_box(frame, half) == ((left, 120, 360, 240), None)


def test_bars_that_are_not_dark_stay():
    for frame in (picture(bars=False), np.where(picture() < 10, 60, picture()).astype(np.uint8)):
        box, note = speaker_box(frame, "left")
        assert box == (0, 0, 360, 480)
        assert note == "the picture has no black bars: its halves keep their height"
    one_bar = picture()
    one_bar[360:] = 120
    assert speaker_box(one_bar, "right")[0] == (360, 0, 360, 480)


@pytest.mark.parametrize(("width", "height"), [(640, 480), (355, 241), (1280, 720)])
def test_another_size_keeps_its_height_and_is_said(width, height):
    for half in ("left", "right"):
        (left, top, wide, high), note = speaker_box(picture(width, height), half)
        assert (top, high) == (0, height - height % 2)
        assert wide == width // 2 - width // 2 % 2
        assert all(value % 2 == 0 for value in (left, top, wide, high))
        assert left + wide <= width
        assert (left == 0) == (half == "left")
        assert f"{width}x{height}, not 720x480" in note
