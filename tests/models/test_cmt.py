"""CMT beside a slow, obvious version of its equations 1 to 7, its published sizes, and its two encoders."""

import math
from dataclasses import replace

import pytest
import torch
from reference import assert_all_learn_but_the_listed
from torch.nn import functional as F

import models
from data_tools.batch import WAVEFORM, Packed
from models import ModelError
from models.cmt import CMTConfig, CMTFusion
from models.layers.padded import pad

ENCODERS = {"frontend": "encoders", "text_encoder": "tiny", "width": 32, "heads": 2, "feed_forward": 16}


def size_of(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("size", "layers", "heads", "published"), [("base", 2, 4, 64), ("large", 4, 8, 128)])
def test_the_fusion_has_the_published_sizes(size, layers, heads, published):
    with torch.device("meta"):
        fusion = CMTFusion(["t", "a"], CMTConfig(size=size))
    # Of one layer of one side: two attentions with biases, a network, three norms.
    width, inside = 1024, 4096
    one = 2 * (4 * width**2 + 4 * width) + (2 * width * inside + inside + width) + 3 * 2 * width
    assert one == 16 * width**2 + 19 * width == 16_796_672
    assert [size_of(layer) for side in fusion.sides.values() for layer in side] == [one] * 2 * layers
    assert size_of(fusion) == 2 * layers * one
    assert round(size_of(fusion) / 2**20) == published
    assert {layer.self_attn.num_heads for side in fusion.sides.values() for layer in side} == {heads}


@pytest.mark.parametrize(("size", "published"), [("base", 703), ("large", 767)])
def test_with_both_large_encoders_the_whole_has_the_published_size(size, published):
    from transformers import HubertConfig, HubertModel, RobertaConfig, RobertaModel

    shape = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
    speech = {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True, "mask_time_prob": 0.0}
    text = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1}
    with torch.device("meta"):
        hubert = HubertModel(HubertConfig(**shape, **speech))
        roberta = RobertaModel(RobertaConfig(**shape, **text), add_pooling_layer=False)
        fusion = CMTFusion(["t", "a"], CMTConfig(size=size))
    assert round(sum(map(size_of, (hubert, roberta, fusion))) / 2**20) == published


def slow_norm(x, norm):
    mean, variance = x.mean(), ((x - x.mean()) ** 2).mean()
    return (x - mean) / torch.sqrt(variance + norm.eps) * norm.weight + norm.bias


def slow_attention(query, keys, attention):
    """One utterance, head by head and step by step; query (T, D), keys (S, D)."""
    size = query.shape[1]
    each = size // attention.num_heads
    weights, biases = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
    q, k, v = (x @ w.T + b for x, w, b in zip((query, keys, keys), weights, biases, strict=True))
    out = torch.zeros_like(query)
    for head in range(attention.num_heads):
        part = slice(head * each, (head + 1) * each)
        for t in range(len(q)):
            scores = torch.stack([(q[t, part] * k[s, part]).sum() / math.sqrt(each) for s in range(len(k))]).exp()
            out[t, part] = sum(scores[s] / scores.sum() * v[s, part] for s in range(len(k)))
    return out @ attention.out_proj.weight.T + attention.out_proj.bias


def slow_side(layers, own, other):
    """Eq. 1 to 5: own (T, D), other (S, D) the other encoder's states."""
    h = own
    for layer in layers:
        h = torch.stack([slow_norm(step, layer.norm1) for step in h + slow_attention(h, h, layer.self_attn)])
        crossed = slow_attention(h, other, layer.multihead_attn)
        h = torch.stack([slow_norm(step, layer.norm2) for step in crossed + h])
        inside = h @ layer.linear1.weight.T + layer.linear1.bias
        inside = 0.5 * inside * (1 + torch.erf(inside / math.sqrt(2)))
        made = inside @ layer.linear2.weight.T + layer.linear2.bias
        h = torch.stack([slow_norm(step, layer.norm3) for step in made + h])
    return h


@pytest.mark.parametrize("gradient", [True, False])  # without, torch may take another, fused way
def test_both_sides_are_equations_1_to_5_and_padding_is_not_seen(gradient):
    torch.manual_seed(0)
    fusion = CMTFusion(["t", "a"], CMTConfig(width=8, heads=2, feed_forward=12)).eval()
    text, audio = torch.randn(5, 8), torch.randn(8, 8)
    sequences = {"t": pad(text, torch.tensor([3, 2])), "a": pad(audio, torch.tensor([2, 6]))}
    with torch.set_grad_enabled(gradient):
        found = fusion(sequences, sequences)
    for i, (own, other) in enumerate(zip(text.split([3, 2]), audio.split([2, 6]), strict=True)):
        expected = {"t": slow_side(fusion.sides["t"], own, other), "a": slow_side(fusion.sides["a"], other, own)}
        for letter, states in expected.items():
            torch.testing.assert_close(found[letter].values[i, : len(states)], states, rtol=1e-4, atol=1e-5)


