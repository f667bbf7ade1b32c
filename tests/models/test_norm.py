"""Batch norm with ReLU: its own kernels against torch's float64, and the plain way where there are none."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models.layers import norm
from models.layers.norm import BatchNormRelu

ROUNDING = {torch.float32: 2e-5, torch.bfloat16: 2e-2}


def _layer(channels):
    layer = BatchNormRelu(channels)
    with torch.no_grad():
        for values in (layer.weight, layer.bias, layer.running_mean):
            values.copy_(torch.randn(channels, generator=torch.Generator().manual_seed(channels)))
    return layer


def _by_torch(layer, rows, cotangent):
    """Output, gradients of rows, weight and bias, and running statistics in float64."""
    plain = nn.BatchNorm1d(layer.num_features).double()
    plain.load_state_dict(layer.state_dict())
    plain.train(layer.training)
    rows = rows.detach().double().requires_grad_()
    out = F.relu(plain(rows))
    grads = torch.autograd.grad((out * cotangent.double()).sum(), (rows, plain.weight, plain.bias))
    return out, *grads, plain.running_mean, plain.running_var


@pytest.fixture(params=["kernels", "plain torch"])
def way(request, monkeypatch):
    if request.param == "plain torch":
        monkeypatch.setattr(norm, "kernels_support", lambda rows, *constants: False)
    return request.param


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize(("count", "channels"), [(2, 16), (127, 64), (128, 80), (129, 16), (1000, 144), (40, 12)])
def test_it_is_batch_norm_and_relu(way, dtype, count, channels):
    layer, generator = _layer(channels), torch.Generator().manual_seed(count)
    rows = (3 * torch.randn(count, channels, generator=generator) + 1).to(dtype).requires_grad_()
    cotangent = torch.randn(count, channels, generator=generator).to(dtype)
    expected = _by_torch(layer, rows, cotangent)
    out = layer(rows)
    assert out.dtype == dtype
    grads = torch.autograd.grad((out * cotangent).sum(), (rows, layer.weight, layer.bias))
    assert [grad.dtype for grad in grads] == [dtype, torch.float32, torch.float32]
    assert layer.num_batches_tracked == 1
    # At a value of nearly zero the two may decide differently whether it passes: those are not compared.
    passed = expected[0] == 0
    sure = (out == 0) == passed
    assert sure.float().mean() > 0.97
    scale = ROUNDING[dtype]
    for found, wanted in zip((out[sure], grads[0][sure]), (expected[0][sure], expected[1][sure]), strict=True):
        assert (found - wanted).abs().max() <= 4 * scale * wanted.abs().max().clamp(min=1)
    for found, wanted in zip((*grads[1:], layer.running_mean, layer.running_var), expected[2:], strict=True):
        assert (found - wanted).abs().max() <= 4 * scale * wanted.abs().max().clamp(min=1)


def test_far_from_zero_the_spread_is_not_lost(way):
    rows = torch.randn(5000, 16, generator=torch.Generator().manual_seed(0)) + 1000
    layer = _layer(16)
    expected = _by_torch(layer, rows, torch.ones_like(rows))[0]
    torch.testing.assert_close(layer(rows).double(), expected, rtol=1e-2, atol=1e-2)


def test_maps_are_their_rows(way):
    maps = torch.randn(3, 32, 5, 4).contiguous(memory_format=torch.channels_last).requires_grad_()
    first, second = _layer(32), _layer(32)
    rows = maps.permute(0, 2, 3, 1).reshape(-1, 32)
    out = first(maps)
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out.permute(0, 2, 3, 1).reshape(-1, 32), second(rows))
    torch.testing.assert_close(first.running_var, second.running_var)
    # Whatever layout the gradient comes in.
    (grad,) = torch.autograd.grad(out.contiguous().sum(), maps)
    (expected,) = torch.autograd.grad(second(rows).sum(), maps)
    torch.testing.assert_close(grad, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("graph", [False, True])
def test_in_evaluation_the_running_statistics_are_used(way, graph):
    layer = _layer(16).eval()
    rows = torch.randn(50, 16)
    with torch.set_grad_enabled(graph):
        out = layer(rows)
    torch.testing.assert_close(
        out, F.relu((rows - layer.running_mean) / layer.running_var.add(1e-5).sqrt() * layer.weight + layer.bias)
    )
    assert layer.num_batches_tracked == 0


@pytest.mark.parametrize("count", [0, 1])
def test_without_a_variance_the_running_statistics_stay(way, count):
    layer = _layer(16)
    before = copy.deepcopy(layer.state_dict())
    out = layer(torch.ones(count, 16, requires_grad=True))
    out.sum().backward()
    assert out.shape == (count, 16)
    for name, values in layer.state_dict().items():
        assert torch.equal(values, before[name]), name


def test_what_is_not_a_number_goes_through(way):
    rows = torch.randn(50, 16)
    rows[3, 2] = float("nan")
    out = _layer(16)(rows)
    assert out[:, 2].isnan().all()
    assert not out[:, 3].isnan().any()
    assert _layer(16).eval()(rows).isnan().sum() == 1


def test_the_number_of_threads_changes_no_bit():
    rows = torch.randn(3000, 64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    found, before = [], torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        layer = _layer(64)
        out = layer(rows)
        found.append((out, *torch.autograd.grad(out.square().sum(), (rows, layer.weight, layer.bias))))
    torch.set_num_threads(before)
    for values in zip(*found, strict=True):
        assert all(torch.equal(value, values[0]) for value in values)
