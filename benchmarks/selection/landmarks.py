"""Which sites of a face's map lie on eyes and mouth, by the detector's landmarks."""

from pathlib import Path

import torch
from torch import Tensor

from data_tools.dataset import UtteranceDataset
from data_tools.store import DialogueStore, store_path

# Of a point's distance that still counts as eye or mouth; in distances between the eyes.
RADIUS = 0.35
LEFT_EYE, RIGHT_EYE, LEFT_CORNER, RIGHT_CORNER = 0, 1, 3, 4


def landmarks_of(dataset: UtteranceDataset) -> Tensor:
    """(F, 5, 2) x, y in crop pixels of all faces of `dataset`, in its order; NaN where no face was found."""
    stores: dict[str, DialogueStore] = {}
    found = []
    for dialogue_id, name in dataset.table[["dialogue_id", "utterance_id"]].itertuples(index=False):
        if dialogue_id not in stores:
            stores[dialogue_id] = DialogueStore(store_path(Path(dataset.data_dir), dialogue_id))
        found.append(stores[dialogue_id][name].face_landmarks)
    return torch.cat(found)


def is_valid(landmarks: Tensor) -> Tensor:
    """(F,) bool: a face was found and its eyes are apart. landmarks: (F, 5, 2)."""
    return landmarks.isfinite().flatten(1).all(1) & (_between_eyes(landmarks) > 0)


def on_eyes_or_mouth(landmarks: Tensor, size: int, crop_px: int) -> Tensor:
    """(F, size, size) bool: sites whose centre is within `RADIUS` of an eye, a corner of the mouth or its middle.

    landmarks: (F, 5, 2) of valid faces, in pixels of a crop that is `crop_px` wide and a map that is `size` wide.
    """
    corners = landmarks[:, [LEFT_CORNER, RIGHT_CORNER]]
    points = torch.cat([landmarks[:, [LEFT_EYE, RIGHT_EYE]], corners, corners.mean(1, keepdim=True)], dim=1)
    centre = (torch.arange(size) + 0.5) * (crop_px / size)
    sites = torch.stack(torch.meshgrid(centre, centre, indexing="xy"), dim=2).view(1, -1, 2)
    near = torch.cdist(sites.expand(len(points), -1, 2), points).amin(2) <= RADIUS * _between_eyes(landmarks)[:, None]
    return near.view(-1, size, size)


def _between_eyes(landmarks: Tensor) -> Tensor:
    return (landmarks[:, LEFT_EYE] - landmarks[:, RIGHT_EYE]).norm(dim=1)
