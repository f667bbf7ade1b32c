"""Training with a text encoder beside extracted or imported audio and vision."""

import numpy as np
import pytest
import torch
from listener import Listener
from safetensors.torch import load_file

from data_tools.dataset import UtteranceDataset
from data_tools.errors import DataError
from data_tools.files import write_json
from data_tools.manifest import read_manifest
from data_tools.sequences.steps import untimed
from data_tools.sequences.store import FeatureFacts, features_path, write_facts
from data_tools.sequences.store import write_dialogue as write_features
from pipeline.evaluate import EvaluateSettings, evaluate
from pipeline.progress import Reporter
from pipeline.published import language_warning
from pipeline.robustness import RobustnessSettings, robustness
from pipeline.run import RunDir
from pipeline.settings import ConfigError, ModelSpec
from pipeline.train import prepare, train
from pipeline.training.features import with_sizes
from pipeline.training.settings import TrainSettings

spec = ModelSpec.from_dict
QUIET = Reporter(quiet=True)
SMALL = {"size": 8, "heads": 2, "layers": 1, "text_frontend": "encoder", "text_encoder": "tiny"}
EMT = {"name": "emt", **SMALL}


def write_toy_features(folder, letters="av", recipe=None, name="default"):
    """Three steps of each letter an utterance, drawn from its id and the letter alone."""
    sizes = {letter: {"t": 5, "a": 4, "v": 3}[letter] for letter in letters}
    fingerprints = {}
    for dialogue, rows in read_manifest(folder).groupby("dialogue_id"):
        features = {
            utterance: {letter: untimed(_drawn(utterance, letter, size)) for letter, size in sizes.items()}
            for utterance in rows["utterance_id"]
        }
        write_features(features_path(folder, name, dialogue), features, sizes, "f")
        fingerprints[dialogue] = "f"
    write_facts(folder, FeatureFacts(name, sizes, recipe or {"hop": 1}, fingerprints, None, {}))


def _drawn(utterance, letter, size):
    draw = np.random.default_rng([*utterance.encode(), *letter.encode()])
    return draw.normal(3, 5, (3, size)).astype(np.float32)


def settings_for(data, out, **changes):
    values = {"data": data, "out": out, "epochs": 1, "batch_size": 4, "learning_rate": 1e-2, "device": "cpu"}
    return TrainSettings(**(values | {"precision": "32-true", "monitor": "loss"} | changes))


@pytest.fixture(scope="module")
def corpus(corpus_writer, tmp_path_factory):
    folder = corpus_writer(tmp_path_factory.mktemp("mixed") / "toy", {"train": 8, "valid": 6, "test": 5})
    write_toy_features(folder)
    return folder


def test_no_text_features_are_needed_and_the_rate_of_the_encoder_counts(corpus, tmp_path):
    summary = train(settings_for(corpus, tmp_path / "run", text_learning_rate_scale=1.0), spec(EMT), QUIET)
    run = RunDir(tmp_path / "run")
    use = run.facts().features
    assert (set(use.sizes), set(use.scale["mean"])) == ({"a", "v"}, {"a", "v"})
    assert evaluate(EvaluateSettings(run=run.path, device="cpu"), QUIET) == summary["splits"]["test"]
    train(settings_for(corpus, tmp_path / "frozen", text_learning_rate_scale=0.0), spec(EMT), QUIET)
    moved, frozen = (
        {key: value for key, value in load_file(folder / "model.safetensors").items() if key.startswith("text.")}
        for folder in (run.path, tmp_path / "frozen")
    )
    assert any(not torch.equal(moved[key], frozen[key]) for key in moved)


def test_extracted_text_beside_the_encoder_is_not_read(corpus_writer, tmp_path):
    scores = []
    for letters in ("av", "tav"):
        folder = corpus_writer(tmp_path / letters, {"train": 8, "valid": 6, "test": 5})
        write_toy_features(folder, letters)
        damage = {"protocol": "random", "rate": 0.5}
        model = spec({**EMT, "name": "emt-dlfr"})
        scores.append(train(settings_for(folder, tmp_path / f"run-{letters}", damage=damage), model, QUIET))
    one, other = scores
    assert one["valid_score"] == other["valid_score"]
    assert RunDir(tmp_path / "run-tav").facts().features.scale["mean"].keys() == {"a", "v"}


def test_robustness_puts_unknown_tokens_before_the_encoder(corpus, tmp_path):
    train(settings_for(corpus, tmp_path / "run"), spec(EMT), QUIET)
    asked = {"run": tmp_path / "run", "rates": (0.1, 1.0), "seeds": (1,), "device": "cpu"}
    conditions = robustness(RobustnessSettings(**asked), QUIET)["conditions"]
    assert [condition["rate"] for condition in conditions] == [0.1, 1.0]


def test_a_model_of_text_alone_needs_no_letter_of_the_features(corpus, tmp_path):
    train(settings_for(corpus, tmp_path / "run"), spec({**EMT, "modalities": "t"}), QUIET)
    assert RunDir(tmp_path / "run").facts().features.name == "default"


