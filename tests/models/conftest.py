"""Small batches and small models with the untrained `tiny` text encoder."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import models
from data_tools.batch import Batch

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
