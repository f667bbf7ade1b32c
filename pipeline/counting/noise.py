"""Seeded noise of stated size as a model's input, to count and to time it on."""

from dataclasses import replace

import torch

from data_tools.batch import WAVEFORM, Batch, Packed
from models.fusion import FusionConfig

# Steps of a sequence as CMU-MOSI's unaligned features have them (MMSA's feature files), which EMT's Table 8 is about.
STEPS = {"t": 50, "a": 375, "v": 500}
_NAMES = {"t": "text", "a": "audio", "v": "vision"}


def random_batch(utterances: int, faces: int, chunks: int, tokens: int, seed: int = 0) -> Batch:
    """Seeded noise of stated size: `faces`, `chunks` and `tokens` are of each utterance. Six labels."""
    generator = torch.Generator().manual_seed(seed)
    n_faces, n_chunks = utterances * faces, utterances * chunks
    return Batch(
        faces=torch.randint(0, 256, (n_faces, 3, 48, 48), dtype=torch.uint8, generator=generator),
        face_counts=torch.full((utterances,), faces),
        chunks=torch.randn(n_chunks, 1, 128, 32, generator=generator),
        chunk_counts=torch.full((utterances,), chunks),
        # Ids that every encoder has: the smallest vocabulary here is far above 1,000.
        tokens=torch.randint(3, 1000, (utterances, tokens), generator=generator),
        token_mask=torch.ones(utterances, tokens, dtype=torch.bool),
        labels=torch.randint(0, 2, (utterances, 6), generator=generator).float(),
        sentiment=torch.zeros(utterances),
        ids=tuple(f"random{i}" for i in range(utterances)),
    )


def with_waveform(batch: Batch, seconds: float, seed: int = 0) -> Batch:
    """The batch, each utterance with so many seconds of seeded noise as its sound."""
    # Not above: it needs packages of the data stages, which a machine that only times models may lack.
    from data_tools.media.audio import AUDIO_RATE_HZ

    count = round(seconds * AUDIO_RATE_HZ)
    values = torch.randn(len(batch) * count, 1, generator=torch.Generator().manual_seed(seed))
    return replace(batch, features={**batch.features, WAVEFORM: Packed(values, torch.full((len(batch),), count))})


def feature_batch(config: FusionConfig, seed: int = 0) -> tuple[Batch, str]:
    """One utterance of seeded noise as features, with tokens where an encoder reads them, and what it is in words."""
    generator = torch.Generator().manual_seed(seed)
    dims = {"t": config.text_dim, "a": config.audio_dim, "v": config.vision_dim}
    features = {
        letter: Packed(torch.randn(STEPS[letter], dims[letter], generator=generator), torch.tensor([STEPS[letter]]))
        for letter in config.feature_letters
    }
    lengths = ", ".join(
        f"{STEPS[letter]} steps of {dims[letter]} {name}" for letter, name in _NAMES.items() if letter in features
    )
    described = [f"{lengths} features"] * bool(lengths) + [f"{STEPS['t']} tokens"] * config.reads_tokens
    tokens = STEPS["t"] if config.reads_tokens else 1
    return replace(
        random_batch(1, 0, 0, tokens, seed), features=features
    ), f"one utterance of {' and '.join(described)}"
