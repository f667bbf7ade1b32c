"""Cross-modal attention: eq. 1-2 site by site, the hard mask, and where its gradient goes."""

import math
from functools import partial

import pytest
import torch
from reference import attention, nucleus

from models.layers.sparse.attention import SOFTNESS, CrossModalAttention, _OfImage
from models.layers.sparse.sparse_map import SparseMap

EVERY = ["none", "straight_through", "soft", "budget"]


class _Size:
    channels = 6


@pytest.fixture(autouse=True, params=[6, 16], ids=["plain torch", "kernels"])
def _channels(request, monkeypatch):
    """Of the maps: a multiple of 16 goes through the kernels in C where there is a compiler."""
    monkeypatch.setattr(_Size, "channels", request.param)


def _input(images=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    active = torch.rand(images, 5, 4, generator=generator) < 0.6
    active[:, 2, 2] = True
    dense = torch.randn(images, _Size.channels, 5, 4, generator=generator)
    return SparseMap.from_dense(dense, active), torch.randn(images, 7, generator=generator)


def _layer(p=0.5, gradient="straight_through"):
    torch.manual_seed(1)
    layer = CrossModalAttention(_Size.channels, 7, p, gradient)
    with torch.no_grad():
        layer.score.weight.mul_(20)  # far from uniform, so that the order of the sites is well apart
    return layer


def test_weights_and_kept_sites_are_those_of_the_paper():
    x, query = _input()
    layer = _layer()
    kept, weights, macs, share = layer(x, query)
    assert share is None
    for i in range(3):
        here = x.sites.image == i
        parameters = layer.of_map.weight, layer.of_map.bias, layer.of_query.weight, layer.score.weight
        expected = attention(x.features[here], query[i], *parameters)
        torch.testing.assert_close(weights[i][x.sites.active[i]], expected, rtol=1e-4, atol=1e-6)
        assert not weights[i][~x.sites.active[i]].any()
        places = x.sites.active[i].flatten().nonzero().flatten().tolist()
        chosen = {places[j] for j in nucleus(expected.tolist(), 0.5)}
        assert set(kept.sites.active[i].flatten().nonzero().flatten().tolist()) == chosen
    assert torch.equal(kept.dense(), x.dense() * kept.sites.active.unsqueeze(1))
    c = _Size.channels
    assert macs == len(x.sites) * (c * c + c) + 3 * c * 7


def test_the_gradient_of_a_factor_is_that_of_its_relative_weight():
    x, query = _input()
    layer = _layer()
    kept = layer(x, query).kept
    cotangent = torch.randn(kept.features.shape, generator=torch.Generator().manual_seed(3))
    found = torch.autograd.grad((kept.features * cotangent).sum(), list(layer.parameters()))

    # The same thing said slowly: each kept site's weight, over the constant mean of its image's kept weights.
    loss = torch.zeros(())
    row = 0
    for i in range(3):
        features = x.features[x.sites.image == i]
        hidden = torch.tanh(layer.of_map(features) + layer.of_query(query[i]))
        weights = layer.score(hidden).flatten().softmax(0)
        chosen = sorted(nucleus(weights.tolist(), 0.5))
        mean = weights[chosen].detach().mean()
        for site in chosen:
            loss = loss + weights[site] / mean * (features[site] * cotangent[row]).sum()
            row += 1
    assert row == len(kept.features)
    for grad, expected in zip(found, torch.autograd.grad(loss, list(layer.parameters())), strict=True):
        torch.testing.assert_close(grad, expected, rtol=1e-4, atol=1e-5)
        assert grad.abs().max() > 0


@pytest.mark.parametrize("gradient", ["straight_through", "none", "budget"])
def test_forward_the_mask_is_hard(gradient):
    x, query = _input()
    features = x.features.requires_grad_()
    kept = _layer(gradient=gradient)(SparseMap(features, x.sites), query).kept
    rows = x.sites.row_of[:, 1:-1, 1:-1][kept.sites.active]
    assert torch.equal(kept.features, features[rows])


def test_none_gives_the_attention_no_gradient():
    x, query = _input()
    layer = _layer(gradient="none")
    query.requires_grad_()
    kept, weights, *_ = layer(SparseMap(x.features.requires_grad_(), x.sites), query)
    assert not weights.requires_grad
    kept.features.sum().backward()
    assert query.grad is None
    assert all(parameter.grad is None for parameter in layer.parameters())


def test_features_get_the_gradient_of_the_constant_mask_and_the_query_its_own():
    x, query = _input()
    grads = {}
    for gradient in ("straight_through", "budget", "none"):
        features, asked = x.features.clone().requires_grad_(), query.clone().requires_grad_()
        kept = _layer(gradient=gradient)(SparseMap(features, x.sites), asked).kept
        (kept.features**2).sum().backward()
        grads[gradient] = features.grad
        assert (asked.grad is None) is (gradient == "none")
    assert torch.equal(grads["straight_through"], grads["none"])
    assert torch.equal(grads["budget"], grads["none"])


def test_an_image_that_kept_all_its_sites_teaches_nothing():
    active = torch.zeros(2, 5, 4, dtype=torch.bool)
    active[0, :2] = True
    active[1, 0, :3] = True
    generator = torch.Generator().manual_seed(5)
    dense, query = torch.randn(2, _Size.channels, 5, 4, generator=generator), torch.randn(2, 7, generator=generator)
    dense[1] = 1.0  # three equal sites: two of them hold 2/3 of the mass, so p takes the third one too
    x = SparseMap.from_dense(dense, active)
    kept = _layer(p=0.8)(x, query.requires_grad_()).kept
    assert kept.sites.active[0].sum() < 8
    assert torch.equal(kept.sites.active[1], active[1])
    (kept.features * torch.randn(kept.features.shape, generator=generator)).sum().backward()
    assert query.grad[0].abs().max() > 0
    assert not query.grad[1].any()


@pytest.mark.parametrize("gradient", EVERY)
def test_p_1_keeps_everything_and_learns_nothing(gradient):
    x, query = _input()
    layer = _layer(p=1.0, gradient=gradient)
    kept, weights, *_ = layer(SparseMap(x.features.requires_grad_(), x.sites), query.requires_grad_())
    assert torch.equal(kept.features, x.features)
    assert not weights.requires_grad
    kept.features.sum().backward()
    assert query.grad is None
    assert all(parameter.grad is None for parameter in layer.parameters())


def _p(layer, query):
    on_a_scale = (query - query.mean()) / (query.var(unbiased=False) + 1e-5).sqrt() / 7**0.5
    return torch.sigmoid(layer.of_p(on_a_scale)).item()


def _kept_one_by_one(layer, x, query, p_of):
    """Image by image: (weights over the active sites, kept ones in order of place, p)."""
    for i in range(len(query)):
        features = x.features[x.sites.image == i]
        hidden = torch.tanh(layer.of_map(features) + layer.of_query(query[i]))
        weights = layer.score(hidden).flatten().softmax(0)
        p = p_of(query[i])
        yield features, weights, sorted(nucleus(weights.tolist(), float(p))), p


def test_soft_multiplies_kept_sites_by_their_relative_weight():
    x, query = _input()
    layer = _layer(gradient="soft")
    expected = [
        features[site] * weights[site] / weights[kept].mean()
        for features, weights, kept, _ in _kept_one_by_one(layer, x, query, lambda _: 0.5)
        for site in kept
    ]
    torch.testing.assert_close(layer(x, query).kept.features, torch.stack(expected), rtol=1e-4, atol=1e-6)


def test_soft_has_the_true_gradient_of_features_query_and_parameters():
    x, query = _input(images=2)
    layer = _layer(gradient="soft").double()
    names, values = zip(*layer.named_parameters(), strict=True)
    features, query = x.features.double().requires_grad_(), query.double().requires_grad_()

    def kept(features, query, *values):
        given = dict(zip(names, values, strict=True))
        return torch.func.functional_call(layer, given, (SparseMap(features, x.sites), query)).kept.features

    # The weights are float32 inside, so the steps are large and the comparison is loose.
    assert torch.autograd.gradcheck(kept, (features, query, *values), eps=1e-3, atol=2e-2, rtol=1e-2, fast_mode=False)


def test_p_of_each_image_decides_what_is_kept():
    x, query = _input()
    layer = _layer(gradient="budget")
    found = layer(x, query)
    ps = []
    for i, (_, weights, kept, p) in enumerate(_kept_one_by_one(layer, x, query, partial(_p, layer))):
        places = x.sites.active[i].flatten().nonzero().flatten()
        assert torch.equal(found.kept.sites.active[i].flatten().nonzero().flatten(), places[kept])
        assert found.kept_share[i].item() == pytest.approx(len(kept) / len(weights))
        ps.append(p)
    assert len(set(ps)) == 3
    c = _Size.channels
    assert found.macs == len(x.sites) * (c * c + c) + 3 * (c * 7 + 7)


def test_p_that_rounds_to_1_keeps_every_site():
    x, query = _input()
    layer = _layer(gradient="budget")
    torch.nn.init.constant_(layer.of_p.bias, 100.0)
    assert torch.equal(layer(x, query).kept.sites.active, x.sites.active)


def test_the_gradient_of_p_is_that_of_the_relaxed_share_and_of_the_relaxed_factors():
    x, query = _input()
    layer = _layer(gradient="budget")
    found = layer(x, query)
    cotangent = torch.randn(found.kept.features.shape, generator=torch.Generator().manual_seed(3))
    loss = (found.kept.features * cotangent).sum() + 2 * found.kept_share.sum()
    grads = torch.autograd.grad(loss, list(layer.of_p.parameters()))

    # The same by finite differences of what a kept site counts for, as a plain function of bp.
    def slowly(shift):
        total, row = 0.0, 0
        for features, weights, kept, p in _kept_one_by_one(layer, x, query, partial(_p, layer)):
            logit = math.log(p / (1 - p)) + shift
            moved = 1 / (1 + math.exp(-logit))
            order = sorted(range(len(weights)), key=lambda j: (-weights[j].item(), j))
            before = {site: sum(weights[order[:k]].tolist()) for k, site in enumerate(order)}
            taken = {site: 1 / (1 + math.exp(-(moved - before[site]) / SOFTNESS)) for site in order}
            total += 2 * sum(taken.values()) / len(weights)
            for site in kept:
                total += taken[site] * (features[site] * cotangent[row]).sum().item()
                row += 1
        return total

    step = 1e-4
    assert grads[1].item() == pytest.approx((slowly(step) - slowly(-step)) / (2 * step), rel=1e-3)
    assert grads[0].abs().max() > 0


def test_the_attention_learns_alike_with_a_fixed_and_a_learnt_p():
    x, query = _input()
    grads = []
    for gradient in ("straight_through", "budget"):
        layer = _layer(gradient=gradient)
        if layer.of_p is not None:
            torch.nn.init.zeros_(layer.of_p.weight)  # then p is the same for every image
        kept = layer(x, query).kept.features
        grads.append(torch.autograd.grad((kept**3).sum(), layer.of_map.weight)[0])
    torch.testing.assert_close(grads[0], grads[1])


@pytest.mark.parametrize("gradient", EVERY)
def test_the_order_of_the_images_changes_nothing(gradient):
    x, query = _input()
    layer = _layer(gradient=gradient)
    turned = SparseMap.from_dense(x.dense().flip(0), x.sites.active.flip(0))
    found, other = layer(x, query), layer(turned, query.flip(0))
    assert torch.equal(other.kept.sites.active.flip(0), found.kept.sites.active)
    torch.testing.assert_close(other.kept.dense().flip(0), found.kept.dense())


def test_kernels_in_bfloat16_are_close_to_float32():
    if _Size.channels == 6:
        return
    generator = torch.Generator().manual_seed(4)
    active = torch.rand(40, 16, 16, generator=generator) < 0.7
    dense = torch.randn(40, 16, 16, 16, generator=generator).bfloat16().float()
    query = torch.randn(40, 7, generator=generator)
    layer = _layer(gradient="soft")
    assert active.sum() > 4096  # more rows than one product of the gradient takes
    found = []
    for half in (False, True):
        x = SparseMap.from_dense(dense, active)
        features = x.features.requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            scores = layer._scores(features, query, x.sites)
        assert scores.dtype == torch.float32
        wanted = features, layer.of_map.weight, layer.of_map.bias, layer.of_query.weight, layer.score.weight
        found.append((scores, *torch.autograd.grad(scores.square().sum(), wanted)))
    for value, expected in zip(*found, strict=True):
        assert value.dtype == expected.dtype == torch.float32
        assert (value - expected).abs().max() <= 0.03 * expected.abs().max()


@pytest.mark.parametrize("value", [0.0, 1e-6, -1e-3, 0.3, -2.0, 9.0, 40.0, float("nan")])
def test_tanh_of_the_kernels_is_tanh(value):
    if _Size.channels == 6:
        return
    layer = _layer()
    with torch.no_grad():
        layer.of_map.weight.copy_(torch.eye(16))
        layer.of_map.bias.zero_()
        layer.of_query.weight.zero_()
        layer.score.weight.fill_(1 / 16)
    x = SparseMap.from_dense(torch.full((1, 16, 1, 1), value))
    found = layer._scores(x.features, torch.zeros(1, 7), x.sites).item()
    assert found == pytest.approx(math.tanh(value), abs=3e-7, nan_ok=True)


def test_the_gradient_of_a_query_is_summed_in_float32_over_the_sites_of_its_image():
    generator = torch.Generator().manual_seed(0)
    active = torch.rand(3, 32, 32, generator=generator) < 0.9
    active[1] = False
    sites = SparseMap.from_dense(torch.zeros(3, 1, 32, 32), active).sites
    values = torch.randn(3, 8, generator=generator).bfloat16().requires_grad_()
    rows = _OfImage.apply(values, sites)
    assert torch.equal(rows, values[sites.image])
    cotangent = (torch.randn(rows.shape, generator=generator) + 1).bfloat16()
    (found,) = torch.autograd.grad(rows, values, cotangent)
    expected = torch.zeros(3, 8, dtype=torch.float64).index_add(0, sites.image, cotangent.double())
    # Half a step of bfloat16: only the sum is rounded. Added up in bfloat16 it is 2 % off and more.
    assert ((found.double() - expected).abs() <= expected.abs() / 256).all()
    assert not found[1].any()
