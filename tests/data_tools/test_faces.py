import itertools

import cv2
import numpy as np
import pytest
import skimage.data

from data_tools.faces.crop import centre_box, crop_faces, cut_square, square_box
from data_tools.faces.detector import Candidates, FaceDetector
from data_tools.faces.path import choose_path

SIZE = (240, 360)


@pytest.fixture(scope="module")
def detector():
    return FaceDetector(min_face_px=40)


@pytest.fixture(scope="module")
def portrait():
    """(240, 360, 3) head of the astronaut photograph; the eyes are near (107, 100) and (146, 104)."""
    return cv2.resize(skimage.data.astronaut()[:240, 100:460], (360, 240))


def candidates(*faces):
    """Candidates from (x0, y0, x1, y1, score) tuples."""
    table = np.array(faces, np.float32).reshape(-1, 5)
    return Candidates(table[:, :4], table[:, 4], np.zeros((len(table), 5, 2), np.float32))


def moved(frame, x_px):
    return np.roll(frame, x_px, axis=1)


def test_finds_the_photographed_face_and_follows_it(detector, portrait):
    shifts = [0, 20, 40]
    cut = crop_faces([moved(portrait, x) for x in shifts], detector)
    assert cut.crops.shape == (3, 48, 48, 3)
    assert (cut.scores > 0.9).all()
    centres = cut.boxes[:, ::2].mean(1)
    np.testing.assert_allclose(np.diff(centres), 20, atol=4)
    # Eyes above nose above mouth, all inside the crop.
    eyes, nose, mouth = cut.landmarks[:, :2, 1].mean(1), cut.landmarks[:, 2, 1], cut.landmarks[:, 3:, 1].mean(1)
    assert (eyes < nose).all()
    assert (nose < mouth).all()
    assert ((cut.landmarks > 0) & (cut.landmarks < 48)).all()


def test_batching_does_not_change_the_faces(detector, portrait):
    frames = [moved(portrait, x) for x in range(0, 50, 10)]
    one, many = (crop_faces(frames, detector, batch_frames=n) for n in (1, 5))
    np.testing.assert_array_equal(one.crops, many.crops)
    np.testing.assert_allclose(one.scores, many.scores, atol=1e-4)


@pytest.mark.parametrize("height_width", [(240, 360), (8, 9), (30, 400)])
def test_without_a_face_the_centre_stands_in(detector, height_width):
    frame = np.zeros((*height_width, 3), np.uint8)
    middle = (height_width[0] // 2, height_width[1] // 2)
    frame[middle] = 255
    cut = crop_faces([frame], detector)
    assert cut.scores.tolist() == [0.0]
    assert np.isnan(cut.landmarks).all()
    brightest = np.unravel_index(cut.crops[0, :, :, 0].argmax(), (48, 48))
    np.testing.assert_allclose(brightest, (24, 24), atol=3.5)


def test_no_frames_give_no_faces(detector):
    assert crop_faces([], detector).crops.shape == (0, 48, 48, 3)


def test_a_picture_that_changes_size_is_followed(detector, portrait):
    cut = crop_faces([portrait, cv2.resize(portrait, (480, 320))], detector)
    assert (cut.scores > 0.9).all()


def slow_path(found, size):
    """Every path tried, the best one kept."""
    seen = [t for t, c in enumerate(found) if len(c.scores)]

    def value(path):
        chosen = [step for step in path if step is not None]
        total = -0.4 * (len(path) - len(chosen))
        for before, now in itertools.pairwise([None, *chosen]):
            t, i = now
            box = found[t].boxes[i]
            total += float(found[t].scores[i] * (box[3] - box[1]) / size[0])
            if before is not None:
                old = found[before[0]].boxes[before[1]]
                distance = np.hypot(*((box[:2] + box[2:]) / 2 - (old[:2] + old[2:]) / 2))
                total -= 0.5 * min(distance / max(old[2] - old[0], 1.0), 1.0)
        return total

    paths = itertools.product(*[[None, *((t, i) for i in range(len(found[t].scores)))] for t in seen])
    some = (path for path in paths if any(path))
    best = dict(step for step in max(some, key=value, default=()) if step is not None)
    return [best.get(t) for t in range(len(found))]


def test_the_path_is_the_best_of_all_paths():
    rng = np.random.default_rng(0)
    for _ in range(30):
        found = []
        for _ in range(5):
            corner = rng.uniform(0, 150, (rng.integers(0, 4), 2))
            side = rng.uniform(20, 90, (len(corner), 1))
            found.append(candidates(*np.hstack([corner, corner + side, rng.uniform(0.7, 1, (len(corner), 1))])))
        assert choose_path(found, SIZE) == slow_path(found, SIZE)


def test_one_large_stranger_does_not_take_over():
    speaker, stranger = (100, 50, 160, 110, 0.99), (250, 40, 330, 120, 0.99)
    found = [candidates(speaker), candidates(stranger, speaker), candidates(), candidates(speaker)]
    assert choose_path(found, SIZE) == [0, 1, None, 0]


def test_a_stranger_alone_in_a_frame_is_not_taken_for_the_speaker():
    speaker, stranger = (100, 50, 160, 110, 0.99), (250, 40, 330, 120, 0.99)
    found = [candidates(speaker), candidates(stranger), candidates(speaker)]
    assert choose_path(found, SIZE) == [0, None, 0]


def test_a_face_that_moves_fast_and_a_cut_to_another_place_are_followed():
    here, beside = (100, 50, 160, 110, 0.99), (135, 50, 195, 110, 0.99)
    assert choose_path([candidates(here), candidates(beside), candidates(here)], SIZE) == [0, 0, 0]
    elsewhere = (250, 40, 330, 120, 0.99)
    assert choose_path([candidates(here)] * 3 + [candidates(elsewhere)] * 3, SIZE) == [0] * 6


def test_square_box_keeps_the_centre_and_adds_the_margin():
    box = square_box(np.array([10.0, 20.0, 30.0, 66.0]), size_px=48, margin_px=2)
    np.testing.assert_allclose(box, [20 - 24, 43 - 24, 20 + 24, 43 + 24])


def test_centre_box_is_centred():
    np.testing.assert_allclose(centre_box((240, 360)), [60, 0, 300, 240])


def test_cut_square_repeats_the_edge():
    frame = np.arange(16, dtype=np.uint8).reshape(4, 4)[:, :, None].repeat(3, axis=2)
    piece = cut_square(frame, np.array([-1.0, -1.0, 1.0, 1.0]), 2)
    np.testing.assert_array_equal(piece[:, :, 0], [[0, 0], [0, 0]])
    np.testing.assert_array_equal(cut_square(frame, np.array([1.0, 1.0, 3.0, 3.0]), 2)[:, :, 0], [[5, 6], [9, 10]])
