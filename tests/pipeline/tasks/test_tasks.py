import csv
import json

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
import yaml
from listener import Listener
from sklearn import metrics as sklearn

from data_tools.dataset import UtteranceDataset
from data_tools.errors import DataError
from data_tools.files import write_json
from data_tools.media.audio import write_wav
from data_tools.media.write import write_video
from pipeline.evaluate import EvaluateSettings, evaluate
from pipeline.predict import format_predictions, predict
from pipeline.progress import Reporter
from pipeline.reorganize import ReorganizeSettings
from pipeline.run_data import DataFacts
from pipeline.settings import ConfigError, ModelSpec, load_config
from pipeline.tasks.resolve import TASKS, build_task, resolve_settings, resolve_task, with_label
from pipeline.train import prepare, train
from pipeline.training.loop import Pass
from pipeline.training.scoring import format_split
from pipeline.training.settings import TrainSettings

spec = ModelSpec.from_dict

QUIET = Reporter(quiet=True)
EMOTIONS = ["ang", "hap", "sad"]
SIZES = {"train": 8, "valid": 6, "test": 5}
FE2E = {"name": "fe2e", "text_encoder": "tiny", "width": 4, "layers": 1}
TOWERS = {"frontend": "towers", "text_encoder": "tiny", "tower_width": 4}
MULT = {"name": "mult", **TOWERS, "size": 4, "heads": 2, "layers": 1}
# Train has a mean of 0.3, and one without; 0.0 and a tie of the rounding rules are among them.
SENTIMENTS = [-2.4, -0.6, 0.0, 0.5, 1.2, 2.6, 0.8, None]


def settings_for(data, out=None, **changes):
    values = {"data": data, "out": out, "epochs": 1, "batch_size": 3, "learning_rate": 1e-2, "device": "cpu"}
    return TrainSettings(**(values | {"precision": "32-true"} | changes))


@pytest.fixture(scope="module")
def corpora(tmp_path_factory, corpus_writer):
    """Data folders by task; in each, one utterance of train lacks the label of its task."""
    folder = tmp_path_factory.mktemp("data")

    def mixed(split, i):
        """The last utterance of train has two emotions, that before it a share of less than half of one."""
        own = {e: float(k == i % 3) for k, e in enumerate(EMOTIONS)}
        odd = {7: {"ang": 1.0, "hap": 1.0, "sad": 0.0}, 6: {"ang": 0.4, "hap": 0.0, "sad": 0.0}}
        return odd.get(i, own)

    return {
        "multi-label": corpus_writer(folder / "several", SIZES, labels=mixed),
        "single-label": corpus_writer(folder / "one", SIZES, labels=mixed),
        "sentiment": corpus_writer(folder / "numbers", SIZES, emotions=(), sentiment=lambda split, i: SENTIMENTS[i]),
    }


@pytest.fixture(scope="module")
def runs(corpora, tmp_path_factory):
    """A run of one epoch by (task, model): folder, summary, lines."""
    made = {}

    def run_of(task, model):
        if (task, model["name"]) not in made:
            out, listener = tmp_path_factory.mktemp("runs") / "run", Listener()
            summary = train(settings_for(corpora[task], out, task=task), spec(model), listener)
            made[task, model["name"]] = out, summary, listener.lines
        return made[task, model["name"]]

    return run_of


