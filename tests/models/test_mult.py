"""MulT beside a slow, obvious version of its equations, and its published number of parameters."""

import math

import pytest
import torch

import models
from models.layers.crossmodal import CrossmodalTransformer
from models.layers.padded import Padded, pad


@pytest.mark.parametrize(("audio", "vision", "published"), [(5, 20, 1_071_211), (74, 35, 1_073_731)])
def test_it_has_the_published_number_of_parameters(audio, vision, published):
    model = models.build("mult", text_dim=300, audio_dim=audio, vision_dim=vision, outputs=1)
    assert sum(parameter.numel() for parameter in model.parameters()) == published


def slow_norm(x, norm):
    mean, variance = x.mean(), ((x - x.mean()) ** 2).mean()
    return (x - mean) / torch.sqrt(variance + norm.eps) * norm.weight + norm.bias


def slow_positions(steps, size):
    table = torch.zeros(steps, size)
    for t in range(steps):
        for i in range(size):
            angle = t / 10_000 ** (i // 2 * 2 / size)
            table[t, i] = math.sin(angle) if i % 2 == 0 else math.cos(angle)
    return table


def slow_attention(query, keys, attention):
    """One utterance, head by head and step by step; query (T, D), keys (S, D)."""
    size, heads = query.shape[1], attention.num_heads
    to_q, to_k, to_v = attention.in_proj_weight.chunk(3)
    bias_q, bias_k, bias_v = attention.in_proj_bias.chunk(3)
    q, k, v = query @ to_q.T + bias_q, keys @ to_k.T + bias_k, keys @ to_v.T + bias_v
    out = torch.zeros_like(query)
    for head in range(heads):
        part = slice(head * size // heads, (head + 1) * size // heads)
        for t in range(len(q)):
            scores = torch.stack([(q[t, part] * k[s, part]).sum() / math.sqrt(size // heads) for s in range(len(k))])
            weights = scores.exp() / scores.exp().sum()
            out[t, part] = sum(weights[s] * v[s, part] for s in range(len(k)))
    return out @ attention.out_proj.weight.T + attention.out_proj.bias


def slow_transformer(model, target, source):
    """Tsai et al. 2019, eq. 1 to 4, for one utterance without padding."""
    size = target.shape[1]
    x = math.sqrt(size) * target + slow_positions(len(target), size)
    other = None if source is None else math.sqrt(size) * source + slow_positions(len(source), size)
    for layer in model.layers:
        first, second = layer.norms
        query = torch.stack([slow_norm(step, first) for step in x])
        keys = query if other is None else torch.stack([slow_norm(step, first) for step in other])
        x = x + slow_attention(query, keys, layer.attention)
        wide, narrow = layer.feed_forward[0], layer.feed_forward[3]
        for t in range(len(x)):
            hidden = torch.clamp(slow_norm(x[t], second) @ wide.weight.T + wide.bias, min=0)
            x = torch.cat([x[:t], (x[t] + hidden @ narrow.weight.T + narrow.bias)[None], x[t + 1 :]])
    return torch.stack([slow_norm(step, model.norm) for step in x])


@pytest.mark.parametrize("crossmodal", [True, False])
def test_the_crossmodal_transformer_is_its_equations(crossmodal):
    torch.manual_seed(0)
    model = CrossmodalTransformer(8, layers=2, heads=2, dropout=0.3).eval()
    counts, other_counts = torch.tensor([3, 5]), torch.tensor([4, 2])
    values, others = torch.randn(8, 8), torch.randn(6, 8)
    with torch.no_grad():
        states = model(pad(values, counts), pad(others, other_counts) if crossmodal else None)
        for i, (target, source) in enumerate(zip(values.split([3, 5]), others.split([4, 2]), strict=True)):
            expected = slow_transformer(model, target, source if crossmodal else None)
            torch.testing.assert_close(states[i, : len(target)], expected, rtol=1e-4, atol=1e-5)


def test_every_modality_asks_every_other_one_and_their_answers_stand_side_by_side(build_fusion, make_features):
    """Section 3.2: text is enriched by sound and picture, and so on; then a transformer over what each has now."""
    model = build_fusion("mult", size=6, heads=2, layers=1).eval()
    lengths = ((3, 2, 4), (2, 5, 1))
    batch = make_features(lengths)
    with torch.no_grad():
        logits = model(batch).logits
        for i, counts in enumerate(lengths):
            x = {
                letter: packed.values.split(packed.counts.tolist())[i] @ model.project[letter].weight.T
                for letter, packed in batch.features.items()
            }
            assert [len(x[letter]) for letter in "tav"] == list(counts)
            summaries = []
            for target, (first, second) in {"t": "av", "a": "tv", "v": "ta"}.items():
                enriched = [
                    slow_transformer(model.fusion.pairs[f"{target}_asks_{source}"], x[target], x[source])
                    for source in (first, second)
                ]
                summaries.append(slow_transformer(model.fusion.own[target], torch.cat(enriched, 1), None)[-1])
            fused = torch.cat(summaries)
            wide, narrow = model.residual[0], model.residual[3]
            hidden = torch.clamp(wide.weight @ fused + wide.bias, min=0)
            fused = fused + narrow.weight @ hidden + narrow.bias
            expected = model.head.weight @ fused + model.head.bias
            torch.testing.assert_close(logits[i], expected, rtol=1e-4, atol=1e-5)


def test_the_last_real_step_stands_for_an_utterance():
    states = torch.arange(24.0).view(2, 4, 3)
    present = torch.tensor([[True, True, False, False], [True, True, True, True]])
    assert Padded(states, present).last(states).tolist() == [[3.0, 4.0, 5.0], [21.0, 22.0, 23.0]]


def test_padding_puts_every_step_in_its_place():
    padded = pad(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([2, 0, 1]))
    assert padded.values.squeeze(2).tolist() == [[1, 2], [0, 0], [3, 0]]
    assert padded.present.tolist() == [[True, True], [False, False], [True, False]]
    assert pad(torch.zeros(0, 2), torch.tensor([0])).values.shape == (1, 1, 2)
