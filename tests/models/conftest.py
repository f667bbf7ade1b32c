"""Small batches and small models with the untrained `tiny` text encoder."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import models
from data_tools.batch import Batch, Packed

# So that test files can say `from reference import ...`: with importlib mode nothing is on the path by itself.
sys.path.insert(0, str(Path(__file__).parents[1]))

SMALL = {"text_encoder": "tiny", "width": 8, "layers": 2}
MakeBatch = Callable[..., Batch]


@pytest.fixture
def make_batch() -> MakeBatch:
    """`make_batch(faces=(2, 1), chunks=(1, 3))`: random faces and chunks, one sentence an utterance."""
    tokenize = models.tokenizer_for("tiny")

    def make(faces=(3, 0, 2), chunks=(2, 3, 0), seed=0) -> Batch:
        generator = torch.Generator().manual_seed(seed)
        texts = ["I told you not to come back!", "", "well, that is wonderful"][: len(faces)]
        tokens, token_mask = tokenize(texts)
        return Batch(
            faces=torch.randint(0, 256, (sum(faces), 3, 48, 48), dtype=torch.uint8, generator=generator),
            face_counts=torch.tensor(faces),
            chunks=torch.randn(sum(chunks), 1, 128, 32, generator=generator),
            chunk_counts=torch.tensor(chunks),
            tokens=tokens,
            token_mask=token_mask,
            labels=torch.randint(0, 2, (len(faces), 6), generator=generator).float(),
            sentiment=torch.zeros(len(faces)),
            ids=tuple(f"u{i}" for i in range(len(faces))),
        )

    return make


@pytest.fixture
def tiny_batch(make_batch: MakeBatch) -> Batch:
    """Three utterances, one without faces, one without sound and one without words."""
    return make_batch()


@pytest.fixture
def build_small():
    """`build_small(name, **settings)`: a small model with fixed weights."""

    def build(name: str, **settings):
        torch.manual_seed(0)
        return models.build(name, **{**SMALL, **settings})

    return build


@pytest.fixture
def make_features(make_batch):
    """`make_features(lengths, seed=0)`: a batch with features of 6 text, 4 audio and 5 vision values a step.

    lengths: one (text, audio, vision) triple an utterance.
    """
    dims = {"t": 6, "a": 4, "v": 5}

    def make(lengths=((3, 5, 4), (1, 2, 0), (4, 0, 6)), seed=0) -> Batch:
        generator = torch.Generator().manual_seed(seed)
        nothing = (0,) * len(lengths)
        batch = make_batch(faces=nothing[:3], chunks=nothing[:3], seed=seed)
        features = {
            letter: Packed(torch.randn(sum(counts), dims[letter], generator=generator), torch.tensor(counts))
            for letter, counts in zip("tav", zip(*lengths, strict=True), strict=True)
        }
        count = len(lengths)
        return replace(
            batch,
            face_counts=torch.zeros(count, dtype=torch.int64),
            chunk_counts=torch.zeros(count, dtype=torch.int64),
            tokens=torch.zeros(count, 1, dtype=torch.int64),
            token_mask=torch.zeros(count, 1, dtype=torch.bool),
            labels=torch.randint(0, 2, (count, 6), generator=generator).float(),
            sentiment=torch.randn(count, generator=generator),
            ids=tuple(f"u{i}" for i in range(count)),
            features=features,
        )

    return make


@pytest.fixture
def build_fusion():
    """`build_fusion(name, **settings)`: a fusion model for the features of `make_features`, with fixed weights."""

    def build(name: str, **settings):
        torch.manual_seed(0)
        return models.build(name, **{"text_dim": 6, "audio_dim": 4, "vision_dim": 5, **settings})

    return build
