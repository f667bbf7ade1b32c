"""Cross-modal attention: eq. 1-2 site by site, the hard mask, and where its gradient goes."""

import pytest
import torch
from reference import attention, nucleus

from models.layers.attention import CrossModalAttention
from models.layers.sparse_map import SparseMap


def _input(images=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    active = torch.rand(images, 5, 4, generator=generator) < 0.6
    active[:, 2, 2] = True
    dense = torch.randn(images, 6, 5, 4, generator=generator)
    return SparseMap.from_dense(dense, active), torch.randn(images, 7, generator=generator)


def _layer(p=0.5, gradient="straight_through"):
    torch.manual_seed(1)
    layer = CrossModalAttention(6, 7, p, gradient)
    with torch.no_grad():
        layer.score.weight.mul_(20)  # far from uniform, so that the order of the sites is well apart
    return layer


def test_weights_and_kept_sites_are_those_of_the_paper():
    x, query = _input()
    layer = _layer()
    kept, weights, macs = layer(x, query)
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
    assert macs == len(x.sites) * (6 * 6 + 6) + 3 * 6 * 7


def test_the_gradient_of_a_factor_is_that_of_its_relative_weight():
    x, query = _input()
    layer = _layer()
    kept, _, _ = layer(x, query)
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


@pytest.mark.parametrize("gradient", ["straight_through", "none"])
def test_forward_the_mask_is_hard_either_way(gradient):
    x, query = _input()
    features = x.features.requires_grad_()
    kept, _, _ = _layer(gradient=gradient)(SparseMap(features, x.sites), query)
    rows = x.sites.row_of[:, 1:-1, 1:-1][kept.sites.active]
    assert torch.equal(kept.features, features[rows])


def test_none_gives_the_attention_no_gradient():
    x, query = _input()
    layer = _layer(gradient="none")
    query.requires_grad_()
    kept, weights, _ = layer(SparseMap(x.features.requires_grad_(), x.sites), query)
    assert not weights.requires_grad
    kept.features.sum().backward()
    assert query.grad is None
    assert all(parameter.grad is None for parameter in layer.parameters())


def test_features_get_the_gradient_of_the_constant_mask_and_the_query_its_own():
    x, query = _input()
    grads = {}
    for gradient in ("straight_through", "none"):
        features, asked = x.features.clone().requires_grad_(), query.clone().requires_grad_()
        kept, _, _ = _layer(gradient=gradient)(SparseMap(features, x.sites), asked)
        (kept.features**2).sum().backward()
        grads[gradient] = features.grad
        assert (asked.grad is None) is (gradient == "none")
    assert torch.equal(grads["straight_through"], grads["none"])


def test_an_image_that_kept_all_its_sites_teaches_nothing():
    active = torch.zeros(2, 5, 4, dtype=torch.bool)
    active[0, :2] = True
    active[1, 0, :3] = True
    generator = torch.Generator().manual_seed(5)
    dense, query = torch.randn(2, 6, 5, 4, generator=generator), torch.randn(2, 7, generator=generator)
    dense[1] = 1.0  # three equal sites: two of them hold 2/3 of the mass, so p takes the third one too
    x = SparseMap.from_dense(dense, active)
    kept, _, _ = _layer(p=0.8)(x, query.requires_grad_())
    assert kept.sites.active[0].sum() < 8
    assert torch.equal(kept.sites.active[1], active[1])
    (kept.features * torch.randn(kept.features.shape, generator=generator)).sum().backward()
    assert query.grad[0].abs().max() > 0
    assert not query.grad[1].any()


@pytest.mark.parametrize("gradient", ["straight_through", "none"])
def test_p_1_keeps_everything_and_learns_nothing(gradient):
    x, query = _input()
    layer = _layer(p=1.0, gradient=gradient)
    kept, weights, _ = layer(SparseMap(x.features.requires_grad_(), x.sites), query.requires_grad_())
    assert torch.equal(kept.features, x.features)
    assert not weights.requires_grad
    kept.features.sum().backward()
    assert query.grad is None
    assert all(parameter.grad is None for parameter in layer.parameters())
