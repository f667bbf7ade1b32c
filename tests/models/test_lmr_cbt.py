"""LMR-CBT beside a slow, obvious version of its equations, its sizes, and its three directions."""

import math

import pytest
import torch
from torch.nn import functional as F

import models
from models import ModelError
from models.layers.padded import pad
from models.lmr_cbt import ConvolvedSteps, CrossModalBlock, LSTMSteps, SummaryTransformer

FEATURES = {"text_dim": 300, "audio_dim": 74, "vision_dim": 35, "outputs": 1}
MOSI = {"size": 30, "heads": 10, "layers": 4, "audio_kernel": 1, "head_size": 180}
IEMOCAP = {"heads": 5, "audio_kernel": 5, "outputs": 4}


def parameters(**settings):
    return sum(parameter.numel() for parameter in models.build("lmr-cbt", **FEATURES | settings).parameters())


@pytest.mark.parametrize(
    ("settings", "count", "millions"),
    [
        ({}, 406_561, 0.41),
        ({"text_steps": "conv"}, 381_121, 0.38),
        ({"direction": "vl_to_a"}, 406_561, 0.41),
        ({"direction": "la_to_v"}, 406_561, 0.41),
    ],
)
def test_the_sizes_of_table_2_are_met_to_their_last_digit(settings, count, millions):
    assert parameters(**settings) == count
    assert round(count / 1e6, 2) == millions


def test_the_sizes_that_table_1_gives_for_the_other_corpora_are_not_the_published_ones():
    assert parameters(**MOSI) == 203_911  # 0.35 M
    assert parameters(**MOSI, **{"audio_dim": 5, "vision_dim": 20}) == 200_491
    assert parameters(**IEMOCAP) == 413_204  # 0.34 M
    # What comes near, and rounds to each other's figures.
    assert parameters(layers=4, audio_kernel=1) == 341_481
    assert parameters(**IEMOCAP, layers=4) == 354_044


@pytest.mark.parametrize(("width", "counts"), [(3, (391_921, 366_481)), (1, (382_161, 356_721))])
def test_narrower_heads_miss_the_sizes_of_table_2(width, counts):
    assert (parameters(head_size=width * 40), parameters(head_size=width * 40, text_steps="conv")) == counts


def slow_norm(x, norm):
    return (x - x.mean()) / torch.sqrt(((x - x.mean()) ** 2).mean() + norm.eps) * norm.weight + norm.bias


def slow_convolution(steps, weight):
    """(T, D_in) by (D, D_in, K), zeros beyond the ends."""
    half = weight.shape[2] // 2
    out = torch.zeros(len(steps), len(weight))
    for t in range(len(steps)):
        for k in range(weight.shape[2]):
            if 0 <= t + k - half < len(steps):
                out[t] += weight[:, :, k] @ steps[t + k - half]
    return out


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_convolved_steps_are_equation_1_over_real_steps_only(kernel):
    torch.manual_seed(0)
    layer = ConvolvedSteps(4, 6, kernel)
    values, counts = torch.randn(8, 4), torch.tensor([5, 1, 2])
    convolved = torch.cat([slow_convolution(steps, layer.convolution.weight) for steps in values.split([5, 1, 2])])
    deviation = ((convolved - convolved.mean(0)) ** 2).mean(0)
    expected = (convolved - convolved.mean(0)) / torch.sqrt(deviation + layer.norm.eps)
    found = layer(pad(values, counts))
    torch.testing.assert_close(found.values[found.present], expected, rtol=1e-4, atol=1e-5)
    assert (found.values[~found.present] == 0).all()


def test_a_single_step_in_training_is_normed_as_in_evaluation():
    torch.manual_seed(0)
    layer = ConvolvedSteps(4, 6, 3)
    layer(pad(torch.randn(9, 4), torch.tensor([9])))
    step = pad(torch.randn(1, 4), torch.tensor([1]))
    in_training = layer.train()(step).values
    assert torch.equal(in_training, layer.eval()(step).values)


def slow_lstm(steps, weights):
    """One direction of one layer; the gates in the library's order: in, forget, cell, out."""
    w_in, w_state, b_in, b_state = weights
    state = cell = torch.zeros(w_state.shape[1])
    states = []
    for step in steps:
        i, f, g, o = (w_in @ step + b_in + w_state @ state + b_state).chunk(4)
        cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
        state = torch.sigmoid(o) * torch.tanh(cell)
        states.append(state)
    return torch.stack(states)


