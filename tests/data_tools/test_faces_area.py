"""Pictures and regions are shrunk as torch shrinks them one by one."""

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from data_tools.faces.area import AreaSums

CPU = torch.device("cpu")


def shrunk(picture, size):
    """torch's own answer for one picture (H, W, 3) -> (3, *size)."""
    return interpolate(torch.from_numpy(picture).permute(2, 0, 1)[None].float(), size=size, mode="area")[0]


@pytest.fixture(scope="module")
def frames():
    return list(np.random.default_rng(0).integers(0, 256, (3, 50, 71, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", [(1, 1), (16, 22), (50, 71), (60, 80)])
def test_whole_frames(frames, size):
    found = AreaSums(frames, CPU).frames(*size)
    torch.testing.assert_close(found, torch.stack([shrunk(frame, size) for frame in frames]))
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("side", [12, 24, 48])
def test_regions_of_any_frame_and_shape(frames, side):
    boxes = [(0, 0, 71, 50), (3, 7, 4, 8), (10, 0, 60, 3), (68, 47, 71, 50), (20, 10, 44, 34)]
    owners = [2, 0, 1, 1, 0]
    found = AreaSums(frames, CPU).regions(torch.tensor(owners), torch.tensor(boxes), side)
    expected = [
        shrunk(frames[o][y0:y1, x0:x1], (side, side)) for o, (x0, y0, x1, y1) in zip(owners, boxes, strict=True)
    ]
    torch.testing.assert_close(found, torch.stack(expected))


def test_no_region(frames):
    none = AreaSums(frames, CPU).regions(torch.zeros(0).long(), torch.zeros(0, 4).long(), 24)
    assert none.shape == (0, 3, 24, 24)


def test_sums_that_wrap_round_are_harmless():
    """2^31 / 255 is 8.4 million pixels; this frame has 9 million white ones."""
    frame = np.full((3000, 3000, 3), 255, np.uint8)
    sums = AreaSums([frame], CPU)
    assert (sums.frames(30, 40) == 255).all()
    assert (sums.regions(torch.tensor([0]), torch.tensor([[2900, 2900, 3000, 3000]]), 24) == 255).all()
