from pathlib import Path

import pytest

from data_tools.corpora.readers import CORPORA
from pipeline.evaluate import EvaluateSettings
from pipeline.model_configs import load_model_config
from pipeline.preprocess import PreprocessSettings
from pipeline.reorganize import ReorganizeSettings
from pipeline.settings import ConfigError, config_names, load_config, local_path, parse_assignments
from pipeline.training.settings import TrainSettings


@pytest.mark.parametrize("name", config_names("datasets"))
def test_every_data_set_config_is_valid(name):
    assert ReorganizeSettings.checked(load_config("datasets", name), name).dataset in CORPORA


@pytest.mark.parametrize("name", config_names("models"))
def test_every_model_config_has_valid_training_settings(name):
    for corpus in (None, "mosi", "mosei", "sims", "iemocap"):
        TrainSettings.checked(load_model_config(name, corpus).train, name)


def test_every_problem_is_named_at_once():
    with pytest.raises(ConfigError) as error:
        TrainSettings.checked({"epohcs": 3, "batch_size": 0, "learning_rate": "much"}, "flags")
    for part in ("flags", "epohcs", "unknown", "batch_size is 0", "learning_rate is 'much'"):
        assert part in str(error.value)


def test_nested_settings_are_checked_too():
    with pytest.raises(ConfigError, match=r"faces\.margin_px is -1"):
        PreprocessSettings.checked({"data": "d", "faces": {"margin_px": -1}}, "flags")


@pytest.mark.parametrize("url", ["s3://b/x", "gs://b/x", "hdfs://host/x", "S3://b", "https://host/x", "file://host/x"])
def test_urls_are_refused_with_what_to_do(url):
    given = [url] if url.startswith("file:") else [url, Path(url)]  # the command line gives a Path, with one slash less
    for path in given:
        for settings, name in ((PreprocessSettings, "data"), (TrainSettings, "out"), (EvaluateSettings, "run")):
            with pytest.raises(ConfigError, match=rf"{name} is .*{url[:3]}.* is a URL; only local .* mount"):
                settings.checked({name: path}, "flags")


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("file:///data/raw", "/data/raw"),
        (Path("file:///data/raw"), "/data/raw"),
        ("FILE://localhost/data/a%20b", "/data/a b"),
        ("file:/data/raw", "/data/raw"),
        ("data/a:b", "data/a:b"),
        ("C:/data", "C:/data"),
        (Path("/data/s3:/x"), "/data/s3:/x"),
    ],
)
def test_file_urls_and_local_paths_are_taken(given, path):
    assert PreprocessSettings.checked({"data": given}, "flags").data == Path(path)
    assert Path(local_path(given)) == Path(path)


def test_what_is_no_path_is_refused():
    with pytest.raises(ConfigError, match="data is 3"):
        PreprocessSettings.checked({"data": 3}, "flags")


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
