"""No forward works through its utterances one by one: eight of them take as many operators as two."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import models
from data_tools.batch import Batch, Packed

SMALL = {
    "fe2e": {"text_encoder": "tiny", "width": 4, "layers": 1},
    # One backend: which one `auto` takes depends on how many sites are active.
    "mesm": {"text_encoder": "tiny", "width": 4, "layers": 1, "backend": "torch"},
    "mult": {"size": 10, "layers": 2},
    "emt": {"size": 8, "heads": 2, "layers": 2},
    "lmr-cbt": {"size": 8, "heads": 2, "layers": 2, "head_size": 16},
    "ucrn": {"size": 12, "layers": 2},
    "emt-dlfr": {"size": 8, "heads": 2, "layers": 2},
    "tfr-net": {"size": 6, "heads": 2, "layers": 1, "gate_layers": 1, "head_size": 8},
    "cmt": {"width": 8, "heads": 2, "feed_forward": 16},
    "lf-lstm": {"size": 6},
    "lf-trans": {"size": 8, "heads": 2, "layers": 2},
    "emoembs": {"size": 6, "audio_size": 5, "vision_size": 4},
    "tfn": {"size": 8, "audio_size": 6, "vision_size": 6, "fused_size": 16},
    "lmf": {"size": 6, "audio_size": 4, "vision_size": 3, "fused_size": 8, "rank": 2},
}


class Counting(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.operators = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.operators += 1
        return function(*args, **(kwargs or {}))


def same_two_utterances(times):
    """Two utterances again and again: of one length, for a recurrent network works through the steps of the longest."""
    draw = torch.Generator().manual_seed(0)
    faces = torch.randint(0, 256, (5, 3, 48, 48), generator=draw).to(torch.uint8)
    chunks = torch.randn(5, 1, 128, 32, generator=draw)
    tokens, mask = torch.randint(3, 90, (2, 6), generator=draw), torch.arange(6) < torch.tensor([[4], [6]])
    features = {
        letter: Packed(torch.randn(10, size, generator=draw).repeat(times, 1), torch.tensor([4, 6] * times))
        for letter, size in {"t": 384, "a": 33, "v": 142}.items()
    }
    return Batch(
        faces=faces.repeat(times, 1, 1, 1),
        face_counts=torch.tensor([2, 3] * times),
        chunks=chunks.repeat(times, 1, 1, 1),
        chunk_counts=torch.tensor([3, 2] * times),
        tokens=tokens.repeat(times, 1),
        token_mask=mask.repeat(times, 1),
        labels=torch.zeros(2 * times, 6),
        sentiment=torch.zeros(2 * times),
        ids=tuple(map(str, range(2 * times))),
        features=features,
    )


@pytest.mark.parametrize("name", models.REGISTRY)
def test_eight_utterances_take_as_many_operators_as_two(name):
    model, counts = models.build(name, **SMALL[name]), []
    for times in (1, 4):
        batch = same_two_utterances(times)
        with torch.no_grad(), Counting() as counting:
            model(batch)
        counts.append(counting.operators)
    assert counts[0] == counts[1] > 10
