"""Voice activity on speech with known pauses, and on what is no speech."""

import numpy as np
import pytest
import torch

from data_tools.speech.activity import WINDOW_S, voice_activity
from data_tools.speech.segments import utterances

NOISE = np.random.default_rng(1)
SECONDS = np.arange(16_000 * 8) / 16_000


def test_borders_lie_where_the_pauses_are(speech_maker):
    samples, times = speech_maker([1.0, 0.8, 0.6, 1.5, 2.0])
    activity = voice_activity([samples])
    assert activity.duration_s == len(samples) / 16_000
    assert len(activity.probability) == -(-len(samples) // 512)
    found, dropped = utterances(activity, 15.0)
    assert dropped == 0
    assert len(found) == 4
    for segment, (start_s, end_s) in zip(found, times, strict=True):
        assert segment.start_s == pytest.approx(start_s, abs=0.25)
        assert segment.end_s == pytest.approx(end_s, abs=0.25)


def test_blocks_and_threads_change_nothing(speech_maker):
    samples, _ = speech_maker([0.5, 0.5])
    whole = voice_activity([samples])
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        cut = voice_activity(np.split(samples, [1, 500, 512, 20_000, 20_000]))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert cut.spans == whole.spans
    assert np.array_equal(cut.probability, whole.probability)


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(16_000 * 4),
        NOISE.normal(0, 0.1, 16_000 * 4),
        0.3 * np.sin(2 * np.pi * 440 * SECONDS),
        # A melody of chords, one each half second.
        sum(0.1 * np.sin(2 * np.pi * hz * (1 + (SECONDS // 0.5 % 5) / 8) * SECONDS) for hz in (220, 277, 330, 440)),
    ],
    ids=["silence", "noise", "tone", "chords"],
)
def test_what_is_no_speech_is_not_called_speech(samples):
    activity = voice_activity([samples.astype(np.float32)])
    assert sum(end_s - start_s for start_s, end_s in activity.spans) < 0.1 * activity.duration_s


def test_no_sound_has_no_speech():
    activity = voice_activity([])
    assert (activity.spans, len(activity.probability), activity.duration_s) == ([], 0, 0.0)


def test_memory_does_not_grow_with_the_sound():
    """Half an hour that is made while it is read: one block at a time is alive."""
    alive, most = [0], [0]

    class Block(np.ndarray):
        def __del__(self):
            alive[0] -= 1

    def blocks():
        for _ in range(3):
            alive[0] += 1
            most[0] = max(most[0], alive[0])
            yield np.zeros(16_000 * 4, np.float32).view(Block)

    activity = voice_activity(blocks())
    assert activity.duration_s == 12
    assert most[0] <= 3
    assert activity.probability.nbytes <= 4 * (12 / WINDOW_S + 1)
