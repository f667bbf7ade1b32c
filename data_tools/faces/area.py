"""Regions of pictures shrunk to a given size by averaging, many at once, from one table of sums a picture."""

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
import torch
from torch import Tensor


class AreaSums:
    """N frames of one size, ready to be shrunk: every output pixel is the mean of the input pixels it covers, in part
    or whole, as in `torch.nn.functional.interpolate(mode="area")`, and exact, because the sums are integers.

    A mean costs four look-ups however large its area is, so the regions of all candidates are read in one go.

    frames: (H, W, 3) uint8 RGB each. Of regions with more than 8 million pixels in one mean the sums overflow.
    """

    def __init__(self, frames: Sequence[np.ndarray], device: torch.device) -> None:
        self.count, (self.height, self.width) = len(frames), frames[0].shape[:2]
        tables = [torch.from_numpy(cv2.integral(frame, sdepth=cv2.CV_32S)) for frame in frames]
        # (N, H + 1, W + 1, 3) int32: of all pixels above and left. Where that wraps round, differences are still right.
        self._sums = (tables[0][None] if len(tables) == 1 else torch.stack(tables)).to(device)

    def frames(self, height: int, width: int) -> Tensor:
        """(N, 3, height, width) float32 in [0, 255], channels last in memory: every whole frame."""
        top, bottom, left, right, areas = _frame_grid(self.height, self.width, height, width, self._sums.device)
        rows = self._sums.index_select(1, bottom).sub_(self._sums.index_select(1, top))
        sums = rows.index_select(2, right).sub_(rows.index_select(2, left))
        return (sums / areas).permute(0, 3, 1, 2)

    def regions(self, owners: Tensor, boxes: Tensor, size: int) -> Tensor:
        """(K, 3, size, size) float32 in [0, 255], channels last in memory: regions of frames.

        owners: (K,) int64, the frame of each. boxes: (K, 4) int64 x0, y0, x1, y1, not empty and inside the frame.
        """
        left, right = _spans(boxes[:, 2] - boxes[:, 0], size)
        top, bottom = _spans(boxes[:, 3] - boxes[:, 1], size)
        columns = [boxes[:, :1] + edge for edge in (left, right)]
        rows = [
            (owners[:, None] * (self.height + 1) + boxes[:, 1:2] + edge) * (self.width + 1) for edge in (top, bottom)
        ]
        table = self._sums.view(-1, 3)

        def corner(row: Tensor, column: Tensor) -> Tensor:
            places = row[:, :, None] + column[:, None, :]
            return table.index_select(0, places.flatten()).view(*places.shape, 3)

        sums = corner(rows[1], columns[1]) - corner(rows[0], columns[1])
        sums += corner(rows[0], columns[0]) - corner(rows[1], columns[0])
        areas = (bottom - top)[:, :, None] * (right - left)[:, None, :]
        return (sums / areas[..., None]).permute(0, 3, 1, 2)


@lru_cache(maxsize=128)
def _frame_grid(from_height: int, from_width: int, height: int, width: int, device: torch.device) -> list[Tensor]:
    """First and one past the last row and column under each output pixel, and the pixels there; the same every time."""
    (top, bottom), (left, right) = _spans(from_height, height), _spans(from_width, width)
    areas = (bottom - top)[:, None, None] * (right - left)[:, None]
    return [part.to(device) for part in (top, bottom, left, right, areas.float())]


def _spans(length: int | Tensor, count: int) -> tuple[Tensor, Tensor]:
    """First and one past the last of `length` pixels under each of `count` output pixels: (count,) or (K, count)."""
    if isinstance(length, int):
        number = torch.arange(count)
    else:
        number, length = torch.arange(count, device=length.device), length[:, None]
    return number * length // count, -(-(number + 1) * length // count)
