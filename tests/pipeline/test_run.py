import re
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
import torch

import models
from data_tools.dataset import UtteranceDataset
from data_tools.errors import DataError
from data_tools.files import read_json, write_json
from pipeline.run import RunDir
from pipeline.run_data import STANDIN_NOTICE, DataFacts, dataset_name
from pipeline.run_start import default_path, new_run, resumed_run
from pipeline.settings import ConfigError
from pipeline.training.settings import TrainSettings

MODEL = {"name": "mesm", "top_p": 0.5}


def facts_of(data):
    return DataFacts.from_splits(data, UtteranceDataset(data, "train"), UtteranceDataset(data, "valid"))


@pytest.fixture
def started(tmp_path, toy_corpus):
    settings = TrainSettings(data=toy_corpus, out=tmp_path / "run", epochs=3)
    RunDir(tmp_path / "run").write_start(settings, MODEL, facts_of(toy_corpus), ["a", "b"], ["c"])
    return settings


def test_the_facts_are_counted_from_the_manifest(toy_corpus):
    facts = facts_of(toy_corpus)
    assert facts.emotions == ["ang", "hap", "sad"]
    assert facts.train_utterances == 8
    assert facts.train_positives == {"ang": 3, "hap": 3, "sad": 2}
    assert facts.pos_weight == {"ang": pytest.approx(5 / 3), "hap": pytest.approx(5 / 3), "sad": 3.0}
    assert facts.notice == STANDIN_NOTICE == "stand-in data: scores say nothing about people"
    assert replace(facts, dataset={"standin": False}).notice is None
    assert facts.preprocessing == {"faces": {"margin_px": 2}, "mel": {"n_fft": 1024}}


def test_the_fingerprint_follows_ids_and_labels(tmp_path, toy_corpus, corpus_writer):
    fingerprint = facts_of(toy_corpus).fingerprint
    sizes = {"train": 8, "valid": 6, "test": 5}
    assert facts_of(corpus_writer(tmp_path / "same", sizes)).fingerprint == fingerprint
    assert facts_of(corpus_writer(tmp_path / "more", sizes | {"train": 9})).fingerprint != fingerprint
    other = corpus_writer(tmp_path / "other", sizes, labels=lambda split, i: {"ang": 1.0, "hap": 0.0, "sad": 0.0})
    assert facts_of(other).fingerprint != fingerprint


def test_settings_and_facts_are_read_back_as_they_were(started):
    run = RunDir.existing(started.out)
    assert run.read_settings() == (started, MODEL)
    assert run.facts() == facts_of(started.data)
    assert run.learned_from() == {"train": {"a", "b"}, "valid": {"c"}}
    assert run.read_preprocessing() == {"faces": {"margin_px": 2}, "mel": {"n_fft": 1024}}


def test_a_data_folder_without_description_goes_by_its_folder(tmp_path, toy_corpus):
    assert dataset_name(toy_corpus) == "toy"
    assert dataset_name(tmp_path / "mine") == "mine"
    when = datetime(2026, 3, 4, 5, 6, 7)
    assert default_path("mesm", toy_corpus, when) == Path("runs/mesm-toy-20260304-050607")


def test_a_new_run_needs_a_folder_of_its_own(tmp_path, started):
    with pytest.raises(ConfigError, match=r"is there already; add --resume"):
        new_run(started.out)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="is a file"):
        new_run(tmp_path / "file")
    assert new_run(tmp_path / "fresh").path == tmp_path / "fresh"


def test_resume_takes_the_same_settings_and_a_few_others(started):
    assert resumed_run(started.out, started, MODEL).path == started.out
    longer = started.model_copy(update={"epochs": 9, "patience": 2, "device": "cpu", "loader_workers": 1})
    assert resumed_run(started.out, longer, MODEL).path == started.out


def test_a_run_of_earlier_versions_with_measured_backends_goes_on(started):
    earlier = {**MODEL, "backend": "gather"}
    run = resumed_run(started.out, started, MODEL)
    run.settings.write_text(run.settings.read_text().replace("model:\n", "model:\n  backend: gather\n"))
    (started.out / "engines.json").write_text('{"cpu, float32, 64 to 128 channels": "gather"}')
    assert resumed_run(started.out, started, earlier).path == started.out
    _, model = run.read_settings()
    assert model == earlier
    assert models.config_of(model.pop("name"), model).backend == "auto"


