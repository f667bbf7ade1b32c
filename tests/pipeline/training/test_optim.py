import pytest
import torch
from torch import nn

from pipeline.settings import ConfigError
from pipeline.training.engine import build_optimizer, learning_rates, parameter_groups
from pipeline.training.settings import TrainSettings


class TwoParts(nn.Module):
    def __init__(self):
        super().__init__()
        self.text, self.head = nn.Linear(2, 2), nn.Linear(2, 1)


def names(groups):
    return {group["name"]: [name for name, _ in group["params"]] for group in groups}


def test_every_parameter_is_in_one_group_with_its_rate():
    model = TwoParts()
    groups = parameter_groups(model, model.text.parameters(), 1e-3, 0.1)
    assert names(groups) == {"rest": ["head.weight", "head.bias"], "text_encoder": ["text.weight", "text.bias"]}
    assert [group["lr"] for group in groups] == [1e-3, 1e-4]


def test_scale_zero_freezes_the_text_encoder():
    model = TwoParts()
    groups = parameter_groups(model, model.text.parameters(), 1e-3, 0)
    assert names(groups) == {"rest": ["head.weight", "head.bias"]}
    assert [p.requires_grad for p in model.text.parameters()] == [False, False]
    assert [p.requires_grad for p in model.head.parameters()] == [True, True]


def test_a_frozen_parameter_stays_out():
    model = TwoParts()
    model.head.bias.requires_grad_(False)
    assert names(parameter_groups(model, [], 1e-3, 0.1)) == {"rest": ["text.weight", "text.bias", "head.weight"]}


def test_one_step_of_adam_moves_each_group_by_its_rate():
    model = TwoParts()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    settings = TrainSettings(learning_rate=1e-2, text_learning_rate_scale=0.1)
    optimizer = build_optimizer(model, model.text.parameters(), settings)
    for p in model.parameters():
        p.grad = torch.full_like(p, 3.0)
    optimizer.step()
    # Adam's first step is its learning rate, whatever the gradient.
    moved = {name: (before[name] - p).mean().item() for name, p in model.named_parameters()}
    assert moved["head.weight"] == pytest.approx(1e-2, rel=1e-4)
    assert moved["text.weight"] == pytest.approx(1e-3, rel=1e-3)
    assert learning_rates(optimizer) == {"rest": 1e-2, "text_encoder": 1e-3}


def test_nothing_to_train_is_an_error():
    model = TwoParts()
    with pytest.raises(ConfigError, match="text_learning_rate_scale is 0"):
        build_optimizer(model, model.parameters(), TrainSettings(text_learning_rate_scale=0))
