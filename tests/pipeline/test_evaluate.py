import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

import models
from data_tools.dataset import UtteranceDataset, collate
from data_tools.errors import DataError
from data_tools.files import folder_lock, write_json
from pipeline.evaluate import EvaluateSettings, evaluate
from pipeline.progress import Reporter
from pipeline.run import RunDir
from pipeline.run_data import STANDIN_NOTICE
from pipeline.settings import ConfigError, ModelSpec
from pipeline.tasks.multi_label import choose_thresholds
from pipeline.train import train
from pipeline.training import scoring
from pipeline.training.scoring import BestModel, format_split
from pipeline.training.settings import TrainSettings

spec = ModelSpec.from_dict

QUIET = Reporter(quiet=True)
EMOTIONS = ["ang", "hap", "sad"]
MODEL = {"name": "mesm", "top_p": 0.5, "text_encoder": "tiny", "width": 4, "layers": 1}


def settings_for(run, **changes):
    return EvaluateSettings(**({"run": run, "device": "cpu"} | changes))


def columns(table, prefix):
    return table[[prefix + name for name in EMOTIONS]].to_numpy()


def test_evaluating_again_gives_what_training_wrote(run, trained):
    before = [(run / name).read_bytes() for name in ("metrics.json", "predictions.parquet")]
    assert evaluate(settings_for(run), QUIET) == trained[1]["splits"]["test"]
    assert [(run / name).read_bytes() for name in ("metrics.json", "predictions.parquet")] == before


def test_predictions_are_the_models_answers_utterance_by_utterance(trained, toy_corpus):
    run, _ = trained
    table = pd.read_parquet(run / "predictions.parquet")
    names = ["utterance_id", "split", *(p + e for p in ("label_", "score_", "predicted_") for e in EMOTIONS)]
    assert table.columns.tolist() == names
    assert [str(table[c].dtype) for c in ("label_ang", "score_ang", "predicted_ang")] == ["float32", "float32", "bool"]
    model = models.load(run)
    tokenize = models.tokenizer_for(model)
    for split, rows in table.groupby("split"):
        dataset = UtteranceDataset(toy_corpus, split)
        assert rows["utterance_id"].tolist() == dataset.table["utterance_id"].tolist()
        with torch.no_grad():
            alone = [model(collate([sample], tokenize)).logits[0].sigmoid().numpy() for sample in dataset]
        np.testing.assert_allclose(columns(rows, "score_"), np.stack(alone), atol=1e-5)
        np.testing.assert_array_equal(columns(rows, "label_"), np.stack([sample.labels for sample in dataset]))
    assert set(table["split"]) == {"valid", "test"}


def test_an_utterance_without_face_sound_or_words_is_counted(trained, toy_corpus):
    run, summary = trained
    empty = UtteranceDataset(toy_corpus, "test")[2]
    assert (len(empty.faces), len(empty.chunks), empty.text) == (0, 0, "")
    assert empty.id in pd.read_parquet(run / "predictions.parquet")["utterance_id"].tolist()
    assert summary["splits"]["test"]["utterances"] == 5


def test_metrics_follow_from_the_predictions_by_scikit_learn(trained):
    run, summary = trained
    table = pd.read_parquet(run / "predictions.parquet")
    for split, report in summary["splits"].items():
        rows = table[table["split"] == split]
        truth, scores, answer = (columns(rows, p) for p in ("label_", "score_", "predicted_"))
        found = report["metrics"]["multi_label"]
        assert found["f1"]["value"] == pytest.approx(f1_score(truth, answer, average="macro"))
        assert found["roc_auc"]["value"] == pytest.approx(roc_auc_score(truth, scores, average="macro"))
        for e, emotion in enumerate(EMOTIONS):
            value = found["accuracy"]["per_emotion"][emotion]["value"]
            assert value == pytest.approx(accuracy_score(truth[:, e], answer[:, e]))
        single = report["metrics"]["single_label"]["accuracy"]["value"]
        assert single == pytest.approx(accuracy_score(truth.argmax(1), scores.argmax(1)))


def test_thresholds_come_from_valid_alone(trained):
    run, summary = trained
    stored = json.loads((run / "thresholds.json").read_text())
    table = pd.read_parquet(run / "predictions.parquet")
    valid = table[table["split"] == "valid"]
    expected = choose_thresholds(columns(valid, "label_") >= 0.5, columns(valid, "score_"))
    assert stored["thresholds"] == dict(zip(EMOTIONS, expected.tolist(), strict=True))
    assert stored["chosen_on"] == "valid"
    assert summary["splits"]["test"]["thresholds"] == stored
    np.testing.assert_array_equal(columns(table, "predicted_"), columns(table, "score_").astype(float) >= expected)


