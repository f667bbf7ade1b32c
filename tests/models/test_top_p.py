"""Top-p against a loop, and its laws."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import nucleus

from models.layers.sparse import top_p
from models.layers.sparse.top_p import mass_before, top_p_mask


@pytest.fixture(autouse=True, params=["kernel", "plain torch"])
def _way(request, monkeypatch):
    if request.param == "plain torch":
        monkeypatch.setattr(top_p, "kernels_available", lambda weights: False)


def _weights(images, sites, seed, peaked=3.0):
    generator = torch.Generator().manual_seed(seed)
    active = torch.rand(images, sites, generator=generator) < 0.7
    active[:, 0] = True
    scores = torch.randn(images, sites, generator=generator) * peaked
    return scores.masked_fill(~active, float("-inf")).softmax(1), active


@pytest.mark.parametrize("p", [0.05, 0.3, 0.5, 0.7, 0.95, 1.0])
def test_it_keeps_what_the_loop_keeps(p):
    weights, active = _weights(20, 30, seed=1)
    mask = top_p_mask(weights, active, p)
    for row, here, kept in zip(weights, active, mask, strict=True):
        places = here.nonzero().flatten().tolist()
        expected = {places[i] for i in nucleus(row[here].tolist(), p)}
        assert set(kept.nonzero().flatten().tolist()) == expected


@given(seed=st.integers(0, 10_000), ps=st.lists(st.floats(0.001, 1.0), min_size=2, max_size=2))
@settings(max_examples=100, deadline=None)
def test_a_larger_p_keeps_a_superset_and_nothing_is_ever_empty(seed, ps):
    weights, active = _weights(4, 25, seed, peaked=20.0)  # so peaked that some weights underflow to zero
    small, large = (top_p_mask(weights, active, p) for p in sorted(ps))
    assert not (small & ~large).any()
    assert small.any(1).all()
    assert not (large & ~active).any()


def test_p_1_keeps_every_active_site_even_of_weight_zero():
    weights, active = _weights(6, 40, seed=2, peaked=200.0)
    assert (weights[active] == 0).any()
    assert torch.equal(top_p_mask(weights, active, 1.0), active)


def test_equal_weights_go_by_position():
    weights = torch.full((1, 8), 1 / 8)
    mask = top_p_mask(weights, torch.ones(1, 8, dtype=torch.bool), 0.5)
    assert mask.tolist() == [[True] * 4 + [False] * 4]


def test_an_image_is_chosen_alone():
    weights, active = _weights(9, 30, seed=3)
    together = top_p_mask(weights, active, 0.6)
    alone = torch.cat([top_p_mask(weights[i : i + 1], active[i : i + 1], 0.6) for i in range(9)])
    assert torch.equal(together, alone)


def test_the_mass_before_a_site_is_that_of_all_heavier_ones():
    weights, active = _weights(5, 60, seed=4)
    weights[0, :30] = weights[0, 30:].clone()  # many equal ones
    before = mass_before(weights, active)
    for row, here, found in zip(weights.double(), active, before, strict=True):
        for site in range(60):
            if here[site]:
                heavier = (row > row[site]) | ((row == row[site]) & (torch.arange(60) < site))
                assert found[site].item() == pytest.approx(row[heavier & here].sum().item(), abs=1e-6)
            else:
                assert found[site].item() == pytest.approx(row[here].sum().item(), abs=1e-6)
