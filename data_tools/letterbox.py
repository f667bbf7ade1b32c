"""Region of one of two actors in a picture that shows both side by side, letterboxed (IEMOCAP)."""

from typing import Literal

import numpy as np

# IEMOCAP's pictures are 720x480; the content is rows 120 to 360, with black bars above and below.
IEMOCAP_SIZE = (720, 480)
_CONTENT_ROWS = (120, 360)
# A bar may hold compression noise and a few bright pixels at its edge, but no picture.
_BAR_MEAN, _BAR_BRIGHT = 24, 48


def speaker_box(frame: np.ndarray, half: Literal["left", "right"]) -> tuple[tuple[int, int, int, int], str | None]:
    """The speaker's half of a picture without its bars, and a note where the picture is not as published.

    frame: (H, W, 3) uint8 RGB, the first one of the video; bars are removed only if they are really dark there.
    Returns ((left, top, width, height) in pixels, all even, note or None).
    """
    height, width = frame.shape[:2]
    half_width = width // 2 // 2 * 2
    left = 0 if half == "left" else width - half_width
    top, high, note = 0, height, None
    if (width, height) != IEMOCAP_SIZE:
        note = f"the picture is {width}x{height}, not {IEMOCAP_SIZE[0]}x{IEMOCAP_SIZE[1]}: its halves keep their height"
    elif _is_dark(frame[: _CONTENT_ROWS[0]]) and _is_dark(frame[_CONTENT_ROWS[1] :]):
        top, high = _CONTENT_ROWS[0], _CONTENT_ROWS[1] - _CONTENT_ROWS[0]
    else:
        note = "the picture has no black bars: its halves keep their height"
    return (left // 2 * 2, top, half_width, high // 2 * 2), note


def _is_dark(bar: np.ndarray) -> bool:
    brightness = bar.mean(axis=2)
    return bool(brightness.mean() < _BAR_MEAN and np.percentile(brightness, 99) < _BAR_BRIGHT)
