"""UCRN beside a slow, obvious version of its equations, and its size beside the published one."""

import math
from dataclasses import replace

import pytest
import torch
from scipy.spatial.distance import jensenshannon

import models
from data_tools.batch import Packed
from models import ModelError
from models.layers.padded import Padded, pad
from models.ucrn import Refinement, SelfQuality, multimodal_divergence
from pipeline.counting.model import count_model

TABLE_7 = {"tav": 422_401, "ta": 211_681}
FEATURES = {"text_dim": 300, "audio_dim": 5, "vision_dim": 20, "outputs": 1}


@pytest.mark.parametrize(("modalities", "of_fusion", "in_all"), [("tav", 422_280, 431_857), ("ta", 212_400, 220_921)])
def test_refinement_has_the_published_size_within_one_percent_without_projections_and_head(
    modalities, of_fusion, in_all
):
    found = count_model("ucrn", FEATURES | {"modalities": modalities})
    assert found["fusion_parameters"] == of_fusion
    assert found["parameters"] == in_all
    assert abs(of_fusion / TABLE_7[modalities] - 1) < 0.004


def test_no_width_has_the_published_size_with_projections():
    """The least there can be: five layers a module, with four square matrices and a fourfold feed-forward network."""
    for size in range(3, 60, 3):
        least = 5 * 12 * (2 * size**2 + (2 * size) ** 2) + (300 + 5) * size
        all_else = models.build("ucrn", **FEATURES, size=size, modalities="ta")
        assert least > 1.01 * TABLE_7["ta"] or sum(p.numel() for p in all_else.parameters()) < 0.99 * TABLE_7["ta"]


def slow_norm(x, norm):
    return (x - x.mean()) / torch.sqrt(((x - x.mean()) ** 2).mean() + norm.eps) * norm.weight + norm.bias


def slow_layer(layer, x):
    """Eq. 3 to 5 for one utterance without padding, head by head, step by step."""
    each = x.shape[1] // layer.heads
    q, k, v = x @ layer.to_query.weight.T, x @ layer.to_key.weight.T, x @ layer.to_value.weight.T
    beside = torch.zeros_like(x)
    for start in range(0, x.shape[1], each):
        part = slice(start, start + each)
        for t in range(len(x)):
            scores = torch.stack([torch.dot(q[t, part], k[s, part]) / math.sqrt(each) for s in range(len(x))])
            weights = scores.exp() / scores.exp().sum()
            beside[t, part] = sum(weights[s] * v[s, part] for s in range(len(x))) + x[t, part]
    joined = beside @ layer.join.weight.T + layer.join.bias
    norm, wide, _, _, narrow = layer.feed_forward
    normed = torch.stack([slow_norm(step, norm) for step in joined])
    hidden = torch.clamp(normed @ wide.weight.T + wide.bias, min=0)
    return hidden @ narrow.weight.T + narrow.bias + joined


@pytest.mark.parametrize("counts", [[3, 5], [1, 4], [1, 1]])
def test_refinement_is_equations_3_to_6(counts):
    torch.manual_seed(0)
    model = Refinement(6, layers=2, heads=3, dropout=0.3).eval()
    values = torch.randn(sum(counts), 6)
    with torch.no_grad():
        found = model(pad(values, torch.tensor(counts)))
        for i, steps in enumerate(values.split(counts)):
            expected = slow_layer(model.layers[1], slow_layer(model.layers[0], steps))[-1]
            torch.testing.assert_close(found[i], expected, rtol=1e-4, atol=1e-5)


def test_self_quality_is_equation_9():
    torch.manual_seed(0)
    layer = SelfQuality(4)
    vector = torch.randn(1, 4)
    with torch.no_grad():
        found = layer(vector)
        for i in range(4):
            weight = max(0.0, float(layer.weigh.weight[i] @ vector[0] + layer.weigh.bias[i]))
            assert float(found[0, i]) == pytest.approx(weight * float(vector[0, i]), abs=1e-6)


