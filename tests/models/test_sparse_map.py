"""Rows of a sparse map at their sites, and ties and NaN in its max-pool."""

import torch

from models.layers.sparse.sparse_map import Sites, SparseMap
from models.layers.sparse.submanifold import SparseMaxPool2d


def test_of_equal_values_one_takes_the_gradient_and_a_nan_wins():
    rows = torch.zeros(4, 16).bfloat16().requires_grad_()
    pooled = SparseMaxPool2d()(SparseMap(rows, Sites(torch.ones(1, 2, 2, dtype=torch.bool)))).features
    pooled.backward(torch.full_like(pooled, 3))
    assert rows.grad.tolist() == [[3.0] * 16, *([0.0] * 16,) * 3]
    broken = torch.zeros(4, 16)
    broken[2, 5] = float("nan")
    broken.requires_grad_()
    pooled = SparseMaxPool2d()(SparseMap(broken, Sites(torch.ones(1, 2, 2, dtype=torch.bool)))).features
    assert pooled.isnan().nonzero().tolist() == [[0, 5]]
    pooled.sum().backward()
    assert broken.grad[:, 5].tolist() == [0, 0, 1, 0]  # as torch gives it


def test_select_and_dense_keep_rows_at_their_sites():
    generator = torch.Generator().manual_seed(2)
    active = torch.rand(4, 5, 6, generator=generator) < 0.7
    kept = active & (torch.rand(active.shape, generator=generator) < 0.5)
    dense = torch.randn(4, 3, 5, 6, generator=generator)
    selected = SparseMap.from_dense(dense, active).select(kept)
    assert torch.equal(selected.dense(), dense * kept.unsqueeze(1))
    assert torch.equal(selected.sites.coordinates, kept.nonzero().int())
    assert selected.sites.coordinates.is_contiguous()
    assert selected.sites.image.tolist() == kept.nonzero()[:, 0].tolist()
