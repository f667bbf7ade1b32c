"""The rule for who speaks, on faces drawn here: a dark mouth that opens on a textured face at a known place."""

import cv2
import numpy as np
import pytest

from data_tools.faces.crop import crop_each
from data_tools.faces.detector import Candidates
from data_tools.faces.mouth import MouthMotion, Watched

SIZE = (120, 320)
LEFT, RIGHT = 80, 240
RATE_HZ = 16_000
NOBODY, FIRST, SECOND = set(), {0}, {1}


def loudness(seconds, seed):
    """(time_s) -> loudness in [0, 1]: syllables of random strength and length, about four a second, as in speech."""
    draw = np.random.default_rng(seed)
    starts = np.cumsum(draw.uniform(0.12, 0.4, round(6 * seconds)))
    peaks = draw.uniform(0.0, 1.0, len(starts))

    def level(time_s):
        number = int(np.searchsorted(starts, time_s, side="right"))
        first = starts[number - 1] if number else 0.0
        return float(peaks[number] * np.sin(np.pi * (time_s - first) / (starts[number] - first)) ** 2)

    return level


def sound_of(level, seconds):
    times_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    every_ms = np.arange(round(seconds * 1000) + 1) / 1000
    levels = np.interp(times_s, every_ms, [level(time_s) for time_s in every_ms])
    return (0.3 * levels * np.sin(2 * np.pi * 150 * times_s)).astype(np.float32)


def picture(mouths, shift=0.0):
    """Grey picture of two faces, 60 px wide, whose mouths are open by so many pixels, `shift` pixels to the right."""
    rows, columns = np.arange(SIZE[0])[:, None], np.arange(SIZE[1])[None] - shift
    grey = np.round(120 + 40 * np.sin(columns / 7) * np.sin(rows / 9)).astype(np.uint8)
    for centre, opened in zip((LEFT, RIGHT), mouths, strict=True):
        middle, axes = (centre + shift, 84), (12, opened)
        places = [tuple(round(16 * value) for value in pair) for pair in (middle, axes)]
        cv2.ellipse(grey, *places, 0, 0, 360, 25, -1, cv2.LINE_AA, shift=4)
    return grey


def found(shift=0.0, places=(LEFT, RIGHT)):
    centres = np.array(places, np.float32)[:, None] + np.float32(shift)
    boxes = np.hstack([centres - 30, np.full_like(centres, 20), centres + 30, np.full_like(centres, 100)])
    marks = np.array([[-14, 48], [14, 48], [0, 66], [-12, 84], [12, 84]], np.float32)
    landmarks = np.stack([marks + np.array([centre[0], 0]) for centre in centres]).astype(np.float32)
    return Candidates(boxes, np.ones(len(centres), np.float32), landmarks)


def watch(levels, seconds=4.0, fps=25.0, shift=lambda _: 0.0, places=lambda _: (LEFT, RIGHT), change=lambda _, g: g):
    """The motion of two mouths that open with these levels, sampled twice a second."""
    motion, greys, due_s = MouthMotion(), [], 0.0
    for number in range(round(seconds * fps)):
        time_s = number / fps
        grey = picture([12 * level(time_s) for level in levels], shift(time_s))
        greys.append((time_s, change(time_s, grey)))
        if time_s + 1e-6 >= due_s:
            sample = Watched(np.zeros((*SIZE, 3), np.uint8), time_s, greys)
            motion.add(sample, found(shift(time_s), places(time_s)))
            greys, due_s = [], due_s + 0.5
    motion.end(greys)
    return motion


SPEECH, OTHER = loudness(60, seed=1), loudness(60, seed=2)


def still(_):
    return 0.0


@pytest.mark.parametrize(("levels", "expected"), [
    ((SPEECH, still), FIRST),
    ((still, SPEECH), SECOND),
    ((OTHER, SPEECH), SECOND),  # a mouth that moves to something else
    ((still, still), NOBODY),
    ((OTHER, still), NOBODY),  # the speaker is off the screen
    ((SPEECH, SPEECH), NOBODY),  # neither stands out
])  # fmt: skip
def test_the_mouth_that_moves_with_the_sound_speaks(levels, expected):
    speaking = watch(levels).speaking(sound_of(SPEECH, 4.0))
    assert speaking == [expected] * 8


def test_a_head_or_camera_that_moves_is_no_speech_and_hides_none():
    def sway(time_s):
        return 8 * np.sin(2 * np.pi * 0.4 * time_s)

    sound = sound_of(SPEECH, 4.0)
    assert watch((still, SPEECH), shift=sway).speaking(sound) == [SECOND] * 8
    assert watch((still, still), shift=sway).speaking(sound) == [NOBODY] * 8


@pytest.mark.parametrize("lag_s", [-0.04, 0.08])
def test_sound_that_is_a_little_early_or_late_is_still_the_mouths(lag_s):
    sound = sound_of(lambda time_s: SPEECH(max(0.0, time_s - lag_s)), 4.0)
    assert watch((still, SPEECH)).speaking(sound) == [SECOND] * 8


def test_nothing_is_said_of_silence_short_clips_few_pictures_and_small_faces():
    levels = (still, SPEECH)
    motion = watch(levels)
    for sound in (np.zeros(0, np.float32), np.zeros(4 * RATE_HZ, np.float32)):
        assert motion.speaking(sound) == [NOBODY] * 8
    assert watch(levels, seconds=0.9).speaking(sound_of(SPEECH, 0.9)) == [NOBODY] * 2
    assert watch(levels, fps=10).speaking(sound_of(SPEECH, 4.0)) == [NOBODY] * 8
    small = watch(levels, change=lambda _, grey: grey[::12, ::12])
    assert small.speaking(sound_of(SPEECH, 4.0)) == [NOBODY] * 8
    assert MouthMotion().speaking(sound_of(SPEECH, 4.0)) == []


def test_the_speaker_is_followed_over_a_sample_that_lacks_the_face_and_by_each_shot():
    def gone(time_s):
        return (LEFT,) if 1.9 < time_s < 2.1 else (LEFT, RIGHT)

    speaking = watch((still, SPEECH), places=gone).speaking(sound_of(SPEECH, 4.0))
    assert speaking == [SECOND] * 4 + [NOBODY] + [SECOND] * 3
    # A cut at 2.25 s: from there the first place shows the one who speaks.
    levels = (
        lambda time_s: SPEECH(time_s) if time_s > 2.25 else 0.0,
        lambda time_s: 0.0 if time_s > 2.25 else SPEECH(time_s),
    )
    cut = watch(levels, seconds=5.0, change=lambda time_s, grey: grey if time_s <= 2.25 else 255 - grey // 2)
    assert cut.speaking(sound_of(SPEECH, 5.0)) == [SECOND] * 5 + [FIRST] * 5


def test_sound_is_asked_for_only_where_there_are_several_faces():
    class Detector:
        """As many faces as the frame's first pixel says."""

        def detect(self, frames):
            both = found()
            counts = [int(frame[0, 0, 0]) for frame in frames]
            return [Candidates(both.boxes[:n], both.scores[:n], both.landmarks[:n]) for n in counts]

    def clip(count):
        return [Watched(np.full((*SIZE, 3), count, np.uint8), 0.0, []), Watched(None, 0.5, [])]

    asked = []

    def sound(number):
        asked.append(number)
        return np.zeros(0, np.float32)

    crops = list(crop_each([*clip(1), *clip(2), *clip(0)], Detector(), sound_of=sound))
    assert [each.chosen_by for each in crops] == ["", "largest", ""]
    assert asked == [1]