@pytest.mark.parametrize("model", [FE2E, MULT], ids=lambda model: model["name"])
@pytest.mark.parametrize("task", TASKS)
def test_train_evaluate_predict(runs, corpora, media_makers, tmp_path, task, model):
    run, summary, _ = runs(task, model)
    assert summary["task"] == task
    assert yaml.safe_load((run / "settings.yaml").read_text())["train"]["task"] == task
    again = evaluate(EvaluateSettings(run=run, device="cpu"), QUIET)
    assert again == summary["splits"]["test"]
    assert again["task"] == task
    json.dumps(summary, allow_nan=False)

    write_wav(tmp_path / "a.wav", media_makers[1](1, 0), 16_000)
    write_video(tmp_path / "a.mp4", media_makers[0](25, 0), (128, 64), 25, audio=tmp_path / "a.wav")
    result = predict(run, [tmp_path / "a.mp4"], "some words", "cpu", QUIET)
    answer, text = result["files"][0], format_predictions(result)
    assert (result["task"], answer["error"]) == (task, None)
    if task == "sentiment":
        assert list(answer["scores"]) == ["sentiment"]
        assert f"sentiment  {answer['scores']['sentiment']:+.3f}" in text
    else:
        assert list(answer["scores"]) == EMOTIONS
    if task == "single-label":
        assert sum(answer["scores"].values()) == pytest.approx(1)
        assert answer["predicted"] == [max(answer["scores"], key=answer["scores"].get)]
        assert "threshold" not in text
        assert text.count("yes") == 1


@pytest.mark.parametrize("task", TASKS)
def test_what_is_logged_and_chosen_by(runs, task):
    run, summary, lines = runs(task, FE2E)
    row = next(csv.DictReader((run / "log.csv").open()))
    loss, monitor = {
        "multi-label": ("bce", "f1"),
        "single-label": ("cross_entropy", "unweighted_accuracy"),
        "sentiment": ("l1", "mae"),
    }[task]
    assert {f"train_{loss}", f"valid_{monitor}", f"valid_{loss}", "valid_loss"} <= set(row)
    assert (summary["monitor"], summary["valid_score"]) == (monitor, float(row[f"valid_{monitor}"]))
    value = summary["splits"]["valid"]["metrics"][task.replace("-", "_")][monitor]["value"]
    assert value == pytest.approx(summary["valid_score"])
    assert any(line.startswith(f"  task {task}: loss {loss}, best epoch by {monitor}") for line in lines)


def test_utterances_without_the_label_are_left_out_and_counted(runs, corpora, tmp_path):
    for task, count, why in (("single-label", 2, "not exactly one emotion"), ("sentiment", 1, "no sentiment")):
        run, summary, lines = runs(task, FE2E)
        facts = DataFacts.read(run / "data.json")
        assert (facts.left_out, facts.train_utterances) == ({"train": count, "valid": 0}, 8 - count)
        assert any(line.endswith(f"left out, with {why}: {count} of train") for line in lines)
        assert len(json.loads((run / "splits.json").read_text())["train"]) == 8 - count
        assert summary["splits"]["test"]["left_out"] == {}
        report = evaluate(EvaluateSettings(run=run, split="train", device="cpu"), QUIET)
        assert (report["utterances"], report["left_out"]) == (8 - count, {why: count})
        assert f"  left out: {count} with {why}" in format_split(report).split("\n")
    _, _, lines = runs("multi-label", FE2E)
    assert not any("left out" in line for line in lines)


def test_a_split_without_any_label_of_the_task_says_so(corpora, toy_corpus, tmp_path):
    with pytest.raises(
        DataError, match=r"none of the 8 utterances in 'train' .*task 'sentiment' \(no sentiment\).*--set"
    ):
        train(settings_for(toy_corpus, tmp_path / "run", task="sentiment"), spec(FE2E), QUIET)
    with pytest.raises(ConfigError, match="task is 'multi-label', but the data set has no emotions.*task=sentiment"):
        train(settings_for(corpora["sentiment"], tmp_path / "run", task="multi-label"), spec(FE2E), QUIET)
    assert not (tmp_path / "run").exists()


def test_the_task_follows_from_the_data_unless_it_is_named():
    assert (resolve_task("auto", EMOTIONS), resolve_task("auto", [])) == ("multi-label", "sentiment")
    assert (resolve_task("single-label", EMOTIONS), resolve_task("sentiment", EMOTIONS)) == (
        "single-label",
        "sentiment",
    )
    with pytest.raises(ConfigError, match="has only ang; use --set task=multi-label"):
        resolve_task("single-label", ["ang"])


