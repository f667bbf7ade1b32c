"""Kernels in Triton's interpreter against slow dense versions: on random maps, and on those of one site or all."""

import pytest
import torch
from reference import masked_convolution, masked_max_pool
from torch import nn
from torch.nn import functional as F

from models.layers.norm import BatchNormRelu
from models.layers.sparse.backends import convolve
from models.layers.sparse.sparse_map import SparseMap
from models.layers.sparse.top_p import top_p_mask
from models.triton_kernels.convolve import convolve_sites
from models.triton_kernels.norm import norm_relu, statistics_of
from models.triton_kernels.pool import norm_relu_pool
from models.triton_kernels.select import row_products, select_sites
from models.triton_kernels.tables import make_tables

# Share of the largest value by which results may differ: bfloat16 keeps 8 bits, float16 11, of up to nine sums.
ROUNDING = {torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 3e-2}
# (images, height, width, density), odd sizes and maps without a neighbour among them.
MAPS = [(1, 6, 6, 0.4), (3, 7, 5, 0.5), (9, 4, 3, 0.15), (2, 1, 1, 1.0), (2, 1, 8, 0.7), (2, 5, 6, 1.0)]
MAPS += [(3, 5, 5, "one"), (2, 5, 4, "all but one"), (2, 4, 4, 0.0)]


