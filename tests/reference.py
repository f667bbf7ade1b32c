"""Slow, obvious versions of what the networks do cleverly; tests compare with these."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Of the largest gradient of a model. Between these two lie the rounding errors of a zero (up to 2e-8 here) and the
# gradients of a text encoder's first layer (from 1e-7 on), so neither number alone tells them apart.
ZERO, ROUNDING = 1e-9, 1e-6


def masked_convolution(dense: Tensor, weight: Tensor, active: Tensor) -> Tensor:
    """A dense 3x3 convolution of the zero-filled map, zero again where inactive.

    dense: (I, C, H, W). weight: (O, C, 3, 3). active: (I, H, W) bool. Returns (I, O, H, W).
    """
    mask = active.unsqueeze(1)
    return F.conv2d(dense * mask, weight, padding=1) * mask


def masked_max_pool(dense: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
    """2x2 maximum over active sites, window by window: (I, D, H // 2, W // 2), zero where inactive, and the mask."""
    images, channels, height, width = dense.shape
    out = dense.new_zeros(images, channels, height // 2, width // 2)
    mask = torch.zeros(images, height // 2, width // 2, dtype=torch.bool)
    for i in range(images):
        for y in range(height // 2):
            for x in range(width // 2):
                rows = [
                    dense[i, :, y * 2 + a, x * 2 + b] for a in (0, 1) for b in (0, 1) if active[i, y * 2 + a, x * 2 + b]
                ]
                if rows:
                    out[i, :, y, x] = torch.stack(rows).max(0).values
                    mask[i, y, x] = True
    return out, mask


def nucleus(weights: list[float], p: float) -> set[int]:
    """Indices of the smallest set, by falling weight and then by index, whose weights reach p; p 1 takes all."""
    order = sorted(range(len(weights)), key=lambda i: (-weights[i], i))
    kept: set[int] = set()
    mass = 0.0
    for i in order:
        if p < 1 and mass >= p:
            break
        kept.add(i)
        mass += weights[i]
    return kept


def attention(features: Tensor, query: Tensor, of_map: Tensor, bias: Tensor, of_query: Tensor, score: Tensor) -> Tensor:
    """eq. 1-2 of the MESM paper for one image, site by site: (N, C) features, (Q,) query -> (N,) weights."""
    logits = []
    for row in features.tolist():
        hidden = [
            math.tanh(
                sum(w * m for w, m in zip(of_map[k].tolist(), row, strict=True))
                + bias[k].item()
                + sum(w * q for w, q in zip(of_query[k].tolist(), query.tolist(), strict=True))
            )
            for k in range(len(bias))
        ]
        logits.append(sum(w * h for w, h in zip(score.flatten().tolist(), hidden, strict=True)))
    top = max(logits)
    exponentials = [math.exp(value - top) for value in logits]
    return torch.tensor([value / sum(exponentials) for value in exponentials])


def assert_all_learn_but_the_listed(model: nn.Module) -> None:
    """After a backward pass every parameter has a gradient that is not zero, but for those that the model lists.

    Those have none, or the rounding errors of a zero. Not looked at: biases of a pretrained encoder's keys, which add
    one number to all scores of a softmax.
    """
    named = {k: p.grad for k, p in model.named_parameters() if not k.endswith(("self.key.bias", "k_proj.bias"))}
    sizes = {name: 0.0 if grad is None else grad.abs().max().item() for name, grad in named.items()}
    assert all(map(math.isfinite, sizes.values())), sizes
    listed, largest = set(model.parameters_without_gradient()), max(sizes.values())
    assert {name for name, size in sizes.items() if size <= ZERO * largest} - listed == set()
    assert {name for name in listed if sizes[name] > ROUNDING * largest} == set()
