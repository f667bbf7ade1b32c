"""Faces in a video's frames, found by facenet-pytorch's MTCNN."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch

from data_tools.errors import DataError
from data_tools.threads import one_thread


@dataclass(frozen=True)
class Candidates:
    """N faces that the detector found in one frame, the largest first, in frame pixels.

    boxes: (N, 4) float32 x0, y0, x1, y1. scores: (N,) float32 in [0, 1]. landmarks: (N, 5, 2) float32 x, y.
    """

    boxes: np.ndarray
    scores: np.ndarray
    landmarks: np.ndarray


class FaceDetector:
    """`facenet_pytorch.MTCNN` with all faces kept, its own thresholds, and the weights inside its wheel.

    On a CPU every frame is a pass of its own, in one thread: work is spread over processes, and no frame's result
    depends on its neighbours or on the number of cores, to the last bit. On CUDA all frames given are one pass: boxes
    may differ by rounding (1e-3 px) from those of other batches.

    min_face_px: smaller faces are not looked for; twice the size is about four times less work.

    Raises:
        DataError: the package or its weights are missing.

    Source: Zhang et al., Joint Face Detection and Alignment using Multi-task Cascaded Convolutional Networks, 2016.
    """

    # Part of a store's fingerprint: raise it when the same frames begin to give other faces, landmarks or scores.
    VERSION = "facenet_pytorch.MTCNN, square pixels"

    def __init__(self, device: str = "cpu", min_face_px: int = 20) -> None:
        self._device, self._min_face_px = torch.device(device), min_face_px
        # A GPU's faces are to be the CPU's: by default cuDNN rounds what float32 convolutions read to TF32's 10 bits.
        torch.backends.cudnn.allow_tf32 = False
        try:
            # Not at the top: it loads all of torchvision, 170 MB and a second that nothing else here needs.
            from facenet_pytorch import MTCNN

            self._mtcnn = MTCNN(min_face_size=min_face_px, keep_all=True, device=self._device)
        except (ImportError, OSError) as error:
            raise DataError(f"no face detector ({error}); install the package facenet-pytorch again") from error
        # On a CPU convolutions of few channels take a third less time with the channels last in memory.
        self._mtcnn.to(memory_format=torch.channels_last)

    def detect(self, frames: Sequence[np.ndarray]) -> list[Candidates]:
        """Return the candidates of each frame. frames: (H, W, 3) uint8 RGB, all of one size."""
        if self._device.type == "cpu":
            with one_thread():
                return [faces for frame in frames for faces in self.detect_together([frame])]
        return self.detect_together(frames)

    def detect_together(self, frames: Sequence[np.ndarray]) -> list[Candidates]:
        """As `detect`, with all frames in one pass on any device."""
        if not frames:
            return []
        # The library fails on pictures that are smaller than every face it looks for.
        if min(frames[0].shape[:2]) * (12.0 / self._min_face_px) < 12:
            return [_no_candidates() for _ in frames]
        try:
            return self._detect(np.stack(frames))
        except (IndexError, RuntimeError):
            # The library fails where a candidate lies wholly outside of the picture.
            return [self._detect_inside_border(frame) for frame in frames]

    def _detect_inside_border(self, frame: np.ndarray) -> Candidates:
        """Candidates of a frame with its edge repeated on all sides, as wide as the largest square looked at."""
        border = min(frame.shape[:2])
        wider = cv2.copyMakeBorder(frame, border, border, border, border, cv2.BORDER_REPLICATE)
        (found,) = self._detect(wider[None])
        return Candidates(found.boxes - border, found.scores, found.landmarks - border)

    @torch.inference_mode()
    def _detect(self, frames: np.ndarray) -> list[Candidates]:
        """One pass of the library. frames: (T, H, W, 3) uint8."""
        found = zip(*self._mtcnn.detect(frames, landmarks=True), strict=True)
        return [_no_candidates() if boxes is None else _as_candidates(boxes, *rest) for boxes, *rest in found]


def _no_candidates() -> Candidates:
    """Candidates of a frame without a face."""
    return Candidates(*(np.zeros((0, *rest), np.float32) for rest in ((4,), (), (5, 2))))


def _as_candidates(*parts: Any) -> Candidates:
    """Boxes, scores and landmarks as the library returns them: arrays, of objects where all frames have as many."""
    return Candidates(*(np.asarray(part, np.float32) for part in parts))
