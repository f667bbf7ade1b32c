"""What `preprocess` is compared with: decoding alone, and the bare passes of a detector."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from facenet_pytorch import MTCNN

from data_tools.faces.crop import Detector
from data_tools.faces.detector import Candidates
from data_tools.media.frames import read_frames


class FullDetector:
    """facenet-pytorch's own detection, as it is: what `FaceDetector` has to agree with, and to be cheaper than."""

    def __init__(self, min_face_px: int) -> None:
        self._mtcnn = MTCNN(keep_all=True, min_face_size=min_face_px, device=torch.device("cpu"))

    def detect(self, frames: Sequence[np.ndarray]) -> list[Candidates]:
        """Candidates of each frame, all frames in one call, with as many threads as torch has."""
        if not frames:
            return []
        none = Candidates(*(np.zeros((0, *rest), np.float32) for rest in ((4,), (), (5, 2))))
        found = zip(*self._mtcnn.detect(np.stack(frames), landmarks=True), strict=True)
        return [
            none if parts[0] is None else Candidates(*(np.asarray(part, np.float32) for part in parts))
            for parts in found
        ]


def decode(clips: Sequence[Path], every_ms: int) -> Iterator[list[np.ndarray]]:
    """The sampled frames of each clip."""
    for clip in clips:
        yield [frame for _, frame in read_frames(clip, every_ms)]


def detect(
    detector: Detector, clips: Sequence[Sequence[np.ndarray]], batch_frames: int, threads: int | None = None
) -> None:
    """The detector's bare passes over frames that are in memory. threads: of torch; None for as many as it has."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        for frames in clips:
            for start in range(0, len(frames), batch_frames):
                detector.detect(frames[start : start + batch_frames])
    finally:
        torch.set_num_threads(before)
