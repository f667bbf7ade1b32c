"""The feature sequences of one utterance: `pipeline extract` and `predict` see the same."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_tools import mel
from data_tools.media.audio import read_audio
from data_tools.sequences.align import Word, average_within, intervals
from data_tools.sequences.audio import ACOUSTIC_SIZE, MEL_SIZE, acoustic, mel_summary
from data_tools.sequences.steps import Floats, Steps
from data_tools.sequences.vision import FACE_SIZE, face
from data_tools.store import SampleTensors
from pipeline.extraction.recipe import Recipe
from pipeline.extraction.text_steps import TextSteps


@dataclass(frozen=True)
class Source:
    """Inputs that an utterance's features are made from.

    audio: a file with its sound; None for none. stored: its tensors of stage 2, faces every `sample_every_ms`.
    words: with their times, where one step a word is asked for and they are known.
    """

    audio: Path | None
    text: str
    stored: SampleTensors
    sample_every_ms: int
    words: list[Word] | None = None


def sizes_of(recipe: Recipe, text: TextSteps | None) -> dict[str, int]:
    """Values of a step by modality letter, in the order t, a, v."""
    audio = {"acoustic": ACOUSTIC_SIZE, "mel": MEL_SIZE}[recipe.audio]
    sizes = {"t": 0 if text is None else text.size, "a": audio, "v": FACE_SIZE}
    return {letter: size for letter, size in sizes.items() if letter in recipe.modalities}


def steps_of(source: Source, recipe: Recipe, text: TextSteps | None, letters: Iterable[str]) -> dict[str, Steps]:
    """The steps of the modalities `letters`.

    With `align: words` one step a word in each of them; an utterance without word times is one step as a whole.

    Raises:
        DataError: the sound cannot be read.
    """
    made: dict[str, Steps] = {}
    for letter in letters:
        if letter == "t":
            assert text is not None, "the recipe names text"
            made[letter] = text.of_words(source.words) if source.words else text.of_text(source.text)
        elif letter == "a":
            made[letter] = _audio(source, recipe)
        else:
            made[letter] = face(source.stored, source.sample_every_ms)
    if recipe.align == "none":
        return made
    return {letter: _by_word(letter, steps, source.words) for letter, steps in made.items()}


def _audio(source: Source, recipe: Recipe) -> Steps:
    if recipe.audio == "mel":
        return mel_summary(source.stored.logmel, recipe.audio_step_ms)
    waveform: Floats = np.zeros(0, np.float32) if source.audio is None else read_audio(source.audio, mel.RATE_HZ)
    return acoustic(waveform, recipe.audio_step_ms)


def _by_word(letter: str, steps: Steps, words: list[Word] | None) -> Steps:
    if words and letter == "t":
        return steps
    if words:
        return average_within(steps, intervals(words))
    whole = steps.times[-1:, 1:] if len(steps) else np.zeros((0, 1), np.float32)
    times = np.concatenate([whole * 0, whole], axis=1)  # NaN stays NaN: tokens have no times
    return Steps(steps.values.mean(0, keepdims=True) if len(steps) else steps.values, times)
