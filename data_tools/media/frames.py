"""Frames of a video at a fixed spacing."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from av.video.frame import VideoFrame

from data_tools.errors import DataError
from data_tools.media.decode import decoded
from data_tools.media.orientation import orientation, upright
from data_tools.media.source import check_size, open_media, pixel_shape, video_stream

# Time stamps of some containers are whole milliseconds: a frame this little before its moment still counts.
_ROUNDING_S = 1e-3


def read_frames(path: Path, every_ms: int, square_pixels: bool = True) -> Iterator[tuple[float, np.ndarray]]:
    """The first frame at or after 0, every_ms, 2 * every_ms ...; at least one, each frame at most once.

    Yields (seconds since the file's zero, picture (H, W, 3) uint8 RGB, upright as a player shows it). That zero is the
    one that `read_audio` counts from: where pictures begin later than sound, the first one's time says so. One frame is
    held at a time, and only the frames that are yielded are converted to RGB. Packets that cannot be decoded are left
    out: the frames around them still count.

    square_pixels: a picture of pixels that are not square (DV, HDV) is drawn out, so that faces keep their shape;
    False for the pixels as they are stored.

    Raises:
        DataError: not a readable video, a frame beyond the size limit, or no frame at all.
    """
    if every_ms <= 0:
        raise DataError(f"every_ms is {every_ms}: expected a positive number of milliseconds")
    empty = True
    due_ms = 0
    with open_media(path) as container:
        stream = video_stream(path, container)
        for shown in decoded(path, container, stream):
            if shown is None:
                continue
            time_s, empty = max(0.0, shown.time_s), False
            if time_s + _ROUNDING_S < due_ms / 1000:
                continue
            due_ms = (int((time_s + _ROUNDING_S) * 1000) // every_ms + 1) * every_ms
            picture = _picture(path, shown.frame, pixel_shape(stream) if square_pixels else Fraction(1))
            yield time_s, upright(picture, orientation(shown.frame))
    if empty:
        raise DataError(f"{path} has a video stream without a single frame that can be decoded")


def _picture(path: Path, frame: VideoFrame, shape: Fraction) -> np.ndarray:
    """The pixels of `frame`, made square by drawing out the side that is too short: none are lost."""
    if shape == 1:
        return frame.to_ndarray(format="rgb24")
    wide = shape > 1
    width = round(frame.width * shape) if wide else frame.width
    height = frame.height if wide else round(frame.height / shape)
    check_size(path, width, height)
    return frame.reformat(width, height, "rgb24", interpolation="BICUBIC").to_ndarray()
