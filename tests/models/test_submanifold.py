"""Submanifold convolution and sparse pool against the dense masked reference, forward and backward."""

import pytest
import torch
from reference import masked_convolution, masked_max_pool

from models.errors import ModelError
from models.layers.backends import convolve
from models.layers.sparse_map import Sites, SparseMap
from models.layers.submanifold import SparseMaxPool2d, SubmanifoldConv2d

BACKENDS = ["torch", "dense", "auto"]


def _maps(images, height, width, density, seed):
    generator = torch.Generator().manual_seed(seed)
    if density == "one":
        active = torch.zeros(images, height, width, dtype=torch.bool)
        active[images // 2, height // 2, width - 1] = True
    elif density == "all but one":
        active = torch.ones(images, height, width, dtype=torch.bool)
        active[0, 0, 0] = False
    else:
        active = torch.rand(images, height, width, generator=generator) < density
    return active, generator


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("images", "height", "width", "density"),
    [
        (1, 6, 6, 0.4),
        (3, 7, 5, 0.5),
        (17, 4, 9, 0.1),
        (2, 1, 1, 1.0),
        (2, 1, 8, 0.7),
        (4, 6, 6, 1.0),
        (3, 5, 5, "one"),
        (3, 5, 5, "all but one"),
    ],
)
def test_every_backend_is_the_dense_convolution_of_the_zero_filled_map(backend, images, height, width, density):
    active, generator = _maps(images, height, width, density, seed=images)
    dense = torch.randn(images, 6, height, width, generator=generator, requires_grad=True)
    weight = torch.randn(10, 6, 3, 3, generator=generator).to(memory_format=torch.channels_last).requires_grad_()
    cotangent = torch.randn(images, 10, height, width, generator=generator)

    expected = masked_convolution(dense, weight, active)
    expected_grads = torch.autograd.grad((expected * cotangent).sum(), (dense, weight))
    sparse = SparseMap.from_dense(dense, active)
    rows, macs = convolve(sparse.features, weight, sparse.sites, backend)
    found = SparseMap(rows, sparse.sites).dense()
    grads = torch.autograd.grad((found * cotangent).sum(), (dense, weight))

    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(grad, expected_grad, rtol=1e-4, atol=1e-4)
    assert 0 < macs <= 9 * 6 * 10 * active.numel()


@pytest.mark.parametrize("backend", BACKENDS)
def test_bfloat16_is_close_whatever_the_number_of_pairs(backend):
    # 300 to 3,000 pairs a kernel element: none a round number, so each product has rows added to it.
    active, generator = _maps(25, 12, 14, 0.6, seed=9)
    dense = torch.randn(25, 16, 12, 14, generator=generator).bfloat16().float().requires_grad_()
    weight = torch.randn(24, 16, 3, 3, generator=generator).bfloat16().float()
    weight = weight.to(memory_format=torch.channels_last).requires_grad_()
    cotangent = torch.randn(25, 24, 12, 14, generator=generator)
    expected = masked_convolution(dense, weight, active)
    expected_grads = torch.autograd.grad((expected * cotangent).sum(), (dense, weight))
    sparse = SparseMap.from_dense(dense, active)
    with torch.autocast("cpu", torch.bfloat16):
        rows, _ = convolve(sparse.features, weight, sparse.sites, backend)
    assert rows.dtype == torch.bfloat16
    found = SparseMap(rows.float(), sparse.sites).dense()
    grads = torch.autograd.grad((found * cotangent).sum(), (dense, weight))
    # bfloat16 keeps 8 bits; up to nine partial sums are rounded: 2 % of the values' size.
    for value, reference in zip((found, *grads), (expected, *expected_grads), strict=True):
        assert (value - reference).abs().max() < 0.02 * reference.abs().max()


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["torch", "dense", "auto", "spconv"])
@pytest.mark.parametrize("density", [0.4, 1.0, "one", "all but one"])
def test_every_backend_agrees_on_a_gpu(monkeypatch, backend, density):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    active, generator = _maps(9, 12, 12, density, seed=3)
    dense = torch.randn(9, 32, 12, 12, generator=generator).cuda().requires_grad_()
    weight = torch.randn(64, 32, 3, 3, generator=generator).cuda().requires_grad_()
    cotangent = torch.randn(9, 64, 12, 12, generator=generator).cuda()
    expected = masked_convolution(dense, weight, active.cuda())
    expected_grads = torch.autograd.grad((expected * cotangent).sum(), (dense, weight))
    sparse = SparseMap.from_dense(dense, active.cuda())
    rows, _ = convolve(sparse.features, weight, sparse.sites, backend)
    found = SparseMap(rows, sparse.sites).dense()
    grads = torch.autograd.grad((found * cotangent).sum(), (dense, weight))
    for value, reference in zip((found, *grads), (expected, *expected_grads), strict=True):
        assert (value - reference).abs().max() < 1e-4 * reference.abs().max()


