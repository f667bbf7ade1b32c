"""The feature sequences of one utterance: `pipeline extract` and `predict` see the same."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, from_numpy

from data_tools import mel
from data_tools.media.audio import read_audio
from data_tools.sequences.align import Word, average_within, intervals
from data_tools.sequences.audio import ACOUSTIC_SIZE, MEL_SIZE, acoustic, mel_summary
from data_tools.sequences.scale import FeatureScale
from data_tools.sequences.steps import Floats, Steps, untimed
from data_tools.sequences.vision import FACE_SIZE, face
from data_tools.sequences.words import split_words, vectors_of
from data_tools.store import SampleTensors
from data_tools.threads import one_thread
from models.layers.text import TextEncoder, pretrained
from pipeline.settings import ConfigError, LocalPath, Settings
from pipeline.training.features import FeatureUse


class TextSteps(Protocol):
    """Makes steps of texts. size: values of a step. digest: of all but the text that they depend on."""

    size: int
    digest: str

    def of_text(self, text: str) -> Steps:
        """Steps without times; none of an empty text."""

    def of_words(self, words: Sequence[Word]) -> Steps:
        """One step a word, with its times."""


class WordVectors:
    """A vector for each word and mark, from a GloVe file; zero for a word that the file doesn't have."""

    def __init__(self, vectors: dict[str, Floats], size: int) -> None:
        self.vectors = vectors
        self.size = size
        digest = blake2b(str(size).encode(), digest_size=16)
        for word, values in sorted(vectors.items()):
            digest.update(word.encode() + b"\0" + values.tobytes())
        self.digest = digest.hexdigest()

    def of_text(self, text: str) -> Steps:
        """One step a word or mark."""
        return untimed(vectors_of(split_words(text), self.vectors, self.size))

    def of_words(self, words: Sequence[Word]) -> Steps:
        """One step a word."""
        return Steps(vectors_of([word.text.lower() for word in words], self.vectors, self.size), intervals(words))


class TokenStates:
    """The encoder's last states of all tokens, its marks for begin and end included, as a model reads them itself.

    Each text goes through alone and on one thread, so that its states don't depend on its neighbours.
    """

    def __init__(self, encoder: TextEncoder, max_tokens: int) -> None:
        self.encoder = encoder.eval()
        self.max_tokens = max_tokens
        self.size = encoder.size
        digest = blake2b(type(encoder.encoder).__name__.encode(), digest_size=16)
        for name, value in encoder.state_dict().items():
            digest.update(name.encode() + value.numpy().tobytes())
        self.digest = digest.hexdigest()

    def of_text(self, text: str) -> Steps:
        """One step a token."""
        if not text.strip():
            return untimed(np.zeros((0, self.size), np.float32))
        tokens, _ = self.encoder.tokenizer([text])
        return untimed(self._states(tokens[0]).numpy())

    def of_words(self, words: Sequence[Word]) -> Steps:
        """One step a word: the mean of its tokens, read in their sentence; zero for a word beyond the longest text."""
        begin, end = self._marks()
        tokens, mask = self.encoder.tokenizer([word.text for word in words])
        pieces = [row[real][len(begin) : len(row[real]) - len(end)] for row, real in zip(tokens, mask, strict=True)]
        owner = torch.arange(len(pieces)).repeat_interleave(torch.tensor([len(piece) for piece in pieces]))
        inside = torch.cat(pieces)[: self.max_tokens - len(begin) - len(end)]
        states = self._states(torch.cat([begin, inside, end]))[len(begin) : len(begin) + len(inside)]
        owner = owner[: len(inside)]
        sums = torch.zeros(len(words), self.size).index_add(0, owner, states)
        counts = torch.bincount(owner, minlength=len(words)).clamp(min=1).unsqueeze(1)
        return Steps((sums / counts).numpy(), intervals(words))

    def _marks(self) -> tuple[Tensor, Tensor]:
        """Tokens that the tokenizer puts before and behind a text: those of an empty text, the last of them behind."""
        marks = self.encoder.tokenizer([""])[0][0]
        return marks[:-1], marks[-1:]

    def _states(self, tokens: Tensor) -> Tensor:
        with torch.inference_mode(), one_thread():
            states, _ = self.encoder.states(tokens.unsqueeze(0), torch.ones(1, len(tokens), dtype=torch.bool))
        return states[0].float()


