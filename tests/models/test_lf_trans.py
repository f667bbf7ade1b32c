"""LF-TRANS beside a slow, obvious version: attention step by step, for one utterance without padding."""

import math

import pytest
import torch

import models
from models import ModelError


def slow_norm(x, norm):
    mean, variance = x.mean(), ((x - x.mean()) ** 2).mean()
    return (x - mean) / torch.sqrt(variance + norm.eps) * norm.weight + norm.bias


def slow_layer(x, layer, heads):
    """A post-norm layer; (T, D) -> (T, D)."""
    size = x.shape[1]
    each = size // heads
    weights, biases = layer.self_attn.in_proj_weight.chunk(3), layer.self_attn.in_proj_bias.chunk(3)
    q, k, v = (x @ weight.T + bias for weight, bias in zip(weights, biases, strict=True))
    seen = torch.zeros_like(x)
    for head in range(heads):
        part = slice(head * each, (head + 1) * each)
        for t in range(len(x)):
            scores = torch.stack([(q[t, part] * k[s, part]).sum() / math.sqrt(each) for s in range(len(x))]).exp()
            seen[t, part] = sum(scores[s] / scores.sum() * v[s, part] for s in range(len(x)))
    out = layer.self_attn.out_proj
    x = torch.stack([slow_norm(step, layer.norm1) for step in x + seen @ out.weight.T + out.bias])
    hidden = torch.clamp(x @ layer.linear1.weight.T + layer.linear1.bias, min=0)
    made = x + hidden @ layer.linear2.weight.T + layer.linear2.bias
    return torch.stack([slow_norm(step, layer.norm2) for step in made])


def test_the_scores_are_the_weighted_sum_of_what_each_modalitys_cls_says(build_fusion, make_features):
    size, heads = 4, 2
    model = build_fusion("lf-trans", size=size, heads=heads, layers=2, outputs=2).eval()
    weights = {"t": 0.5, "a": -2.0, "v": 3.0}
    batch = make_features(lengths=((3, 5, 4), (1, 2, 2)))
    with torch.no_grad():
        for letter, weight in weights.items():
            model.fusion.get_parameter(letter).fill_(weight)
        found = model(batch).logits
        for i in range(2):
            expected = torch.zeros(2)
            for letter, weight in weights.items():
                steps = batch.features[letter]
                own = steps.values.split(steps.counts.tolist())[i]
                project, encoder = model.project[letter], model.encoders[letter]
                x = torch.cat([encoder.cls[None], own @ project.weight.T + project.bias])
                for t in range(len(x)):
                    for d in range(size):
                        angle = t / 10_000 ** (d // 2 * 2 / size)
                        x[t, d] += math.sin(angle) if d % 2 == 0 else math.cos(angle)
                for layer in encoder.encoder.layers:
                    x = slow_layer(x, layer, heads)
                first, _, _, last = model.heads[letter]
                hidden = torch.clamp(first.weight @ x[0] + first.bias, min=0)
                expected += weight * (last.weight @ hidden + last.bias)
            torch.testing.assert_close(found[i], expected, rtol=1e-4, atol=1e-5)


def test_heads_that_do_not_divide_the_size_are_refused():
    with pytest.raises(ModelError, match="heads is 3 and size 8"):
        models.build("lf-trans", size=8, heads=3)
