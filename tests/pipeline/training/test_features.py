import numpy as np
import pytest
import torch
import yaml

import models
from data_tools.dataset import UtteranceDataset
from data_tools.errors import DataError
from data_tools.manifest import read_manifest
from data_tools.sequences.steps import untimed
from data_tools.sequences.store import FeatureFacts, features_path, read_facts, write_facts
from data_tools.sequences.store import write_dialogue as write_features
from pipeline.evaluate import EvaluateSettings, evaluate
from pipeline.extract_sequences import FreshFeatures
from pipeline.predict import predict
from pipeline.progress import Reporter
from pipeline.run import RunDir
from pipeline.settings import ConfigError, ModelSpec
from pipeline.train import train
from pipeline.training.features import FeatureUse
from pipeline.training.settings import TrainSettings

spec = ModelSpec.from_dict

QUIET = Reporter(quiet=True)
SIZES = {"t": 5, "a": 4, "v": 3}
MULT = {"name": "mult", "size": 10, "layers": 1, "heads": 2}


def write_toy_features(folder, name="default", sizes=SIZES, settings=None):
    """Features of every utterance of the toy corpus, audio far from zero; the third one of each split has none."""
    random = np.random.default_rng(0)
    table = read_manifest(folder)
    fingerprints = {}
    for dialogue, rows in table.groupby("dialogue_id"):
        features = {
            utterance: {
                letter: untimed(random.normal(300, 5, (0 if utterance.endswith("02") else 3, size)).astype(np.float32))
                for letter, size in sizes.items()
            }
            for utterance in rows["utterance_id"]
        }
        write_features(features_path(folder, name, dialogue), features, sizes, "f")
        fingerprints[dialogue] = "f"
    write_facts(folder, FeatureFacts(name, sizes, settings or {"hop": 1}, fingerprints, None, {}))


@pytest.fixture
def corpus(corpus_writer, tmp_path):
    folder = corpus_writer(tmp_path / "toy", {"train": 8, "valid": 6, "test": 5})
    write_toy_features(folder)
    return folder


def settings_for(data, out, **changes):
    values = {"data": data, "out": out, "epochs": 2, "patience": 9, "batch_size": 3, "learning_rate": 1e-3}
    return TrainSettings(**(values | {"device": "cpu", "precision": "32-true", "monitor": "loss"} | changes))


def test_a_run_on_features_keeps_their_name_sizes_and_scale(corpus, tmp_path):
    run = tmp_path / "run"
    summary = train(settings_for(corpus, run), spec(MULT), QUIET)
    written = yaml.safe_load((run / "settings.yaml").read_text())
    assert written["train"]["features"] == "default"
    assert {name: written["model"][name] for name in ("text_dim", "audio_dim", "vision_dim")} == {
        "text_dim": 5,
        "audio_dim": 4,
        "vision_dim": 3,
    }
    use = RunDir(run).facts().features
    values = torch.cat([UtteranceDataset(corpus, "train", "default")[i].features["a"] for i in range(8)])
    assert (use.name, use.sizes) == ("default", SIZES)
    np.testing.assert_allclose(use.scale["mean"]["a"], values.mean(0), rtol=1e-5)
    np.testing.assert_allclose(use.scale["deviation"]["a"], values.std(0, correction=0), rtol=1e-3)
    # And evaluation reads them again, on that scale.
    assert evaluate(EvaluateSettings(run=run, device="cpu"), QUIET) == summary["splits"]["test"]


