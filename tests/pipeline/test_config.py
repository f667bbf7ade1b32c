import pytest

from data_tools.corpora import CORPORA
from pipeline.config import (
    ConfigError,
    PreprocessSettings,
    ReorganizeSettings,
    TrainSettings,
    config_names,
    load_config,
    parse_assignments,
)


@pytest.mark.parametrize("name", config_names("datasets"))
def test_every_data_set_config_is_valid(name):
    assert ReorganizeSettings.checked(load_config("datasets", name), name).dataset in CORPORA


@pytest.mark.parametrize("name", config_names("models"))
def test_every_model_config_has_valid_training_settings(name):
    TrainSettings.checked(load_config("models", name)["train"], name)


def test_every_problem_is_named_at_once():
    with pytest.raises(ConfigError) as error:
        TrainSettings.checked({"epohcs": 3, "batch_size": 0, "learning_rate": "much"}, "flags")
    for part in ("flags", "epohcs", "unknown", "batch_size is 0", "learning_rate is 'much'"):
        assert part in str(error.value)


def test_nested_settings_are_checked_too():
    with pytest.raises(ConfigError, match=r"faces\.margin_px is -1"):
        PreprocessSettings.checked({"data": "d", "faces": {"margin_px": -1}}, "flags")


def test_settings_are_read_only():
    with pytest.raises(ValueError, match="frozen"):
        TrainSettings().epochs = 3


def test_assignments_are_yaml_values():
    parsed = parse_assignments(["a=1", "b=0.5", "c=none", "d=[1, 2]", "e=x=y"])
    assert parsed == {"a": 1, "b": 0.5, "c": "none", "d": [1, 2], "e": "x=y"}


@pytest.mark.parametrize("items", [["a"], ["=1"], ["a=1", "a=2"], ["a=[1"]])
def test_bad_assignments_are_refused(items):
    with pytest.raises(ConfigError, match="--set"):
        parse_assignments(items)


def test_an_unknown_config_lists_the_known(tmp_path):
    with pytest.raises(ConfigError, match="mesm"):
        load_config("models", "mesn")
    (tmp_path / "a.yaml").write_text("- 1")
    with pytest.raises(ConfigError, match="mapping"):
        load_config("models", str(tmp_path / "a.yaml"))