def test_without_an_encoder_the_same_features_lack_the_text(corpus, tmp_path):
    with pytest.raises(ConfigError, match="modalities is 'tav', but the features 'default' have only 'av'"):
        train(settings_for(corpus, tmp_path / "run"), spec({**EMT, "text_frontend": "features"}), QUIET)


@pytest.mark.parametrize(
    ("recipe", "given", "expected"),
    [
        ({"text_encoder": "minilm", "align": "none"}, {}, None),
        ({"text_encoder": "minilm", "align": "words"}, {}, "mean"),
        ({"word_vectors": True}, {}, "mean"),
        ({"imported": True}, {}, "mean"),
        ({"imported": True}, {"text_summary": "last"}, "last"),
    ],
)
def test_the_first_word_never_stands_for_the_text(corpus_writer, tmp_path, recipe, given, expected):
    folder = corpus_writer(tmp_path / "toy", {"train": 1})
    write_toy_features(folder, "tav", recipe)
    model = with_sizes(spec({"name": "emt", **given}), UtteranceDataset(folder, "train", "default"))
    assert model.given.get("text_summary") == expected


def test_each_modality_can_come_from_a_set_of_its_own(corpus_writer, tmp_path):
    folder = corpus_writer(tmp_path / "toy", {"train": 8, "valid": 6, "test": 5})
    write_toy_features(folder, "tav", {"hop": 1})
    write_toy_features(folder, "ta", {"word_vectors": True}, "words")
    write_toy_features(folder, "av", {"imported": True}, "imported")
    name = "a=imported,t=words,v=default"
    mixed = UtteranceDataset(folder, "train", name)
    sets = {
        letter: UtteranceDataset(folder, "train", of)
        for letter, of in (("t", "words"), ("a", "imported"), ("v", "default"))
    }
    for i in range(8):
        assert list(mixed[i].features) == ["t", "a", "v"]
        for letter, dataset in sets.items():
            assert torch.equal(mixed[i].features[letter], dataset[i].features[letter])
    summary = train(
        settings_for(folder, tmp_path / "run", features=name), spec({**EMT, "text_frontend": "features"}), QUIET
    )
    run = RunDir(tmp_path / "run")
    use = run.facts().features
    assert (use.name, use.sizes) == (name, {"t": 5, "a": 4, "v": 3})
    assert run.read_settings()[1]["text_summary"] == "mean"  # word vectors have no [CLS]
    assert evaluate(EvaluateSettings(run=run.path, device="cpu"), QUIET) == summary["splits"]["test"]
    # With an encoder of its own the text needs no set.
    train(settings_for(folder, tmp_path / "encoder", features="a=imported,v=default"), spec(EMT), QUIET)
    assert set(RunDir(tmp_path / "encoder").facts().features.scale["mean"]) == {"a", "v"}
    write_toy_features(folder, "ta", {"word_vectors": True, "hop": 2}, "words")
    with pytest.raises(DataError, match="were made with"):
        evaluate(EvaluateSettings(run=run.path, device="cpu"), QUIET)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("t=default,t=default", "a modality comes twice"),
        ("x=default", "give the name of a set, or t=NAME"),
        ("t=default", "the set 'default' has only 'av'"),
        ("a=../up,v=default", "features are called '../up'"),
        ("a=nobody", "no extracted features 'nobody'"),
    ],
)
def test_a_mixture_of_another_form_is_refused(corpus, tmp_path, name, message):
    with pytest.raises(DataError, match=message):
        train(settings_for(corpus, tmp_path / "run", features=name), spec(EMT), QUIET)


def test_several_folders_give_the_features_that_the_model_reads(corpus_writer, tmp_path):
    folders = [
        corpus_writer(tmp_path / name, {"train": 4, "valid": 3, "test": 2}, prefix=name) for name in ("a_", "b_")
    ]
    for folder in folders:
        write_toy_features(folder, "tav")
    split = prepare(settings_for(folders, tmp_path / "run"), spec(EMT)).train_split
    assert [set(steps) for steps in split.stored_features()] == [{"a", "v"}] * len(split)
    assert [set(split[i].features) for i in range(len(split))] == [{"a", "v"}] * len(split)


def test_an_encoder_of_another_language_is_warned_of(corpus_writer, tmp_path):
    assert language_warning("sims", "bert-base-chinese") == language_warning("sims", "tiny") == ""
    assert language_warning("mosi", "minilm") == ""
    assert "take minilm" in language_warning("mosi", "bert-base-chinese")
    folder = corpus_writer(tmp_path / "toy", {"train": 3, "valid": 2, "test": 2})
    write_json(folder / "dataset.json", {"dataset": "sims", "standin": True})
    write_toy_features(folder)
    listener = Listener()
    train(settings_for(folder, tmp_path / "run"), spec({**EMT, "text_encoder": "minilm"}), listener)
    said = "the texts of sims are zh, and text_encoder minilm reads en: take bert-base-chinese"
    assert any(said in line for line in listener.lines)
