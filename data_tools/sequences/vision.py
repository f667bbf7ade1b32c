"""The picture as a sequence: one step a sampled frame, from the face crops and landmarks of stage 2.

142 values a step. 0: 1 where a face was found, else 0, and then all others are 0 too. 1 to 10: x and y of the five
landmarks of MTCNN, in crop sides from the crop's middle. 11 to 13: turn, nod and tilt of the head, see pose.py. 14 to
141: appearance, a histogram of oriented gradients (Dalal & Triggs 2005) by scikit-image: 4 x 4 cells of 8 orientations,
normalised over the whole crop, so that the gain of the light goes and the contrast between the parts of a face stays.
"""

import cv2
import numpy as np
import numpy.typing as npt
from skimage.feature import hog

from data_tools.sequences.pose import head_pose
from data_tools.sequences.steps import Floats, Steps
from data_tools.store import SampleTensors

CELLS, ORIENTATIONS = 4, 8
LANDMARKS = 5
FACE_SIZE = 1 + 2 * LANDMARKS + 3 + CELLS * CELLS * ORIENTATIONS


def face(features: SampleTensors, sample_every_ms: int) -> Steps:
    """One step a frame that stage 2 sampled; each stands for the time to the next one. None without a face in any.

    features: of one utterance; only its faces, times, scores and landmarks are read.
    """
    crops, found = features.faces.numpy(), features.face_score.numpy() > 0
    if not found.any():
        crops, found = crops[:0], found[:0]
    values = np.zeros((len(crops), FACE_SIZE), np.float32)
    side = crops.shape[1]
    # Zeros where there is no face: its landmarks are NaN, and the picture's middle is no appearance of a person.
    landmarks = features.face_landmarks.numpy()[: len(crops)][found]
    values[found] = np.concatenate(
        [
            np.ones((len(landmarks), 1)),
            (landmarks / side - 0.5).reshape(-1, 2 * LANDMARKS),
            head_pose(landmarks),
            appearance(crops[found]),
        ],
        axis=1,
    )
    starts = features.face_time_s.numpy()[: len(crops)]
    return Steps(values, np.stack([starts, starts + sample_every_ms / 1000], axis=1).astype(np.float32))


def appearance(crops: npt.NDArray[np.uint8]) -> Floats:
    """(F, S, S, 3) RGB, S a multiple of 4 -> (F, 128) in [0, 1]."""
    cell = crops.shape[1] // CELLS
    rows = [
        hog(
            cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY),
            orientations=ORIENTATIONS,
            pixels_per_cell=(cell, cell),
            cells_per_block=(CELLS, CELLS),
            block_norm="L2-Hys",
        )
        for crop in crops
    ]
    return np.array(rows, np.float32).reshape(len(crops), CELLS * CELLS * ORIENTATIONS)
