"""The two losses that restore a damaged view, beside slow versions of their equations, and where gradients stop."""

import math

import pytest
import torch

from models.emt_dlfr import SimSiam
from models.layers.padded import Padded
from models.layers.reconstruction import Decoders, reconstruction_loss


def slow_smooth_l1(x):
    """Eq. 12, with the absolute value that its first case lacks."""
    return 0.5 * x * x if abs(x) < 1 else abs(x) - 0.5


def test_reconstruction_is_smooth_l1_over_the_features_of_missing_steps():
    generator = torch.Generator().manual_seed(0)
    guess, complete = (torch.randn(2, 4, 3, generator=generator) for _ in range(2))
    missing = torch.tensor([[True, False, True, False], [False, False, True, False]])
    apart = [
        slow_smooth_l1(float(complete[i, t, d] - guess[i, t, d]))
        for i in range(2)
        for t in range(4)
        for d in range(3)
        if missing[i, t]
    ]
    assert {math.copysign(1, float(x)) for x in (complete - guess)[missing].flatten()} == {-1.0, 1.0}
    assert min(apart) < 0.5 < max(apart)
    assert float(reconstruction_loss(guess, complete, missing)) == pytest.approx(sum(apart) / len(apart), rel=1e-6)


def test_a_large_negative_error_counts_by_its_size_and_not_by_its_square():
    every = torch.ones(1, 1, dtype=torch.bool)
    for error in (-10.0, 10.0):
        assert float(reconstruction_loss(torch.full((1, 1, 1), error), torch.zeros(1, 1, 1), every)) == 9.5


def test_steps_that_are_there_are_not_reconstructed_and_nothing_missing_is_no_loss():
    guess, complete = torch.randn(2, 3, 4, requires_grad=True), torch.randn(2, 3, 4, requires_grad=True)
    missing = torch.tensor([[True, False, False], [False, False, True]])
    reconstruction_loss(guess, complete, missing).backward()
    assert (guess.grad[missing] != 0).all()
    assert not guess.grad[~missing].any()
    assert complete.grad is None  # the target stays where it is
    assert reconstruction_loss(guess, complete, torch.zeros_like(missing)).item() == 0


def test_decoders_add_up_the_modalities():
    torch.manual_seed(0)
    decoders = Decoders({"t": 4, "a": 4}, {"t": 3, "a": 5})
    every = torch.ones(2, 3, dtype=torch.bool)
    fused = {letter: torch.randn(2, 3, 4) for letter in "ta"}
    complete = {"t": Padded(torch.randn(2, 3, 3), every), "a": Padded(torch.randn(2, 3, 5), every)}
    missing = {"t": torch.tensor([[True, False, True], [True, True, False]]), "a": every}
    expected = 0.0
    for letter in "ta":
        first, _, last = decoders.networks[letter]
        hidden = (fused[letter] @ first.weight.T + first.bias).clamp(min=0)
        guess = hidden @ last.weight.T + last.bias
        apart = (complete[letter].values - guess)[missing[letter]].flatten().tolist()
        expected += sum(map(slow_smooth_l1, apart)) / len(apart)
    assert decoders(fused, complete, missing).item() == pytest.approx(expected, rel=1e-5)


def slow_layers(network, x):
    """Linear, layer norm, ReLU, linear for one vector."""
    first, norm, _, last = network
    h = first.weight @ x + first.bias
    h = (h - h.mean()) / (h.var(unbiased=False) + norm.eps).sqrt() * norm.weight + norm.bias
    return last.weight @ h.clamp(min=0) + last.bias


def slow_distance(x, y):
    """Eq. 14."""
    return -float(x @ y) / (math.sqrt(float(x @ x)) * math.sqrt(float(y @ y)))


def test_simsiam_is_its_equations():
    torch.manual_seed(0)
    siamese = SimSiam(8)
    damaged, complete = torch.randn(3, 8), torch.randn(3, 8)
    with torch.no_grad():
        losses = []
        for one, other in zip(damaged, complete, strict=True):
            p = [slow_layers(siamese.project, x) for x in (one, other)]
            q = [slow_layers(siamese.predict, x) for x in p]
            losses.append(0.5 * (slow_distance(q[0], p[1]) + slow_distance(q[1], p[0])))
        assert siamese(damaged, complete).item() == pytest.approx(sum(losses) / 3, rel=1e-5)


def test_each_half_of_simsiam_stops_the_gradient_of_the_side_that_is_not_predicted():
    torch.manual_seed(0)
    siamese = SimSiam(8)
    moved, fixed = torch.randn(3, 8, requires_grad=True), torch.randn(3, 8, requires_grad=True)
    siamese._pull(siamese.project(moved), siamese.project(fixed)).backward()
    assert moved.grad.any()
    assert fixed.grad is None


def test_the_whole_of_simsiam_moves_both_views_each_by_the_half_that_predicts_it():
    torch.manual_seed(0)
    siamese = SimSiam(8)
    one, other = torch.randn(3, 8, requires_grad=True), torch.randn(3, 8, requires_grad=True)
    found = torch.autograd.grad(siamese(one, other), (one, other))
    with torch.no_grad():
        targets = siamese.project(one), siamese.project(other)
    for view, target, gradient in ((one, targets[1], found[0]), (other, targets[0], found[1])):
        half = -torch.cosine_similarity(siamese.predict(siamese.project(view)), target, dim=1).mean() / 2
        torch.testing.assert_close(torch.autograd.grad(half, view)[0], gradient)


def test_one_utterance_alone_can_be_trained_on_and_batch_mates_change_nothing():
    torch.manual_seed(0)
    siamese = SimSiam(8).train()
    one, other = torch.randn(4, 8), torch.randn(4, 8)
    alone = [siamese(one[i : i + 1], other[i : i + 1]).item() for i in range(4)]
    assert siamese(one, other).item() == pytest.approx(sum(alone) / 4, rel=1e-5)
