"""Which of the faces in each frame is the utterance's person: the best path through all of them."""

import itertools
from collections.abc import Sequence

import numpy as np

from data_tools.faces.detector import Candidates

# A jump of one face width between neighbouring samples costs as much as this share of the relative face size.
_JUMP_WEIGHT = 0.5


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
