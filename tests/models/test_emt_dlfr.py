"""EMT-DLFR: EMT with the same weights as long as nothing is damaged, and its losses where something is."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

import models
from data_tools.damage import Blank, add_noise, drop_steps

SMALL = {"size": 8, "heads": 2, "layers": 2}
BLANK = Blank(0, frozenset({0, 1, 2}), (159.0, 111.0, 102.0), (37.0, 33.0, 32.0))


def damaged(batch, rate=0.5):
    return replace(drop_steps(batch, rate, 0, BLANK), complete=batch)


@pytest.fixture
def both(build_fusion):
    """EMT-DLFR and EMT with its weights, both without dropout."""
    model = build_fusion("emt-dlfr", **SMALL).eval()
    emt = build_fusion("emt", **SMALL).eval()
    emt.load_state_dict({name: value for name, value in model.state_dict().items() if "restoration" not in name})
    return model, emt


def test_without_a_complete_view_it_is_emt(both, make_features):
    model, emt = both
    batch = make_features()
    found = model(batch)
    assert torch.equal(found.logits, emt(batch).logits)
    assert {name: float(value) for name, value in found.losses.items()} == {"reconstruction": 0, "attraction": 0}
    assert not found.also_scored


def test_the_scores_are_emts_of_the_damaged_view_and_the_other_ones_of_the_complete_view(both, make_features):
    model, emt = both
    batch = damaged(make_features())
    found = model(batch)
    assert torch.equal(found.logits, emt(batch).logits)
    assert torch.equal(found.also_scored["attraction"][0], emt(batch.complete).logits)
    assert not torch.equal(found.logits, found.also_scored["attraction"][0])


def test_its_losses_are_their_equations(both, make_features):
    model, emt = both
    batch = damaged(make_features())
    found = model(batch).losses
    with torch.no_grad():
        steps, own, fused = emt.promoted(emt.sequences(batch))
        _, own_complete, fused_complete = emt.promoted(emt.sequences(batch.complete))
        reconstruction = 0.0
        for letter in "tav":
            packed, gone = batch.complete.features[letter], batch.missing[letter]
            apart, start = [], 0
            for i, count in enumerate(packed.counts.tolist()):
                for t in range(count):
                    if gone[start + t]:
                        guess = model.restoration.reconstruct.networks[letter](steps[letter].values[i, t])
                        apart.append(F.smooth_l1_loss(guess, packed.values[start + t]))
                start += count
            assert apart
            reconstruction += float(torch.stack(apart).mean())
        attraction = float(model.restoration.fused(fused, fused_complete))
        for number in range(3):
            part = slice(8 * number, 8 * number + 8)
            attraction += float(model.restoration.own[number](own[:, part], own_complete[:, part]))
    assert found["reconstruction"].item() == pytest.approx(reconstruction, rel=1e-5)
    assert found["attraction"].item() == pytest.approx(attraction, rel=1e-5)


def test_nothing_missing_is_nothing_to_reconstruct_and_noise_is_no_missing_step(both, make_features):
    model, _ = both
    batch = make_features()
    untouched = model(damaged(batch, rate=0.0))
    assert untouched.losses["reconstruction"].item() == 0
    assert torch.equal(untouched.logits, untouched.also_scored["attraction"][0])
    noisy = model(replace(add_noise(batch, 0.5, 0, BLANK), complete=batch))
    assert noisy.losses["reconstruction"].item() == 0
    assert not torch.equal(noisy.logits, noisy.also_scored["attraction"][0])


def test_the_reconstruction_of_text_aims_at_the_encoders_output(build_fusion, tiny_batch):
    model = build_fusion("emt-dlfr", **SMALL, frontend="towers", text_encoder="tiny", tower_width=8).eval()
    batch = damaged(tiny_batch, rate=1.0)
    assert torch.equal(model.frontend.missing(batch)["t"], batch.missing["tokens"])
    states, _ = model.text.states(tiny_batch.tokens, tiny_batch.token_mask)
    assert torch.equal(model.sequences(batch.complete)["t"].values, states * tiny_batch.token_mask.unsqueeze(2))
    output = model(batch)
    gradients = torch.autograd.grad(output.losses["reconstruction"], list(model.text.parameters()), allow_unused=True)
    assert any(gradient is not None and gradient.any() for gradient in gradients)  # by the damaged view alone


def test_what_it_has_for_training_alone_is_counted_apart():
    sizes = {"text_dim": 768, "audio_dim": 5, "vision_dim": 20, "outputs": 1}
    dlfr, emt = models.build("emt-dlfr", **sizes), models.build("emt", **sizes)
    counted = {part: sum(p.numel() for p in module.parameters()) for part, module in dlfr.named_children()}
    assert sum(counted.values()) - counted["restoration"] == sum(p.numel() for p in emt.parameters())
    assert counted["fusion"] == 478_337
    # Table 8 has 110.5 million with BERT-base's 109.5.
    assert 109_482_240 + sum(p.numel() for p in emt.parameters()) == pytest.approx(110.5e6, rel=2e-3)


def test_it_learns_to_reconstruct_and_to_attract(build_fusion, make_features):
    model = build_fusion("emt-dlfr", **SMALL, attention_dropout=0, feed_forward_dropout=0)
    batch = damaged(make_features())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    before = model(batch).losses
    for _ in range(40):
        optimizer.zero_grad()
        sum(model(batch).losses.values()).backward()
        optimizer.step()
    after = model(batch).losses
    assert after["reconstruction"].item() < 0.7 * before["reconstruction"].item()
    assert after["attraction"].item() < -3 < before["attraction"].item()  # four cosines, -4 at best
