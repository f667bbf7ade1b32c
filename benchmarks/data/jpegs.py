"""Every frame of a video as a JPEG, as in the published code: both data stages are compared with it.

Imports no more than it needs: its memory is measured in a process of its own.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2

from data_tools.errors import DataError
from data_tools.media.frames import read_frames


def write_jpegs(videos: Sequence[Path], folder: Path, halves: bool) -> int:
    """Decode each video into memory as a whole, then write every frame as a JPEG; returns the bytes that they took.

    Each file is deleted once it is counted. halves: a picture of each actor instead of one (IEMOCAP). Quality is
    OpenCV's 95.

    Raises:
        DataError: a picture cannot be written.
    """
    size = 0
    for number, video in enumerate(videos):
        frames = [frame for _, frame in read_frames(video, every_ms=1)]
        for place, frame in enumerate(frames):
            half = frame.shape[1] // 2
            pictures = (frame[:, :half], frame[:, half:]) if halves else (frame,)
            for side, picture in enumerate(pictures):
                path = folder / f"{number}_{place}_{side}.jpg"
                if not cv2.imwrite(str(path), picture[..., ::-1]):
                    raise DataError(f"cannot write {path}; check permissions and free space")
                size += path.stat().st_size
                path.unlink()
    return size
