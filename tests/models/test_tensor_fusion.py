"""TFN and LMF beside slow, obvious versions of their products, and beside each other."""

import pytest
import torch
from torch import nn

import models
from models.layers.padded import Padded, pad
from models.layers.subnetworks import MeanSubnetwork, TextSubnetwork
from models.lmf import LowRankFusion
from models.tfn import TensorFusion

SIZES = {"t": 3, "a": 2, "v": 2}
SUBSETS = ["tav", "ta", "tv", "av", "t", "a", "v"]


def some_vectors(letters, count=2):
    return {letter: torch.randn(count, SIZES[letter]) for letter in letters}


def slow_product(vectors, i):
    """{indices: value} of [z; 1] x [z; 1] x ... of utterance i, in the order of the letters."""
    found = {(): 1.0}
    for vector in vectors.values():
        longer = [*vector[i].tolist(), 1.0]
        found = {(*at, j): value * x for at, value in found.items() for j, x in enumerate(longer)}
    return found


@pytest.mark.parametrize("letters", SUBSETS)
def test_tfn_reads_every_product_of_features_and_ones(letters):
    torch.manual_seed(0)
    fusion = TensorFusion({letter: SIZES[letter] for letter in letters}, fused=5)
    vectors = some_vectors(letters)
    with torch.no_grad():
        found = fusion(vectors)
        for i in range(2):
            product = torch.tensor(list(slow_product(vectors, i).values()))
            torch.testing.assert_close(found[i], fusion.contract.weight @ product + fusion.contract.bias)


@pytest.mark.parametrize("letters", SUBSETS)
@pytest.mark.parametrize("rank", [1, 3])
def test_lmf_is_the_full_tensors_contraction_with_the_weights_that_its_factors_make(letters, rank):
    """The weight of a value of the product is the sum over ranks of the product of its rows in the factors."""
    torch.manual_seed(0)
    fusion = LowRankFusion({letter: SIZES[letter] for letter in letters}, fused=5, rank=rank)
    vectors = some_vectors(letters)
    with torch.no_grad():
        fusion.bias.normal_()
        found = fusion(vectors)
        for i in range(2):
            expected = fusion.bias.clone()
            for at, value in slow_product(vectors, i).items():
                weight = torch.zeros(5)
                for r in range(rank):
                    part = torch.ones(5)
                    for letter, j in zip(letters, at, strict=True):
                        part = part * fusion.factors[letter][r, j]
                    weight += part
                expected += weight * value
            torch.testing.assert_close(found[i], expected)


def test_lmf_of_enough_rank_is_any_tfn():
    """One rank for each pair of rows of sound and picture; the text's factor has the tensor's weights for that pair."""
    torch.manual_seed(0)
    full = TensorFusion(SIZES, fused=5)
    rank = (SIZES["a"] + 1) * (SIZES["v"] + 1)
    low = LowRankFusion(SIZES, fused=5, rank=rank)
    weight = full.contract.weight.detach().view(5, SIZES["t"] + 1, SIZES["a"] + 1, SIZES["v"] + 1)
    with torch.no_grad():
        low.bias.copy_(full.contract.bias)
        for factor in low.factors.values():
            factor.zero_()
        for r in range(rank):
            j, k = divmod(r, SIZES["v"] + 1)
            low.factors["a"][r, j] = 1
            low.factors["v"][r, k] = 1
            low.factors["t"][r] = weight[:, :, j, k].T
        vectors = some_vectors("tav", count=7)
        torch.testing.assert_close(low(vectors), full(vectors))


def test_at_the_start_lmf_is_in_the_order_of_one_whatever_its_rank():
    torch.manual_seed(0)
    vectors = {letter: torch.randn(1000, 32) for letter in "tav"}
    for rank in (1, 4, 16):
        deviation = LowRankFusion(dict.fromkeys("tav", 32), fused=256, rank=rank)(vectors).std()
        assert 1 < deviation < 5  # 8 ** 0.5: each of three parts has variance 2, from its features and from its 1


@pytest.mark.parametrize(
    ("name", "fusion"), [("tfn", 129 * 33 * 33 * 128 + 128), ("lmf", 4 * (129 + 33 + 33) * 128 + 128)]
)
def test_the_fusions_have_the_sizes_that_a_hand_count_says(name, fusion):
    model = models.build(name, text_dim=300, audio_dim=5, vision_dim=20, outputs=1)
    assert sum(parameter.numel() for parameter in model.fusion.parameters()) == fusion
    text = 4 * 128 * (300 + 128 + 2) + 128 * 128 + 128
    others = sum((dim + 1) * 32 + 2 * (32 * 32 + 32) for dim in (5, 20))
    assert sum(parameter.numel() for parameter in model.subnetworks.parameters()) == text + others


def test_text_is_read_by_an_lstm_whose_last_real_state_counts():
    torch.manual_seed(0)
    network = TextSubnetwork(3, 4, dropout=0.5).eval()
    steps = torch.randn(5, 3)
    with torch.no_grad():
        found = network(pad(steps, torch.tensor([2, 3])))
        for i, own in enumerate(steps.split([2, 3])):
            _, (state, _) = network.lstm(own[None])
            linear = network.last[1]
            torch.testing.assert_close(found[i], torch.clamp(linear.weight @ state[0, 0] + linear.bias, min=0))


def test_the_others_are_the_mean_of_their_real_steps_through_three_layers():
    torch.manual_seed(0)
    network = MeanSubnetwork(3, 4, dropout=0.5).eval()
    steps = torch.randn(5, 3)
    padded = pad(steps, torch.tensor([2, 3]))
    noisy = Padded(padded.values + ~padded.present.unsqueeze(2), padded.present)  # what stands in the padding
    linears = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    assert len(linears) == 3
    with torch.no_grad():
        found = network(noisy)
        for i, own in enumerate(steps.split([2, 3])):
            x = sum(own) / len(own)
            for linear in linears:
                x = torch.clamp(linear.weight @ x + linear.bias, min=0)
            torch.testing.assert_close(found[i], x)
