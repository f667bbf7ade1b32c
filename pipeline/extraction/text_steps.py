"""Text as a sequence: token states of a pretrained encoder, or word vectors."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from hashlib import blake2b
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from data_tools.sequences.align import Word, intervals
from data_tools.sequences.steps import Floats, Steps, untimed
from data_tools.sequences.words import split_words, vectors_of
from models.layers.text import TextEncoder, pretrained


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
def token_states(name: str, max_tokens: int) -> TokenStates:
    """The steps of the encoder called `name`; kept, as a process reads many texts.

    Raises:
        ModelError: no such encoder.
    """
    # `tiny` draws its weights: the same ones in every process.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return TokenStates(pretrained(name, max_tokens), max_tokens)


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums in the same order whatever the machine: with more threads the last bits of a product change."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
