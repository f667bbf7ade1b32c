"""Films of two people made here: the face that is taken is the speaker's, and where nobody in it speaks the largest."""

import cv2
import numpy as np
import pytest

from data_tools.faces.detector import FaceDetector
from data_tools.media.audio import read_audio, write_wav
from data_tools.media.cut import Cut, cut_video
from data_tools.media.source import probe
from data_tools.media.write import write_video
from data_tools.speech.segments import Segment
from data_tools.standin.cast import iemocap_performer
from data_tools.standin.expressions import MANNERS
from data_tools.standin.faces import Puppet
from data_tools.standin.performance import Turn, face_track
from data_tools.standin.portraits import make_portrait
from data_tools.standin.speech import RATE_HZ, Synthesiser
from pipeline.clip_tensors import FaceSettings, MelSettings, extract_features
from pipeline.timeline.tensors import Extractor

FPS = 25
HALF = (350, 240)
# The woman is the smaller one of the two all along.
SMALL = 0.85
LINES = (
    "I am so glad you came to see me today.",
    "Nobody told me about the meeting, and now it is too late.",
    "We could take the train on Sunday, or perhaps the bus.",
    "Well, you know how he is. He never says a word about it, and then he is angry with all of us.",
)
# Who speaks a line on the screen, aloud; who moves the mouth to another line, in silence; who stands on the left.
SCENES = (
    {"speaks": "F"},
    {"speaks": "M"},
    {"speaks": None},
    {"speaks": "F", "chews": "M"},
    {"speaks": "F", "swaps": True},
)


def shown(puppet, track, size):
    for face in track:
        to_size = np.array([[size, 0, HALF[0] / 2 * (1 - size)], [0, size, 110 * (1 - size)]])
        yield cv2.warpAffine(puppet.draw(face), to_size, HALF, borderMode=cv2.BORDER_REPLICATE)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """(path, [(start_s, end_s)] of the scenes)."""
    folder = tmp_path_factory.mktemp("two people")
    synthesiser, noise = Synthesiser(), np.random.default_rng(0)
    manner = MANNERS["neu"]
    voices = {letter: iemocap_performer(1, letter).voice for letter in "FM"}
    sound, turns, times, swaps, now_s = [], {"F": [], "M": []}, [], [], 0.0
    for number, scene in enumerate(SCENES):
        said = synthesiser.say(
            LINES[number % 3 if number < 4 else 3], voices[scene["speaks"] or "F"], manner.prosody, noise
        )
        frames = round(len(said) / RATE_HZ * FPS) + 5
        said = np.pad(said, (RATE_HZ // 10, frames * RATE_HZ // FPS - len(said) - RATE_HZ // 10))
        sound.append(said)
        if scene["speaks"]:
            turns[scene["speaks"]].append(Turn(now_s, said, manner, 1.0))
        if "chews" in scene:
            other = synthesiser.say(LINES[(number + 1) % 3], voices["M"], manner.prosody, noise)
            turns[scene["chews"]].append(Turn(now_s, other[: len(said)], manner, 1.0))
        times.append((now_s, now_s + frames / FPS))
        swaps += [False] * (frames // 2) + ["swaps" in scene] * (frames - frames // 2)
        now_s = times[-1][1]
    samples = np.concatenate(sound)
    write_wav(folder / "talk.wav", (samples + 0.0005 * noise.standard_normal(len(samples))).astype(np.float32))
    people = [
        shown(
            Puppet(make_portrait(iemocap_performer(1, letter).actor)),
            face_track(turns[letter], len(swaps), FPS, noise),
            SMALL if letter == "F" else 1.0,
        )
        for letter in "FM"
    ]
    pictures = (np.hstack(pair[::-1] if swapped else pair) for swapped, *pair in zip(swaps, *people, strict=True))
    write_video(folder / "film.mkv", pictures, (2 * HALF[0], HALF[1]), FPS, audio=folder / "talk.wav")
    return folder / "film.mkv", times


class Remembering:
    """A detector that looks at each picture once."""

    def __init__(self):
        self._detector, self._known = FaceDetector(min_face_px=40), {}

    def detect(self, frames):
        for frame in frames:
            key = frame.tobytes()
            if key not in self._known:
                (self._known[key],) = self._detector.detect([frame])
        return [self._known[frame.tobytes()] for frame in frames]


@pytest.fixture(scope="module")
def detector():
    return Remembering()


def each(film, detector, choice):
    path, times = film
    segments = [Segment(*scene, "") for scene in times]
    extractor = Extractor(detector, FaceSettings(choice=choice), MelSettings())
    taken = dict(extractor.each(path, probe(path), segments))
    return [taken[number].features for number in range(len(times))]


@pytest.fixture(scope="module")
def spoken(film, detector):
    return each(film, detector, "speaking")


def people(features, swaps=False):
    """The letter of the person in each crop."""
    half_s = (len(features.logmel) / 80) / 2
    letters = []
    for time_s, box in zip(features.face_time_s.tolist(), features.face_box, strict=True):
        is_left = float(box[::2].mean()) < HALF[0]
        letters.append("F" if is_left != (swaps and time_s > half_s) else "M")
    return letters


def test_the_face_is_the_speakers(spoken):
    assert [features.chosen_by for features in spoken] == ["speaking", "speaking", "largest", "speaking", "speaking"]
    for scene, features in zip(SCENES, spoken, strict=True):
        assert (features.face_score > 0.9).all()
        assert set(people(features, "swaps" in scene)) == {scene["speaks"] or "M"}


def test_the_largest_face_is_taken_where_that_is_asked_for(film, detector):
    largest = each(film, detector, "largest")
    assert {features.chosen_by for features in largest} == {""}
    assert {letter for features in largest[:4] for letter in people(features)} == {"M"}


def test_a_clip_cut_out_of_the_film_shows_the_same_person_and_without_sound_the_largest(
    film, detector, spoken, tmp_path
):
    path, times = film
    clip, wav = tmp_path / "clip.mp4", tmp_path / "clip.wav"
    (outcome,) = cut_video(path, [Cut(*times[0], clip)], crf=18)
    assert outcome.failure is None
    write_wav(wav, read_audio(path, RATE_HZ, *times[0]))
    settings = FaceSettings(choice="speaking"), MelSettings()
    heard = extract_features(clip, wav, detector, *settings)
    assert heard.chosen_by == "speaking"
    assert people(heard) == people(spoken[0])
    unheard = extract_features(clip, None, detector, *settings)
    assert unheard.chosen_by == "largest"
    assert (unheard.face_box[:, ::2].mean(1) > HALF[0]).all()
