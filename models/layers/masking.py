"""Masks of masked-language-model pretraining: tokens of a text, spans of a sequence.

Each utterance is masked by a generator of its own, so that its masks don't depend on its batch mates.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Of the tokens that are chosen: how many become the mask token, and how many a random one; the rest stays.
TO_MASK, TO_RANDOM = 0.8, 0.1


class Vocabulary(NamedTuple):
    """size: ids are below it. hidden: id of the mask token. special: ids that are never chosen nor drawn."""

    size: int
    hidden: int
    special: frozenset[int]


def mask_tokens(
    tokens: Tensor, present: Tensor, share: float, vocabulary: Vocabulary, draws: list[np.random.Generator]
) -> tuple[Tensor, Tensor]:
    """Devlin et al. 2019, section 3.1, drawn anew each time as in RoBERTa: (masked tokens, which were chosen).

    tokens, present: (B, L) int64 and bool; both results likewise. share: chance of a token to be chosen; special ones
    never are. draws: a generator an utterance.
    """
    special = torch.tensor(sorted(vocabulary.special), dtype=tokens.dtype, device=tokens.device)
    ordinary = np.array(sorted(set(range(vocabulary.size)) - vocabulary.special))
    length = tokens.shape[1]
    uniform = np.stack([draw.random((2, length)) for draw in draws])
    others = np.stack([draw.choice(ordinary, length) for draw in draws])
    chance, fate = torch.from_numpy(uniform).to(tokens.device).unbind(1)
    chosen = present & ~torch.isin(tokens, special) & (chance < share)
    masked = tokens.masked_fill(chosen & (fate < TO_MASK), vocabulary.hidden)
    drawn = chosen & (fate >= TO_MASK) & (fate < TO_MASK + TO_RANDOM)
    return torch.where(drawn, torch.from_numpy(others).to(tokens), masked), chosen


def span_mask(steps: int, chance: float, span: int, draw: np.random.Generator, at_least: int = 2) -> NDArray[np.bool_]:
    """(steps,) bool: each step begins a span of `span` hidden steps with this chance; spans overlap and end at the end.

    at_least: spans that every sequence has, however short (wav2vec 2.0's and HuBERT's minimum), one a step at most.
    """
    begins = draw.random(steps) < chance
    lacking = min(at_least, steps) - int(begins.sum())
    if lacking > 0:
        begins[draw.permutation(np.flatnonzero(~begins))[:lacking]] = True
    return np.convolve(begins, np.ones(span))[:steps] > 0


def span_masks(present: Tensor, chance: float, span: int, draws: list[np.random.Generator]) -> Tensor:
    """(B, L) bool: `span_mask` of each utterance's real steps. present: (B, L) bool, real steps first."""
    hidden = np.zeros(present.shape, bool)
    for row, steps, draw in zip(hidden, present.sum(1).tolist(), draws, strict=True):
        row[:steps] = span_mask(steps, chance, span, draw) if steps else False
    return torch.from_numpy(hidden).to(present.device)
