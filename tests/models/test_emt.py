"""EMT beside a slow, obvious version of its equations, its published sizes, and what its strategies cost."""

import math

import pytest
import torch
from reference import assert_all_learn_but_the_listed
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import models
from models.emt import EMTConfig, EMTFusion
from models.layers.mutual import AttentionPooling, Promotion
from models.layers.padded import Padded, pad
from models.layers.sequence import sinusoids

# Sun et al. 2023, Table 9, as exact numbers of parameters of the fusion.
SIZES = {
    "none": 6_386_691,
    "mpu": 3_415_683,
    "modality": 2_425_347,
    "layer": 2_128_897,
    "mpu+modality": 1_435_011,
    "mpu+layer": 1_138_561,
    "modality+layer": 808_449,
    "all": 478_337,
}


@pytest.mark.parametrize(("share", "published"), SIZES.items())
def test_every_way_of_sharing_has_its_published_size(share, published):
    model = models.build("emt", share=share)
    assert sum(parameter.numel() for parameter in model.fusion.parameters()) == published


def test_one_direction_of_a_unit_and_its_pooling_have_their_published_sizes():
    assert sum(p.numel() for p in Promotion(128, 4, 0.0, 0.0).parameters()) == 330_112
    assert sum(p.numel() for p in AttentionPooling(3 * 128).parameters()) == 148_225


def slow_attention(query, source, layer):
    """Eq. 2 and 3 for one utterance, head by head, step by step."""
    size = query.shape[1]
    each = size // layer.heads
    q, (k, v) = query @ layer.to_query.weight.T, (source @ layer.to_key_value.weight.T).split(size, dim=1)
    out = torch.zeros_like(query)
    for head in range(layer.heads):
        part = slice(head * each, (head + 1) * each)
        for t in range(len(q)):
            scores = torch.stack([torch.dot(q[t, part], k[s, part]) / math.sqrt(each) for s in range(len(k))])
            weights = scores.exp() / scores.exp().sum()
            out[t, part] = sum(weights[s] * v[s, part] for s in range(len(k)))
    return out @ layer.out.weight.T + layer.out.bias


def slow_promotion(unit, target, source):
    """Eq. 5, line by line."""
    first = slow_attention(unit.norm_target(target), unit.norm_source(source), unit.cross) + target
    normed = unit.norm_own(first)
    second = slow_attention(normed, normed, unit.own) + first
    norm, network = unit.feed_forward
    values, gate = (norm(second) @ network.wide.weight.T + network.wide.bias).chunk(2, dim=1)
    erf = 0.5 * gate * (1 + torch.erf(gate / math.sqrt(2)))
    return (values * erf) @ network.narrow.weight.T + network.narrow.bias + second


def test_a_promotion_is_its_equation_and_padding_is_not_seen():
    torch.manual_seed(0)
    unit = Promotion(8, 2, 0.3, 0.1).eval()
    values, others = torch.randn(7, 8), torch.randn(5, 8)
    target, source = pad(values, torch.tensor([3, 4])), pad(others, torch.tensor([4, 1]))
    with torch.no_grad():
        found = unit(target, source)
        for i, (own, other) in enumerate(zip(values.split([3, 4]), others.split([4, 1]), strict=True)):
            torch.testing.assert_close(found[i, : len(own)], slow_promotion(unit, own, other), rtol=1e-4, atol=1e-5)


def test_pooling_is_its_equation():
    torch.manual_seed(0)
    pooling = AttentionPooling(4)
    choices = torch.randn(2, 3, 4)
    first, _, last = pooling.score
    for i in range(2):
        scores = torch.stack(
            [last.weight[0] @ torch.tanh(first.weight @ x + first.bias) + last.bias[0] for x in choices[i]]
        )
        weights = scores.exp() / scores.exp().sum()
        expected = sum(weight * x for weight, x in zip(weights, choices[i], strict=True))
        torch.testing.assert_close(pooling(choices)[i], expected)


@pytest.mark.parametrize("fusion", ["oagl", "oall", "ooll"])
@pytest.mark.parametrize("share", SIZES)
@pytest.mark.parametrize("layers", [1, 2])
def test_every_parameter_learns_or_stands_on_the_list(build_fusion, make_features, fusion, share, layers):
    model = build_fusion("emt", size=8, heads=2, layers=layers, fusion=fusion, share=share)
    batch = make_features(lengths=((3, 5, 4), (1, 2, 0), (4, 0, 6), *((5, 6, 7),) * 13))
    F.binary_cross_entropy_with_logits(model(batch).logits, batch.labels).backward()
    assert_all_learn_but_the_listed(model)


