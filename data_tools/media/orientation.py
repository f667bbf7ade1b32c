"""Turning and mirroring a frame as its display matrix says, the way players show it."""

import struct
from typing import NamedTuple

import numpy as np
from av.buffer import Buffer
from av.video.frame import VideoFrame

# Nine numbers of four bytes; those of the picture's axes are the first, second, fourth and fifth.
_MATRIX = struct.Struct("<9i")


class Orientation(NamedTuple):
    """Swap the two axes of the picture, then mirror it left to right, then top to bottom: in this order."""

    transposed: bool = False
    mirrored: bool = False
    flipped: bool = False


def orientation(frame: VideoFrame) -> Orientation:
    """The orientation nearest to the display matrix of `frame` (ISO/IEC 14496-12, tkhd): one of eight.

    Phones turn the picture by quarters; front cameras and editors mirror it as well.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if not isinstance(data, Buffer) or data.buffer_size != _MATRIX.size:
        return Orientation()
    # A pixel at (x, y) is shown at (a * x + c * y, b * x + d * y).
    a, b, _, c, d, *_ = _MATRIX.unpack(bytes(data))
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(False, a < 0, d < 0)
    return Orientation(True, c < 0, b < 0)


def upright(picture: np.ndarray, turn: Orientation) -> np.ndarray:
    """A picture (H, W, 3) or (H, W) in this orientation: W before H where the axes are swapped."""
    if turn.transposed:
        picture = picture.swapaxes(0, 1)
    return np.ascontiguousarray(picture[:: -1 if turn.flipped else 1, :: -1 if turn.mirrored else 1])


def filters(turn: Orientation) -> list[tuple[str, str]]:
    """The same as ffmpeg's filters: (name, arguments) each."""
    steps = [("transpose", "cclock_flip")] if turn.transposed else []
    steps += [("hflip", "")] if turn.mirrored else []
    return steps + ([("vflip", "")] if turn.flipped else [])