def test_the_divergence_is_the_librarys_summed_over_pairs():
    torch.manual_seed(0)
    vectors = [3 * torch.randn(4, 5) for _ in range(3)]
    text, audio, vision = (torch.softmax(vector.double(), dim=1).numpy() for vector in vectors)
    # The library's is the root of eq. 7.
    pairs = [(text, audio), (audio, vision), (vision, text)]
    expected = sum(jensenshannon(one[i], other[i]) ** 2 for one, other in pairs for i in range(4)) / 4
    assert float(multimodal_divergence(vectors)) == pytest.approx(expected, rel=1e-5)


def test_the_divergence_is_zero_for_equals_and_log_2_for_opposites():
    one, other = torch.tensor([[200.0, 0.0]]), torch.tensor([[0.0, 200.0]])
    assert float(multimodal_divergence([one, one + 7])) == pytest.approx(0, abs=1e-6)
    assert float(multimodal_divergence([one, other])) == pytest.approx(math.log(2))


def test_the_whole_is_its_equations(build_fusion, make_features):
    model = build_fusion("ucrn", size=6, layers=2).eval()
    batch = make_features(lengths=((3, 5, 4), (1, 2, 3)))
    steps = {letter: packed.values.split(packed.counts.tolist()) for letter, packed in batch.features.items()}
    with torch.no_grad():
        output = model(batch)
        refined = {letter: [] for letter in "tav"}
        for i in range(2):
            for letter in "tav":
                x = steps[letter][i] @ model.project[letter].weight.T
                for layer in model.fusion.unimodal[letter].layers:
                    x = slow_layer(layer, x)
                refined[letter].append(x[-1])
            x = torch.cat([model.fusion.quality[letter](refined[letter][i]) for letter in "tav"])[None]
            for layer in model.fusion.crossmodal.layers:
                x = slow_layer(layer, x)
            one, _, _, two = model.head
            torch.testing.assert_close(output.logits[i], two(torch.relu(one(x[0]))), rtol=1e-4, atol=1e-5)
        divergence = multimodal_divergence([torch.stack(refined[letter]) for letter in "tav"])
    torch.testing.assert_close(output.losses["divergence"], divergence, rtol=1e-4, atol=1e-6)


def test_one_modality_diverges_from_nothing(build_fusion, make_features):
    assert build_fusion("ucrn", size=6, modalities="t")(make_features()).losses == {}
    assert set(build_fusion("ucrn", size=6, modalities="tv")(make_features()).losses) == {"divergence"}


def test_what_is_read_still_stands_after_all_layers_of_an_untrained_network():
    torch.manual_seed(0)
    refine = Refinement(24, layers=10, heads=3, dropout=0.0)
    values = torch.randn(64, 5, 24)
    with torch.no_grad():
        refined = refine(Padded(values, torch.ones(64, 5, dtype=torch.bool)))
    # Without that, utterances can't be told apart; torch's own start of `join` leaves 0.04 of the spread here.
    assert refined.std(0).mean() > 0.7 * values.std()


def test_the_order_of_the_steps_before_the_last_changes_nothing(build_fusion, make_features):
    model = build_fusion("ucrn", size=6).eval()
    batch = make_features(lengths=((5, 4, 3),))
    text = batch.features["t"]
    turned = replace(batch, features={**batch.features, "t": Packed(text.values[[2, 0, 3, 1, 4]], text.counts)})
    last_moved = replace(batch, features={**batch.features, "t": Packed(text.values[[4, 0, 1, 2, 3]], text.counts)})
    torch.testing.assert_close(model(turned).logits, model(batch).logits, rtol=1e-4, atol=1e-5)
    assert (model(last_moved).logits - model(batch).logits).abs().max() > 1e-3


def test_an_eighth_of_the_published_parameters_cannot_learn():
    model = models.build("ucrn", **FEATURES)
    named = dict(model.named_parameters())
    assert sum(named[name].numel() for name in model.parameters_without_gradient()) == 5 * 2 * 72 * 72


def test_heads_that_do_not_divide_the_size_are_named():
    with pytest.raises(ModelError, match="heads is 5 and size 24"):
        models.build("ucrn", heads=5)
