"""TFR-Net beside a slow, obvious version of its gate, and what its parts see."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

import models
from data_tools.damage import Blank, drop_steps
from models.layers.padded import Padded, pad
from models.layers.recurrent import all_states
from models.tfr_net import CNNGate

SMALL = {"size": 6, "heads": 2, "layers": 1, "gate_layers": 1, "head_size": 8, "dropout": 0.0}
BLANK = Blank(0, frozenset({0, 1, 2}), (159.0, 111.0, 102.0), (37.0, 33.0, 32.0))


def damaged(batch):
    return replace(drop_steps(batch, 0.5, 0, BLANK), complete=batch)


def slow_gru(network, steps, layer, suffix):
    """One direction of one layer, step by step (the equations of nn.GRU), in the order given."""
    w_in, w_state, b_in, b_state = (
        getattr(network, f"{name}_l{layer}{suffix}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    state, states = torch.zeros(network.hidden_size), []
    for x in steps:
        reset_in, update_in, new_in = (w_in @ x + b_in).chunk(3)
        reset_state, update_state, new_state = (w_state @ state + b_state).chunk(3)
        reset, update = torch.sigmoid(reset_in + reset_state), torch.sigmoid(update_in + update_state)
        new = torch.tanh(new_in + reset * new_state)
        state = (1 - update) * new + update * state
        states.append(state)
    return states


def slow_gate(gate, steps):
    """The vector of one utterance without padding."""
    states = list(steps)
    for layer in range(gate.gru.num_layers):
        there, back = slow_gru(gate.gru, states, layer, ""), slow_gru(gate.gru, states[::-1], layer, "_reverse")[::-1]
        states = [torch.cat(pair) for pair in zip(there, back, strict=True)]
    joined = []
    for t in range(len(steps)):
        score = gate.gate.bias[0]
        for offset in (-1, 0, 1):
            if 0 <= t + offset < len(steps):
                score = score + gate.gate.weight[0, :, 1 + offset] @ states[t + offset]
        gated = torch.tanh(states[t]) / (1 + math.exp(-float(score)))
        joined.append(torch.tanh(gate.join.weight @ torch.cat([steps[t], gated]) + gate.join.bias))
    return torch.stack(joined).max(0).values


def test_a_gate_is_its_description_and_padding_is_not_seen():
    torch.manual_seed(0)
    gate = CNNGate(5, 3, 2, 0.4).eval()
    values = torch.randn(9, 5)
    sequence = pad(values, torch.tensor([3, 5, 1]))
    noisy = Padded(torch.where(sequence.present.unsqueeze(2), sequence.values, 9.0), sequence.present)
    with torch.no_grad():
        found, with_noise = gate(sequence), gate(noisy)
        assert torch.equal(found, with_noise)
        for i, steps in enumerate(values.split([3, 5, 1])):
            torch.testing.assert_close(found[i], slow_gate(gate, steps), rtol=1e-4, atol=1e-5)


def test_all_states_end_in_zeros():
    torch.manual_seed(0)
    network = torch.nn.GRU(2, 3, batch_first=True, bidirectional=True)
    states = all_states(network, pad(torch.randn(4, 2), torch.tensor([1, 3])))
    assert states.shape == (2, 3, 6)
    assert not states[0, 1:].any()
    assert states[1].all()


def test_every_step_is_enriched_by_its_own_modality_and_by_each_other_one_in_parallel(build_fusion, make_features):
    model = build_fusion("tfr-net", **SMALL).eval()
    sequences = {
        letter: model._projected(letter, sequence) for letter, sequence in model.sequences(make_features()).items()
    }
    enriched, summary = model.fusion(sequences)
    assert summary.shape == (3, 36 + 20 + 48)
    for target in "tav":
        expected = [
            model.fusion.transformers[f"{target}_asks_{source}"](
                sequences[target], None if source == target else sequences[source]
            )
            for source in "tav"
        ]
        assert torch.equal(enriched[target], torch.cat(expected, dim=2))


def test_the_convolutions_see_their_neighbours(build_fusion, make_features):
    model = build_fusion("tfr-net", **SMALL).eval()
    batch = make_features(lengths=((7, 7, 7),))
    before = model.sequences(batch)
    for letter, reach in (("t", 0), ("a", 2), ("v", 1)):
        values = before[letter].values.clone()
        values[0, 3] += 1
        changed = model._projected(letter, Padded(values, before[letter].present)).values
        moved = (changed != model._projected(letter, before[letter]).values).any(2)[0].nonzero().flatten().tolist()
        assert moved == list(range(3 - reach, 3 + reach + 1))


def test_reconstruction_guesses_the_missing_input_from_the_enriched_steps(build_fusion, make_features):
    model = build_fusion("tfr-net", **SMALL).eval()
    batch = damaged(make_features())
    with torch.no_grad():
        found = float(model(batch).losses["reconstruction"])
        projected = {letter: model._projected(letter, sequence) for letter, sequence in model.sequences(batch).items()}
        enriched, _ = model.fusion(projected)
        expected = 0.0
        for letter in "tav":
            packed, real = batch.complete.features[letter], projected[letter].present
            # An utterance without any step has one, of zeros, that stands for none.
            real = real & (torch.arange(real.shape[1]) < packed.counts.unsqueeze(1))
            guess = model.restoration.networks[letter](enriched[letter][real])
            gone = batch.missing[letter]
            expected += float(F.smooth_l1_loss(guess[gone], packed.values[gone]))
    assert found == pytest.approx(expected, rel=1e-5)
    assert model(batch.complete).losses["reconstruction"].item() == 0


def test_the_widths_are_the_published_ones():
    config = models.config_of("tfr-net", {})
    assert (config.size, config.heads, config.layers, config.gate_layers) == (30, 6, 3, 3)
    assert config.by_letter("gate") == {"t": 36, "a": 20, "v": 48}
    assert config.by_letter("kernel") == {"t": 1, "a": 5, "v": 3}
