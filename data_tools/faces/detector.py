"""MTCNN over a video's frames: the three networks of facenet-pytorch, fed without its loops over single regions."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data_tools.faces.area import AreaSums
from data_tools.faces.networks import Network

# Side of the picture that each network looks at, and how sure it has to be; all as in facenet-pytorch.
_PNET_PX, _RNET_PX, _ONET_PX = 12, 24, 48
_PNET_SURE, _RNET_SURE, _ONET_SURE = 0.6, 0.7, 0.7
_PNET_STRIDE_PX = 2
# From one size of the picture to the next.
_SCALE_STEP = 0.709
# Regions in one pass of a network, so that a frame full of candidates doesn't take all the memory.
_MOST_REGIONS = 512


@dataclass(frozen=True)
class Candidates:
    """The faces that the detector saw in one frame, N of them, the largest first, in frame pixels.

    boxes: (N, 4) float32 x0, y0, x1, y1. scores: (N,) float32 in [0, 1]. landmarks: (N, 5, 2) float32 x, y.
    """

    boxes: np.ndarray
    scores: np.ndarray
    landmarks: np.ndarray


@dataclass(frozen=True)
class _Found:
    """Faces so far in all frames of a pass: boxes (K, 4), scores (K,), owners (K,), the frame of each."""

    boxes: Tensor
    scores: Tensor
    owners: Tensor

    def __getitem__(self, index: Tensor) -> "_Found":
        return _Found(self.boxes[index], self.scores[index], self.owners[index])

    def thinned(self, overlap: float) -> Tensor:
        """The places of those that stay when, in each frame, the less sure of two that overlap more is left out."""
        boxes, scores, owners = (part.cpu().numpy() for part in (self.boxes, self.scores, self.owners))
        kept = [places[_surest(boxes[places], scores[places], overlap)] for places in _by_owner(owners)]
        return torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *kept])).to(self.boxes.device)


class FaceDetector:
    """MTCNN with the weights inside facenet-pytorch's wheel and the same steps, so the same faces (a test holds that).

    What differs is the cost, to a third: the networks run on channels-last memory, and the regions of all candidates
    are shrunk at once (`AreaSums`) instead of one by one. On a CPU every frame is a pass of its own, in one thread:
    work is spread over processes, and no frame's result depends on its neighbours or on the number of cores, to the
    last bit. On CUDA all frames given are one pass: boxes may differ by rounding (1e-3 px) from those of other batches.

    min_face_px: smaller faces are not looked for; twice the size is about four times less work.

    Source: Zhang et al., Joint Face Detection and Alignment using Multi-task Cascaded Convolutional Networks, 2016.
    """

    def __init__(self, device: str = "cpu", min_face_px: int = 20) -> None:
        self._device, self._min_face_px = torch.device(device), min_face_px
        self._pnet, self._rnet, self._onet = (
            Network(name, pools, self._device)
            for name, pools in (("pnet", (2, None, None)), ("rnet", (3, 3, None)), ("onet", (3, 3, 2, None)))
        )

    def detect(self, frames: Sequence[np.ndarray]) -> list[Candidates]:
        """Candidates of each frame. frames: (H, W, 3) uint8 RGB, all of one size."""
        if self._device.type == "cpu":
            with _one_thread():
                return [faces for frame in frames for faces in self.detect_together([frame])]
        return self.detect_together(frames)

    @torch.inference_mode()
    def detect_together(self, frames: Sequence[np.ndarray]) -> list[Candidates]:
        """As `detect`, all frames in one pass on any device: each network runs once on the regions of all of them."""
        if not frames:
            return []
        sums = AreaSums(frames, self._device)
        found = self._proposed(sums)
        if len(found.boxes):
            found = self._refined(sums, found)
        return self._measured(sums, found) if len(found.boxes) else [_no_candidates() for _ in frames]

    def _proposed(self, sums: AreaSums) -> _Found:
        """Squares that may hold a face: the smallest network slides over the frames in several sizes."""
        scales = self._scales(min(sums.height, sums.width))
        if not scales:
            return _Found(*(torch.zeros(0, *rest, device=self._device) for rest in ((4,), (), ())))
        found, shifts = zip(*(self._proposed_at(scale, sums) for scale in scales), strict=True)
        together = _Found(
            *(torch.cat([getattr(part, name) for part in found]) for name in ("boxes", "scores", "owners"))
        )
        kept = together.thinned(0.7)
        together = together[kept]
        sides = together.boxes[:, 2:] - together.boxes[:, :2]
        return _squares(together.boxes + torch.cat(shifts)[kept] * sides.repeat(1, 2), together, sums)

    def _scales(self, side_px: int) -> list[float]:
        scales = [_PNET_PX / self._min_face_px]
        while side_px * scales[-1] >= _PNET_PX:
            scales.append(scales[-1] * _SCALE_STEP)
        return scales[:-1]

    def _proposed_at(self, scale: float, sums: AreaSums) -> tuple[_Found, Tensor]:
        """Squares of one size, and how the network would shift their sides, (K, 4) in shares of the square."""
        pictures = sums.frames(int(sums.height * scale + 1), int(sums.width * scale + 1))
        sure, shifts = self._pnet(_as_input(pictures))
        owners, rows, columns = (sure >= _PNET_SURE).nonzero().unbind(1)
        corners = torch.stack([columns, rows], 1) * _PNET_STRIDE_PX
        boxes = torch.cat([(corners + 1) / scale, (corners + _PNET_PX) / scale], 1).floor()
        found = _Found(boxes, sure[owners, rows, columns], owners)
        kept = found.thinned(0.5)
        return found[kept], shifts[owners, :, rows, columns][kept]

    def _refined(self, sums: AreaSums, found: _Found) -> _Found:
        """The squares that the second network takes for faces, moved and resized by it."""
        scores, shifts = _looked_at(self._rnet, _RNET_PX, sums, found)
        sure = (scores > _RNET_SURE).nonzero()[:, 0]
        found = _Found(found.boxes[sure], scores[sure], found.owners[sure])
        kept = found.thinned(0.7)
        found = found[kept]
        return _squares(_shifted(found.boxes, shifts[sure][kept]), found, sums)

    def _measured(self, sums: AreaSums, found: _Found) -> list[Candidates]:
        """The third network's faces and their landmarks, by frame."""
        scores, shifts, points = _looked_at(self._onet, _ONET_PX, sums, found)
        sure = (scores > _ONET_SURE).nonzero()[:, 0]
        boxes = found.boxes[sure]
        sides = boxes[:, 2:] - boxes[:, :2] + 1
        # The network gives five x, then five y, as shares of the square it saw.
        landmarks = points[sure].view(-1, 2, 5).transpose(1, 2) * sides[:, None] + boxes[:, None, :2] - 1
        parts = (_shifted(boxes, shifts[sure]), scores[sure], landmarks, found.owners[sure])
        all_boxes, all_scores, all_landmarks, owners = (part.cpu().numpy() for part in parts)
        faces = []
        for places in _by_owner(owners, sums.count):
            own = places[_outermost(all_boxes[places], all_scores[places])]
            faces.append(Candidates(all_boxes[own], all_scores[own], all_landmarks[own]))
        return faces


