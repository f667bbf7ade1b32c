"""The detector finds what MTCNN finds, on photographs of two people that move, come, go, turn and are cut."""

import subprocess
import sys

import cv2
import matplotlib.cbook
import numpy as np
import pytest
import skimage.data
import torch
from facenet_pytorch import MTCNN

from data_tools.errors import DataError
from data_tools.faces.crop import crop_each, crop_faces
from data_tools.faces.detector import Candidates, FaceDetector
from data_tools.faces.path import choose_path

MIN_FACE_PX = 40
SIZE = (360, 240)  # width, height


@pytest.fixture(scope="module")
def detector():
    return FaceDetector(min_face_px=MIN_FACE_PX)


class Library:
    """facenet-pytorch's own detection, frame by frame: the full and slow answer."""

    def __init__(self):
        self.mtcnn = MTCNN(keep_all=True, min_face_size=MIN_FACE_PX)

    def detect(self, frames):
        found = [self.mtcnn.detect(frame, landmarks=True) for frame in frames]
        none = Candidates(np.zeros((0, 4)), np.zeros(0), np.zeros((0, 5, 2)))
        return [none if f[0] is None else Candidates(*(np.asarray(part, np.float32) for part in f)) for f in found]


@pytest.fixture(scope="module")
def heads():
    """Two photographed heads, about 100 pixels high each."""
    hopper = cv2.imread(str(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)))[..., ::-1]
    return [
        cv2.resize(skimage.data.astronaut()[5:195, 145:305], (110, 130), interpolation=cv2.INTER_AREA),
        cv2.resize(hopper[20:350, 135:390], (110, 142), interpolation=cv2.INTER_AREA),
    ]


def placed(frame, head, centre, zoom=1.0, roll=0.0):
    """`frame` with a head turned by `roll` degrees round `centre`; what lies outside the frame is cut off."""
    height, width = head.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), roll, zoom)
    turn[:, 2] += np.array(centre) - (width / 2, height / 2)
    cv2.warpAffine(head, turn, SIZE, dst=frame, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_TRANSPARENT)


@pytest.fixture(scope="module")
def scene(heads):
    """50 frames. The first person sways, turns and nears; is away twice. The second one walks through.

    Both wobble with a wave, as a face that talks; the light changes; there is noise.
    """
    rng = np.random.default_rng(0)
    wall = np.linspace(60, 160, SIZE[0])[None, :, None] * np.array([1.0, 0.9, 0.8]) * np.ones((SIZE[1], 1, 1))
    rows, columns = np.mgrid[: SIZE[1], : SIZE[0]].astype(np.float32)
    frames = []
    for t in range(50):
        frame = wall.astype(np.uint8)
        if t not in (4, 5, 6, *range(20, 25)):
            placed(
                frame, heads[0], (105 + 30 * np.sin(t / 6), 120 + 12 * np.cos(t / 4)), 0.8 + t / 90, 14 * np.sin(t / 5)
            )
        if t >= 8:
            placed(
                frame,
                heads[1],
                (430 - 8 * (t - 8), 125 + 10 * np.sin(t / 3)),
                0.75 + 0.2 * np.sin(t / 7),
                10 * np.cos(t),
            )
        wave = (2 * np.sin(rows / 17 + t)).astype(np.float32)
        frame = cv2.remap(frame, columns + wave, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        light = 1 + 0.2 * np.sin(t / 8)
        frames.append(np.clip(frame * light + rng.normal(0, 4, frame.shape), 0, 255).astype(np.uint8))
    return frames


@pytest.fixture(scope="module")
def library_found(scene):
    return Library().detect(scene)


def overlap(one, other):
    """IoU of boxes (N, 4) with boxes (N, 4)."""
    low, high = np.maximum(one[:, :2], other[:, :2]), np.minimum(one[:, 2:], other[:, 2:])
    shared = np.clip(high - low, 0, None).prod(1)
    return shared / ((one[:, 2:] - one[:, :2]).prod(1) + (other[:, 2:] - other[:, :2]).prod(1) - shared)


def test_the_same_faces_as_mtcnn(detector, scene, library_found):
    counts = {len(found.scores) for found in library_found}
    assert {0, 1, 2} <= counts, f"the scene shows too little: {counts} faces a frame"
    for found, expected in zip(detector.detect(scene), library_found, strict=True):
        assert found.boxes.shape == expected.boxes.shape
        assert (overlap(found.boxes, expected.boxes) > 0.9999).all()
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
        np.testing.assert_allclose(found.landmarks, expected.landmarks, atol=1e-2)


class Recorded:
    """Gives one frame after the other what was found in it before."""

    def __init__(self, found):
        self.left = list(found)

    def detect(self, frames):
        return [self.left.pop(0) for _ in frames]


def test_the_same_crops_as_with_mtcnn(detector, scene, library_found):
    ours, theirs = crop_faces(scene, detector), crop_faces(scene, Recorded(library_found))
    np.testing.assert_array_equal(ours.scores > 0, theirs.scores > 0)
    np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=1e-2)
    # A square's corner is cut down to whole pixels, so rounding could move one by a pixel; here it moves none.
    np.testing.assert_array_equal(ours.crops, theirs.crops)