def test_scores_and_orthogonality_are_equations_6_and_7(build_fusion, make_features):
    model = build_fusion("cmt", width=8, heads=2, outputs=3).eval()
    batch = make_features(lengths=((3, 5, 0), (1, 2, 0)))
    output = model(batch)
    embedded = {letter: model.embedded(letter, found) for letter, found in model.frontend(batch).items()}
    states = model.fusion(embedded, embedded)
    apart = []
    for i, (words, steps) in enumerate(((3, 5), (1, 2))):
        text, audio = states["t"].values[i, :words], states["a"].values[i, :steps]
        sound, said = sum(audio) / steps, sum(text) / words
        scores = model.head.weight @ torch.cat([sound, text[0]]) + model.head.bias
        torch.testing.assert_close(output.logits[i], scores)
        apart.append(abs(sound @ said) / (sound.norm() * said.norm()))
    torch.testing.assert_close(output.losses["orthogonality"], sum(apart) / 2)


@pytest.mark.parametrize("letter", ["t", "a"])
def test_alone_a_modality_has_layers_without_the_other_and_no_orthogonality(build_fusion, make_features, letter):
    model = build_fusion("cmt", width=8, heads=2, feed_forward=16, modalities=letter)
    one = 4 * 8 * 8 + 4 * 8 + 2 * 8 * 16 + 16 + 8 + 2 * 2 * 8
    assert size_of(model.fusion) == 2 * one
    assert model(make_features()).losses["orthogonality"] == 0


def test_without_a_picture_and_with_heads_that_fit():
    with pytest.raises(ModelError, match="modalities is 'tav': CMT is defined for text and sound; give ta, t or a"):
        models.config_of("cmt", {"modalities": "tav"})
    with pytest.raises(ModelError, match="width 10 is not a multiple of heads, 4"):
        models.config_of("cmt", {"width": 10})


@pytest.fixture
def sounds(make_batch):
    """`sounds(counts)`: a batch of three sentences, with so many samples of noise each."""

    def make(counts=(2000, 0, 900), seed=0):
        values = torch.randn(sum(counts), 1, generator=torch.Generator().manual_seed(seed))
        return replace(make_batch(), features={WAVEFORM: Packed(values, torch.tensor(counts))})

    return make


def alone(batch, i):
    """Utterance `i` in a batch of its own, its text without padding."""
    packed = batch.features[WAVEFORM]
    end = int(packed.counts[: i + 1].sum())
    sound = Packed(packed.values[end - int(packed.counts[i]) : end], packed.counts[i : i + 1])
    length = int(batch.token_mask[i].sum())
    whole = {name: getattr(batch, name)[i : i + 1] for name in ("labels", "sentiment", "ids")}
    words = {name: getattr(batch, name)[i : i + 1, :length] for name in ("tokens", "token_mask")}
    return replace(batch, **whole, **words, features={WAVEFORM: sound})


def test_with_encoders_neighbours_and_padding_change_nothing(build_fusion, sounds):
    model = build_fusion("cmt", **ENCODERS).eval()
    batch = sounds()
    with torch.no_grad():
        together = model(batch).logits
        for i in range(3):
            torch.testing.assert_close(model(alone(batch, i)).logits[0], together[i], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("modalities", ["ta", "t", "a"])
def test_with_encoders_every_parameter_learns(build_fusion, sounds, modalities):
    model = build_fusion("cmt", **ENCODERS, modalities=modalities)
    batch = sounds()
    output = model(batch)
    (F.binary_cross_entropy_with_logits(output.logits, batch.labels) + sum(output.losses.values())).backward()
    assert_all_learn_but_the_listed(model)
    encoders = {id(parameter) for parameter in model.text_parameters()}
    own = [name for name, parameter in model.named_parameters() if id(parameter) not in encoders]
    assert {name.split(".")[0] for name in own} == {"fusion", "head"}  # both encoders have the width already


def test_with_encoders_a_saved_model_gives_the_same_scores(build_fusion, sounds, tmp_path):
    model = build_fusion("cmt", **ENCODERS).eval()
    batch = sounds()
    models.save(model, tmp_path)
    with torch.no_grad():
        assert torch.equal(models.load(tmp_path)(batch).logits, model(batch).logits)


def test_without_waveforms_the_encoders_say_what_is_missing(build_fusion, tiny_batch):
    with pytest.raises(ModelError, match="these samples have no waveforms"):
        build_fusion("cmt", **ENCODERS)(tiny_batch)


def test_a_model_starts_from_another_ones_weights_but_for_other_outputs(build_fusion, make_features, tmp_path):
    small = {"width": 8, "heads": 2}
    before = build_fusion("cmt", **small, outputs=6).eval()
    models.save(before, tmp_path)
    torch.manual_seed(1)
    after = models.build("cmt", text_dim=6, audio_dim=4, vision_dim=5, **small, outputs=2, dropout=0.3)
    head = after.head.weight.clone()
    models.start_from(after, tmp_path)
    assert torch.equal(after.head.weight, head)
    state = after.state_dict()
    assert all(torch.equal(state[name], v) for name, v in before.state_dict().items() if not name.startswith("head."))
    with pytest.raises(ModelError, match="of other settings: heads there is 2, here 4"):
        models.start_from(build_fusion("cmt", width=8, heads=4), tmp_path)
    with pytest.raises(ModelError, match="which holds the model 'cmt', not a EMT"):
        models.start_from(build_fusion("emt", size=8, heads=2), tmp_path)
