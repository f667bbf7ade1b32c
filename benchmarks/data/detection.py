"""Decoding alone and the bare passes of a detector, with which `preprocess` is compared; agreement of two detectors."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from facenet_pytorch import MTCNN

from data_tools.faces.crop import Detector, FaceCrops, crop_faces
from data_tools.faces.detector import Candidates, FaceDetector
from data_tools.media.frames import read_frames
from pipeline.clip_tensors import FaceSettings


class FullDetector:
    """facenet-pytorch's own detection, as it is: `FaceDetector` has to agree with it and to be cheaper."""

    def __init__(self, min_face_px: int) -> None:
        self._mtcnn = MTCNN(keep_all=True, min_face_size=min_face_px, device=torch.device("cpu"))

    def detect(self, frames: Sequence[np.ndarray]) -> list[Candidates]:
        """Detect in all frames in one call, with as many threads as torch has; candidates of each frame."""
        if not frames:
            return []
        none = Candidates(*(np.zeros((0, *rest), np.float32) for rest in ((4,), (), (5, 2))))
        found = zip(*self._mtcnn.detect(np.stack(frames), landmarks=True), strict=True)
        return [
            none if parts[0] is None else Candidates(*(np.asarray(part, np.float32) for part in parts))
            for parts in found
        ]


def decode(clips: Sequence[Path], every_ms: int) -> Iterator[list[np.ndarray]]:
    """Sampled frames of each clip."""
    for clip in clips:
        yield [frame for _, frame in read_frames(clip, every_ms)]


def detect(
    detector: Detector, clips: Sequence[Sequence[np.ndarray]], batch_frames: int, threads: int | None = None
) -> None:
    """Run the detector alone over frames in memory. threads: of torch; None for as many as it has."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        for frames in clips:
            for start in range(0, len(frames), batch_frames):
                detector.detect(frames[start : start + batch_frames])
    finally:
        torch.set_num_threads(before)


def agreement_row(clips: Sequence[Path]) -> dict[str, Any]:
    """Row of the faces that our detector and the library as it comes choose, on every sampled frame of `clips`."""
    faces = FaceSettings()
    full, own = FullDetector(faces.min_face_px), FaceDetector("cpu", faces.min_face_px)
    shares: list[np.ndarray] = []
    for frames in decode(clips, faces.sample_every_ms):
        ours, theirs = (crop_faces(frames, detector, margin_px=faces.margin_px) for detector in (own, full))
        difference = np.abs(ours.crops.astype(np.int16) - theirs.crops).mean(axis=(1, 2, 3))
        shares.append(np.stack([ours.scores > 0, theirs.scores > 0, _overlap(ours, theirs), difference], 1))
    found, found_by_full, overlap, difference = np.concatenate(shares).T
    both = (found > 0) & (found_by_full > 0)
    return {
        "work": "agreement with full detection",
        "frames": len(found),
        "found_share": float(found.mean()),
        "full_found_share": float(found_by_full.mean()),
        "mean_overlap": float(overlap[both].mean()) if both.any() else None,
        "least_overlap": float(overlap[both].min()) if both.any() else None,
        "mean_crop_difference": float(difference.mean()),
    }


def _overlap(one: FaceCrops, other: FaceCrops) -> np.ndarray:
    """Intersection over union of the squares that were cut, (T,)."""
    low, high = np.maximum(one.boxes[:, :2], other.boxes[:, :2]), np.minimum(one.boxes[:, 2:], other.boxes[:, 2:])
    shared = np.clip(high - low, 0, None).prod(1)
    areas = [(cut.boxes[:, 2:] - cut.boxes[:, :2]).prod(1) for cut in (one, other)]
    return shared / (areas[0] + areas[1] - shared)