def test_a_data_folder_can_state_its_task():
    assert resolve_task("auto", EMOTIONS, "single-label") == "single-label"
    assert resolve_task("multi-label", EMOTIONS, "single-label") == "multi-label"  # whoever names one gets it
    assert resolve_task("auto", [], "single-label") == "sentiment"  # MELD with --set emotions=[]
    assert resolve_task("auto", EMOTIONS, "no task") == resolve_task("auto", EMOTIONS, None) == "multi-label"


@pytest.mark.parametrize(
    "name", ["iemocap-4", "iemocap-5", "meld", "ravdess", "ravdess-song", "crema-d", "crema-d-votes"]
)
def test_corpora_of_one_emotion_an_utterance_are_trained_as_such(corpus_writer, tmp_path, name):
    data = corpus_writer(tmp_path / "data", {"train": 4, "valid": 3})
    task = ReorganizeSettings.checked(load_config("datasets", name), name).task
    write_json(data / "dataset.json", {"dataset": "toy", "task": task})
    assert prepare(settings_for(data, tmp_path / "run"), spec(FE2E)).settings.task == "single-label"
    assert prepare(settings_for(data, tmp_path / "run", task="multi-label"), spec(FE2E)).settings.task == "multi-label"


@pytest.mark.parametrize(
    ("task", "changes", "said"),
    [
        (
            "sentiment",
            {"monitor": "f1"},
            r"monitor is 'f1', which the task 'sentiment' does not have; known: mae, corr",
        ),
        ("sentiment", {"monitor": "acc5_sims"}, r"monitor is 'acc5_sims', .*acc7_away_from_zero"),
        ("single-label", {"monitor": "mae"}, r"known: unweighted_accuracy, accuracy, weighted_f1, macro_f1"),
        ("multi-label", {"monitor": "corr"}, r"known: f1, accuracy, weighted_accuracy"),
        (
            "multi-label",
            {"loss": "l1"},
            r"loss is 'l1', which the task 'multi-label' does not have; known: bce, bce_plain$",
        ),
        ("sentiment", {"sentiment_range": 1}, r"sentiment_range is 1, but the labels reach 2\.6; use"),
    ],
)
def test_what_does_not_belong_to_the_task_is_refused(corpora, tmp_path, task, changes, said):
    with pytest.raises(ConfigError, match=said):
        train(settings_for(corpora[task], tmp_path / "run", task=task, **changes), spec(FE2E), QUIET)
    assert not (tmp_path / "run").exists()


def test_outputs_that_contradict_the_task_are_refused(corpora, tmp_path):
    with pytest.raises(ConfigError, match=r"outputs is 3, but the sentiment of .*numbers is one number; leave"):
        train(settings_for(corpora["sentiment"], tmp_path / "run"), spec({**FE2E, "outputs": 3}), QUIET)


def test_the_range_follows_from_the_labels_unless_it_is_stated(corpus_writer, tmp_path):
    data = corpus_writer(
        tmp_path / "data", {"train": 4, "valid": 3}, emotions=(), sentiment=lambda split, i: [-1.0, 0.2, 0.6, 0.0][i]
    )
    splits = [UtteranceDataset(data, split) for split in ("train", "valid")]
    assert resolve_settings(TrainSettings(), "sentiment", splits).sentiment_range == 1
    assert resolve_settings(TrainSettings(sentiment_range=3), "sentiment", splits).sentiment_range == 3
    summary = train(settings_for(data, tmp_path / "run", monitor="acc3_sims"), spec(FE2E), QUIET)
    clipped = {"mae_clipped", "corr_clipped"}
    assert clipped | {"acc2_sims", "acc3_sims", "acc5_sims", "f1_sims", "mae", "corr", "loss"} == set(
        summary["splits"]["valid"]["metrics"]["sentiment"]
    )


