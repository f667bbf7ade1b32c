"""Absent modalities: left out of sums and products, or a learnt vector in their place, in every model."""

from dataclasses import replace

import pytest
import torch
from fusion_models import FUSION, LETTERS, MANY, SMALL

import models
from models.layers.late import each_subset

LATE = ["lf-lstm", "lf-trans", "emoembs"]
PRODUCTS = ["tfn", "lmf"]
STAND_INS = [name for name in FUSION if name not in LATE + PRODUCTS]
WEIGHTS = {"text": 0.5, "mel": -0.2, "face": 0.3}


def with_weights(model, weights):
    with torch.no_grad():
        for name, weight in weights.items():
            model.fusion.get_parameter(name).fill_(weight)
    return model.eval()


def scores_of_parts(model, batch):
    """What each modality says by itself, by its part: the sum with every other weight at zero."""
    found = {}
    before = {name: model.fusion[name].item() for name in WEIGHTS}
    for name in WEIGHTS:
        with_weights(model, dict.fromkeys(WEIGHTS, 0.0) | {name: 1.0})
        found[name] = model(batch).logits
    with_weights(model, before)
    return found


@pytest.mark.parametrize("name", ["fe2e", "mesm"])
def test_the_sum_runs_over_what_is_there_on_the_scale_of_the_whole(build_small, make_batch, name):
    model = with_weights(build_small(name), WEIGHTS)
    whole = make_batch(faces=(2, 3, 1), chunks=(2, 1, 4))
    alone = scores_of_parts(model, whole)
    expected = sum(weight * alone[part] for part, weight in WEIGHTS.items())
    torch.testing.assert_close(model(whole).logits, expected, rtol=1e-5, atol=1e-6)
    # The middle one has no words, by the flag alone; its tokens are those of the empty text already.
    silent = replace(whole, has_words=torch.tensor([True, False, True]))
    expected[1] = (-0.2 * alone["mel"][1] + 0.3 * alone["face"][1]) * (0.5 + 0.2 + 0.3) / (0.2 + 0.3)
    torch.testing.assert_close(model(silent).logits, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["fe2e", "mesm"])
def test_an_utterance_with_nothing_has_a_finite_answer(build_small, make_batch, name):
    model = build_small(name).eval()
    batch = replace(make_batch(faces=(0, 1), chunks=(0, 1)), has_words=torch.tensor([False, True]))
    assert model(batch).logits.isfinite().all()


@pytest.mark.parametrize("name", ["fe2e", "mesm", *FUSION])
def test_the_answer_is_the_same_to_the_bit_where_nothing_is_absent(
    build_small, build_fusion, make_batch, make_features, name
):
    if name in FUSION:
        model, batch = build_fusion(name, **SMALL[name]).eval(), make_features(lengths=((3, 5, 4), (1, 2, 2)))
    else:
        model, batch = build_small(name).eval(), make_batch(faces=(2, 3), chunks=(2, 1))
    told = replace(batch, has_words=torch.tensor([True, True]))
    assert torch.equal(model(told).logits, model(batch).logits)


def test_each_subset_is_what_is_there_of_it():
    rows = ["tav", "av", "t", ""]
    there = {letter: torch.tensor([letter in row for row in rows]) for letter in "tav"}
    found = [
        ["".join(letter for letter in "tav" if some[letter][i]) for i in range(len(rows))]
        for some in each_subset(there)
    ]
    assert found == [
        ["t", "av", "t", ""],
        ["a", "a", "t", ""],
        ["v", "v", "t", ""],
        ["ta", "a", "t", ""],
        ["tv", "v", "t", ""],
        ["av", "av", "t", ""],
    ]


@pytest.mark.parametrize("name", ["fe2e", "mesm"])
def test_each_subset_is_scored_beside_the_whole_in_training_alone(build_small, make_batch, name):
    model = build_small(name, modality_dropout=0.3)
    batch = make_batch(faces=(2, 3, 1), chunks=(2, 1, 4))
    output = model(batch)
    assert len(output.also_scored["subset"]) == 6
    for logits in output.also_scored["subset"]:
        assert logits.shape == output.logits.shape
        assert not torch.equal(logits, output.logits)
    assert output.losses["subset"] == 0
    evaluated = model.eval()(batch)
    assert not evaluated.also_scored
    assert evaluated.losses["subset"] == 0
    assert build_small(name).train()(batch).losses.keys().isdisjoint({"subset"})
    assert not build_small(name, modality_dropout=0.3, modalities="t")(batch).also_scored