def test_every_metric_carries_what_it_means(trained):
    for split, report in trained[1]["splits"].items():
        assert report["split"] == split
        assert report["split_protocol"] == "session:5"
        assert report["dataset"] == "toy"
        assert report["notice"] == STANDIN_NOTICE
        for entries in report["metrics"].values():
            for entry in entries.values():
                assert {"value", "baseline", "definition", "baseline_definition", "utterances", "split"} <= set(entry)
                assert entry["utterances"] == report["utterances"]
                assert entry["split"] == split


def test_the_loss_and_its_baseline_by_hand(trained):
    run, summary = trained
    table = pd.read_parquet(run / "predictions.parquet")
    rows = table[table["split"] == "test"]
    y, p = columns(rows, "label_").astype(float), columns(rows, "score_").astype(float)
    weight = np.array([5 / 3, 5 / 3, 3.0])
    loss = summary["splits"]["test"]["metrics"]["multi_label"]["loss"]
    assert loss["value"] == pytest.approx(-(weight * y * np.log(p) + (1 - y) * np.log(1 - p)).mean(), rel=1e-4)
    assert loss["baseline"] == pytest.approx(-(weight * y + 1 - y).mean() * np.log(0.5), rel=1e-5)


def test_another_split_is_added_and_the_order_does_not_matter(run):
    evaluate(settings_for(run, split="train"), QUIET)
    assert list(json.loads((run / "metrics.json").read_text())["splits"]) == ["test", "train", "valid"]
    counts = pd.read_parquet(run / "predictions.parquet")["split"].value_counts().to_dict()
    assert counts == {"train": 8, "valid": 6, "test": 5}
    before = (run / "metrics.json").read_bytes(), (run / "predictions.parquet").read_bytes()
    evaluate(settings_for(run, split="valid"), QUIET)
    assert ((run / "metrics.json").read_bytes(), (run / "predictions.parquet").read_bytes()) == before


def test_batch_size_changes_no_score(run, trained):
    report = evaluate(settings_for(run, batch_size=1), QUIET)
    expected = trained[1]["splits"]["test"]["metrics"]["multi_label"]["loss"]["value"]
    assert report["metrics"]["multi_label"]["loss"]["value"] == pytest.approx(expected, rel=1e-4)


def test_other_data_goes_into_files_of_its_own(run, tmp_path, corpus_writer):
    before = (run / "metrics.json").read_bytes()
    other = corpus_writer(tmp_path / "other", {"test": 4}, standin=False)
    write_json(other / "dataset.json", {"dataset": "elsewhere", "split": "random"})
    report = evaluate(settings_for(run, data=other), QUIET)
    assert (report["dataset"], report["split_protocol"], report["notice"]) == ("elsewhere", "random", None)
    assert (run / "metrics.json").read_bytes() == before
    place = RunDir(run)
    assert json.loads(place.metrics(other).read_text())["splits"] == {"test": report}
    assert report["folder"] == other.as_posix()
    assert len(pd.read_parquet(place.predictions(other))) == 4


def test_two_at_once_are_refused_before_the_work(run, monkeypatch):
    before = (run / "metrics.json").read_bytes()
    monkeypatch.setattr(BestModel, "load", lambda *args: pytest.fail("the work began"))
    with folder_lock(run), pytest.raises(DataError, match=r"another run is at work in .*wait for it"):
        evaluate(settings_for(run, split="train"), QUIET)
    assert (run / "metrics.json").read_bytes() == before


def test_the_lock_is_held_until_the_results_are_written(run, monkeypatch):
    found = []

    def busy(*args, **named):
        with pytest.raises(DataError, match="another run is at work"):
            evaluate(settings_for(run, split="valid"), QUIET)
        found.append(real(*args, **named))
        return found[0]

    real = scoring.record
    monkeypatch.setattr(scoring, "record", busy)
    assert evaluate(settings_for(run, split="train"), QUIET) == found[0]
    assert list(json.loads((run / "metrics.json").read_text())["splits"]) == ["test", "train", "valid"]
    with folder_lock(run):
        pass  # and let go afterwards


def moved(corpus, **splits):
    """The corpus with utterances put into other splits."""
    path = corpus / "utterances.parquet"
    table = pd.read_parquet(path)
    table["split"] = table["utterance_id"].map(splits).fillna(table["split"])
    table.to_parquet(path)
    return corpus