def test_a_monitor_that_valid_cannot_tell_is_refused(corpus_writer, tmp_path):
    data = corpus_writer(
        tmp_path / "data", {"train": 4, "valid": 3}, emotions=(), sentiment=lambda split, i: (split == "train") * 2.0
    )
    for monitor in ("corr", "acc2_non0", "f1_non0"):
        with pytest.raises(ConfigError, match=f"monitor is '{monitor}', which is undefined on valid"):
            train(settings_for(data, tmp_path / "run", monitor=monitor), spec(FE2E), QUIET)
    assert train(settings_for(data, tmp_path / "run", monitor="acc2_has0"), spec(FE2E), QUIET)["epochs"] == 1


def passed(logits, sentiment):
    n = len(logits)
    ids = tuple(map(str, range(n)))
    logits = torch.tensor(logits)[:, None]
    return Pass(0.5, {"l1": 0.5}, {}, ids, logits, torch.zeros(n, 0), sentiment, 1, 0, 1.0, 0.0, 0)


def test_one_score_for_all_is_the_worst_correlation(corpora):
    """It has none; an epoch in which a model still says the same to everybody must not stop the run."""
    train_split, valid = (
        with_label(UtteranceDataset(corpora["sentiment"], s), "sentiment") for s in ("train", "valid")
    )
    settings = resolve_settings(settings_for(corpora["sentiment"], monitor="corr"), "sentiment", [train_split, valid])
    task = build_task(settings, DataFacts.from_splits(corpora["sentiment"], train_split, valid))
    truth = torch.tensor([-1.0, 0.0, 2.0])
    values = task.values(passed([0.3, 0.3, 0.3], truth), {})
    assert (values["corr"], task.monitored(values)) == (None, -1.0)
    assert task.monitored(task.values(passed([0.1, 0.2, 0.9], truth), {})) > 0.9
    assert not task.lower_is_better("corr")
    assert task.lower_is_better("mae")


def test_single_label_metrics_follow_from_the_predictions(runs):
    run, summary, _ = runs("single-label", FE2E)
    table = pd.read_parquet(run / "predictions.parquet")
    for split, report in summary["splits"].items():
        rows = table[table["split"] == split]
        parts = {p: rows[[p + e for e in EMOTIONS]].to_numpy() for p in ("label_", "score_", "predicted_")}
        np.testing.assert_allclose(parts["score_"].sum(1), 1, rtol=1e-5)
        np.testing.assert_array_equal(parts["predicted_"].sum(1), 1)
        truth, answer = parts["label_"].argmax(1), parts["predicted_"].argmax(1)
        np.testing.assert_array_equal(answer, parts["score_"].argmax(1))
        found = report["metrics"]["single_label"]
        assert found["accuracy"]["value"] == pytest.approx(sklearn.accuracy_score(truth, answer))
        assert found["unweighted_accuracy"]["value"] == pytest.approx(sklearn.balanced_accuracy_score(truth, answer))
        expected = sklearn.f1_score(truth, answer, average="weighted", zero_division=0)
        assert found["weighted_f1"]["value"] == pytest.approx(expected)
        assert (
            found["accuracy"]["confusion"]["utterances"]
            == sklearn.confusion_matrix(truth, answer, labels=[0, 1, 2]).tolist()
        )
        assert found["loss"]["value"] == pytest.approx(sklearn.log_loss(truth, parts["score_"], labels=[0, 1, 2]), 1e-4)
        assert found["loss"]["baseline"] == pytest.approx(np.log(3))
        assert "multi_label" not in report["metrics"]