@pytest.mark.parametrize("name", LATE + PRODUCTS)
@pytest.mark.parametrize("letter", "tav")
def test_weights_of_an_absent_modality_change_no_answer(build_fusion, make_features, name, letter):
    model = build_fusion(name, **SMALL[name]).eval()
    assert not model.stand_ins
    lengths = [[4, 4, 4], [4, 4, 4]]
    lengths[0]["tav".index(letter)] = 0
    batch = make_features(lengths=tuple(map(tuple, lengths)))
    before = model(batch).logits
    with torch.no_grad():
        for part in ("encoders", "heads", "subnetworks"):
            for parameter in getattr(model, part)[letter].parameters() if hasattr(model, part) else ():
                parameter.add_(torch.randn_like(parameter))
    after = model(batch).logits
    assert torch.equal(after[0], before[0])
    assert not torch.equal(after[1], before[1])


@pytest.mark.parametrize("name", STAND_INS)
def test_a_stand_in_is_learnt_and_zero_is_what_there_was(build_fusion, make_features, name):
    letters = LETTERS.get(name, "tav")
    model = build_fusion(name, **SMALL[name], modality_dropout=0.3)
    assert set(model.stand_ins) == set(letters)
    batch = make_features(lengths=MANY)
    without = build_fusion(name, **SMALL[name])
    missing, unexpected = without.load_state_dict(model.state_dict(), strict=False)
    assert (missing, set(unexpected)) == ([], {f"stand_ins.{letter}" for letter in letters})
    assert torch.equal(model.eval()(batch).logits, without.eval()(batch).logits)
    model.train()(batch).logits.square().sum().backward()
    absent = [letter for letter in letters if (batch.features[letter].counts == 0).any()]
    assert absent
    for letter, stand_in in model.stand_ins.items():
        assert (stand_in.grad.abs().max() > 0) == (letter in absent), letter


@pytest.mark.parametrize("name", LATE + PRODUCTS + STAND_INS)
def test_no_words_are_no_tokens_on_the_towers(name, make_batch):
    settings = {"frontend": "towers", "text_encoder": "tiny", "tower_width": 8, "modalities": LETTERS.get(name, "tav")}
    torch.manual_seed(0)
    model = models.build(name, **SMALL[name], **settings).eval()
    batch = replace(make_batch(faces=(2, 1), chunks=(1, 2)), has_words=torch.tensor([True, False]))
    before = model(batch).logits
    other = batch.tokens.clone()
    other[1] = other[0]
    changed = model(replace(batch, tokens=other)).logits
    assert torch.equal(changed, before)
    assert not torch.equal(model(replace(batch, has_words=None)).logits, before)


def test_mesm_asks_the_learnt_question_where_there_are_no_words_and_of_half_in_training(build_small, make_batch):
    model = build_small("mesm", modality_dropout=0.3)
    batch = replace(make_batch(faces=(2, 3, 1), chunks=(2, 1, 4)), has_words=torch.tensor([True, False, True]))
    state = torch.randn(3, len(model.constant_query))
    asked = model.eval().queries(state, batch)
    assert torch.equal(asked[[0, 2]], state[[0, 2]])
    assert torch.equal(asked[1], model.constant_query)
    torch.manual_seed(0)
    constant = torch.stack([(model.train().queries(state, batch) != state).all(1) for _ in range(2000)]).float().mean(0)
    assert constant[1] == 1
    assert constant[[0, 2]].tolist() == pytest.approx([0.5, 0.5], abs=0.05)
    # Who does not ask for it has no such parameter, as in every checkpoint of before.
    assert build_small("mesm").constant_query is None
    assert build_small("mesm", modality_dropout=0.3, modalities="t").constant_query is None
