"""Frames of a video at a fixed spacing."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data_tools.errors import DataError
from data_tools.media.decode import decoded
from data_tools.media.source import open_media, video_stream

# Time stamps of some containers are whole milliseconds: a frame this little before its moment still counts.
_ROUNDING_S = 1e-3


def read_frames(path: Path, every_ms: int) -> Iterator[tuple[float, np.ndarray]]:
    """The first frame at or after 0, every_ms, 2 * every_ms ...; at least one, each frame at most once.

    Yields (seconds since the first frame, picture (H, W, 3) uint8 RGB, upright as a player shows it). One frame is
    held at a time, and only the frames that are yielded are converted to RGB. Packets that cannot be decoded are left
    out: the frames around them still count.

    Raises:
        DataError: not a readable video, a frame beyond the size limit, or no frame at all.
    """
    if every_ms <= 0:
        raise DataError(f"every_ms is {every_ms}: expected a positive number of milliseconds")
    first_s: float | None = None
    due_ms = 0
    with open_media(path) as container:
        stream = video_stream(path, container)
        for shown in decoded(path, container, stream):
            if shown is None:
                continue
            if first_s is None:
                first_s = shown.time_s
            since_s = shown.time_s - first_s
            if since_s + _ROUNDING_S < due_ms / 1000:
                continue
            due_ms = (int((since_s + _ROUNDING_S) * 1000) // every_ms + 1) * every_ms
            picture = shown.frame.to_ndarray(format="rgb24")
            yield since_s, np.ascontiguousarray(np.rot90(picture, shown.frame.rotation // 90))
    if first_s is None:
        raise DataError(f"{path} has a video stream without a single frame that can be decoded")
