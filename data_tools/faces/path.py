"""Choice of the utterance's person among the faces of each frame: the best path through all of them."""

from collections.abc import Collection, Sequence

import numpy as np

from data_tools.faces.detector import Candidates

# A jump of one face width between neighbouring samples costs as much as this share of the relative face size.
_JUMP_WEIGHT = 0.5
# A frame in which the person is not found, and another one is, may be left out for this; so many in a row at most.
_GAP_COST, _LONGEST_GAP = 0.4, 10
# More than size, certainty and distance can make up for.
_SPEAKING = 1.0


def choose_path(
    candidates: Sequence[Candidates], frame_size: tuple[int, int], speaking: Sequence[Collection[int]] | None = None
) -> list[int | None]:
    """The index of the chosen face in each frame, None where there is no candidate, or only those of others.

    The rule: large, sure and steady. Over the whole utterance the path of faces is taken that has the largest
    sum of score x (face height / frame height), less, for each step from one frame with faces to the next, the
    distance moved in face widths x 0.5 (at most 1 width counts as a change of person). A frame with faces may be left
    out for 0.4: that pays where the way there and back is longer than the face is large, as when the detector misses
    the speaker once and finds a passer-by. Found exactly by dynamic programming, so a second person who is larger in
    one frame doesn't take the utterance over.

    frame_size: (height, width) in pixels. speaking: of each frame the faces that speak, if any: they count for 1 more,
    so that the path goes through them wherever they are seen, and is the rule's elsewhere.
    """
    seen = [t for t, found in enumerate(candidates) if len(found.scores)]
    if not seen:
        return [None] * len(candidates)
    # Per frame with faces and per face in it: the value of the best path that ends there, and the step before it.
    best: list[np.ndarray] = []
    came_from: list[list[tuple[int, int] | None]] = []
    for now, t in enumerate(seen):
        value = np.full(len(candidates[t].scores), -_GAP_COST * now)
        steps: list[tuple[int, int] | None] = [None] * len(value)
        for before in range(max(0, now - 1 - _LONGEST_GAP), now):
            jumps = np.minimum(centre_jumps(candidates[seen[before]].boxes, candidates[t].boxes), 1.0)
            totals = best[before][:, None] - _JUMP_WEIGHT * jumps - _GAP_COST * (now - before - 1)
            for index, total in enumerate(totals.max(0)):
                if total > value[index]:
                    value[index], steps[index] = total, (before, int(totals[:, index].argmax()))
        merit = _merit(candidates[t], frame_size)
        if speaking is not None:
            merit[list(speaking[t])] += _SPEAKING
        best.append(value + merit)
        came_from.append(steps)
    ends = [float(value.max()) - _GAP_COST * (len(seen) - 1 - now) for now, value in enumerate(best)]
    now = int(np.argmax(ends))
    at: tuple[int, int] | None = (now, int(best[now].argmax()))
    path: list[int | None] = [None] * len(candidates)
    while at is not None:
        path[seen[at[0]]] = at[1]
        at = came_from[at[0]][at[1]]
    return path


def _merit(found: Candidates, frame_size: tuple[int, int]) -> np.ndarray:
    heights = found.boxes[:, 3] - found.boxes[:, 1]
    return found.scores * heights / frame_size[0]


def centre_jumps(before: np.ndarray, now: np.ndarray) -> np.ndarray:
    """(N before, N now) distance between centres of boxes, in widths of the face before."""
    centres = [(boxes[:, :2] + boxes[:, 2:]) / 2 for boxes in (before, now)]
    width = np.maximum(before[:, 2] - before[:, 0], 1.0)
    distance = np.linalg.norm(centres[0][:, None] - centres[1][None], axis=2)
    return distance / width[:, None]