def test_a_split_with_utterances_that_were_trained_on_is_refused(run, toy_corpus, tmp_path):
    before = [(run / name).read_bytes() for name in ("metrics.json", "predictions.parquet")]
    data = tmp_path / "data"
    shutil.copytree(toy_corpus, data)
    moved(data, train_03="test", train_05="test", train_06="valid", test_01="train")
    with pytest.raises(DataError, match=r"trained on 2 of the 6 .*'test'.*train_03, train_05.*session:5.*train again"):
        evaluate(settings_for(run, data=data), QUIET)
    with pytest.raises(DataError, match=r"trained on 1 of the 7 .*'valid'.*train_06"):
        evaluate(settings_for(run, data=data, split="valid"), QUIET)
    assert [(run / name).read_bytes() for name in ("metrics.json", "predictions.parquet")] == before
    assert not list(run.glob("metrics-*"))
    assert evaluate(settings_for(run, data=data, split="train"), QUIET)["utterances"] == 6


def test_training_refuses_a_test_split_that_changed_meanwhile(corpus_writer, tmp_path, monkeypatch):
    data = corpus_writer(tmp_path / "data", {"train": 6, "valid": 3, "test": 3})
    real = BestModel.load
    monkeypatch.setattr(BestModel, "load", lambda *args: (moved(data, train_01="test"), real(*args))[1])
    settings = TrainSettings(data=data, out=tmp_path / "run", epochs=1, device="cpu")
    with pytest.raises(DataError, match=r"trained on 1 of the 4 .*'test'.*train_01"):
        train(settings, spec(MODEL), QUIET)
    assert list(json.loads((tmp_path / "run" / "metrics.json").read_text())["splits"]) == ["valid"]


def test_a_test_split_with_utterances_of_valid_says_so(run, trained, toy_corpus, tmp_path):
    reports = trained[1]["splits"]
    assert (reports["valid"]["tuned_on"], reports["test"]["tuned_on"]) == (6, 0)
    assert not any("not a test" in format_split(report) for report in reports.values())
    data = tmp_path / "data"
    shutil.copytree(toy_corpus, data)
    moved(data, valid_01="test", valid_04="test")
    report = evaluate(settings_for(run, data=data), QUIET)
    assert (report["utterances"], report["tuned_on"]) == (7, 2)
    line = "  not a test: the epoch and the thresholds were chosen on 2 of these utterances"
    assert format_split(report).split("\n")[1] == line


def test_what_cannot_be_evaluated_says_why(run, tmp_path, corpus_writer):
    with pytest.raises(DataError, match=r"'dev'.*test 5, train 8, valid 6.*pipeline reorganize --split"):
        evaluate(settings_for(run, split="dev"), QUIET)
    with pytest.raises(ConfigError, match="no run at"):
        evaluate(settings_for(tmp_path / "nowhere"), QUIET)
    with pytest.raises(DataError, match=r"no manifest.*pipeline reorganize"):
        evaluate(settings_for(run, data=tmp_path / "nowhere"), QUIET)
    other = corpus_writer(tmp_path / "other", {"test": 2}, emotions=("joy", "woe", "ire"))
    with pytest.raises(ConfigError, match=r"joy.*the run .* knows.*ang"):
        evaluate(settings_for(run, data=other), QUIET)
    coarse = corpus_writer(tmp_path / "coarse", {"test": 2})
    store = coarse / "store" / "store.json"
    write_json(store, json.loads(store.read_text()) | {"settings": {"mel": {"n_fft": 400}}})
    with pytest.raises(DataError, match=r"was preprocessed with.*400.*1024"):
        evaluate(settings_for(run, data=coarse), QUIET)
    (run / "thresholds.json").unlink()
    with pytest.raises(ConfigError, match="not finished"):
        evaluate(settings_for(run), QUIET)


@pytest.mark.parametrize(("name", "content"), [("metrics.json", "{}"), ("predictions.parquet", "PAR1")])
def test_damaged_results_are_named(run, name, content):
    (run / name).write_text(content)
    with pytest.raises(DataError, match=rf"{name} is damaged.*delete it and evaluate each split again"):
        evaluate(settings_for(run), QUIET)


def test_the_lines_for_a_person_name_split_count_baseline_and_stand_in(trained):
    text = format_split(trained[1]["splits"]["test"])
    first, *rest = text.split("\n")
    assert first == f"toy test, split session:5, 5 utterances [{STANDIN_NOTICE}]"
    assert [line.split(":")[0].strip() for line in rest] == ["multi_label", "single_label"]
    assert all("baseline" in line for line in rest)