@pytest.mark.parametrize("size", [(640, 360), (180, 120), (722, 404)])
def test_the_same_faces_in_other_picture_sizes(detector, scene, size):
    frames = [cv2.resize(frame, size) for frame in scene[10:40:6]]
    for found, expected in zip(detector.detect(frames), Library().detect(frames), strict=True):
        assert found.boxes.shape == expected.boxes.shape
        np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-2)


def test_no_frame_knows_of_its_neighbours_or_of_the_cores(detector, scene):
    """To the last bit: the store's bytes are the same for any batch and any number of workers."""
    frames = scene[8:14]
    threads = torch.get_num_threads()
    together = detector.detect(frames)
    torch.set_num_threads(threads % 2 + 1)
    try:
        alone = [detector.detect([frame])[0] for frame in reversed(frames)][::-1]
        assert torch.get_num_threads() == threads % 2 + 1
    finally:
        torch.set_num_threads(threads)
    for one, other in zip(together, alone, strict=True):
        for name in ("boxes", "scores", "landmarks"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_one_pass_over_many_frames_is_the_same_up_to_rounding(detector, scene, library_found):
    """What a GPU does, done here: frames with no, one and two faces through the networks together."""
    for found, expected in zip(detector.detect_together(scene), library_found, strict=True):
        np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-3)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)


def test_clips_in_one_stream_are_the_clips_alone(detector, scene):
    clips = [scene[:5], [], scene[10:11], [cv2.resize(frame, (180, 120)) for frame in scene[:3]], scene[30:33]]
    alone = [crop_faces(clip, detector) for clip in clips]
    for batch_frames in (1, 4, 100):
        stream = (item for clip in clips for item in (*clip, None))
        for found, expected in zip(crop_each(stream, detector, batch_frames=batch_frames), alone, strict=True):
            np.testing.assert_array_equal(found.crops, expected.crops)
            np.testing.assert_array_equal(found.scores, expected.scores)
            np.testing.assert_array_equal(found.landmarks, expected.landmarks)


def test_the_person_stays_where_two_alternate_in_size(detector, heads):
    """Two people on their chairs who lean forward in turn: each is the larger one in every second frame."""
    frames = []
    for t in range(8):
        frame = np.full((SIZE[1], SIZE[0], 3), 120, np.uint8)
        for person, x in ((0, 90), (1, 270)):
            placed(frame, heads[person], (x, 120), zoom=1.1 if t % 2 == person else 0.8)
        frames.append(frame)
    found = detector.detect(frames)
    largest = [bool(faces.boxes[0, 0] > SIZE[0] / 2) for faces in found]
    assert largest in ([False, True] * 4, [True, False] * 4), "the frames don't alternate"
    path = choose_path(found, SIZE[::-1])
    assert len({bool(faces.boxes[place, 0] > SIZE[0] / 2) for faces, place in zip(found, path, strict=True)}) == 1


@pytest.mark.parametrize("shape", [(240, 360), (40, 40), (8, 9), (1, 400)])
def test_frames_without_a_face(detector, shape):
    (found,) = detector.detect([np.full((*shape, 3), 90, np.uint8)])
    assert (found.boxes.shape, found.scores.shape, found.landmarks.shape) == ((0, 4), (0,), (0, 5, 2))


def test_no_frame_at_all(detector):
    assert detector.detect([]) == []
    assert detector.detect_together([]) == []


def test_torchvision_is_loaded_with_the_first_detector_only():
    """It takes a second and 170 MB, which commands that look for no face need not pay."""
    code = (
        "import sys; from data_tools.faces.detector import FaceDetector as F; print('torchvision' in sys.modules); "
        "F(); print('torchvision' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["False", "True"]


def test_a_frame_on_which_the_library_fails_is_searched_with_a_border(detector, scene, library_found, monkeypatch):
    """It raises where a candidate lies wholly outside of the picture."""
    search, shapes = detector._mtcnn.detect, []

    def fails(frames, landmarks):
        shapes.append(frames.shape[1:3])
        if shapes[-1] == SIZE[::-1]:
            raise IndexError("The shape of the mask [3] at index 0 does not match the shape of the indexed tensor [4]")
        return search(frames, landmarks=landmarks)

    monkeypatch.setattr(detector._mtcnn, "detect", fails)
    for t in (10, 30, 40):
        (found,) = detector.detect([scene[t]])
        expected = library_found[t]
        assert len(found.scores) == len(expected.scores) >= 1
        # The border changes the sizes in which the first network sees the frame, so not to the pixel.
        assert (overlap(found.boxes, expected.boxes) > 0.8).all()
        np.testing.assert_allclose(found.landmarks, expected.landmarks, atol=8)
    assert shapes == [(240, 360), (720, 840)] * 3


@pytest.mark.parametrize("error", [ImportError("No module named 'facenet_pytorch'"), FileNotFoundError("pnet.pt")])
def test_missing_weights_are_named(monkeypatch, error):
    def missing(**_):
        raise error

    monkeypatch.setattr("facenet_pytorch.MTCNN", missing)
    with pytest.raises(DataError, match="facenet-pytorch"):
        FaceDetector()
