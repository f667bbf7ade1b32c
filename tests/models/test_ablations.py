"""Switches of the papers' ablations beside slow, obvious versions, and that every parameter of each variant learns."""

from dataclasses import replace

import pytest
import torch
from fusion_models import MANY, SMALL
from reference import assert_all_learn_but_the_listed
from torch.nn import functional as F

import models
from data_tools.damage import Blank, drop_steps
from models import ModelError
from models.layers.mutual import LinearPooling, MeanPooling, MutualPromotion
from models.layers.padded import pad
from models.lmr_cbt import CrossModalBlock, JointBlock

BLANK = Blank(0, frozenset({0, 1, 2}), (159.0, 111.0, 102.0), (37.0, 33.0, 32.0))
VARIANTS = [
    *(
        ("emt", {"pooling": pooling, "fusion": fusion})
        for pooling in ("mean", "mlp")
        for fusion in ("oagl", "oall", "ooll")
    ),
    *(("emt", {"serial": True, "fusion": fusion, "share": "none"}) for fusion in ("oagl", "oall")),
    ("emt", {"pooling": "mlp", "fusion": "ooll", "modalities": "t"}),
    ("emt", {"pooling": "mlp", "fusion": "ooll", "modalities": "ta"}),
    ("emt-dlfr", {"attract_by": "cosine"}),
    ("lmr-cbt", {"cross": "joint"}),
    ("lmr-cbt", {"cross": "joint", "direction": "la_to_v"}),
    ("lmr-cbt", {"cross": "joint", "modalities": "ta"}),
    ("ucrn", {"quality_layers": 0}),
    ("ucrn", {"quality_layers": 3}),
    ("ucrn", {"unimodal": False}),
    ("ucrn", {"crossmodal": False}),
    ("ucrn", {"divergence": False}),
    ("cmt", {"layers": 0}),
    ("cmt", {"layers": 3, "audio_layer": 2}),
    ("cmt", {"layers": 3, "audio_layer": "pooled"}),
    ("lf-trans", {"feed_forward": 12}),
]


@pytest.mark.parametrize(("name", "settings"), VARIANTS)
def test_every_parameter_of_a_variant_learns_or_stands_on_the_list(build_fusion, make_features, name, settings):
    model = build_fusion(name, **SMALL[name] | settings)
    batch = make_features(lengths=MANY)
    batch = replace(drop_steps(batch, 0.5, 0, BLANK), complete=batch)
    output = model(batch)
    (F.binary_cross_entropy_with_logits(output.logits, batch.labels) + sum(output.losses.values())).backward()
    assert_all_learn_but_the_listed(model)


def test_serial_promotion_asks_what_was_promoted_before():
    torch.manual_seed(0)
    one, other = (pad(torch.randn(6, 8), torch.tensor(counts)) for counts in ([4, 2], [1, 5]))
    parallel, serial = (MutualPromotion(8, 2, 0, 0, shared=False, serial=on).eval() for on in (False, True))
    serial.load_state_dict(parallel.state_dict())
    first, second = serial(one, other)
    assert torch.equal(first, parallel(one, other)[0])
    promoted = parallel.directions[0](one, other)
    assert torch.equal(second, parallel.directions[1](other, one._replace(values=promoted)))
    assert not torch.equal(second, parallel(one, other)[1])


def test_the_other_poolings_are_a_mean_and_a_layer():
    torch.manual_seed(0)
    choices = torch.randn(2, 5, 3, 4)
    torch.testing.assert_close(MeanPooling()(choices), (choices[:, :, 0] + choices[:, :, 1] + choices[:, :, 2]) / 3)
    pool = LinearPooling(4, 3)
    parts = pool.join.weight.split(4, dim=1)
    expected = sum(choices[1, 2, k] @ parts[k].T for k in range(3)) + pool.join.bias
    torch.testing.assert_close(pool(choices)[1, 2], expected)


def test_cosine_attraction_is_minus_one_for_equal_views_and_pulls_both(build_fusion):
    attract = build_fusion("emt-dlfr", **SMALL["emt-dlfr"], attract_by="cosine").restoration.own[0]
    view, other = torch.randn(3, 8, requires_grad=True), torch.randn(3, 8, requires_grad=True)
    assert attract(view, view).item() == pytest.approx(-1)
    attract(view, other).backward()
    assert view.grad.abs().sum() > 0
    assert other.grad.abs().sum() > 0
    assert not list(attract.parameters())


def test_a_joint_block_is_one_softmax_of_all_sources_and_with_one_the_released_block():
    torch.manual_seed(0)
    block, steps = JointBlock(4, "va"), torch.randn(2, 3, 4)
    sources = {"v": torch.randn(2, 4), "a": torch.randn(2, 4)}
    found = block(steps, sources)
    for i in range(2):
        said = sum(block.of_sources[letter].weight @ sources[letter][i] for letter in "va")
        for t in range(3):
            hidden = torch.tanh(block.of_steps.weight @ steps[i, t] + block.of_steps.bias + said)
            torch.testing.assert_close(found[i, t], hidden.exp() / hidden.exp().sum())
    single, alone = JointBlock(4, "v"), CrossModalBlock(4)
    single.of_steps.load_state_dict(alone.of_steps.state_dict())
    single.of_sources["v"].load_state_dict(alone.of_source.state_dict())
    torch.testing.assert_close(single(steps, {"v": sources["v"]}), alone(steps, sources["v"]))


