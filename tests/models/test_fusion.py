"""Laws that every fusion model must hold, on extracted features and on the towers."""

from dataclasses import replace

import pytest
import torch
from fusion_models import FUSION, LETTERS, MANY, SMALL
from reference import assert_all_learn_but_the_listed
from torch.nn import functional as F

import models
from data_tools.batch import Packed
from data_tools.damage import Blank, drop_steps
from models import ModelError

SUBSETS = [
    (name, letters)
    for name in FUSION
    for letters in ("tav", "ta", "tv", "av", "t", "a", "v")
    if set(letters) <= set(LETTERS.get(name, "tav"))
]
TOWERS = {"frontend": "towers", "text_encoder": "tiny", "tower_width": 8}
BLANK = Blank(0, frozenset({0, 1, 2}), (159.0, 111.0, 102.0), (37.0, 33.0, 32.0))


def damaged(batch):
    """Half of all steps gone, and the batch as it was beside it: what models that restore are trained on."""
    return replace(drop_steps(batch, 0.5, 0, BLANK), complete=batch)


def alone(batch, i):
    """Utterance `i` of a batch of features, in a batch of its own."""
    features = {}
    for letter, packed in batch.features.items():
        end = int(packed.counts[: i + 1].sum())
        steps = packed.values[end - int(packed.counts[i]) : end]
        features[letter] = Packed(steps, packed.counts[i : i + 1])
    whole = {name: getattr(batch, name)[i : i + 1] for name in (
        "face_counts", "chunk_counts", "tokens", "token_mask", "labels", "sentiment", "ids")}  # fmt: skip
    return replace(batch, **whole, features=features)


@pytest.mark.parametrize("name", FUSION)
def test_the_answer_is_one_row_of_scores_an_utterance(build_fusion, make_features, name):
    output = build_fusion(name, **SMALL[name], outputs=3)(make_features())
    assert output.logits.shape == (3, 3)
    assert output.logits.dtype == torch.float32
    assert output.logits.isfinite().all()


@pytest.mark.parametrize("name", FUSION)
def test_neighbours_and_padding_change_nothing(build_fusion, make_features, name):
    model = build_fusion(name, **SMALL[name]).eval()
    batch = make_features()
    together = model(batch).logits
    for i in range(3):
        torch.testing.assert_close(model(alone(batch, i)).logits[0], together[i], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "modalities"), SUBSETS)
def test_every_parameter_learns_or_stands_on_the_list(build_fusion, make_features, name, modalities):
    model = build_fusion(name, **SMALL[name], modalities=modalities)
    batch = damaged(make_features(lengths=MANY))
    output = model(batch)
    (F.binary_cross_entropy_with_logits(output.logits, batch.labels) + sum(output.losses.values())).backward()
    assert_all_learn_but_the_listed(model)


@pytest.mark.parametrize("name", FUSION)
def test_a_complete_view_beside_it_changes_no_score(build_fusion, make_features, name):
    model = build_fusion(name, **SMALL[name]).eval()
    batch = damaged(make_features())
    assert torch.equal(model(batch).logits, model(replace(batch, complete=None)).logits)


@pytest.mark.parametrize("name", FUSION)
@pytest.mark.parametrize("absent", ["t", "a", "v"])
def test_a_modality_that_is_not_named_has_no_influence(build_fusion, make_features, name, absent):
    letters = LETTERS.get(name, "tav").replace(absent, "")
    model = build_fusion(name, **SMALL[name], modalities=letters).eval()
    batch, other = make_features(), make_features(seed=1)
    changed = replace(batch, features={**batch.features, absent: other.features[absent]})
    assert torch.equal(model(changed).logits, model(batch).logits)
    assert not torch.equal(model(other).logits, model(batch).logits)


@pytest.mark.parametrize("name", FUSION)
def test_an_utterance_without_a_modality_has_a_defined_answer(build_fusion, make_features, name):
    model = build_fusion(name, **SMALL[name])
    logits = model(make_features(lengths=((0, 0, 0), (2, 0, 3)))).logits
    assert logits.isfinite().all()
    logits.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", FUSION)
def test_eight_utterances_are_learnt_by_heart(build_fusion, make_features, name):
    """Within 400 steps; it is looked at every 10, as with so large a rate the loss may jump up again later."""
    model = build_fusion(name, **SMALL[name])
    batch = make_features(lengths=((3, 4, 5),) * 8)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(1, 401):
        optimizer.zero_grad()
        output = model(batch)
        loss = F.binary_cross_entropy_with_logits(output.logits, batch.labels)
        (loss + 0.01 * sum(output.losses.values())).backward()
        optimizer.step()
        if step % 10 == 0 and learnt(model, batch):
            return
    raise AssertionError(f"after {step} steps the loss is {loss.item():.3f}")


def learnt(model, batch):
    with torch.no_grad():
        logits = model.eval()(batch).logits
    model.train()
    return ((logits > 0) == (batch.labels > 0.5)).all()


@pytest.mark.parametrize("name", FUSION)
def test_it_learns_end_to_end_from_faces_mel_and_tokens(build_fusion, tiny_batch, name):
    model = build_fusion(name, **SMALL[name], **TOWERS)
    output = model(damaged(tiny_batch))
    assert output.logits.shape == (3, 6)
    (output.logits.sum() + sum(output.losses.values())).backward()
    assert_all_learn_but_the_listed(model)


@pytest.mark.parametrize("name", FUSION)
@pytest.mark.parametrize("settings", [{}, TOWERS])
def test_a_saved_model_gives_the_same_scores(build_fusion, make_features, tiny_batch, tmp_path, name, settings):
    model = build_fusion(name, **SMALL[name], **settings).eval()
    batch = tiny_batch if settings else make_features()
    models.save(model, tmp_path)
    assert torch.equal(models.load(tmp_path)(batch).logits, model(batch).logits)


@pytest.mark.parametrize("name", FUSION)
def test_features_that_are_not_there_or_of_another_size_are_named(build_fusion, make_features, tiny_batch, name):
    model = build_fusion(name, **SMALL[name])
    with pytest.raises(ModelError, match="no extracted features of modality 't'.*pipeline extract"):
        model(tiny_batch)
    with pytest.raises(ModelError, match="audio_dim is 7, but the extracted features have 4"):
        build_fusion(name, **SMALL[name], audio_dim=7)(make_features())