def test_gradients_agree_with_finite_differences():
    active, generator = _maps(2, 4, 3, 0.6, seed=1)
    sites = Sites(active)
    rows = torch.randn(len(sites), 2, dtype=torch.float64, generator=generator, requires_grad=True)
    weight = torch.randn(3, 2, 3, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    assert torch.autograd.gradcheck(lambda r, w: convolve(r, w, sites, "torch")[0], (rows, weight))


def test_multiply_adds_of_pairs_are_hand_counted():
    # Three sites in a row and one far away: 3 + 1 centres, and two neighbourhoods that count in both directions.
    active = torch.zeros(1, 5, 5, dtype=torch.bool)
    active[0, 1, 0:3] = True
    active[0, 4, 4] = True
    sites = Sites(active)
    _, macs = convolve(torch.ones(4, 2), torch.ones(3, 2, 3, 3), sites, "torch")
    assert macs == (4 + 2 * 2) * 2 * 3
    _, macs = convolve(torch.ones(4, 2), torch.ones(3, 2, 3, 3), sites, "dense")
    assert macs == 25 * 9 * 2 * 3


@pytest.mark.parametrize("backend", ["spconv", "spconv_triton"])
def test_spconv_refuses_a_cpu(backend):
    layer = SubmanifoldConv2d(2, 2, backend)
    with pytest.raises(ModelError, match="CUDA only.*use backend=torch"):
        layer(SparseMap.from_dense(torch.ones(1, 2, 3, 3)))


def test_an_unknown_backend_is_named():
    with pytest.raises(ModelError, match="'magic'; known: auto, torch"):
        SubmanifoldConv2d(2, 2, "magic")(SparseMap.from_dense(torch.ones(1, 2, 3, 3)))


@pytest.mark.parametrize(("height", "width", "density"), [(6, 4, 0.4), (7, 5, 0.3), (6, 6, 1.0), (6, 4, "one")])
def test_sparse_pool_is_the_maximum_over_active_sites(height, width, density):
    active, generator = _maps(3, height, width, density, seed=5)
    dense = torch.randn(3, 4, height, width, generator=generator, requires_grad=True)
    expected, expected_mask = masked_max_pool(dense, active)
    pooled = SparseMaxPool2d()(SparseMap.from_dense(dense, active))
    assert torch.equal(pooled.sites.active, expected_mask)
    torch.testing.assert_close(pooled.dense(), expected)
    cotangent = torch.randn(expected.shape, generator=generator)
    (grad,) = torch.autograd.grad((pooled.dense() * cotangent).sum(), dense)
    (expected_grad,) = torch.autograd.grad((expected * cotangent).sum(), dense)
    torch.testing.assert_close(grad, expected_grad)


def test_select_and_dense_keep_rows_at_their_sites():
    active, generator = _maps(4, 5, 6, 0.7, seed=2)
    kept = active & (torch.rand(active.shape, generator=generator) < 0.5)
    dense = torch.randn(4, 3, 5, 6, generator=generator)
    selected = SparseMap.from_dense(dense, active).select(kept)
    assert torch.equal(selected.dense(), dense * kept.unsqueeze(1))
    assert torch.equal(selected.sites.coordinates, kept.nonzero().int())
    assert selected.sites.coordinates.is_contiguous()
    assert selected.sites.image.tolist() == kept.nonzero()[:, 0].tolist()
