"""A text encoder beside extracted audio and vision: the scores of its own states, and damage before the encoder."""

from dataclasses import replace

import pytest
import torch
from fusion_models import FUSION, LETTERS, SMALL
from reference import assert_all_learn_but_the_listed

import models
from data_tools.batch import Packed
from data_tools.damage import Blank, drop_steps

TEXTS = ["I told you not to come back!", "well, that is wonderful", "no"]
BLANK = Blank(0, frozenset({1, 2}), (159.0, 111.0, 102.0), (37.0, 33.0, 32.0))  # of the tiny encoder
ENCODER = {"text_frontend": "encoder", "text_encoder": "tiny"}


@pytest.fixture
def mixed_batch(make_features):
    """Three utterances of words, and of extracted audio and vision."""
    batch = make_features(lengths=((0, 5, 4), (0, 2, 3), (0, 1, 6)))
    tokens, mask = models.tokenizer_for("tiny")(TEXTS)
    own = {letter: packed for letter, packed in batch.features.items() if letter != "t"}
    return replace(batch, tokens=tokens, token_mask=mask, features=own)


@pytest.mark.parametrize("name", FUSION)
def test_the_scores_are_those_of_the_encoders_states_as_features(build_fusion, mixed_batch, name):
    mixed = build_fusion(name, **SMALL[name], **ENCODER).eval()
    extracted = build_fusion(name, **SMALL[name], text_dim=mixed.text.size).eval()
    missing, unexpected = extracted.load_state_dict(mixed.state_dict(), strict=False)
    assert not missing
    assert all(key.startswith("text.") for key in unexpected)
    with torch.no_grad():
        states, _ = mixed.text.states(mixed_batch.tokens, mixed_batch.token_mask)
        counts = mixed_batch.token_mask.sum(1)
        features = {**mixed_batch.features, "t": Packed(states[mixed_batch.token_mask], counts)}
        expected = extracted(replace(mixed_batch, features=features)).logits
        torch.testing.assert_close(mixed(mixed_batch).logits, expected)


@pytest.mark.parametrize("name", FUSION)
def test_the_encoder_learns_along(build_fusion, mixed_batch, name):
    model = build_fusion(name, **SMALL[name], **ENCODER)
    assert set(model.config.feature_letters) == set(LETTERS.get(name, "tav")) - {"t"}
    output = model(replace(drop_steps(mixed_batch, 0.5, 0, BLANK), complete=mixed_batch))
    (output.logits.square().sum() + sum(output.losses.values())).backward()
    encoder = {id(parameter) for parameter in model.text_parameters()}
    assert encoder
    assert encoder < {id(parameter) for parameter in model.parameters() if parameter.grad is not None}


def test_every_part_of_emt_learns(build_fusion, mixed_batch):
    many = [mixed_batch] * 8
    batch = replace(
        mixed_batch,
        **{name: torch.cat([getattr(one, name) for one in many]) for name in ("tokens", "token_mask", "labels")},
        **{name: torch.cat([getattr(one, name) for one in many]) for name in ("face_counts", "chunk_counts")},
        ids=tuple(f"u{i}" for i in range(24)),
        features={
            letter: Packed(torch.randn(8 * len(packed.values), packed.values.shape[1]), packed.counts.repeat(8))
            for letter, packed in mixed_batch.features.items()
        },
    )
    model = build_fusion("emt", **SMALL["emt"], **ENCODER)
    model(batch).logits.square().sum().backward()
    assert_all_learn_but_the_listed(model)


@pytest.mark.parametrize("name", ["emt", "emt-dlfr", "tfr-net"])
def test_at_rate_1_the_words_say_nothing_but_their_number(build_fusion, mixed_batch, name):
    model = build_fusion(name, **SMALL[name], **ENCODER).eval()
    other = replace(mixed_batch, tokens=mixed_batch.tokens.where(mixed_batch.tokens < 3, 7))
    assert not torch.equal(model(other).logits, model(mixed_batch).logits)
    gone, other_gone = (drop_steps(batch, 1.0, 0, BLANK) for batch in (mixed_batch, other))
    assert torch.equal(model(gone).logits, model(other_gone).logits)
    # [CLS] and [SEP] stay, everything between is unknown before the encoder reads it.
    for row, real in zip(gone.tokens, gone.token_mask, strict=True):
        assert row[real].tolist() == [1, *[0] * (int(real.sum()) - 2), 2]


@pytest.mark.parametrize("name", ["emt-dlfr", "tfr-net"])
def test_what_is_missing_of_the_text_are_its_tokens(build_fusion, mixed_batch, name):
    model = build_fusion(name, **SMALL[name], **ENCODER).eval()
    batch = replace(drop_steps(mixed_batch, 0.5, 0, BLANK), complete=mixed_batch)
    missing = model.frontend.missing(batch)
    assert torch.equal(missing["t"], batch.missing["tokens"])
    assert missing["a"].sum() == batch.missing["a"].sum()
    assert model(batch).losses["reconstruction"].isfinite()


def test_a_saved_model_keeps_its_encoder(build_fusion, mixed_batch, tmp_path):
    model = build_fusion("mult", **SMALL["mult"], **ENCODER).eval()
    models.save(model, tmp_path)
    assert torch.equal(models.load(tmp_path)(mixed_batch).logits, model(mixed_batch).logits)


@pytest.mark.parametrize("summary", ["first", "last", "mean"])
def test_the_vector_that_stands_for_emts_text(build_fusion, make_features, summary):
    model = build_fusion("emt", **SMALL["emt"], text_summary=summary)
    seen = []
    model.project_whole["t"].register_forward_hook(lambda _, given, __: seen.append(given[0]))
    batch = make_features(lengths=((3, 5, 4), (1, 2, 1), (4, 3, 6)))
    model(batch)
    texts = batch.features["t"].values.split([3, 1, 4])
    expected = [{"first": text[0], "last": text[-1], "mean": text.mean(0)}[summary] for text in texts]
    torch.testing.assert_close(seen[0], torch.stack(expected))
