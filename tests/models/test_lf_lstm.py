"""LF-LSTM beside a slow, obvious version: every LSTM step by step, for one utterance without padding."""

import pytest
import torch

import models
from models.layers.padded import pad
from models.layers.recurrent import bidirectional, final_states


def slow_lstm(steps, w_in, w_state, b_in, b_state):
    """One direction; (T, D) -> states (T, H)."""
    size = w_state.shape[1]
    h, c = torch.zeros(size), torch.zeros(size)
    states = []
    for x in steps:
        gates = w_in @ x + b_in + w_state @ h + b_state
        i, f, g, o = gates[:size], gates[size : 2 * size], gates[2 * size : 3 * size], gates[3 * size :]
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        states.append(h)
    return torch.stack(states)


def slow_final_states(lstm, steps):
    """The last layer's state after the last step, and after reading back to the first."""
    x = steps
    for layer in range(lstm.num_layers):
        forth, back = (
            [getattr(lstm, f"{name}_l{layer}{way}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
            for way in ("", "_reverse")
        )
        one, other = slow_lstm(x, *forth), slow_lstm(x.flip(0), *back).flip(0)
        x = torch.cat([one, other], dim=1)
    return one[-1], other[0]


@pytest.mark.parametrize("layers", [1, 2])
def test_the_final_states_are_those_of_an_lstm_read_step_by_step(layers):
    torch.manual_seed(0)
    lstm = bidirectional(3, 4, layers, dropout=0.5).eval()
    steps = torch.randn(8, 3)
    with torch.no_grad():
        found = final_states(lstm, pad(steps, torch.tensor([2, 5, 1])))
        for i, own in enumerate(steps.split([2, 5, 1])):
            forth, back = slow_final_states(lstm, own)
            torch.testing.assert_close(found[0, i], forth)
            torch.testing.assert_close(found[1, i], back)


def test_the_scores_are_the_weighted_sum_of_what_each_modalitys_own_lstm_says(build_fusion, make_features):
    model = build_fusion("lf-lstm", size=4, outputs=2).eval()
    weights = {"t": 0.5, "a": -2.0, "v": 3.0}
    batch = make_features(lengths=((3, 5, 4), (1, 2, 2)))
    with torch.no_grad():
        for letter, weight in weights.items():
            model.fusion.get_parameter(letter).fill_(weight)
        found = model(batch).logits
        for i in range(2):
            expected = torch.zeros(2)
            for letter, weight in weights.items():
                steps = batch.features[letter]
                own = steps.values.split(steps.counts.tolist())[i]
                first, _, _, last = model.heads[letter]
                state = torch.cat(slow_final_states(model.encoders[letter], own))
                hidden = torch.clamp(first.weight @ state + first.bias, min=0)
                expected += weight * (last.weight @ hidden + last.bias)
            torch.testing.assert_close(found[i], expected)


def test_modalities_count_the_same_at_the_start():
    model = models.build("lf-lstm", modalities="av")
    assert [weight.item() for weight in model.fusion.parameters()] == [0.5, 0.5]


def test_its_size_is_what_a_hand_count_says():
    model = models.build("lf-lstm", text_dim=300, audio_dim=5, vision_dim=20, size=10, outputs=1)
    lstms = sum(2 * 4 * 10 * (dim + 10 + 2) for dim in (300, 5, 20))
    heads = 3 * (20 * 10 + 10 + 10 + 1)
    assert sum(parameter.numel() for parameter in model.parameters()) == lstms + heads + 3
