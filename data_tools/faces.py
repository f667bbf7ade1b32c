"""One face a frame: MTCNN finds candidates, a path through them picks the person, a square is cut out."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from facenet_pytorch import MTCNN

DEFAULT_SIZE_PX = 48
# A jump of one face width between neighbouring samples costs as much as this share of the relative face size.
_JUMP_WEIGHT = 0.5


@dataclass(frozen=True)
class Candidates:
    """The faces that the detector saw in one frame, N of them, in frame pixels.

    boxes: (N, 4) float32 x0, y0, x1, y1. scores: (N,) float32 in [0, 1]. landmarks: (N, 5, 2) float32 x, y.
    """

    boxes: np.ndarray
    scores: np.ndarray
    landmarks: np.ndarray


@dataclass(frozen=True)
class FaceCrops:
    """One crop a frame, T frames.

    crops: (T, S, S, 3) uint8 RGB. scores: (T,) float32, 0 where the frame's centre stands in.
    landmarks: (T, 5, 2) float32 in crop pixels, NaN where no face was found.
    boxes: (T, 4) float32, the square that was cut, in frame pixels; may reach over the frame's edge.
    """

    crops: np.ndarray
    scores: np.ndarray
    landmarks: np.ndarray
    boxes: np.ndarray


class FaceDetector:
    """facenet-pytorch's MTCNN with the weights inside its wheel; all faces of a batch of frames in one pass.

    min_face_px: smaller faces are not looked for; twice the size is about four times less work.
    """

    def __init__(self, device: str = "cpu", min_face_px: int = 20) -> None:
        self._min_face_px = min_face_px
        self._mtcnn = MTCNN(keep_all=True, min_face_size=min_face_px, device=torch.device(device)).eval()

    def detect(self, frames: np.ndarray) -> list[Candidates]:
        """Candidates of each frame. frames: (T, H, W, 3) uint8 RGB, all of one size."""
        if len(frames) == 0:
            return []
        # MTCNN's image pyramid is empty for such frames and it then fails on an empty concatenation.
        if min(frames.shape[1:3]) <= self._min_face_px:
            return [_no_candidates() for _ in frames]
        found = self._mtcnn.detect(np.ascontiguousarray(frames), landmarks=True)
        return [
            _no_candidates()
            if boxes is None
            else Candidates(*(np.asarray(part, dtype=np.float32) for part in (boxes, scores, landmarks)))
            for boxes, scores, landmarks in zip(*found, strict=True)
        ]


def _no_candidates() -> Candidates:
    return Candidates(np.zeros((0, 4), np.float32), np.zeros((0,), np.float32), np.zeros((0, 5, 2), np.float32))


def choose_path(candidates: Sequence[Candidates], frame_size: tuple[int, int]) -> list[int | None]:
    """The index of the chosen face in each frame, None where there is no candidate.

    The rule: large, sure and steady. Over the whole utterance the path of faces is taken that has the largest
    sum of score x (face height / frame height), less, for each step from one frame with faces to the next, the
    distance moved in face widths x 0.5 (at most 1 width counts as a change of person). Found exactly by dynamic
    programming, so a second person who is larger in one frame doesn't take the utterance over.

    frame_size: (height, width) in pixels.
    """
    seen = [t for t, found in enumerate(candidates) if len(found.scores)]
    if not seen:
        return [None] * len(candidates)
    best = _merit(candidates[seen[0]], frame_size)
    previous: list[np.ndarray] = []
    for before, now in itertools.pairwise(seen):
        # (N before, N now): value of the best path that ends in each pair
        total = best[:, None] - _JUMP_WEIGHT * _jump(candidates[before].boxes, candidates[now].boxes)
        previous.append(total.argmax(0))
        best = total.max(0) + _merit(candidates[now], frame_size)
    chosen = [int(best.argmax())]
    for step in reversed(previous):
        chosen.append(int(step[chosen[-1]]))
    path: list[int | None] = [None] * len(candidates)
    for t, index in zip(seen, reversed(chosen), strict=True):
        path[t] = index
    return path


def _merit(found: Candidates, frame_size: tuple[int, int]) -> np.ndarray:
    heights = found.boxes[:, 3] - found.boxes[:, 1]
    return found.scores * heights / frame_size[0]


def _jump(before: np.ndarray, now: np.ndarray) -> np.ndarray:
    """(N before, N now) distance between centres in widths of the face before, at most 1."""
    centres = [(boxes[:, :2] + boxes[:, 2:]) / 2 for boxes in (before, now)]
    width = np.maximum(before[:, 2] - before[:, 0], 1.0)
    distance = np.linalg.norm(centres[0][:, None] - centres[1][None], axis=2)
    return np.minimum(distance / width[:, None], 1.0)


def square_box(box: np.ndarray, size_px: int, margin_px: int) -> np.ndarray:
    """The square round a detected box, its longer side plus `margin_px` pixels of the crop in all (as in MTCNN).

    A square keeps the face's proportions; facenet-pytorch's own crop stretches the box to one.
    """
    centre = (box[:2] + box[2:]) / 2
    side = max(box[2] - box[0], box[3] - box[1]) * size_px / (size_px - margin_px)
    return np.concatenate([centre - side / 2, centre + side / 2]).astype(np.float32)


def centre_box(frame_size: tuple[int, int]) -> np.ndarray:
    """The largest square in the middle of a frame of (height, width): what stands in where no face was found."""
    height, width = frame_size
    side = min(height, width)
    return np.array([(width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2], np.float32)


def cut_square(frame: np.ndarray, box: np.ndarray, size_px: int) -> np.ndarray:
    """(S, S, 3) uint8: the square `box` of the frame, the edge repeated where it reaches outside."""
    x0, y0 = np.floor(box[:2]).astype(int)
    side = max(1, round(float(box[2] - box[0])))
    height, width = frame.shape[:2]
    pads = [max(0, -y0), max(0, y0 + side - height), max(0, -x0), max(0, x0 + side - width)]
    if any(pads):
        top, bottom, left, right = pads
        frame = cv2.copyMakeBorder(frame, top, bottom, left, right, cv2.BORDER_REPLICATE)
        y0, x0 = y0 + top, x0 + left
    piece = frame[y0 : y0 + side, x0 : x0 + side]
    shrinks = side > size_px
    return cv2.resize(piece, (size_px, size_px), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def crop_faces(
    frames: Iterable[np.ndarray],
    detector: FaceDetector,
    size_px: int = DEFAULT_SIZE_PX,
    margin_px: int = 2,
    batch_frames: int = 16,
) -> FaceCrops:
    """One face a frame of one utterance; the centre of the frame, with score 0, where none is found.

    Frames are taken `batch_frames` at a time, and until the path is chosen only the crops of all candidates are kept,
    7 KiB each: memory doesn't grow with the size of the picture, and with the length by little.

    frames: (H, W, 3) uint8 RGB each, in time order; there may be none.
    """
    candidates: list[Candidates] = []
    options: list[list[tuple[np.ndarray, np.ndarray]]] = []  # per frame: (box, crop) of each candidate, then the centre
    frame_size = (1, 1)
    for batch in _batches(frames, batch_frames):
        frame_size = (batch[0].shape[0], batch[0].shape[1])
        for frame, found in zip(batch, detector.detect(np.stack(batch)), strict=True):
            squares = [square_box(box, size_px, margin_px) for box in found.boxes] + [centre_box(frame_size)]
            options.append([(square, cut_square(frame, square, size_px)) for square in squares])
            candidates.append(found)
    count = len(candidates)
    crops = np.zeros((count, size_px, size_px, 3), np.uint8)
    boxes = np.zeros((count, 4), np.float32)
    scores = np.zeros(count, np.float32)
    landmarks = np.full((count, 5, 2), np.nan, np.float32)
    for t, index in enumerate(choose_path(candidates, frame_size)):
        boxes[t], crops[t] = options[t][-1 if index is None else index]
        if index is not None:
            scores[t] = candidates[t].scores[index]
            scale = size_px / (boxes[t, 2] - boxes[t, 0])
            landmarks[t] = (candidates[t].landmarks[index] - boxes[t, :2]) * scale
    return FaceCrops(crops, scores, landmarks, boxes)


def _batches(frames: Iterable[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    # A stream may change its picture size on the way; the detector takes frames of one size.
    for _, same_size in itertools.groupby(frames, key=lambda frame: frame.shape):
        while batch := list(itertools.islice(same_size, size)):
            yield batch
