"""The dense max-pool against torch's."""

import pytest
import torch
from torch.nn import functional as F

from models.layers.vgg import max_pool


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(3, 16, 6, 4), (2, 80, 7, 5), (1, 6, 4, 4), (0, 16, 4, 4), (2, 64, 2, 3)])
def test_the_dense_pool_is_torchs(shape, dtype):
    generator = torch.Generator().manual_seed(0)
    # Few different values, so that many are equal, as zeros are behind a ReLU.
    maps = torch.randint(0, 4, shape, generator=generator).to(dtype).contiguous(memory_format=torch.channels_last)
    maps.requires_grad_()
    expected, found = F.max_pool2d(maps, 2), max_pool(maps)
    assert torch.equal(found, expected)
    cotangent = torch.randn(expected.shape, generator=generator).to(dtype)
    (grad,) = torch.autograd.grad((found * cotangent).sum(), maps)
    (expected_grad,) = torch.autograd.grad((expected * cotangent).sum(), maps)
    assert torch.equal(grad, expected_grad)
