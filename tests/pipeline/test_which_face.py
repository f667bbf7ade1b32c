"""Two people in one picture, from clip to store: the crops stay with one of them, and the store says where."""

import json
import shutil

import cv2
import numpy as np
import pytest

from data_tools.faces.crop import cut_square
from data_tools.faces.detector import FaceDetector
from data_tools.files import write_json
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
from pipeline.settings import ConfigError
from pipeline.timeline.predictor import Predictor

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


def read_settings(data):
    return json.loads((data / "store" / "store.json").read_text())["settings"]["faces"]


def test_a_changed_choice_is_another_store_and_the_flag_comes_before_the_setting_and_the_file(data, tmp_path):
    """Ten frames a second are too few to see who speaks: the faces stay the same, and are counted as the largest."""
    folder = shutil.copytree(data, tmp_path / "data")
    before = DialogueStore(store_path(folder, "d"))
    assert read_settings(folder)["choice"] == "speaking"
    assert before.chosen_by == {"even": "largest", "left": "largest"}
    summary = preprocess(PreprocessSettings(data=folder, workers=1), QUIET)
    assert summary["several_faces"] == {"speaking": 0, "largest": 2}
    fingerprints = set()
    for settings in (
        {"face_choice": "largest", "faces": {"choice": "speaking"}},
        {"faces": {"choice": "largest"}},
        {},
    ):
        if not settings:
            write_json(folder / "dataset.json", {"faces": {"choice": "largest"}})
        values = {"data": folder, "workers": 1} | settings
        assert "several_faces" not in preprocess(PreprocessSettings.checked(values, "test"), QUIET)
        # As before there was a choice: such a store is not made anew.
        assert "choice" not in read_settings(folder)
        store = DialogueStore(store_path(folder, "d"))
        assert store.chosen_by == {}
        fingerprints.add(store.fingerprint)
        for name in ("even", "left"):
            np.testing.assert_array_equal(store[name].faces, before[name].faces)
    assert len(fingerprints - {before.fingerprint}) == len(fingerprints) == 1
    write_json(folder / "dataset.json", {"faces": {"choice": "loudest"}})
    with pytest.raises(ConfigError, match=r"(?s)dataset\.json.*loudest"):
        preprocess(PreprocessSettings(data=folder, workers=1), QUIET)


def test_predict_does_as_the_data_of_the_run_did(run):
    assert Predictor(run, "cpu").extractor.faces.choice == "largest"  # its store says nothing: it is an old one
    facts = json.loads((run / "data.json").read_text())
    facts["preprocessing"]["faces"]["choice"] = "speaking"
    write_json(run / "data.json", facts)
    assert Predictor(run, "cpu").extractor.faces.choice == "speaking"
