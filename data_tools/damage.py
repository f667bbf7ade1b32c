"""Missing and noisy input: an utterance is damaged the same way for every model and among any batch mates.

What is taken away is drawn from (utterance id, seed, epoch) alone, for each modality by itself. The draw of a step
does not depend on the rate: what is missing at one rate is missing at every higher one.

- `drop_steps`, protocol `random` (Yuan et al. 2021; Sun et al. 2023, section 3.1): one rate for all modalities, a
  Bernoulli mask over the time steps of each.
- `drop_modalities`, protocol `modalities` (UCRN, section 4.4; MMIN): every step of whole modalities.
- `add_noise`, protocol `bernoulli` (UCRN, section 4.4): noise on every element of every modality.

A step that is taken away keeps its place. Sound and extracted features become 0, which is the mean, for both are
standardised; a face becomes the mean colour; a token becomes the unknown token, [CLS] and [SEP] stay. Of extracted
text features every step can go, the first too: a stored [CLS] state has read the whole sentence, and at rate 1 it
would still tell it. Of the sound itself, for models that read samples, 20 ms are a step.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_tools.batch import WAVEFORM, Batch, Packed

# A time step of the sound itself: 20 ms at 16 kHz, one frame of a speech encoder.
_SAMPLES = 320

Draw = Callable[..., NDArray[np.float64]]
# Of one utterance, by modality letter: the share of steps that go.
Rates = Mapping[str, float]


@dataclass(frozen=True)
class Blank:
    """Stand-ins for what was taken away, and the size of noise.

    token: id of the unknown token. kept_tokens: ids that are never taken away, such as [CLS] and [SEP].
    face, face_deviation: red, green, blue, 0 to 255: mean and standard deviation.
    """

    token: int
    kept_tokens: frozenset[int]
    face: tuple[float, float, float]
    face_deviation: tuple[float, float, float]


def drop_steps(batch: Batch, rate: float | tuple[float, float], seed: int, blank: Blank, epoch: int = 0) -> Batch:
    """The batch without about `rate` of the steps of each modality; rate 0 gives the batch bit for bit.

    rate: in [0, 1]; a pair (low, high) draws one rate for each utterance.
    """

    def rates(utterance_id: str) -> Rates:
        if not isinstance(rate, tuple):
            return dict.fromkeys("tav", rate)
        low, high = rate
        drawn = low + (high - low) * float(uniform(utterance_id, seed, epoch, "rate")(1)[0])
        return dict.fromkeys("tav", drawn)

    return _without(batch, [rates(utterance_id) for utterance_id in batch.ids], seed, epoch, blank)


def subsets(modalities: str) -> list[str]:
    """Every way in which some of the modalities, or all, can be present; the smallest first. Seven of three."""
    return ["".join(some) for size in range(1, len(modalities) + 1) for some in combinations(modalities, size)]


def drop_modalities(batch: Batch, present: Sequence[str], seed: int, blank: Blank, epoch: int = 0) -> Batch:
    """The batch with nothing but some modalities; the absent ones keep their lengths.

    present: sets of letters, of which one is drawn for each utterance, all equally likely.
    """

    def rates(utterance_id: str) -> Rates:
        kept = present[int(len(present) * uniform(utterance_id, seed, epoch, "present")(1)[0])]
        return {letter: float(letter not in kept) for letter in "tav"}

    return _without(batch, [rates(utterance_id) for utterance_id in batch.ids], seed, epoch, blank)


def add_noise(batch: Batch, probability: float, seed: int, blank: Blank, epoch: int = 0) -> Batch:
    """The batch with Bernoulli noise added: one deviation, with this probability, on each element by itself.

    Sound and features are standardised, so that 1 is added; colours rise by their deviation, to 255 at most. A token
    has no element to add to: it becomes the unknown token with the same probability, and is what `missing` tells of.
    """
    made = {}
    for part in _parts(batch):
        draws = [
            uniform(utterance_id, seed, epoch, f"noise on {part.name}")((count, *part.values.shape[1:]))
            for utterance_id, count in zip(batch.ids, part.counts, strict=True)
        ]
        noise = torch.from_numpy(np.concatenate(draws) < probability)
        if part.name == "faces":
            deviation = torch.tensor(blank.face_deviation).view(3, 1, 1)
            made[part.name] = (part.values + noise * deviation).round().clamp(max=255).to(torch.uint8)
        else:
            made[part.name] = part.values + noise
    nothing = {part.name: torch.zeros(len(part.values), dtype=torch.bool) for part in _parts(batch)}
    tokens, taken = _tokens(batch, [{"t": probability}] * len(batch), seed, epoch, blank)
    return _rebuilt(batch, made, tokens, nothing | {"tokens": taken})


@dataclass(frozen=True)
class _Part:
    """Packed steps of one kind. letter: its modality. blank: what a step becomes that goes, (1, ...).

    together: of so many steps all go or none.
    """

    name: str
    letter: str
    values: Tensor
    counts: list[int]
    blank: Tensor
    together: int = 1

    def draws(self, number: int, uniform: Draw) -> NDArray[np.float64]:
        """One draw for each step of utterance number `number` of the batch."""
        count = self.counts[number]
        return uniform(-(-count // self.together)).repeat(self.together)[:count]


def _parts(batch: Batch, blank: Blank | None = None) -> list[_Part]:
    """All that a batch has beside its tokens."""
    colour = torch.tensor(blank.face if blank else (0, 0, 0)).round().to(torch.uint8).view(1, 3, 1, 1)
    zero = torch.zeros(())
    parts = [
        _Part("chunks", "a", batch.chunks, batch.chunk_counts.tolist(), zero),
        _Part("faces", "v", batch.faces, batch.face_counts.tolist(), colour),
    ]
    for name, packed in batch.features.items():
        letter, together = ("a", _SAMPLES) if name == WAVEFORM else (name, 1)
        parts.append(_Part(name, letter, packed.values, packed.counts.tolist(), zero, together))
    return parts


def _without(batch: Batch, rates: Sequence[Rates], seed: int, epoch: int, blank: Blank) -> Batch:
    made, missing = {}, {}
    for part in _parts(batch, blank):
        draws = [
            part.draws(i, uniform(utterance_id, seed, epoch, part.letter)) < rates[i][part.letter]
            for i, utterance_id in enumerate(batch.ids)
        ]
        gone = missing[part.name] = torch.from_numpy(np.concatenate(draws))
        made[part.name] = torch.where(gone.view(-1, *[1] * (part.values.ndim - 1)), part.blank, part.values)
    tokens, missing["tokens"] = _tokens(batch, rates, seed, epoch, blank)
    return _rebuilt(batch, made, tokens, missing)


def _tokens(batch: Batch, rates: Sequence[Rates], seed: int, epoch: int, blank: Blank) -> tuple[Tensor, Tensor]:
    """(tokens, which of them are unknown now), both (B, L)."""
    length = batch.tokens.shape[1]
    draws = [
        uniform(utterance_id, seed, epoch, "t")(length) < rate["t"]
        for utterance_id, rate in zip(batch.ids, rates, strict=True)
    ]
    kept = torch.isin(batch.tokens, torch.tensor(sorted(blank.kept_tokens), dtype=batch.tokens.dtype))
    gone = torch.from_numpy(np.stack(draws)) & batch.token_mask & ~kept
    return batch.tokens.masked_fill(gone, blank.token), gone


def _rebuilt(batch: Batch, made: Mapping[str, Tensor], tokens: Tensor, missing: Mapping[str, Tensor]) -> Batch:
    features = {letter: Packed(made[letter], packed.counts) for letter, packed in batch.features.items()}
    return replace(batch, chunks=made["chunks"], faces=made["faces"], tokens=tokens, features=features, missing=missing)


def uniform(utterance_id: str, seed: int, epoch: int, what: str) -> Draw:
    """Draws from [0, 1) that depend on these alone; the first n of more draws are those of n."""
    digest = blake2b("\n".join([utterance_id, str(seed), str(epoch), what]).encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "big")).random
