"""Head pose from the five landmarks of a face.

The picture is taken as a weak-perspective view of a mean face: landmarks = scale x first two rows of a rotation x
points + shift (DeMenthon & Davis 1995, first step of POSIT). The 2 x 3 matrix is the least-squares answer, all faces at
once; the nearest rotation to its rows is the pose. No camera has to be guessed, as cv2.solvePnP would need it. What a
mean face gets wrong about a person is a constant of that person: changes over time are to be trusted, less the values.
"""

import numpy as np
import numpy.typing as npt

# x to the right of the picture, y down, z away from the camera, in mm, of an adult's face: eyes (63 mm apart), tip of
# the nose, corners of the mouth, in the order of MTCNN.
MEAN_FACE_MM = np.array(
    [[-31.5, 0.0, 0.0], [31.5, 0.0, 0.0], [0.0, 36.0, -32.0], [-25.0, 68.0, -6.0], [25.0, 68.0, -6.0]]
)


def head_pose(landmarks: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Turn, nod and tilt in radians.

    landmarks: (F, 5, 2), x and y in pixels: left eye, right eye, nose, mouth corners, as seen in the picture.
    Returns (F, 3). Turn: positive where the nose points to the right of the picture. Nod: positive where it points
    down. Tilt: positive where the head leans clockwise. 0 where all points lie in one place.
    """
    points = MEAN_FACE_MM - MEAN_FACE_MM.mean(0)
    seen = landmarks - landmarks.mean(1, keepdims=True)
    matrices = np.einsum("kp,fpi->fik", np.linalg.pinv(points), seen)
    left, sizes, right = np.linalg.svd(matrices, full_matrices=False)
    rows = left @ right  # (F, 2, 3): the two orthonormal rows nearest to those that were found
    first, second = rows[:, 0], rows[:, 1]
    third = np.cross(first, second)
    # The rotation is Rz(tilt) Rx(nod) Ry(-turn), so its third row is (cos nod sin turn, sin nod, cos nod cos turn).
    turn = np.arctan2(third[:, 0], third[:, 2])
    nod = np.arcsin(third[:, 1].clip(-1, 1))
    tilt = np.arctan2(-first[:, 1], second[:, 1])
    pose = np.stack([turn, nod, tilt], axis=1)
    return np.where(sizes[:, :1] > 1e-9, pose, 0.0)
