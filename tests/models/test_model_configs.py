"""Every shipped model config is one that its model accepts."""

from pathlib import Path

import pytest

import models
from pipeline.model_configs import load_model_config

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "models").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_shipped_config_is_accepted(path):
    values = dict(load_model_config(path.stem).model)
    name = values.pop("name")
    config = models.config_of(name, values)
    assert {key: getattr(config, key) for key in values} == values


def test_the_first_configs_are_the_models_names():
    assert set(models.REGISTRY) <= {path.stem for path in CONFIGS}