@pytest.mark.parametrize(("cross", "fair"), [("joint", True), ("sequential", False)])
def test_in_a_joint_block_vision_moves_the_fusion_as_much_as_audio_does(cross, fair):
    torch.manual_seed(0)
    fusion = models.build("lmr-cbt", cross=cross).fusion.eval()
    steps = pad(torch.randn(20, 40), torch.tensor([12, 8]))
    sources = {letter: torch.randn(2, 40) for letter in "va"}
    with torch.no_grad():
        before = fusion._fused(steps, sources).values
        moved = {
            letter: (fusion._fused(steps, sources | {letter: sources[letter] + 1}).values - before).abs().sum().item()
            for letter in "va"
        }
    assert (moved["v"] > 0.5 * moved["a"]) == fair
    assert (moved["v"] < 0.1 * moved["a"]) != fair


def test_ucrns_quality_layers_are_a_stack(build_fusion):
    model = build_fusion("ucrn", **SMALL["ucrn"], quality_layers=2).eval()
    vector = torch.randn(3, model.config.size)
    first, second = model.fusion.quality["t"]
    once = vector * F.relu(vector @ first.weigh.weight.T + first.weigh.bias)
    expected = once * F.relu(once @ second.weigh.weight.T + second.weigh.bias)
    torch.testing.assert_close(model.fusion.quality["t"](vector), expected)


def test_ucrn_without_parts_lacks_their_parameters_and_loss(build_fusion, make_features):
    whole = build_fusion("ucrn", **SMALL["ucrn"])
    names = {name.split(".")[1] for name, _ in whole.fusion.named_parameters(prefix="fusion")}
    assert names == {"unimodal", "quality", "crossmodal"}
    for settings, part in (({"unimodal": False}, "unimodal"), ({"crossmodal": False}, "crossmodal")):
        model = build_fusion("ucrn", **SMALL["ucrn"], **settings)
        assert {name.split(".")[1] for name, _ in model.fusion.named_parameters(prefix="fusion")} == names - {part}
    assert "divergence" in whole(make_features()).losses
    assert build_fusion("ucrn", **SMALL["ucrn"], divergence=False)(make_features()).losses == {}


def test_cmts_audio_can_be_any_layer_or_a_learnt_mean_of_them(build_fusion, make_features):
    settings = SMALL["cmt"] | {"layers": 3}
    last = build_fusion("cmt", **settings).eval()
    batch, states = make_features(), []
    for layer in last.fusion.sides["a"]:
        layer.register_forward_hook(lambda *call: states.append(call[2]))
    last(batch)
    for choice in (1, 2, 3, "pooled"):
        model = build_fusion("cmt", **settings, audio_layer=choice).eval()
        model.load_state_dict(last.state_dict(), strict=False)
        embedded = {letter: model.embedded(letter, found) for letter, found in model.sequences(batch).items()}
        if choice == "pooled":
            model.fusion.layer_weights.data = torch.tensor([0.0, 1.0, -1.0])
            weights = torch.tensor([1.0, torch.e, 1 / torch.e]) / (1 + torch.e + 1 / torch.e)
            expected = sum(weight * state for weight, state in zip(weights, states, strict=True))
        else:
            expected = states[choice - 1]
        torch.testing.assert_close(model.fusion(embedded, embedded)["a"].values, expected)


def test_without_layers_cmt_is_a_head_over_both_encoders(build_fusion, make_features):
    model = build_fusion("cmt", **SMALL["cmt"] | {"layers": 0}).eval()
    batch = make_features()
    embedded = {letter: model.embedded(letter, found) for letter, found in model.sequences(batch).items()}
    vectors = torch.cat([embedded["a"].mean(), embedded["t"].values[:, 0]], dim=1)
    torch.testing.assert_close(model(batch).logits, vectors @ model.head.weight.T + model.head.bias)


@pytest.mark.parametrize(
    ("name", "settings", "problem"),
    [
        ("emt", {"serial": True, "fusion": "ooll"}, "serial is for fusion oagl and oall"),
        ("cmt", {"audio_layer": 3}, "audio_layer is 3, but a side has 2 layers"),
        ("cmt", {"layers": 0, "audio_layer": "pooled"}, "a side has no layers"),
    ],
)
def test_what_does_not_go_together_is_refused(name, settings, problem):
    with pytest.raises(ModelError, match=problem):
        models.config_of(name, settings)


@pytest.mark.parametrize("name", ["fe2e", "mesm"])
def test_the_released_width_of_the_feed_forward_networks(build_small, tiny_batch, name):
    model = build_small(name, feed_forward=20)
    assert {layer.linear1.out_features for layer in model.sequences["face"].encoder.layers} == {20}
    assert model(tiny_batch).logits.shape == (3, 6)
