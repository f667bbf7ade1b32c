"""Black pictures and mute sound, as some releases have them, become rejects of stage 2 with the measured value."""

import cv2
import numpy as np
import pytest
import skimage.data

from data_tools.dataset import UtteranceDataset
from data_tools.manifest import read_manifest, read_rejects, write_manifest
from data_tools.media.audio import write_wav
from data_tools.media.write import write_video
from data_tools.records import Clip
from pipeline.preprocess import PreprocessSettings, preprocess
from pipeline.progress import Reporter

QUIET = Reporter(quiet=True)
PORTRAIT = cv2.resize(skimage.data.astronaut()[:240, 100:460], (180, 120))
BLACK = np.zeros_like(PORTRAIT)
RAMP = np.broadcast_to(np.arange(180, dtype=np.uint8)[:, None], PORTRAIT.shape)
TONE = (0.3 * np.sin(np.arange(16_000) / 20)).astype(np.float32)
MUTE = np.zeros(16_000, np.float32)
KINDS = {"face": (PORTRAIT, TONE), "ramp": (RAMP, TONE), "black": (BLACK, TONE), "mute": (PORTRAIT, MUTE)}


@pytest.fixture
def data(tmp_path):
    clips = []
    for name, (picture, samples) in KINDS.items():
        write_wav(tmp_path / f"clips/d/{name}.wav", samples)
        write_video(
            tmp_path / f"clips/d/{name}.mp4", [picture] * 10, (180, 120), 10, audio=tmp_path / "clips/d/face.wav"
        )
        files = (f"clips/d/{name}.mp4", f"clips/d/{name}.wav")
        clips.append(Clip(name, "d", "s", "1", "train", 0.0, 1.0, "so", *files, {"ang": 1.0}, None, "v", "a", 10.0))
    write_manifest(tmp_path, clips, ["ang"])
    return tmp_path


def test_black_and_mute_clips_are_rejects_and_a_picture_without_a_face_is_none(data):
    for _ in range(2):  # the second run finds the store of the first
        summary = preprocess(PreprocessSettings(data=data, workers=1), QUIET)
        assert (summary["utterances"], summary["reasons"]) == (2, {"audio:silent": 1, "video:blank": 1})
        rejects = {r.utterance_id: r for r in read_rejects(data)}
        assert rejects["black"].reason == "video:blank"
        assert "0.00 of 255" in rejects["black"].detail
        assert rejects["mute"].reason == "audio:silent"
        assert "-120.0 dBFS" in rejects["mute"].detail
        assert [UtteranceDataset(data)[i].id for i in range(2)] == ["face", "ramp"]
    shares = read_manifest(data).set_index("utterance_id")["no_face_share"]
    assert (shares["face"], shares["ramp"]) == (0.0, 1.0)
    assert shares[["black", "mute"]].isna().all()


def test_they_can_be_kept(data):
    preprocess(PreprocessSettings(data=data, workers=1), QUIET)
    summary = preprocess(PreprocessSettings(data=data, workers=1, keep_blank=True), QUIET)
    assert (summary["utterances"], summary["rejected"]) == (4, 0)
    assert read_rejects(data) == []
    assert read_manifest(data).set_index("utterance_id")["no_face_share"].to_dict() == {
        "face": 0.0,
        "ramp": 1.0,
        "black": 1.0,
        "mute": 0.0,
    }
