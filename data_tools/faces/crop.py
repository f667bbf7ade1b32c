"""The square picture of one face a frame, of one clip after the other."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import cv2
import numpy as np

from data_tools.faces.detector import Candidates
from data_tools.faces.mouth import MouthMotion, Watched
from data_tools.faces.path import choose_path

DEFAULT_SIZE_PX = 48
# How the person of a clip with several faces was found.
LARGEST, SPEAKING = "largest", "speaking"

# A clip's number -> its sound, (S,) float32 at 16 kHz.
SoundOf = Callable[[int], np.ndarray]


class Detector(Protocol):
    """Whatever finds faces in frames; `FaceDetector` does."""

    def detect(self, frames: Sequence[np.ndarray]) -> list[Candidates]:
        """Candidates of each frame. frames: (H, W, 3) uint8 RGB, all of one size."""


@dataclass(frozen=True)
class FaceCrops:
    """One crop a frame, T frames.

    crops: (T, S, S, 3) uint8 RGB. scores: (T,) float32, 0 where the frame's centre stands in.
    landmarks: (T, 5, 2) float32 in crop pixels, NaN where no face was found.
    boxes: (T, 4) float32, the square that was cut, in frame pixels; may reach over the frame's edge.
    chosen_by: SPEAKING, or LARGEST where nobody's mouth moves with the sound; "" where that was not asked, or a frame
    has one face at most.
    """

    crops: np.ndarray
    scores: np.ndarray
    landmarks: np.ndarray
    boxes: np.ndarray
    chosen_by: str = ""


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
    detector: Detector,
    size_px: int = DEFAULT_SIZE_PX,
    margin_px: int = 2,
    batch_frames: int = 16,
) -> FaceCrops:
    """One face a frame of one utterance; the centre of the frame, with score 0, where none is found.

    frames: (H, W, 3) uint8 RGB each, in time order; there may be none. batch_frames: as in `crop_each`.
    """
    return next(crop_each(itertools.chain(frames, [None]), detector, size_px, margin_px, batch_frames))


def crop_each(
    stream: Iterable[np.ndarray | Watched | None],
    detector: Detector,
    size_px: int = DEFAULT_SIZE_PX,
    margin_px: int = 2,
    batch_frames: int = 16,
    sound_of: SoundOf | None = None,
) -> Iterator[FaceCrops]:
    """As `crop_faces`, of many clips: `stream` holds their frames one clip after the other, and None after each clip.

    sound_of: as in `crop_mixed`; clips are numbered from 0.

    The detector gets `batch_frames` frames at a time, those of several short clips together; until a clip's path is
    chosen only the crops of all its candidates are kept, 7 KiB each: memory doesn't grow with the size of the picture,
    and with the length by little.
    """
    numbered = _numbered(stream)
    for _, crops in crop_mixed(numbered, detector, size_px, margin_px, batch_frames, sound_of):
        yield crops


def crop_mixed(
    stream: Iterable[tuple[int, np.ndarray | Watched | None]],
    detector: Detector,
    size_px: int = DEFAULT_SIZE_PX,
    margin_px: int = 2,
    batch_frames: int = 16,
    sound_of: SoundOf | None = None,
) -> Iterator[tuple[int, FaceCrops]]:
    """As `crop_each`, of clips whose frames may come mixed: each with its clip's number, and so is the None after it.

    sound_of: asks for the face that speaks, and gives the sound of a clip that has ended and showed several faces. The
    stream then holds `Watched` items; the grey pictures of a batch are in memory with its frames.
    Yields (number, faces) in the order in which the clips end.
    """
    clips: dict[int, _Clip] = {}
    for batch in _batches(stream, batch_frames):
        found = iter(detector.detect([frame for _, item in batch if (frame := _frame(item)) is not None]))
        for number, item in batch:
            clip = clips.setdefault(number, _Clip(size_px, margin_px))
            if _frame(item) is not None:
                clip.add(item, next(found))
                continue
            if isinstance(item, Watched):
                clip.mouths.end(item.greys)
            yield number, clips.pop(number).chosen(partial(sound_of, number) if sound_of else None)


def _frame(item: np.ndarray | Watched | None) -> np.ndarray | None:
    return item.frame if isinstance(item, Watched) else item


def _numbered(stream: Iterable[np.ndarray | Watched | None]) -> Iterator[tuple[int, np.ndarray | Watched | None]]:
    """Every item with the number of its clip."""
    number = 0
    for item in stream:
        yield number, item
        number += _frame(item) is None


class _Clip:
    """Candidates and crops of one clip's frames so far."""

    def __init__(self, size_px: int, margin_px: int) -> None:
        self._size_px, self._margin_px = size_px, margin_px
        self._frame_size = (1, 1)
        self._candidates: list[Candidates] = []
        # Of each frame: (box, crop) of each candidate, then of the centre.
        self._options: list[list[tuple[np.ndarray, np.ndarray]]] = []
        self.mouths = MouthMotion()

    def add(self, item: np.ndarray | Watched | None, found: Candidates) -> None:
        """Cut out every candidate of the next frame."""
        frame = _frame(item)
        assert frame is not None
        if isinstance(item, Watched):
            self.mouths.add(item, found)
        self._frame_size = (frame.shape[0], frame.shape[1])
        squares = [square_box(box, self._size_px, self._margin_px) for box in found.boxes]
        squares.append(centre_box(self._frame_size))
        self._options.append([(square, cut_square(frame, square, self._size_px)) for square in squares])
        self._candidates.append(found)

    def chosen(self, sound: Callable[[], np.ndarray] | None) -> FaceCrops:
        """The crops of the person whom the path picks. sound: asks for the one who speaks in it."""
        speaking, chosen_by = None, ""
        if sound is not None and any(len(found.scores) > 1 for found in self._candidates):
            speaking = self.mouths.speaking(sound())
            chosen_by = SPEAKING if any(speaking) else LARGEST
        count, size_px = len(self._candidates), self._size_px
        crops = np.zeros((count, size_px, size_px, 3), np.uint8)
        boxes = np.zeros((count, 4), np.float32)
        scores = np.zeros(count, np.float32)
        landmarks = np.full((count, 5, 2), np.nan, np.float32)
        for t, index in enumerate(choose_path(self._candidates, self._frame_size, speaking)):
            boxes[t], crops[t] = self._options[t][-1 if index is None else index]
            if index is not None:
                scores[t] = self._candidates[t].scores[index]
                scale = size_px / (boxes[t, 2] - boxes[t, 0])
                landmarks[t] = (self._candidates[t].landmarks[index] - boxes[t, :2]) * scale
        return FaceCrops(crops, scores, landmarks, boxes, chosen_by)


def _batches(
    stream: Iterable[tuple[int, np.ndarray | Watched | None]], size: int
) -> Iterator[list[tuple[int, np.ndarray | Watched | None]]]:
    """Runs of the stream with at most `size` frames, all of one picture size: the detector takes no other."""
    batch: list[tuple[int, np.ndarray | Watched | None]] = []
    shape, frames = None, 0
    for number, item in stream:
        if (frame := _frame(item)) is not None:
            if frames == size or (frames and frame.shape != shape):
                yield batch
                batch, frames = [], 0
            shape, frames = frame.shape, frames + 1
        batch.append((number, item))
    yield batch