def test_a_resumed_run_goes_on_with_the_same_features(corpus, tmp_path):
    whole = train(settings_for(corpus, tmp_path / "whole", epochs=3), spec(MULT), QUIET)
    train(settings_for(corpus, tmp_path / "run", epochs=1), spec(MULT), QUIET)
    resumed = train(settings_for(corpus, tmp_path / "run", epochs=3), spec(MULT), QUIET, resume=True)
    assert resumed["valid_score"] == whole["valid_score"]
    assert (tmp_path / "run/model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()
    write_toy_features(corpus, settings={"hop": 2})
    with pytest.raises(DataError, match="other words or features"):
        train(settings_for(corpus, tmp_path / "run", epochs=4), spec(MULT), QUIET, resume=True)


def test_the_scale_decides_and_can_be_left_out(corpus, tmp_path):
    train(settings_for(corpus, tmp_path / "plain", standardise=False, epochs=1), spec(MULT), QUIET)
    assert RunDir(tmp_path / "plain").facts().features.scale is None


def test_towers_need_no_features(toy_corpus, tmp_path):
    towers = {**MULT, "frontend": "towers", "text_encoder": "tiny", "tower_width": 4}
    train(settings_for(toy_corpus, tmp_path / "run", epochs=1), spec(towers), QUIET)
    assert RunDir(tmp_path / "run").facts().features is None


def test_without_features_the_error_names_the_command(toy_corpus, tmp_path):
    with pytest.raises(DataError, match=r"no extracted features 'default'.*pipeline extract --data .*toy --features"):
        train(settings_for(toy_corpus, tmp_path / "run"), spec(MULT), QUIET)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("model", "train_values", "problem"),
    [
        ({**MULT, "audio_dim": 33}, {}, "audio_dim is 33, but the features 'default' .* have 4"),
        ({"name": "fe2e", "text_encoder": "tiny"}, {"features": "default"}, "fe2e reads faces, sound and words itself"),
        ({**MULT, "frontend": "towers"}, {"features": "default"}, "add --set frontend=features"),
        (MULT, {"features": "sound"}, "modalities is 'tav', but the features 'sound' have only 'a'; .*--modalities a"),
    ],
)
def test_what_does_not_go_together_is_refused(corpus, tmp_path, model, train_values, problem):
    write_toy_features(corpus, "sound", {"a": 4})
    with pytest.raises(ConfigError, match=problem):
        train(settings_for(corpus, tmp_path / "run", **train_values), spec(model), QUIET)
    assert not (tmp_path / "run").exists()


def test_features_of_one_modality_train_a_model_of_it(corpus, tmp_path):
    write_toy_features(corpus, "sound", {"a": 4})
    train(
        settings_for(corpus, tmp_path / "run", features="sound", epochs=1),
        spec({**MULT, "modalities": "a"}),
        QUIET,
    )
    assert models.load(tmp_path / "run").config.audio_dim == 4


def test_evaluation_refuses_features_that_were_extracted_in_another_way(corpus, tmp_path):
    train(settings_for(corpus, tmp_path / "run", epochs=1), spec(MULT), QUIET)
    write_toy_features(corpus, settings={"hop": 2})
    with pytest.raises(DataError, match="were made with {'hop': 2}, those of the run with {'hop': 1}"):
        evaluate(EvaluateSettings(run=tmp_path / "run", device="cpu"), QUIET)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"imported": True}, "imported features"),
        ({"word_vectors": True}, "a file alone has neither"),
        ({"align": "words"}, "a file alone has neither"),
        ({"hop": 1}, "hop: unknown setting"),
    ],
)
def test_predict_refuses_features_that_no_file_gives(corpus, tmp_path, settings, problem):
    write_toy_features(corpus, settings=settings)
    train(settings_for(corpus, tmp_path / "run", epochs=1), spec(MULT), QUIET)
    with pytest.raises(ConfigError, match=problem):
        predict(tmp_path / "run", [tmp_path / "film.mp4"], None, "cpu", QUIET)


def test_fresh_features_need_no_text_encoder_without_text():
    use = FeatureUse("default", {"a": 33}, {"modalities": "a"}, None)
    assert FreshFeatures(use).text is None


def test_the_facts_say_what_is_there(corpus):
    facts = read_facts(corpus, "default")
    assert (facts.name, facts.sizes, facts.store) == ("default", SIZES, None)


def test_fresh_features_of_a_mix_are_those_that_the_model_reads():
    use = FeatureUse("default", {"t": 384, "a": 33}, {"modalities": "ta"}, None)
    fresh = FreshFeatures(use, "a")
    assert (fresh.letters, fresh.text) == (["a"], None)
    sets = FeatureUse("t=words,a=default", {"t": 384, "a": 33}, {"sets": {}}, None)
    with pytest.raises(ConfigError, match="features of several sets"):
        FreshFeatures(sets)