def test_resume_with_other_settings_names_them_all(started):
    other = started.model_copy(update={"learning_rate": 0.5, "seed": 7})
    with pytest.raises(ConfigError) as caught:
        resumed_run(started.out, other, {"name": "mesm", "top_p": 0.9, "width": 8})
    message = str(caught.value)
    assert "train.learning_rate: was 5e-05, now 0.5" in message
    assert "train.seed: was 0, now 7" in message
    assert "model.top_p: was 0.5, now 0.9" in message
    assert "model.width: was None, now 8" in message


def test_nothing_to_resume(tmp_path, started):
    with pytest.raises(ConfigError, match=r"add --out runs/NAME"):
        resumed_run(None, started, MODEL)
    with pytest.raises(ConfigError, match=r"nothing to resume.*leave --resume out"):
        resumed_run(tmp_path / "typo", started, MODEL)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "todo.txt").touch()
    with pytest.raises(ConfigError, match="nothing to resume"):
        resumed_run(tmp_path / "notes", started, MODEL)


def test_a_start_that_was_killed_at_once_can_be_begun_or_resumed(tmp_path, started):
    """Only a lock, data.json, splits.json or a half-written file are there."""
    folder = tmp_path / "killed"
    folder.mkdir()
    for name in (".lock", "data.json", "splits.json", ".settings.12.tmp.yaml"):
        (folder / name).touch()
    assert new_run(folder).path == folder
    run = resumed_run(folder, started, MODEL)
    run.sweep()
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "data.json", "splits.json"]


def test_what_is_not_a_run_or_not_finished_says_what_to_do(tmp_path, started):
    with pytest.raises(ConfigError, match=r"no run at .*pipeline train"):
        RunDir.existing(tmp_path / "nowhere")
    run = RunDir.existing(started.out)
    with pytest.raises(ConfigError, match=r"not finished.*--resume"):
        run.read_thresholds()
    run.write_thresholds({"sad": 0.6, "ang": 0.4, "hap": 0.5}, "valid", "by F1")
    assert list(run.read_thresholds().items()) == [("ang", 0.4), ("hap", 0.5), ("sad", 0.6)]
    run.data.write_text("[1]")
    with pytest.raises(DataError, match=r"holds list, expected an object"):
        run.facts()


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("data.json", "{}", "data.json is damaged .*folder.*train again"),
        ("splits.json", "{}", "splits.json has .*expected train and valid.*train again"),
        ("thresholds.json", "{}", "thresholds.json is damaged.*no number for one of ang, hap, sad.*--resume"),
        ("thresholds.json", '{"thresholds": {"ang": 0.5, "hap": null}}', "thresholds.json is damaged"),
        ("settings.yaml", "train: {}", "settings.yaml is damaged: it needs `train` and `model`"),
        ("environment.json", "{}", "environment.json is damaged.*delete it"),
    ],
)
def test_a_damaged_file_is_named_with_what_helps(started, name, content, expected):
    run = RunDir(started.out)
    (run.path / name).write_text(content)
    readers = {
        "data.json": run.facts,
        "splits.json": run.learned_from,
        "thresholds.json": run.read_thresholds,
        "settings.yaml": run.read_settings,
        "environment.json": lambda: run.note_environment(torch.device("cpu"), 1),
    }
    with pytest.raises((DataError, ConfigError), match=expected):
        readers[name]()


def test_each_start_adds_its_environment(started):
    run = RunDir(started.out)
    run.note_environment(torch.device("cpu"), 1)
    run.note_environment(torch.device("cpu"), 4)
    starts = read_json(run.environment)["starts"]
    assert [start["from_epoch"] for start in starts] == [1, 4]
    assert starts[0]["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert starts[0]["threads"] == torch.get_num_threads()


def test_files_of_another_data_folder_carry_its_name(started, tmp_path, corpus_writer):
    run = RunDir(started.out)
    assert run.metrics(started.data).name == "metrics.json"
    other = corpus_writer(tmp_path / "elsewhere", {"test": 3})
    write_json(other / "dataset.json", {"dataset": "mosei"})
    assert re.fullmatch(r"metrics-mosei-[0-9a-f]{6}\.json", run.metrics(other).name)
    assert re.fullmatch(r"predictions-mosei-[0-9a-f]{6}\.parquet", run.predictions(other).name)
    assert run.metrics(tmp_path / "." / "elsewhere") == run.metrics(other)
    again = corpus_writer(tmp_path / "again", {"test": 3})
    write_json(again / "dataset.json", {"dataset": "mosei"})
    assert run.metrics(again) != run.metrics(other)