@pytest.mark.parametrize("fusion", ["oagl", "oall", "ooll"])
def test_equal_weights_with_and_without_sharing_give_equal_answers(build_fusion, make_features, fusion):
    settings = {"size": 8, "heads": 2, "layers": 2, "fusion": fusion}
    shared = build_fusion("emt", **settings, share="all").eval()
    free = build_fusion("emt", **settings, share="none").eval()
    weights = shared.state_dict()
    own = {}
    for name in free.state_dict():
        parts = name.split(".")
        if parts[:2] == ["fusion", "units"]:
            parts[2] = parts[3] = "0"
            parts[5] = "0"
        elif parts[:2] == ["fusion", "pooling"]:
            parts[2] = "0"
        own[name] = weights[".".join(parts)]
    free.load_state_dict(own)
    batch = make_features()
    torch.testing.assert_close(free(batch).logits, shared(batch).logits)


def slow_fusion(model, steps, whole):
    """Eq. 6, 7 or 8 with eq. 9, for one utterance and three modalities; sequences (T, D) and vectors (D,) by letter."""

    def both(layer, number, one, other):
        unit = model.units[layer][number]
        return slow_promotion(unit.directions[0], one, other), slow_promotion(unit.directions[1], other, one)

    def pooled(layer, choices):
        return model.pooling[layer](torch.stack(choices))

    h = {letter: steps[letter] + sinusoids(*steps[letter].shape, steps[letter]) for letter in "tav"}
    shared = torch.stack([whole[x] for x in "tav"]) if model.strategy == "oagl" else torch.cat([h[x] for x in "tav"])
    for layer in range(model.layers):
        if model.strategy == "ooll":
            a_to_t, t_to_a = both(layer, 0, h["t"], h["a"])
            v_to_t, t_to_v = both(layer, 1, h["t"], h["v"])
            v_to_a, a_to_v = both(layer, 2, h["a"], h["v"])
            choices = {"t": (a_to_t, v_to_t), "a": (t_to_a, v_to_a), "v": (t_to_v, a_to_v)}
            h = {x: torch.stack([pooled(layer, rows) for rows in zip(*choices[x], strict=True)]) for x in "tav"}
        else:
            after = {x: both(layer, number, h[x], shared) for number, x in enumerate("tav")}
            h = {x: after[x][0] for x in "tav"}
            promoted = [after[x][1] for x in "tav"]
            if model.strategy == "oagl":
                shared = pooled(layer, [context.flatten() for context in promoted]).view(3, -1)
            else:
                shared = torch.stack([pooled(layer, rows) for rows in zip(*promoted, strict=True)])
    if model.strategy == "oagl":
        return h, shared.flatten()
    sequences = (
        h if model.strategy == "ooll" else dict(zip("tav", shared.split([len(h[x]) for x in "tav"]), strict=True))
    )
    return h, torch.cat([sequences[x].mean(0) for x in "tav"])


@pytest.mark.parametrize("fusion", ["oagl", "oall", "ooll"])
def test_each_strategy_is_its_equation_and_padding_is_not_seen(fusion):
    torch.manual_seed(0)
    model = EMTFusion(list("tav"), EMTConfig(size=8, heads=2, layers=2, fusion=fusion, share="none")).eval()
    lengths = {"t": (2, 3), "a": (4, 1), "v": (3, 5)}
    values = {letter: torch.randn(sum(counts), 8) for letter, counts in lengths.items()}
    whole = {letter: torch.randn(2, 8) for letter in lengths}
    with torch.no_grad():
        after, summary = model({x: pad(values[x], torch.tensor(lengths[x])) for x in lengths}, whole)
        for i in range(2):
            own = {x: values[x].split(lengths[x])[i] for x in lengths}
            steps, expected = slow_fusion(model, own, {x: whole[x][i] for x in lengths})
            torch.testing.assert_close(summary[i], expected, rtol=1e-4, atol=1e-5)
            for x in lengths:
                torch.testing.assert_close(after[x].values[i, : lengths[x][i]], steps[x], rtol=1e-4, atol=1e-5)


def fusion_macs(letters, fusion, steps):
    """Multiply-adds of the fusion of `letters` sequences of equal length."""
    config = EMTConfig(size=16, heads=2, layers=2, fusion=fusion)
    model = EMTFusion(list(letters), config).eval()
    every = torch.ones(1, steps, dtype=torch.bool)
    sequences = {letter: Padded(torch.randn(1, steps, 16), every) for letter in letters}
    whole = {letter: torch.randn(1, 16) for letter in letters}
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(sequences, whole)
    return counter.get_total_flops() / 2


def test_the_cost_of_oagl_grows_in_a_line_with_the_modalities_and_the_others_cost_at_least_in_a_square():
    eight_to_two = {
        fusion: fusion_macs("abcdefgh", fusion, steps=160) / fusion_macs("ab", fusion, steps=160)
        for fusion in ("oagl", "oall", "ooll")
    }
    assert 4 < eight_to_two["oagl"] < 4.5  # 4, and the context of 8 vectors in place of 2
    assert eight_to_two["ooll"] == 28  # pairs of 8 to pairs of 2
    assert eight_to_two["oall"] > 16