def test_lstm_steps_are_equation_2_and_do_not_read_the_padding():
    torch.manual_seed(0)
    layer = LSTMSteps(4, 6, 0.3).eval()
    values, counts = torch.randn(8, 4), torch.tensor([2, 5, 1])
    with torch.no_grad():
        found = layer(pad(values, counts))
        for i, steps in enumerate(values.split([2, 5, 1])):
            states = steps
            for number in range(2):
                forth, back = layer.lstm.all_weights[2 * number : 2 * number + 2]
                states = torch.cat([slow_lstm(states, forth), slow_lstm(states.flip(0), back).flip(0)], dim=1)
            expected = torch.stack([slow_norm(state, layer.norm) for state in states])
            torch.testing.assert_close(found.values[i, : len(steps)], expected, rtol=1e-4, atol=1e-5)
    assert (found.values[~found.present] == 0).all()


def test_the_block_is_equation_11():
    torch.manual_seed(0)
    block = CrossModalBlock(4)
    steps, source = torch.randn(2, 3, 4), torch.randn(2, 4)
    found = block(steps, source)
    for i in range(2):
        mapped = block.of_source.weight @ source[i]
        for t in range(3):
            hidden = torch.tanh(block.of_steps.weight @ steps[i, t] + block.of_steps.bias + mapped)
            torch.testing.assert_close(found[i, t], hidden.exp() / hidden.exp().sum())


def slow_attention(x, attention):
    size, each = x.shape[1], x.shape[1] // attention.num_heads
    q, k, v = (x @ attention.in_proj_weight.T + attention.in_proj_bias).chunk(3, dim=1)
    out = torch.zeros_like(x)
    for start in range(0, size, each):
        part = slice(start, start + each)
        for t in range(len(x)):
            scores = torch.stack([torch.dot(q[t, part], k[s, part]) / math.sqrt(each) for s in range(len(x))])
            weights = scores.exp() / scores.exp().sum()
            out[t, part] = sum(weights[s] * v[s, part] for s in range(len(x)))
    return out @ attention.out_proj.weight.T + attention.out_proj.bias


def slow_summary(model, steps):
    """Eq. 8 to 10 and 4 for one utterance without padding."""
    size = steps.shape[1]
    x = steps.clone()
    for t in range(len(x)):
        for i in range(size):
            angle = t / 10_000 ** (i // 2 * 2 / size)
            x[t, i] += math.sin(angle) if i % 2 == 0 else math.cos(angle)
    for layer in model.encoder.layers:
        x = x + slow_attention(x, layer.self_attn)
        x = torch.stack([slow_norm(step, layer.norm1) for step in x])
        hidden = torch.clamp(x @ layer.linear1.weight.T + layer.linear1.bias, min=0)
        x = x + hidden @ layer.linear2.weight.T + layer.linear2.bias
        x = torch.stack([slow_norm(step, layer.norm2) for step in x])
    return slow_norm(x[-1], model.encoder.norm)


def test_a_transformer_is_its_equations():
    torch.manual_seed(0)
    model = SummaryTransformer(8, 2, 2, 0.3).eval()
    values, counts = torch.randn(8, 8), torch.tensor([3, 5])
    with torch.no_grad():
        found = model(pad(values, counts))
        for i, steps in enumerate(values.split([3, 5])):
            torch.testing.assert_close(found[i], slow_summary(model, steps), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("direction", "target", "sources"), [("va_to_l", "t", "va"), ("vl_to_a", "a", "vt"), ("la_to_v", "v", "ta")]
)
def test_a_direction_is_equations_3_to_7(build_fusion, make_features, direction, target, sources):
    model = build_fusion("lmr-cbt", size=8, heads=2, layers=2, head_size=16, direction=direction).eval()
    batch = make_features(lengths=((3, 5, 4), (1, 2, 3)))
    with torch.no_grad():
        steps = {letter: model.steps[letter](sequence) for letter, sequence in model.frontend(batch).items()}
        logits = model(batch).logits
        for i in range(2):
            own = {letter: values[i][present[i]] for letter, (values, present) in steps.items()}
            transformers, blocks = model.fusion.transformers, model.fusion.blocks
            first, second = (slow_summary(transformers[letter], own[letter]) for letter in sources)
            changed = blocks[sources[0]](own[target][None], first[None])
            changed = blocks[sources[1]](changed, second[None])[0]
            fused = slow_summary(transformers[target], changed + own[target])
            one, _, _, two = model.head
            hidden = F.relu(one(torch.cat([fused, first, second])))
            torch.testing.assert_close(logits[i], two(hidden), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("modalities", ["av", "ta", "t"])
def test_blocks_are_built_between_named_modalities_only(build_fusion, modalities):
    model = build_fusion("lmr-cbt", size=8, heads=2, layers=1, modalities=modalities)
    blocks = {"av": "", "ta": "a", "t": ""}[modalities]
    assert "".join(model.fusion.blocks) == blocks
    assert set(model.fusion.transformers) == set(modalities)


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"heads": 7}, "heads is 7 and size 40"), ({"vision_kernel": 4}, "a kernel is 4"), ({"direction": "up"}, "'up'")],
)
def test_settings_that_do_not_fit_are_named(settings, said):
    with pytest.raises(ModelError, match=said):
        models.build("lmr-cbt", **settings)
