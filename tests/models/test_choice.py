"""`auto`: what is measured, what is kept, and that what was taken up is used again."""

import time

import pytest
import torch

from models.layers import backends, choice
from models.layers.backends import convolve, engine_for
from models.layers.choice import fastest, picked, take_up
from models.layers.sparse_map import Sites


@pytest.fixture(autouse=True)
def _nothing_known():
    before = picked()
    choice.forget()
    yield
    choice.forget()
    take_up(before)


def _engines(calls, **seconds):
    """Engines that note what they were given; each takes as long as said."""

    def make(name, delay):
        def engine(rows, weight, sites):
            calls.append((name, len(rows), len(sites), rows.requires_grad))
            stop = time.perf_counter() + delay
            while time.perf_counter() < stop:
                pass
            return (rows @ weight[:, :, 1, 1].T), 0.0

        return engine

    return {name: make(name, delay) for name, delay in seconds.items()}


def _input(images=4, channels=2, requires_grad=False):
    active = torch.rand(images, 5, 5, generator=torch.Generator().manual_seed(0)) < 0.5
    sites = Sites(active)
    weight = torch.ones(3, channels, 3, 3, requires_grad=requires_grad)
    return torch.ones(len(sites), channels), weight, sites


def test_the_fastest_is_measured_once_for_its_like():
    calls = []
    engines = _engines(calls, slow=0.02, quick=0.0)
    rows, weight, sites = _input()
    assert fastest(engines, rows, weight, sites) == "quick"
    measured = len(calls)
    assert measured > 2
    assert fastest(engines, rows, weight, sites) == "quick"
    assert len(calls) == measured
    assert list(picked().values()) == ["quick"]
    assert "float32, 2 to 3 channels" in next(iter(picked()))


def test_forward_alone_and_with_gradients_are_measured_apart():
    calls = []
    engines = _engines(calls, one=0.0, other=0.01)
    fastest(engines, *_input(requires_grad=True))
    assert all(with_gradient for *_, with_gradient in calls)
    calls.clear()
    with torch.no_grad():
        fastest(engines, *_input(requires_grad=True))
    assert calls
    assert not any(with_gradient for *_, with_gradient in calls)
    assert len(picked()) == 2


def test_measuring_leaves_no_trace():
    rows, weight, sites = _input(requires_grad=True)
    state = torch.get_rng_state()
    fastest(backends._PLAIN, rows, weight, sites)
    assert torch.equal(torch.get_rng_state(), state)
    assert weight.grad is None
    assert rows.grad is None


def test_a_large_map_is_measured_on_its_first_images():
    calls = []
    active = torch.ones(3, 40, 40, dtype=torch.bool)
    fastest(_engines(calls, one=0.0, other=0.0), torch.ones(4800, 2), torch.ones(3, 2, 3, 3), Sites(active))
    assert {(rows, sites) for _, rows, sites, _ in calls} == {(3200, 3200)}  # two images are more than 2,048


def test_what_was_taken_up_is_not_measured_again_unless_it_cannot_run():
    calls = []
    rows, weight, sites = _input()
    engines = _engines(calls, slow=0.02, quick=0.0)
    fastest(engines, rows, weight, sites)
    (kind,) = picked()
    take_up({kind: "slow"})
    calls.clear()
    assert fastest(engines, rows, weight, sites) == "slow"
    assert not calls
    take_up({kind: "from another machine"})
    assert fastest(engines, rows, weight, sites) == "quick"


@pytest.mark.parametrize("engine", ["torch", "gather", "dense"])
def test_auto_runs_what_was_taken(monkeypatch, engine):
    monkeypatch.setattr(backends, "WORTH_MEASURING", 0)
    rows, weight, sites = _input()
    convolve(rows, weight, sites, "auto")
    take_up(dict.fromkeys(picked(), engine))
    assert engine_for("auto", rows, weight, sites)[0] == engine
    found, macs = convolve(rows, weight, sites, "auto")
    expected, expected_macs = convolve(rows, weight, sites, engine)
    assert torch.equal(found, expected)
    assert macs == expected_macs


def test_small_maps_are_not_measured():
    rows, weight, sites = _input()
    convolve(rows, weight, sites, "auto")
    assert not picked()
