"""The optimizer: Adam with one learning rate for the text encoder and one for everything else."""

from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.optim import Adam, Optimizer

from pipeline.settings import ConfigError
from pipeline.training.settings import TrainSettings


def parameter_groups(
    model: nn.Module, text_encoder: Iterable[nn.Parameter], learning_rate: float, text_scale: float
) -> list[dict[str, Any]]:
    """Parameters with their names in at most two groups, `rest` and `text_encoder`, each with its own `lr`.

    The text encoder comes pretrained and learns at `text_scale` times `learning_rate`; 0 freezes it: its parameters
    get no gradient, and the optimizer holds no state for them. Parameters that are frozen already stay out.
    """
    pretrained = {id(parameter) for parameter in text_encoder}
    if text_scale == 0:
        for parameter in model.parameters():
            if id(parameter) in pretrained:
                parameter.requires_grad_(False)
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    rest = [(name, parameter) for name, parameter in trained if id(parameter) not in pretrained]
    text = [(name, parameter) for name, parameter in trained if id(parameter) in pretrained]
    groups: list[dict[str, Any]] = [
        {"name": "rest", "params": rest, "lr": learning_rate},
        {"name": "text_encoder", "params": text, "lr": learning_rate * text_scale},
    ]
    return [group for group in groups if group["params"]]


def build_optimizer(model: nn.Module, text_encoder: Iterable[nn.Parameter], settings: TrainSettings) -> Optimizer:
    """Adam over `parameter_groups`.

    Raises:
        ConfigError: nothing is left to train.
    """
    groups = parameter_groups(model, text_encoder, settings.learning_rate, settings.text_learning_rate_scale)
    if not groups:
        raise ConfigError(
            f"no parameter is left to train: text_learning_rate_scale is {settings.text_learning_rate_scale} "
            "and the model has only its text encoder; raise the scale or add a modality"
        )
    # One fused kernel: a quarter of the time on a CPU too. Not with float16, whose unscaling it would take from Fabric.
    return Adam(groups, weight_decay=settings.weight_decay, fused=settings.precision != "16-mixed")


def learning_rates(optimizer: Optimizer) -> dict[str, float]:
    """The learning rate of each group, by the group's name."""
    return {group["name"]: group["lr"] for group in optimizer.param_groups}
