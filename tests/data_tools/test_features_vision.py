import cv2
import numpy as np
import pytest
import skimage.data
import torch
from skimage.feature import hog

from data_tools.sequences.pose import MEAN_FACE_MM, head_pose
from data_tools.sequences.vision import FACE_SIZE, appearance, face
from data_tools.store import SampleTensors

DEGREE = np.pi / 180


def rotation(turn, nod, tilt):
    """Rz(tilt) Rx(nod) Ry(-turn), written out."""
    ct, st, cn, sn, cl, sl = np.cos(turn), -np.sin(turn), np.cos(nod), np.sin(nod), np.cos(tilt), np.sin(tilt)
    about_y = np.array([[ct, 0, st], [0, 1, 0], [-st, 0, ct]])
    about_x = np.array([[1, 0, 0], [0, cn, -sn], [0, sn, cn]])
    about_z = np.array([[cl, -sl, 0], [sl, cl, 0], [0, 0, 1]])
    return about_z @ about_x @ about_y


def seen(turn, nod, tilt, scale=0.3, shift=(24, 20)):
    """Landmarks of the mean face in a picture, from far away."""
    return scale * (MEAN_FACE_MM @ rotation(turn, nod, tilt).T)[:, :2] + shift


def test_pose_of_the_mean_face_is_found_again():
    random = np.random.default_rng(0)
    poses = random.uniform(-40 * DEGREE, 40 * DEGREE, (50, 3))
    found = head_pose(np.array([seen(*pose, scale=random.uniform(0.1, 2)) for pose in poses]))
    np.testing.assert_allclose(found, poses, atol=1e-6)


def test_pose_agrees_with_solve_pnp_from_far_away():
    pose = (25 * DEGREE, -10 * DEGREE, 5 * DEGREE)
    camera = np.array([[5000.0, 0, 24], [0, 5000, 24], [0, 0, 1]])
    start = (np.zeros(3), np.array([0.0, 0.0, 16_000.0]))
    _, turned, _ = cv2.solvePnP(MEAN_FACE_MM, seen(*pose), camera, None, *start, True, cv2.SOLVEPNP_ITERATIVE)
    np.testing.assert_allclose(cv2.Rodrigues(turned)[0], rotation(*pose), atol=0.01)
    np.testing.assert_allclose(head_pose(seen(*pose)[None])[0], pose, atol=1e-6)


@pytest.mark.parametrize(
    ("moved", "sign"),
    [((5, 0), (1, 0)), ((-5, 0), (-1, 0)), ((0, 5), (0, 1)), ((0, -5), (0, -1))],
)
def test_the_nose_says_where_the_head_turns(moved, sign):
    landmarks = seen(0, 0, 0)
    landmarks[2] += moved
    turn, nod, _ = head_pose(landmarks[None])[0]
    for angle, expected in zip((turn, nod), sign, strict=True):
        assert np.sign(angle) == expected if expected else abs(angle) < 1e-6


def test_a_head_that_leans_clockwise_has_a_positive_tilt():
    landmarks = seen(0, 0, 0)
    centre = landmarks.mean(0)
    clockwise = np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])  # y points down
    np.testing.assert_allclose(head_pose(((landmarks - centre) @ clockwise.T)[None])[0], [0, 0, 0.3], atol=1e-6)


def test_points_in_one_place_have_no_pose():
    assert head_pose(np.full((1, 5, 2), 7.0)).tolist() == [[0, 0, 0]]
    assert head_pose(np.zeros((0, 5, 2))).shape == (0, 3)


def crops(count, size=48):
    picture = skimage.data.astronaut()[0:200, 130:330]
    return np.stack([cv2.resize(np.roll(picture, 10 * i, axis=1), (size, size)) for i in range(count)])


@pytest.mark.parametrize("size", [48, 64])
def test_appearance_is_scikit_images_hog(size):
    pictures = crops(3, size)
    found = appearance(pictures)
    assert found.shape == (3, 128)
    for picture, values in zip(pictures, found, strict=True):
        grey = np.round(picture @ [0.299, 0.587, 0.114])
        expected = hog(grey, 8, (size // 4, size // 4), (4, 4), "L2-Hys")
        # OpenCV rounds grey in its own way: one level of 255.
        np.testing.assert_allclose(values, expected, atol=0.02)


def stored(scores):
    count = len(scores)
    found = torch.tensor(scores) > 0
    landmarks = torch.tensor(np.array([seen(0.2, 0, 0) for _ in scores]), dtype=torch.float32).reshape(count, 5, 2)
    return SampleTensors(
        faces=torch.from_numpy(crops(count)) if count else torch.zeros(0, 48, 48, 3, dtype=torch.uint8),
        face_time_s=torch.arange(count) * 0.5,
        face_score=torch.tensor(scores),
        face_landmarks=torch.where(found.view(-1, 1, 1), landmarks, torch.nan),
        face_box=torch.zeros(count, 4),
        logmel=torch.zeros(0, 128),
    )


def test_a_step_is_a_frame_with_flag_landmarks_pose_and_appearance():
    found = face(stored([1.0, 0.9]), 500)
    assert found.values.shape == (2, FACE_SIZE)
    assert found.values[:, 0].tolist() == [1, 1]
    np.testing.assert_allclose(found.values[1, 1:11].reshape(5, 2), seen(0.2, 0, 0) / 48 - 0.5, atol=1e-6)
    np.testing.assert_allclose(found.values[1, 11:14], [0.2, 0, 0], atol=1e-5)
    np.testing.assert_array_equal(found.values[1, 14:], appearance(crops(2))[1])
    assert found.times.tolist() == [[0, 0.5], [0.5, 1]]


def test_a_frame_without_a_face_is_zero():
    values = face(stored([1.0, 0.0, 1.0]), 500).values
    assert not values[1].any()
    assert values[0].any()
    assert values[2].any()
    assert not face(stored([0.0, 0.0]), 500).values.any()


def test_no_frames_are_no_steps():
    assert face(stored([]), 500).values.shape == (0, FACE_SIZE)
