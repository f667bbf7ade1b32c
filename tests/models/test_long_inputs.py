"""Long inputs in little memory: a tower in slices and a long sequence give what they give of all at once."""

import pytest
import torch

import models.layers.sequence as sequence_module
import models.layers.tower as tower_module
from models.layers.sequence import SequenceEncoder
from models.layers.tower import Tower
from models.layers.vgg import DenseStage, SparseStage


def build(kind):
    torch.manual_seed(0)
    if kind == "dense":
        stages = [DenseStage(4 * 2**i, 8 * 2**i) for i in range(3)]
    else:
        stages = [SparseStage(4 * 2**i, 8 * 2**i, 6, 0.5, "straight_through", "auto") for i in range(3)]
    return Tower((32, 32), 4, stages, (0.0,), (1.0,)).eval()


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_slices_change_nothing(kind, monkeypatch):
    tower, images = build(kind), torch.randn(11, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    query = None if kind == "dense" else torch.randn(11, 6, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        whole = tower(images, query)
        monkeypatch.setattr(tower_module, "MAX_IMAGES", 4)
        sliced = tower(images, query)
    torch.testing.assert_close(sliced.features, whole.features)
    assert {name: float(value) for name, value in sliced.macs.items()} == pytest.approx(
        {name: float(value) for name, value in whole.macs.items()}
    )
    for one, other in zip(sliced.stages, whole.stages, strict=True):
        assert (one.sites, one.active) == (other.sites, other.active)
        assert float(one.attention_macs) == pytest.approx(float(other.attention_macs))
        for name in ("kept", "kept_share"):
            assert (getattr(one, name) is None) == (getattr(other, name) is None)
            if getattr(one, name) is not None:
                torch.testing.assert_close(getattr(one, name), getattr(other, name))


def test_slices_are_of_evaluation_without_gradients_alone(monkeypatch):
    tower, images = build("dense"), torch.randn(5, 1, 32, 32)
    sizes = []
    tower.stem.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    monkeypatch.setattr(tower_module, "MAX_IMAGES", 2)
    tower(images, None)
    tower.train()
    with torch.no_grad():
        tower(images, None)
        tower.eval()
        tower(images, None)
    assert sizes == [5, 5, 2, 2, 1]


def test_a_long_sequence_has_the_same_state(monkeypatch):
    torch.manual_seed(0)
    encoder = SequenceEncoder(8, 2, 2, 0.1).eval()
    frames, counts = torch.randn(30, 8), torch.tensor([20, 0, 10])
    with torch.inference_mode():
        fast, _ = encoder(frames, counts)
        monkeypatch.setattr(sequence_module, "LONG", 5)
        slow, _ = encoder(frames, counts)
    torch.testing.assert_close(slow, fast)
    assert torch.backends.mha.get_fastpath_enabled()
