"""EmoEmbs beside a slow, obvious version of its equations, and where its emotion embeddings come from."""

import pytest
import torch

import models
from models import ModelError
from models.emoembs import Similarity

NAMES = ("happy", "sad", "very angry")
TOWERS = {"frontend": "towers", "text_encoder": "tiny", "tower_width": 8, "outputs": 3}
SMALL = {"size": 6, "audio_size": 5, "vision_size": 4, "outputs": 3}


def test_a_score_is_the_weighted_sum_of_dot_products_in_each_modalitys_space():
    torch.manual_seed(0)
    fusion = Similarity(torch.randn(3, 6), {"t": 6, "a": 5, "v": 4})
    vectors = {"t": torch.randn(2, 6), "a": torch.randn(2, 5), "v": torch.randn(2, 4)}
    weights = {"t": 0.5, "a": -2.0, "v": 3.0}
    with torch.no_grad():
        for letter, weight in weights.items():
            fusion.weights.get_parameter(letter).fill_(weight)
        found = fusion(vectors)
        for i in range(2):
            for e in range(3):
                word = fusion.emotions[e]
                sound = fusion.maps["a"].weight @ word + fusion.maps["a"].bias
                picture = fusion.maps["v"].weight @ word + fusion.maps["v"].bias
                expected = (
                    0.5 * torch.dot(vectors["t"][i], word)
                    - 2 * torch.dot(vectors["a"][i], sound)
                    + 3 * torch.dot(vectors["v"][i], picture)
                )
                torch.testing.assert_close(found[i, e], expected)


def test_a_modalitys_vector_is_the_sum_of_both_directions_last_states(build_fusion, make_features):
    model = build_fusion("emoembs", **SMALL, modalities="t", layers=1).eval()
    batch = make_features(lengths=((3, 0, 0), (2, 0, 0)))
    with torch.no_grad():
        for i, steps in enumerate(batch.features["t"].values.split([3, 2])):
            states, _ = model.encoders["t"](steps[None])
            vector = states[0, -1, :6] + states[0, 0, 6:]
            torch.testing.assert_close(model(batch).logits[i], model.fusion.emotions @ vector)


def test_exchanged_emotions_exchange_their_scores_and_nothing_else(build_fusion, make_features):
    model = build_fusion("emoembs", **SMALL).eval()
    batch = make_features()
    with torch.no_grad():
        before = model(batch).logits
        model.fusion.emotions.copy_(model.fusion.emotions[[2, 0, 1]])
        torch.testing.assert_close(model(batch).logits, before[:, [2, 0, 1]])


def test_embeddings_of_names_are_the_mean_of_their_tokens_embeddings_and_stay(tiny_batch):
    torch.manual_seed(0)
    model = models.build("emoembs", **TOWERS, emotions=NAMES)
    table = model.text.encoder.embeddings.word_embeddings.weight.detach().clone()
    tokens, _ = model.text.tokenizer(["happy", "sad", "very", "angry"])
    happy, sad, very, angry = table[tokens[:, 1]]  # between the marks of start and end
    expected = torch.stack([happy, sad, (very + angry) / 2])
    torch.testing.assert_close(model.fusion.emotions, expected)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model(tiny_batch).logits.square().sum().backward()
    optimizer.step()
    assert not torch.equal(model.text.encoder.embeddings.word_embeddings.weight, table)
    torch.testing.assert_close(model.fusion.emotions, expected)


def test_with_a_pretrained_encoder_names_that_mean_alike_are_closer():
    model = models.build(
        "emoembs", frontend="towers", modalities="t", outputs=3, emotions=("angry", "furious", "happy")
    )
    assert model.fusion.emotions.shape == (3, model.text.size)
    angry, furious, happy = model.fusion.emotions / model.fusion.emotions.norm(dim=1, keepdim=True)
    assert angry @ furious > angry @ happy


def test_a_saved_model_keeps_the_embeddings_of_its_names(tiny_batch, tmp_path):
    torch.manual_seed(0)
    model = models.build("emoembs", **TOWERS, emotions=NAMES).eval()
    models.save(model, tmp_path)
    loaded = models.load(tmp_path)
    assert loaded.config.emotions == NAMES
    assert torch.equal(loaded.fusion.emotions, model.fusion.emotions)
    assert torch.equal(loaded(tiny_batch).logits, model(tiny_batch).logits)


def test_without_text_and_without_names_the_embeddings_are_learnt(build_fusion, make_features):
    model = build_fusion("emoembs", **SMALL, modalities="av")
    model(make_features()).logits.sum().backward()
    assert model.fusion.emotions.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"emotions": NAMES}, "no text encoder embeds them"),
        ({**TOWERS, "modalities": "av", "emotions": NAMES}, "no text encoder embeds them"),
        ({**TOWERS, "emotions": NAMES[:2]}, "emotions has 2 names .happy, sad. for 3 outputs"),
        ({**TOWERS, "emotions": ("happy", " ", "sad")}, "emotions has ' ', which has no token"),
    ],
)
def test_names_that_cannot_be_embedded_are_refused(settings, complaint):
    with pytest.raises(ModelError, match=complaint):
        models.build("emoembs", **settings)
