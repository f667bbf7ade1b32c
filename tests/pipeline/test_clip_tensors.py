"""Reading ahead changes no tensor, one broken clip costs one clip, and leaving early leaves no thread."""

import threading
from contextlib import closing

import cv2
import numpy as np
import pytest
import skimage.data
import torch

from data_tools.errors import DataError
from data_tools.faces.detector import FaceDetector
from data_tools.media.audio import write_wav
from data_tools.media.write import write_video
from pipeline.clip_tensors import FaceSettings, MelSettings, extract_each, extract_features

FACES, MEL = FaceSettings(sample_every_ms=100, min_face_px=30, batch_frames=4), MelSettings()


def decoding():
    return [thread for thread in threading.enumerate() if thread.name.startswith("read-ahead")]


@pytest.fixture(scope="module")
def detector():
    return FaceDetector(min_face_px=30)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """(video, audio) of five clips: a moving face, a broken video, a broken wav, no picture, and a longer face."""
    folder = tmp_path_factory.mktemp("clips")
    portrait = cv2.resize(skimage.data.astronaut()[:240, 100:460], (180, 120))
    for name, frames in (("a", 6), ("b", 6), ("e", 15)):
        write_video(folder / f"{name}.mp4", (np.roll(portrait, 2 * i, axis=1) for i in range(frames)), (180, 120), 10)
        tone = 0.3 * np.sin(2 * np.pi * 300 * np.arange(1600 * frames) / 16_000)
        write_wav(folder / f"{name}.wav", tone.astype(np.float32), 16_000)
    whole = (folder / "b.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 3])
    (folder / "cut.wav").write_bytes(b"RIFF")
    pairs = [("a.mp4", "a.wav"), ("cut.mp4", "b.wav"), ("b.mp4", "cut.wav"), (None, "b.wav"), ("e.mp4", "e.wav")]
    return [tuple(folder / name if name else None for name in pair) for pair in pairs]


def same(one, other):
    for name in ("faces", "face_time_s", "face_score", "face_landmarks", "face_box", "logmel"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("decoders", [1, 3])
def test_every_clip_comes_out_as_alone_and_broken_ones_as_errors(clips, detector, decoders):
    results = list(extract_each(clips, detector, FACES, MEL, decoders))
    assert [isinstance(result, DataError) for result in results] == [False, True, True, False, False]
    for (video, audio), result in zip(clips, results, strict=True):
        if isinstance(result, DataError):
            with pytest.raises(DataError) as alone:
                extract_features(video, audio, detector, FACES, MEL)
            assert str(alone.value) == str(result)
        else:
            same(result, extract_features(video, audio, detector, FACES, MEL))
    assert [len(result.faces) for result in results if not isinstance(result, DataError)] == [6, 0, 15]
    assert (results[4].face_score > 0.9).all()
    assert decoding() == []


def test_leaving_early_ends_the_threads(clips, detector):
    with closing(extract_each(clips, detector, FACES, MEL, decoders=2)) as results:
        next(results)
    assert decoding() == []


def test_a_detector_that_fails_is_heard_and_ends_the_threads(clips):
    class Broken:
        def detect(self, frames):
            raise RuntimeError("out of device memory")

    with pytest.raises(RuntimeError, match="out of device memory"):
        list(extract_each(clips, Broken(), FACES, MEL, decoders=2))
    assert decoding() == []


def test_detection_begins_while_the_clip_is_still_being_decoded(clips, detector):
    """The detector waits for the decoder's thread to go on: without the overlap nobody would."""
    seen, decoder_went_on = [], threading.Event()

    class Waiting:
        def detect(self, frames):
            seen.append(len(frames))
            if len(seen) == 1:
                assert decoder_went_on.wait(timeout=60), "nothing was decoded while the detector was at work"
            return detector.detect(frames)

    def watched(path, every_ms, **more):
        for number, shown in enumerate(read_frames(path, every_ms, **more)):
            if number == FACES.batch_frames + 1:
                decoder_went_on.set()
            yield shown

    import pipeline.clip_tensors as features

    read_frames = features.read_frames
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "read_frames", watched)
        ((result),) = extract_each(clips[4:], Waiting(), FACES, MEL)
    assert len(result.faces) == 15
    assert seen == [4, 4, 4, 3]
