"""Configs are models: names of configs where a model's is taken, columns by corpus, and configs on other ones."""

import json

import pytest
from listener import Listener

from data_tools.files import write_json
from pipeline.compare import CompareSettings
from pipeline.model_configs import load_model_config, read_model
from pipeline.settings import ConfigError, config_names, load_config
from pipeline.study.plan import plan
from pipeline.training.settings import TrainSettings


@pytest.mark.parametrize(
    ("name", "corpus", "column"),
    [
        ("emt", None, "emt"),
        ("emt", "mosi", "emt"),
        ("emt", "mosei", "emt-mosei"),
        ("emt", "mosei_mmsa", "emt-mosei"),
        ("emt", "sims", "emt-sims"),
        ("emt-mosei", "sims", "emt-mosei"),
        ("lmr-cbt", "iemocap-4", "lmr-cbt-iemocap"),
        ("lmr-cbt", "meld", "lmr-cbt"),
    ],
)
def test_the_column_is_that_of_the_corpus(name, corpus, column):
    found, expected = load_model_config(name, corpus), load_config("models", column)
    assert (found.model, found.train) == (expected["model"], expected["train"])
    assert found.note == (f"{name} on {corpus}: the column {column}" if column != name else "")


@pytest.mark.parametrize(
    "name", [name for name in config_names("models") if load_config("models", name).get("corpora")]
)
def test_every_column_is_of_the_same_model(name):
    for corpus in load_config("models", name)["corpora"]:
        found = load_model_config(name, corpus)
        assert found.model["name"] == load_model_config(name).model["name"]
        assert found.note.startswith(f"{name} on {corpus}: the column ")


@pytest.mark.parametrize(("corpus", "encoder"), [("mosi", "uncased"), ("mosei", "uncased"), ("sims", "chinese")])
@pytest.mark.parametrize("name", ["emt", "emt-dlfr", "tfr-net"])
def test_as_published_bert_is_laid_over_the_column_of_the_corpus(name, corpus, encoder):
    found, plain = load_model_config(f"{name}-paper", corpus), load_model_config(name, corpus)
    assert found.train == plain.train
    added = {"text_frontend": "encoder", "text_encoder": f"bert-base-{encoder}"}
    assert found.model == plain.model | added


def test_settings_of_a_column_are_laid_over_those_of_the_config():
    plain, mosei = load_model_config("lmf"), load_model_config("lmf", "mosei")
    assert (plain.model["rank"], mosei.model["rank"]) == (3, 4)
    assert mosei.train == plain.train | {"batch_size": 32, "weight_decay": 1e-3}
    assert mosei.note == "lmf on mosei: the column of lmf"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("model: {size: 3}", "expected mappings `model`, with a name"),
        ("model: [1]", "model is .*expected mappings"),
        ("modle: {name: mult}", "unknown sections .*modle.*known: base, model, train, corpora"),
        ("base: SELF", "lead in a circle"),
        ("base: mult\ncorpora: {toy: 3}", "corpora.toy is neither a config's name nor model and train"),
    ],
)
def test_a_config_of_another_form_is_refused(tmp_path, content, problem):
    path = tmp_path / "own.yaml"
    path.write_text(content.replace("SELF", str(path)))
    with pytest.raises(ConfigError, match=problem):
        load_model_config(str(path), "toy")


def named(folder, name):
    folder.mkdir()
    write_json(folder / "dataset.json", {"dataset": name})
    return folder


def test_a_model_takes_the_column_of_its_data_and_a_config_stands_as_it_is(tmp_path):
    data = named(tmp_path / "data", "mosei")
    train, spec = read_model("emt", None, {"data": data, "size": 64}, TrainSettings.model_fields)
    assert (spec.config.layers, spec.config.size, train["batch_size"]) == (2, 64, 16)
    assert spec.note == "emt on mosei: the column emt-mosei"
    assert spec.with_settings(size=32).note == spec.note
    _, spec = read_model(None, "emt", {"data": data}, TrainSettings.model_fields)
    assert (spec.config.layers, spec.note) == (3, "")
    # Where nothing is trained, there is no data set to have a column for.
    assert read_model("emt", None, {}, ())[1].config.layers == 3


@pytest.mark.parametrize(("corpora", "layers"), [(["mosei"], 2), (["mosei", "mosei"], 2), (["mosei", "mosi"], 3)])
def test_folders_of_several_corpora_have_no_column(tmp_path, corpora, layers):
    folders = [named(tmp_path / str(number), corpus) for number, corpus in enumerate(corpora)]
    assert read_model("emt", None, {"data": folders}, TrainSettings.model_fields)[1].config.layers == layers


def test_a_study_takes_configs_files_and_columns_and_says_so(tmp_path, corpus_writer):
    data = corpus_writer(tmp_path / "data", {"train": 3, "valid": 2, "test": 1}, standin=False)
    facts = json.loads((data / "dataset.json").read_text()) | {"dataset": "mosei"}
    write_json(data / "dataset.json", facts)
    own = tmp_path / "narrow.yaml"
    own.write_text("base: mesm-as-published\nmodel: {width: 4}\n")
    names = ("ucrn", "ucrn-mosei", "mesm-as-published", str(own))
    values = {"text_encoder": "tiny", "frontend": "towers", "device": "cpu"}
    listener = Listener()
    found = plan(CompareSettings(data=data, models=names, values=values), listener).planned
    assert [row.name for row in found] == ["ucrn", "ucrn-mosei", "mesm-as-published", "narrow"]
    assert [row.prepared.model.name for row in found] == ["ucrn", "ucrn", "mesm", "mesm"]
    assert [row.prepared.settings.batch_size for row in found[:2]] == [32, 32]
    assert (found[2].prepared.model.config.attention_gradient, found[3].prepared.model.config.width) == ("none", 4)
    assert listener.lines.count("ucrn on mosei: the column ucrn-mosei") == 1


def test_two_files_of_one_name_are_refused(tmp_path, toy_corpus):
    files = [tmp_path / folder / "own.yaml" for folder in ("a", "b")]
    for file in files:
        file.parent.mkdir()
        file.write_text("base: fe2e\n")
    with pytest.raises(ConfigError, match="two configs called own"):
        plan(CompareSettings(data=toy_corpus, models=tuple(map(str, files))), Listener())


def test_configs_of_several_tasks_make_no_table(toy_corpus):
    values = {"text_encoder": "tiny", "frontend": "towers", "device": "cpu", "task": "single-label"}
    names = ("mult", "mult-paper-iemocap")
    with pytest.raises(ConfigError, match="loss is 'bce_plain', which the task 'single-label' does not have"):
        plan(CompareSettings(data=toy_corpus, models=names, values=values), Listener())


def test_as_published_on_iemocap_no_threshold_is_tuned():
    for name in ("mult-paper-iemocap", "lmr-cbt-paper-iemocap"):
        train = TrainSettings.checked(load_model_config(name).train, name)
        assert (train.task, train.loss, train.thresholds) == ("multi-label", "bce_plain", "fixed")
    assert load_model_config("cmt-paper", "mosei").train["loss"] == "mse"
