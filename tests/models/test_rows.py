"""Some rows of a table, and their gradient."""

import pytest
import torch

from models.native.rows import take_rows


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("shape", [(40,), (40, 3), (40, 2, 16)])
@pytest.mark.parametrize("places", [[], [0], [39], [3, 4, 17, 38], list(range(40))])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_rows_and_their_gradient_are_those_of_indexing(shape, places, dtype, threads):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(shape, generator=generator).to(dtype).requires_grad_()
    index = torch.tensor(places, dtype=torch.int64)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found, expected = take_rows(values, index), values[index]
        assert torch.equal(found, expected)
        cotangent = torch.randn(expected.shape, generator=generator).to(dtype)
        (grad,) = torch.autograd.grad(found, values, cotangent)
        (expected_grad,) = torch.autograd.grad(expected, values, cotangent)
        assert torch.equal(grad, expected_grad)
    finally:
        torch.set_num_threads(before)