@contextmanager
def _one_thread() -> Iterator[None]:
    """Inside, torch uses one thread: with another number it may take other kernels, which round otherwise."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _no_candidates() -> Candidates:
    """A frame without a face."""
    return Candidates(*(np.zeros((0, *rest), np.float32) for rest in ((4,), (), (5, 2))))


def _looked_at(net: Network, side_px: int, sums: AreaSums, found: _Found) -> list[Tensor]:
    """What the network says of each box, (K, ...) a tensor."""
    regions = _cut_to_frame(found.boxes, sums)
    blocks = []
    for start in range(0, len(regions), _MOST_REGIONS):
        block = slice(start, start + _MOST_REGIONS)
        blocks.append(net(_as_input(sums.regions(found.owners[block], regions[block], side_px))))
    return [torch.cat(parts) for parts in zip(*blocks, strict=True)]


def _cut_to_frame(boxes: Tensor, sums: AreaSums) -> Tensor:
    """(K, 4) int64: the whole pixels inside the frame, which MTCNN stretches to its networks' square."""
    x0, y0, x1, y1 = boxes.trunc().long().unbind(1)
    low = [side.clamp(min=1) - 1 for side in (x0, y0)]
    return torch.stack([*low, x1.clamp(max=sums.width), y1.clamp(max=sums.height)], 1)


def _squares(boxes: Tensor, found: _Found, sums: AreaSums) -> _Found:
    """`found` with squares of the longer side round the centres of `boxes`; those without a pixel in the frame go."""
    sides = boxes[:, 2:] - boxes[:, :2]
    longer = sides.amax(1, keepdim=True)
    corners = boxes[:, :2] + sides * 0.5 - longer * 0.5
    squares = torch.cat([corners, corners + longer], 1)
    regions = _cut_to_frame(squares, sums)
    there = (regions[:, 2:] > regions[:, :2]).all(1).nonzero()[:, 0]
    return _Found(squares, found.scores, found.owners)[there]


def _as_input(pictures: Tensor) -> Tensor:
    """[0, 255] -> the range [-1, 1] that the networks were trained on."""
    return (pictures - 127.5) * 0.0078125


def _shifted(boxes: Tensor, shifts: Tensor) -> Tensor:
    """Boxes with each side moved by a share of the box; a box holds its last pixel, as in MTCNN."""
    sides = boxes[:, 2:] - boxes[:, :2] + 1
    return boxes + shifts * sides.repeat(1, 2)


def _by_owner(owners: np.ndarray, count: int | None = None) -> list[np.ndarray]:
    """The places of each frame's faces, of `count` frames or of those up to the last one that has any."""
    number = count if count is not None else int(owners.max(initial=-1)) + 1
    return [np.flatnonzero(owners == owner) for owner in range(number)]


def _surest(boxes: np.ndarray, scores: np.ndarray, overlap: float) -> np.ndarray:
    """Places of the boxes that stay, the surest first, each time without those that it overlaps by more (IoU)."""
    low, high = boxes[:, :2], boxes[:, 2:]
    areas = (high - low).prod(1)
    left = np.argsort(-scores, kind="stable")
    kept = []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        shared = np.maximum(np.minimum(high[best], high[left]) - np.maximum(low[best], low[left]), 0).prod(1)
        left = left[shared / (areas[best] + areas[left] - shared) <= overlap]
    return np.array(kept, dtype=np.int64)


def _outermost(boxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Places of the faces that stay, the largest first: of two of which one lies 70 % inside the other, the surer."""
    sides = boxes[:, 2:] - boxes[:, :2] + 1
    areas = sides.prod(1)
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    for place in order:
        low = np.maximum(boxes[place, :2], boxes[kept, :2])
        high = np.minimum(boxes[place, 2:], boxes[kept, 2:])
        shared = np.maximum(high - low + 1, 0).prod(1)
        if (shared <= 0.7 * np.minimum(areas[place], areas[kept])).all():
            kept.append(int(place))
    # The size as without the last pixel, as MTCNN orders them.
    size = (boxes[kept, 2:] - boxes[kept, :2]).prod(1)
    return np.array(kept, dtype=np.int64)[np.argsort(-size, kind="stable")]