@lru_cache(maxsize=1)
def token_states(name: str, max_tokens: int, offline: bool = False) -> TokenStates:
    """The steps of the encoder called `name`; kept, as a process reads many texts.

    offline: the name comes from a saved run, and the network is not asked for it.

    Raises:
        ModelError: no such encoder.
    """
    # `tiny` draws its weights: the same ones in every process.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return TokenStates(pretrained(name, max_tokens, offline), max_tokens)


class Recipe(Settings):
    """Features to make of text (t), audio (a) and vision (v). A run keeps its recipe, for `predict`."""

    modalities: str = Field("tav", pattern=r"^[tav]{1,3}$", description="letters of 'tav', each at most once")
    text_encoder: str = Field("minilm", description="its token states are the text; as a model's setting of that name")
    max_tokens: int = Field(100, ge=3, description="longer texts are cut")
    glove: LocalPath | None = Field(None, description="a GloVe text file: word vectors in place of token states")
    audio: Literal["acoustic", "mel"] = Field(
        "acoustic", description="acoustic: log F0, 20 MFCC, 12 chroma; mel: bands"
    )
    audio_step_ms: float = Field(32.0, ge=5, le=10_000, description="from one step of sound to the next")
    align: Literal["none", "words"] = Field("none", description="words: one step a word, in every modality")
    root: LocalPath | None = Field(None, description="the raw release, for the word times that come with it")

    @model_validator(mode="after")
    def _letters_are_named_once(self) -> Self:
        if len(set(self.modalities)) < len(self.modalities):
            raise ValueError(f"modalities is {self.modalities!r}: name each letter once")
        return self

    def what_matters(self) -> dict[str, Any]:
        """The settings that decide what comes out, without the places of this machine."""
        values = self.model_dump(mode="json", exclude={"glove", "root"})
        return values | {"word_vectors": self.glove is not None}


@dataclass(frozen=True)
class Source:
    """Inputs that an utterance's features are made from.

    audio: a file with its sound, or (S,) float32 at 16 kHz; None for none. stored: its tensors of stage 2, faces every
    `sample_every_ms`. words: with their times, where one step a word is asked for and they are known.
    """

    audio: Path | Floats | None
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
    sound = np.zeros(0, np.float32) if source.audio is None else source.audio
    waveform: Floats = read_audio(sound, mel.RATE_HZ) if isinstance(sound, Path) else sound
    return acoustic(waveform, recipe.audio_step_ms)


def _by_word(letter: str, steps: Steps, words: list[Word] | None) -> Steps:
    if words and letter == "t":
        return steps
    if words and not len(steps):
        return Steps(steps.values, np.zeros((0, 2), np.float32))
    if words:
        return average_within(steps, intervals(words))
    whole = steps.times[-1:, 1:] if len(steps) else np.zeros((0, 1), np.float32)
    times = np.concatenate([whole * 0, whole], axis=1)  # NaN stays NaN: tokens have no times
    return Steps(steps.values.mean(0, keepdims=True) if len(steps) else steps.values, times)


class FreshFeatures:
    """Makes the features of one run; use: what it was trained on. letters: modalities that its model reads as features.

    Raises:
        ConfigError: they cannot be made of a file alone: imported ones, word vectors, one step a word.
    """

    def __init__(self, use: FeatureUse, letters: str = "tav") -> None:
        settings = dict(use.settings)
        if "sets" in settings:
            raise ConfigError(
                f"the run was trained on features of several sets ({use.name}): they can't be made from a file alone; "
                "train on one set that `pipeline extract` makes"
            )
        if settings.get("imported"):
            raise ConfigError(
                f"the run was trained on imported features ({use.name!r}): they can't be made from a file"
            )
        if settings.pop("word_vectors", False) or settings.get("align") == "words":
            raise ConfigError(
                f"the run was trained on the features {use.name!r}, word vectors or one step a word: a file alone has "
                "neither; train on features that `pipeline extract --features default` makes"
            )
        self.recipe = Recipe.checked(settings, f"the features {use.name!r} of the run")
        self.scale = None if use.scale is None else FeatureScale.from_lists(use.scale)
        self.letters = [letter for letter in use.sizes if letter in letters]
        self.text = None
        if "t" in self.letters:
            self.text = token_states(self.recipe.text_encoder, self.recipe.max_tokens, offline=True)

    def make(self, source: Source) -> dict[str, Tensor]:
        """(N, D) float32 by modality letter, on the scale of the run.

        Raises:
            DataError: the sound cannot be read.
        """
        made = steps_of(source, self.recipe, self.text, self.letters)
        features = {letter: from_numpy(steps.values) for letter, steps in made.items()}
        return features if self.scale is None else self.scale(features)