def test_sentiment_metrics_follow_from_the_predictions(runs):
    run, summary, _ = runs("sentiment", FE2E)
    table = pd.read_parquet(run / "predictions.parquet")
    assert table.columns.tolist() == ["utterance_id", "split", "sentiment", "predicted_sentiment"]
    for split, report in summary["splits"].items():
        rows = table[table["split"] == split]
        truth, score = rows["sentiment"].to_numpy(), rows["predicted_sentiment"].to_numpy()
        found = report["metrics"]["sentiment"]
        assert found["mae"]["value"] == pytest.approx(sklearn.mean_absolute_error(truth, score), rel=1e-5)
        assert found["corr"]["value"] == pytest.approx(scipy.stats.pearsonr(truth, score).statistic, abs=1e-5)
        assert found["acc2_has0"]["value"] == sklearn.accuracy_score(truth >= 0, score >= 0)
        assert found["loss"]["value"] == pytest.approx(found["mae"]["value"], rel=1e-5)
        assert found["loss"]["baseline"] == pytest.approx(np.abs(truth - np.float32(0.3)).mean(), rel=1e-5)
        assert (found["acc7"]["utterances"], found["acc2_non0"]["utterances"]) == (len(rows), len(rows) - 1)


def test_balanced_classes_and_squared_errors_train_too(corpora, tmp_path):
    for task, loss in (("single-label", "balanced_cross_entropy"), ("sentiment", "mse")):
        summary = train(
            settings_for(corpora[task], tmp_path / task, task=task, loss=loss, monitor="loss"),
            spec(FE2E),
            QUIET,
        )
        entry = summary["splits"]["valid"]["metrics"][task.replace("-", "_")]["loss"]
        assert entry["value"] == pytest.approx(summary["valid_score"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["single-label", "sentiment"])
def test_overfits_the_labels_of_the_task(corpora, tmp_path, task):
    settings = settings_for(corpora[task], tmp_path / "run", task=task, epochs=60, patience=60, batch_size=8)
    train(
        settings.model_copy(update={"text_learning_rate_scale": 1.0}),
        spec({**FE2E, "dropout": 0.0}),
        QUIET,
    )
    losses = [float(row["train_loss"]) for row in csv.DictReader((tmp_path / "run" / "log.csv").open())]
    assert losses[-1] < 0.3 * losses[0]


def test_resuming_goes_on_with_the_same_task(corpora, tmp_path):
    data, out = corpora["sentiment"], tmp_path / "run"
    whole = train(settings_for(data, tmp_path / "whole", epochs=2, patience=9), spec(FE2E), QUIET)
    train(settings_for(data, out, epochs=1), spec(FE2E), QUIET)
    summary = train(settings_for(data, out, epochs=2, patience=9), spec(FE2E), QUIET, resume=True)
    assert {s: r["metrics"] for s, r in summary["splits"].items()} == {
        s: r["metrics"] for s, r in whole["splits"].items()
    }
    with pytest.raises(ConfigError, match=r"train\.loss: was 'l1', now 'mse'"):
        train(settings_for(data, out, epochs=2, loss="mse"), spec(FE2E), QUIET, resume=True)


def test_other_sentiments_are_other_data(corpus_writer, tmp_path):
    sizes = {"train": 4, "valid": 3}
    data = corpus_writer(tmp_path / "data", sizes, emotions=(), sentiment=lambda split, i: i - 1.5)
    train(settings_for(data, tmp_path / "run"), spec(FE2E), QUIET)
    corpus_writer(data, sizes, emotions=(), sentiment=lambda split, i: 1.5 - i)
    with pytest.raises(DataError, match="other utterances, labels"):
        train(settings_for(data, tmp_path / "run"), spec(FE2E), QUIET, resume=True)


def test_a_data_set_with_emotions_and_sentiment_serves_both(corpus_writer, tmp_path):
    data = corpus_writer(tmp_path / "data", {"train": 4, "valid": 3}, sentiment=lambda split, i: i - 1.0)
    summary = train(settings_for(data, tmp_path / "emotions"), spec(FE2E), QUIET)
    assert (summary["task"], list(summary["splits"]["valid"]["metrics"])) == (
        "multi-label",
        ["multi_label", "single_label"],
    )
    summary = train(settings_for(data, tmp_path / "sentiment", task="sentiment"), spec(FE2E), QUIET)
    assert list(summary["splits"]["valid"]["metrics"]) == ["sentiment"]
