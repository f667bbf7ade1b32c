"""Pretraining of CMT: codewords beside their definition, what is asked of whom, and that it learns."""

from dataclasses import replace

import pytest
import torch

import models
from data_tools.batch import WAVEFORM, Packed
from models import ModelError
from models.pretraining import CMTPretraining, Codewords, Masks


@pytest.fixture
def spoken(make_batch):
    """Three utterances with sound, the second one without words and the third one without sound."""
    samples = torch.randn(9000, 1, generator=torch.Generator().manual_seed(0))
    batch = make_batch()
    return replace(batch, features={WAVEFORM: Packed(samples, torch.tensor([5000, 4000, 0]))})


def network(build_fusion, **masks):
    model = build_fusion(
        "cmt", frontend="encoders", text_encoder="tiny", width=32, heads=2, feed_forward=32, layers=1, dropout=0.0
    )
    torch.manual_seed(1)
    return CMTPretraining(model, torch.randn(6, 32), 8, Masks(**masks), seed=3)


def test_codewords_are_the_nearest_centre_and_scored_by_cosine():
    torch.manual_seed(0)
    codewords = Codewords(torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 3.0]]), width=5, size=4)
    assert codewords.nearest(torch.tensor([[1.9, 0.1], [2.1, 0.1], [0.5, 2.9], [-9.0, -9.0]])).tolist() == [0, 1, 2, 0]
    states = torch.randn(7, 5)
    found = codewords(states)
    for n in range(7):
        guess = codewords.project.weight @ states[n] + codewords.project.bias
        for k in range(3):
            code = codewords.embeddings[k]
            cosine = sum(guess * code) / (sum(guess**2) * sum(code**2)).sqrt()
            torch.testing.assert_close(found[n, k], cosine / 0.1)
    assert {name for name, _ in codewords.named_parameters()} == {"project.weight", "project.bias", "embeddings"}


def test_each_side_is_masked_and_asks_the_other_one_unmasked(build_fusion, spoken, monkeypatch):
    made = network(build_fusion, tokens=0.5).eval()
    asked = {}
    monkeypatch.setattr(
        made.model.fusion,
        "forward",
        lambda sequences, sources: asked.update(masked=sequences, whole=sources) or sequences,
    )
    made(spoken)
    true = made.model.sequences(spoken)
    for letter in "ta":
        torch.testing.assert_close(asked["whole"][letter].values, true[letter].values)
    changed = (asked["masked"]["a"].values - true["a"].values).abs().amax(2) > 0
    assert changed.any(1).tolist() == [True, True, False]  # the third has no sound to hide
    assert (asked["masked"]["a"].values[changed] == made.hidden_state).all()
    differs = (asked["masked"]["t"].values - true["t"].values).abs().amax(2) > 1e-6
    assert differs.any(1).tolist() == [True, False, True]  # the second has no word to hide


def test_the_losses_are_means_over_what_is_hidden(build_fusion, spoken):
    made = network(build_fusion, tokens=0.6, spans=0.2, span=2).eval()
    seen = {}
    hooks = [
        made.words.register_forward_hook(lambda _, given, out: seen.update(words=out)),
        made.codewords.register_forward_hook(lambda _, given, out: seen.update(codes=out)),
    ]
    losses = made(spoken).losses
    for hook in hooks:
        hook.remove()
    assert 0 < len(seen["words"]) < 16
    assert 0 < len(seen["codes"]) < 27  # 1 + (5000 - 400) // 320 and as of 4000, 15 + 12 states
    assert losses["text"].item() > 0
    assert losses["audio"].item() > 0
    silent = replace(spoken, features={WAVEFORM: Packed(torch.zeros(0, 1), torch.tensor([0, 0, 0]))})
    assert made(silent).losses["audio"].item() == 0
    assert made(silent).losses["text"].isfinite()


def test_masks_follow_the_epoch_in_training_alone_and_not_the_batch(build_fusion, spoken):
    made = network(build_fusion, tokens=0.5)

    def losses(epoch, training):
        made.epoch = epoch
        made.train(training)
        return [value.item() for value in made(spoken).losses.values()]

    assert losses(1, True) == losses(1, True) != losses(2, True)
    assert losses(1, False) == losses(2, False)


def test_only_fusion_and_heads_learn_and_the_loss_falls(build_fusion, spoken):
    made = network(build_fusion, tokens=0.5)
    with torch.no_grad():  # codewords that are there: states of the sound itself
        states = made.model.frontend(spoken)["a"]
        made.codewords.centres.copy_(states.values[states.present][::5][:6])
    before = {name: value.clone() for name, value in made.state_dict().items()}
    learning = [parameter for parameter in made.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(learning, lr=1e-2)
    course = []
    for _ in range(40):
        optimizer.zero_grad()
        losses = made(spoken).losses
        (losses["text"] + losses["audio"]).backward()
        assert all(parameter.grad is not None for parameter in learning)
        optimizer.step()
        course.append([value.item() for value in losses.values()])
    text, audio = zip(*course, strict=True)
    assert text[-1] < 0.2 * text[0]
    assert audio[-1] < 0.5 * audio[0]
    changed = {name for name, value in made.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.split(".")[0] for name in changed} == {"model", "words", "codewords", "hidden_state"}
    assert {name.split(".")[1] for name in changed if name.startswith("model.")} == {"fusion"}
    assert "codewords.centres" not in changed


def test_encoders_stay_in_evaluation_mode(build_fusion):
    made = network(build_fusion).train()
    assert made.model.fusion.training
    assert not made.model.text.training
    assert not made.model.speech.encoder.training


def test_heads_go_on_in_a_network_of_the_same_sizes(build_fusion):
    first, second = network(build_fusion), network(build_fusion)
    for parameter in first.parameters():
        parameter.data += 1
    second.load_heads(first.heads())
    assert torch.equal(second.words.weight, first.words.weight)
    assert torch.equal(second.codewords.centres, first.codewords.centres)
    assert not torch.equal(second.model.head.weight, first.model.head.weight)
    other = CMTPretraining(first.model, torch.zeros(5, 32), 8, Masks(), seed=3)
    with pytest.raises(ModelError, match="don't fit this network"):
        other.load_heads(first.heads())


def test_other_frontends_and_one_modality_are_refused(build_fusion):
    with pytest.raises(ModelError, match="needs frontend 'encoders' and modalities 'ta', but they are 'features'"):
        CMTPretraining(build_fusion("cmt", width=8, heads=2), torch.zeros(2, 4), 4, Masks(), 0)


def test_a_tokenizer_without_a_mask_token_is_named(tmp_path):
    from tokenizers import Tokenizer
    from tokenizers import models as parts
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(parts.WordLevel({"[PAD]": 0, "[UNK]": 1, "[MASK]": 2, "yes": 3}, unk_token="[UNK]"))
    for special in ({}, {"mask_token": "[MASK]"}):
        fast = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", **special)
        fast.save_pretrained(tmp_path)
        (tmp_path / "config.json").write_text('{"model_type": "bert"}')
        tokenizer = models.tokenizer_for(str(tmp_path))
        if special:
            assert tokenizer.hidden == 2
        else:
            with pytest.raises(ModelError, match="has no mask token, which pretraining needs"):
                _ = tokenizer.hidden