def active_maps(images, height, width, density):
    generator = torch.Generator().manual_seed(images)
    if density == "one":
        active = torch.zeros(images, height, width, dtype=torch.bool)
        active[images // 2, height // 2, width - 1] = True
    elif density == "all but one":
        active = torch.ones(images, height, width, dtype=torch.bool)
        active[0, 0, 0] = False
    else:
        active = torch.rand(images, height, width, generator=generator) < density
    return active, generator


def as_rows(dense):
    return dense.permute(0, 2, 3, 1).flatten(0, 2)


def as_maps(rows, images):
    return rows.unflatten(0, images.shape).permute(0, 3, 1, 2)


def assert_close(found, expected, dtype):
    for value, reference in zip(found, expected, strict=True):
        assert value.shape == reference.shape
        size = reference.abs().max().item() if reference.numel() else 0.0
        assert ((value - reference).abs() <= ROUNDING[dtype] * max(size, 0.1)).all()


@pytest.mark.parametrize(
    ("shape", "dtype", "outputs"),
    [(m, torch.float32, 9) for m in MAPS] + [(MAPS[1], dtype, 20) for dtype in ROUNDING],
)
def test_convolution_and_both_gradients_are_the_dense_ones_of_the_zero_filled_map(shape, dtype, outputs):
    active, generator = active_maps(*shape)
    images, height, width, _ = shape
    dense = torch.randn(images, 5, height, width, generator=generator).to(dtype).float().requires_grad_()
    weight = torch.randn(outputs, 5, 3, 3, generator=generator).to(dtype).float()
    weight = weight.to(memory_format=torch.channels_last).requires_grad_()
    cotangent = torch.randn(images, outputs, height, width, generator=generator).to(dtype).float()
    expected = masked_convolution(dense, weight, active)
    expected_grads = torch.autograd.grad((expected * cotangent).sum(), (dense, weight))
    out, sums = convolve_sites(as_rows(dense).to(dtype), weight, make_tables(active), statistics=True)
    assert out.dtype == dtype
    assert sums.dtype == torch.float32
    found = as_maps(out, active).float()
    assert not found[~active.unsqueeze(1).expand_as(found)].any()
    grads = torch.autograd.grad((found * cotangent).sum(), (dense, weight))
    assert_close((found, *grads), (expected, *expected_grads), dtype)


def test_inactive_sites_are_not_read():
    active, generator = active_maps(3, 7, 5, 0.5)
    dense = torch.randn(3, 5, 7, 5, generator=generator)
    weight = torch.randn(8, 5, 3, 3, generator=generator)
    filled = dense.masked_fill(~active.unsqueeze(1), float("nan")).requires_grad_()
    out, sums = convolve_sites(as_rows(filled), weight, make_tables(active), statistics=True)
    torch.testing.assert_close(as_maps(out, active), masked_convolution(dense, weight, active), rtol=1e-4, atol=1e-4)
    assert sums.isfinite().all()
    (grad,) = torch.autograd.grad(out.sum(), filled)
    assert not grad[~active.unsqueeze(1).expand_as(grad)].any()


def test_the_backend_on_compact_rows_is_the_same_convolution():
    active, generator = active_maps(3, 7, 5, 0.5)
    dense = torch.randn(3, 5, 7, 5, generator=generator, requires_grad=True)
    weight = torch.randn(8, 5, 3, 3, generator=generator, requires_grad=True)
    results = []
    for backend in ("torch", "triton"):
        sparse = SparseMap.from_dense(dense, active)
        rows, macs = convolve(sparse.features, weight, sparse.sites, backend)
        results.append((rows, torch.tensor(float(macs)), *torch.autograd.grad(rows.square().sum(), (dense, weight))))
    assert_close(results[1], results[0], torch.float32)


@pytest.mark.parametrize("shape", MAPS)
def test_tables_list_active_sites_first_and_those_of_the_same_neighbours_together(shape):
    active, _ = active_maps(*shape)
    tables = make_tables(active)
    neighbours = F.unfold(active.float().unsqueeze(1), 3, padding=1).transpose(1, 2).flatten(0, 1)
    bits = (neighbours * 2 ** torch.arange(9)).sum(1) * active.flatten()
    assert torch.equal(tables.bits.float(), bits)
    assert sorted(tables.order.tolist()) == list(range(active.numel()))
    count = int(active.sum())
    assert tables.totals.tolist() == [count, int((neighbours.sum(1) * active.flatten()).sum())]
    assert active.flatten()[tables.order[:count].long()].all()
    ordered = tables.bits[tables.order[:count].long()].tolist()
    assert ordered == sorted(ordered)


@pytest.mark.parametrize(
    ("shape", "dtype", "training"),
    [(m, torch.float32, True) for m in (MAPS[1], MAPS[3], *MAPS[5:])]
    + [(MAPS[1], torch.bfloat16, True), (MAPS[1], torch.float32, False)],
)
def test_norm_relu_and_pool_are_those_of_the_active_rows(shape, dtype, training):
    active, generator = active_maps(*shape)
    images, height, width, _ = shape
    dense = torch.randn(images, 5, height, width, generator=generator) + 3
    weight = torch.randn(12, 5, 3, 3, generator=generator)
    norms = [BatchNormRelu(12).train(training) for _ in range(2)]
    for norm in norms:
        nn.init.uniform_(norm.weight, -1, 1, generator=torch.Generator().manual_seed(1))
        nn.init.uniform_(norm.bias, -0.2, 0.2, generator=torch.Generator().manual_seed(2))
        nn.init.constant_(norm.running_mean, 0.3)
    tables = make_tables(active)
    made, sums = convolve_sites(as_rows(dense).to(dtype), weight, tables, statistics=True)
    made = made.detach()
    results = []
    for way, norm in zip(("rows", "kernels"), norms, strict=True):
        rows = made.clone().requires_grad_()
        if way == "kernels":
            statistics = statistics_of(sums, tables.totals, norm)
            plain = as_maps(norm_relu(rows, tables.bits, statistics, norm), active)
            pooled = norm_relu_pool(rows, tables.bits, statistics, norm, height, width)
            pooled = as_maps(pooled, active[:, : height // 2, : width // 2])
        else:
            plain = SparseMap(norm(rows[active.flatten()]), SparseMap.from_dense(dense, active).sites).dense()
            pooled, _ = masked_max_pool(plain, active)
        draw = torch.Generator().manual_seed(4)
        loss = sum((value.float() * torch.randn(value.shape, generator=draw)).sum() for value in (plain, pooled))
        of_rows, *of_norm = torch.autograd.grad(loss, (rows, norm.weight, norm.bias))
        found = [plain, pooled, of_rows * active.flatten().unsqueeze(1), *of_norm]
        results.append([value.detach().float() for value in (*found, norm.running_mean, norm.running_var)])
        assert norm.num_batches_tracked == (training and active.sum() >= 2)
    assert_close(results[1], results[0], dtype)


@pytest.mark.parametrize("p", [0.05, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("peaked", [0.0, 3.0, 60.0])
def test_selection_is_the_rule_of_top_p_ties_and_weights_of_zero_included(p, peaked):
    generator = torch.Generator().manual_seed(3)
    active = torch.rand(6, 37, generator=generator) < 0.7
    active[0], active[1] = True, torch.arange(37) == 5
    # A few levels, so that many sites weigh the same.
    scores = ((torch.rand(6, 37, generator=generator) * 4).round() * peaked).requires_grad_()
    expected = scores.masked_fill(~active, float("-inf")).softmax(1)
    weights, kept = select_sites(scores, active, p)
    torch.testing.assert_close(weights, expected)
    # The order of a sum decides where a sum meets p: there the rule is asked with the sums next to it, too.
    rules = [top_p_mask(weights.detach().double(), active, p + shift) for shift in (-1e-6, 0.0, 1e-6)]
    assert not (rules[0] & ~kept).any()
    assert not (kept & ~rules[2]).any()
    assert kept.any(1).all()
    cotangent = torch.randn(6, 37, generator=generator)
    (found,) = torch.autograd.grad((weights * cotangent).sum(), scores, retain_graph=True)
    (wanted,) = torch.autograd.grad((expected * cotangent).sum(), scores)
    torch.testing.assert_close(found, wanted)


def test_of_equal_sites_the_first_ones_are_kept():
    weights, kept = select_sites(torch.zeros(1, 8), torch.ones(1, 8, dtype=torch.bool), 0.5)
    assert kept.tolist() == [[True] * 4 + [False] * 4]
    assert weights.tolist() == [[0.125] * 8]


def test_products_of_rows_are_summed_in_float32():
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(70, 21, generator=generator).bfloat16() for _ in range(2))
    torch.testing.assert_close(row_products(left, right), (left.float() * right.float()).sum(1))
