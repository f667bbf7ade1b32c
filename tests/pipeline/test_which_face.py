"""Two people in one picture, from clip to store: the crops stay with one of them, and the store says where."""

import cv2
import numpy as np
import pytest

from data_tools.faces.crop import cut_square
from data_tools.faces.detector import FaceDetector
from data_tools.manifest import read_manifest, write_manifest
from data_tools.media.audio import write_wav
from data_tools.media.frames import read_frames
from data_tools.media.write import write_video
from data_tools.records import Clip
from data_tools.standin.cast import iemocap_performer
from data_tools.standin.faces import Face, Puppet
from data_tools.standin.portraits import make_portrait
from data_tools.store import DialogueStore, store_path
from pipeline.preprocess import PreprocessSettings, preprocess
from pipeline.progress import Reporter

QUIET = Reporter(quiet=True)
FPS, SECONDS = 10, 5

SIZE = (700, 240)
# Twice a second the one on the left is the larger, twice the one on the right: of the largest faces a jump each time.
LARGE, SMALL = 1.0, 0.75


def person(letter, session, sizes):
    """Pictures (240, 350, 3) of an actor whose head has these sizes, one after the other, while the mouth moves."""
    puppet = Puppet(make_portrait(iemocap_performer(session, letter).actor))
    for i, size in enumerate(sizes):
        picture = puppet.draw(Face(open=4 + 3 * np.sin(i), shift_x=6 * np.sin(i / 7)).vector())
        to_size = np.array([[size, 0, 175 * (1 - size)], [0, size, 110 * (1 - size)]])
        yield cv2.warpAffine(picture, to_size, (350, 240), borderMode=cv2.BORDER_REPLICATE)


def sizes(first, second):
    """Size at each frame: half a second of the one, then half a second of the other."""
    return [(first, second)[i * 2 // FPS % 2] for i in range(SECONDS * FPS)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """`even`: both are large as often; `left`: the left one is a little larger on the whole."""
    folder = tmp_path_factory.mktemp("data")
    write_wav(folder / "a.wav", (0.3 * np.sin(np.arange(SECONDS * 16_000) / 20)).astype(np.float32))
    clips = []
    for name, other in (("even", SMALL), ("left", SMALL * 0.93)):
        pairs = zip(person("F", 1, sizes(LARGE, SMALL)), person("M", 1, sizes(other, LARGE)), strict=True)
        write_video(folder / f"{name}.mp4", (np.hstack(pair) for pair in pairs), SIZE, FPS)
        files = (f"{name}.mp4", "a.wav")
        clips.append(Clip(name, "d", "s", "1", "train", 0.0, SECONDS, "so", *files, {"ang": 1.0}, None, "v", "a", FPS))
    write_manifest(folder, clips, ["ang"])
    preprocess(PreprocessSettings(data=folder, workers=1), QUIET)
    return folder


def test_the_largest_face_of_each_frame_would_jump(data):
    detector = FaceDetector(min_face_px=40)
    for name in ("even", "left"):
        frames = np.stack([frame for _, frame in read_frames(data / f"{name}.mp4", 500)])
        sides = []
        for found in detector.detect(frames):
            widths = found.boxes[:, 2] - found.boxes[:, 0]
            assert len(widths) == 2
            sides.append("left" if found.boxes[widths.argmax()][::2].mean() < 350 else "right")
        assert sides == ["left", "right"] * SECONDS


def test_the_crops_stay_with_one_person(data):
    store = DialogueStore(store_path(data, "d"))
    for name, known in (("even", None), ("left", "left")):
        features = store[name]
        assert len(features.faces) == 2 * SECONDS
        assert (features.face_score > 0.9).all()
        sides = {"left" if x < 350 else "right" for x in features.face_box[:, ::2].mean(dim=1).tolist()}
        assert len(sides) == 1
        assert known is None or sides == {known}
    assert read_manifest(data)["no_face_share"].tolist() == [0.0, 0.0]


def test_the_stored_box_is_the_one_that_was_cut(data):
    features = DialogueStore(store_path(data, "d"))["left"]
    for i, (time_s, frame) in enumerate(read_frames(data / "left.mp4", 500)):
        assert features.face_time_s[i] == pytest.approx(time_s)
        np.testing.assert_array_equal(cut_square(frame, features.face_box[i].numpy(), 48), features.faces[i])
