import csv
import json
import os
import signal
import subprocess
import sys

import pytest
import torch
import yaml
from listener import Listener
from safetensors.torch import load_file

import models
from data_tools.errors import DataError
from pipeline.evaluate import EvaluateSettings, evaluate
from pipeline.progress import Reporter
from pipeline.run_data import STANDIN_NOTICE
from pipeline.settings import ConfigError, ModelSpec
from pipeline.train import train
from pipeline.training.settings import TrainSettings

spec = ModelSpec.from_dict

QUIET = Reporter(quiet=True)
TINY = {"text_encoder": "tiny", "width": 4, "layers": 1}
MESM = {"name": "mesm", "top_p": 0.5, **TINY}
FE2E = {"name": "fe2e", **TINY}
TOWERS = {"frontend": "towers", "text_encoder": "tiny", "tower_width": 4}
# The columns that hold clock times; all others are the same in two runs of one seed.
TIMES = {
    "train_seconds",
    "valid_seconds",
    "step_seconds",
    "wait_seconds",
    "data_wait_share",
    "samples_per_second",
    "peak_bytes",
}


def settings_for(data, out, **changes):
    values = {"data": data, "out": out, "epochs": 4, "patience": 9, "batch_size": 3, "learning_rate": 1e-3}
    return TrainSettings(**(values | {"device": "cpu", "precision": "32-true"} | changes))


def curve(run):
    with (run / "log.csv").open() as file:
        return [{k: v for k, v in row.items() if k not in TIMES} for row in csv.DictReader(file)]


def results(run):
    """Everything that must not depend on when and how often a run was interrupted."""
    names = ("model.safetensors", "model.json", "thresholds.json", "metrics.json", "predictions.parquet", "data.json")
    return {name: (run / name).read_bytes() for name in (*names, "last/state.safetensors")}, curve(run)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, toy_corpus):
    """(run folder, summary, lines) of a run of four epochs without interruption."""
    run, listener = tmp_path_factory.mktemp("runs") / "whole", Listener()
    summary = train(settings_for(toy_corpus, run), spec(MESM), listener)
    return run, summary, listener.lines


@pytest.mark.parametrize("model", [MESM, FE2E], ids=lambda model: model["name"])
def test_overfits_eight_utterances(tmp_path, toy_corpus, model):
    settings = settings_for(toy_corpus, tmp_path / "run", epochs=36, patience=36, batch_size=8, learning_rate=1e-2)
    train(
        settings.model_copy(update={"text_learning_rate_scale": 1.0}),
        spec({**model, "dropout": 0.0}),
        QUIET,
    )
    losses = [float(row["train_loss"]) for row in curve(tmp_path / "run")]
    assert losses[-1] < 0.05 < 0.5 < losses[0]
    report = evaluate(EvaluateSettings(run=tmp_path / "run", split="train", device="cpu"), QUIET)
    assert report["metrics"]["single_label"]["accuracy"]["value"] == 1.0
    assert report["metrics"]["multi_label"]["f1"]["value"] == 1.0


def test_the_run_folder_holds_exactly_these_files(finished):
    run, _, _ = finished
    found = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    events = {name for name in found if name.startswith("events/events.out.tfevents.")}
    assert len(events) == 1
    assert found - events - {".lock"} == {
        "settings.yaml",
        "data.json",
        "splits.json",
        "environment.json",
        "log.csv",
        "model.safetensors",
        "model.json",
        "tokenizer/hash_tokenizer.json",
        "last/state.safetensors",
        "thresholds.json",
        "metrics.json",
        "predictions.parquet",
    }


def test_what_is_returned_agrees_with_what_is_written(finished):
    run, summary, _ = finished
    rows = curve(run)
    assert (
        (summary["run"], summary["model"], summary["epochs"]) == (str(run), "mesm", len(rows)) == (str(run), "mesm", 4)
    )
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3, 4]
    best = max(rows, key=lambda row: (float(row["valid_f1"]), -float(row["valid_loss"])))
    assert summary["best_epoch"] == int(best["epoch"])
    assert summary["valid_score"] == float(best["valid_f1"])
    # The end scores the best weights again, from the file: the same value as in the epoch that made them.
    assert summary["splits"]["valid"]["metrics"]["multi_label"]["f1"]["value"] == pytest.approx(summary["valid_score"])
    assert json.loads((run / "metrics.json").read_text())["splits"] == summary["splits"]
    assert set(summary["splits"]) == {"valid", "test"}
    assert 0 <= summary["data_wait_share"] <= 1
    assert 0 < summary["step_seconds"] <= summary["train_seconds"] <= summary["seconds"]
    assert summary["parameters"] == sum(p.numel() for p in models.load(run).parameters())
    json.dumps(summary, allow_nan=False)
    assert all(row["steps"] == "3" and 0 < float(row["mel.share.1"]) < 1 for row in rows)


def test_every_line_with_a_score_says_that_the_data_is_a_stand_in(finished):
    _, summary, lines = finished
    assert summary["notice"] == STANDIN_NOTICE
    assert len([line for line in lines if line.startswith("epoch ")]) == 4
    for line in lines:
        # A line that begins with blanks goes on with the one before it.
        assert STANDIN_NOTICE in line or line.startswith("  "), line


def test_real_data_carries_no_such_notice(tmp_path, corpus_writer):
    data = corpus_writer(tmp_path / "data", {"train": 4, "valid": 3}, standin=False)
    listener = Listener()
    summary = train(settings_for(data, tmp_path / "run", epochs=1), spec(FE2E), listener)
    assert summary["notice"] is None
    assert set(summary["splits"]) == {"valid"}
    assert not any(STANDIN_NOTICE in line for line in listener.lines)


def test_same_seed_same_curve_and_another_seed_another(tmp_path, toy_corpus, finished):
    run, _, _ = finished
    train(settings_for(toy_corpus, tmp_path / "again"), spec(MESM), QUIET)
    assert results(tmp_path / "again") == results(run)
    train(settings_for(toy_corpus, tmp_path / "other", seed=1), spec(MESM), QUIET)
    assert curve(tmp_path / "other")[0]["train_loss"] != curve(run)[0]["train_loss"]


@pytest.mark.parametrize(
    "model",
    [
        FE2E,
        {"name": "mult", **TOWERS, "size": 10, "layers": 1},
        {"name": "emt-dlfr", **TOWERS, "size": 8, "heads": 2, "layers": 1},
        {"name": "lf-lstm", **TOWERS, "size": 6},
        {"name": "lmf", **TOWERS, "size": 6, "audio_size": 4, "vision_size": 3, "fused_size": 8, "rank": 2},
    ],
    ids=lambda model: model["name"],
)
def test_every_kind_of_model_has_the_same_curve_again_from_the_same_seed(tmp_path, toy_corpus, model):
    for name in ("one", "two"):
        train(settings_for(toy_corpus, tmp_path / name, epochs=2), spec(model), QUIET)
    assert results(tmp_path / "one") == results(tmp_path / "two")


def test_loader_workers_change_nothing(tmp_path, toy_corpus, finished):
    run, _, _ = finished
    train(settings_for(toy_corpus, tmp_path / "run", loader_workers=2), spec(MESM), QUIET)
    assert results(tmp_path / "run") == results(run)


def test_reading_anew_in_each_epoch_changes_nothing(tmp_path, toy_corpus, finished):
    """`finished` was held in memory: that is what `auto` chooses here."""
    train(settings_for(toy_corpus, tmp_path / "run", keep_on_device=False), spec(MESM), QUIET)
    assert results(tmp_path / "run") == results(finished[0])


def test_the_summary_says_how_fast_and_how_large(finished):
    _, summary, lines = finished
    assert summary["samples_per_second"] > 0
    assert summary["peak_bytes"] > 2**20
    assert summary["peak_of"] == "resident in the process"
    assert all("utterances/s, at most" in line for line in lines if line.startswith("epoch "))


@pytest.mark.parametrize("first", [1, 3])
def test_resume_ends_as_if_nothing_had_happened(tmp_path, toy_corpus, finished, first):
    run = tmp_path / "run"
    train(settings_for(toy_corpus, run, epochs=first), spec(MESM), QUIET)
    torch.manual_seed(12345)  # somebody else's use of the generator must not matter
    summary = train(settings_for(toy_corpus, run), spec(MESM), QUIET, resume=True)
    assert results(run) == results(finished[0])
    assert summary["splits"] == finished[1]["splits"]
    assert [s["from_epoch"] for s in json.loads((run / "environment.json").read_text())["starts"]] == [1, first + 1]


KILLED = """
import os, signal, sys
from pathlib import Path
import pipeline.training.engine
from pipeline.progress import Reporter
from pipeline.settings import ModelSpec
from pipeline.train import train
from pipeline.training.settings import TrainSettings

steps, real = [0], pipeline.training.engine.Engine.step

def step(self, clip_norm):
    steps[0] += 1
    if steps[0] == {die_at}:
        os.kill(os.getpid(), signal.SIGKILL)
    real(self, clip_norm)

pipeline.training.engine.Engine.step = step
train(TrainSettings(**{settings!r}), ModelSpec.from_dict({model!r}), Reporter(quiet=True))
"""


def test_kill_9_in_the_middle_of_an_epoch_costs_that_epoch_and_nothing_else(tmp_path, toy_corpus, finished):
    run = tmp_path / "run"
    settings = settings_for(toy_corpus, run)
    values = {**settings.model_dump(), "data": str(toy_corpus), "out": str(run)}
    script = KILLED.format(die_at=8, settings=values, model=MESM)  # three steps an epoch: the second of epoch 3
    died = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False, cwd=tmp_path)
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    assert [row["epoch"] for row in curve(run)] == ["1", "2"]
    with pytest.raises(ConfigError, match="not finished"):
        evaluate(EvaluateSettings(run=run, device="cpu"), QUIET)
    with pytest.raises(ConfigError, match="add --resume"):
        train(settings, spec(MESM), QUIET)
    train(settings, spec(MESM), QUIET, resume=True)
    assert results(run) == results(finished[0])


@pytest.mark.parametrize(
    "broken",
    [
        "pipeline.training.log.TrainLog.add",
        "pipeline.training.driver.save_state",
        "models.save",
        "pipeline.training.scoring._write_metrics",
    ],
)
def test_a_death_between_two_writings_is_made_good(tmp_path, toy_corpus, finished, monkeypatch, broken):
    """Before the log, after it and before the state, after that and before the best weights, before the metrics."""
    run = tmp_path / "run"

    def die(*args, **options):
        raise RuntimeError("died here")

    monkeypatch.setattr(broken, die)
    with pytest.raises(RuntimeError, match="died here"):
        train(settings_for(toy_corpus, run), spec(MESM), QUIET)
    monkeypatch.undo()
    (run / f".model.safetensors.{os.getpid()}.tmp").write_bytes(b"half")
    train(settings_for(toy_corpus, run), spec(MESM), QUIET, resume=True)
    assert results(run) == results(finished[0])
    assert not list(run.rglob("*.tmp*"))


@pytest.mark.parametrize("broken", ["pipeline.training.log.TrainLog.add", "pipeline.training.driver.save_state"])
def test_a_death_before_the_state_of_the_only_epoch_is_made_good(tmp_path, toy_corpus, monkeypatch, broken):
    settings = settings_for(toy_corpus, tmp_path / "run", epochs=1)
    monkeypatch.setattr(broken, lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(settings, spec(FE2E), QUIET)
    monkeypatch.undo()
    summary = train(settings, spec(FE2E), QUIET, resume=True)
    assert [row["epoch"] for row in curve(tmp_path / "run")] == ["1"]
    assert summary["step_seconds"] > 0


def test_the_row_of_a_broken_off_epoch_counts_for_nothing(tmp_path, toy_corpus, monkeypatch):
    """Resumed with so few epochs that it is not done again."""
    run = tmp_path / "run"
    before = train(settings_for(toy_corpus, run, epochs=1), spec(FE2E), QUIET)
    monkeypatch.setattr("pipeline.training.driver.save_state", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(settings_for(toy_corpus, run, epochs=2), spec(FE2E), QUIET, resume=True)
    monkeypatch.undo()
    assert train(settings_for(toy_corpus, run, epochs=1), spec(FE2E), QUIET, resume=True) == before


def test_resuming_a_finished_run_trains_no_more_and_says_the_same(finished):
    run, summary, _ = finished
    before = results(run)
    settings = TrainSettings(**yaml.safe_load((run / "settings.yaml").read_text())["train"])
    again = train(settings, spec(MESM), QUIET, resume=True)
    assert again == summary
    assert results(run) == before


def test_more_training_takes_back_what_only_a_finished_run_has(tmp_path, toy_corpus, monkeypatch):
    run = tmp_path / "run"
    train(settings_for(toy_corpus, run, epochs=1), spec(FE2E), QUIET)
    monkeypatch.setattr("pipeline.training.scoring.BestModel.load", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(settings_for(toy_corpus, run, epochs=2), spec(FE2E), QUIET, resume=True)
    for name in ("thresholds.json", "metrics.json", "predictions.parquet"):
        assert not (run / name).exists()


def test_stops_early_and_keeps_the_best(tmp_path, toy_corpus):
    # A rate of nothing: no epoch is better than the first.
    settings = settings_for(toy_corpus, tmp_path / "run", epochs=20, patience=3, learning_rate=1e-30, monitor="loss")
    batch_norm_free = {**FE2E, "modalities": "t"}
    summary = train(settings, spec(batch_norm_free), QUIET)
    assert (summary["epochs"], summary["best_epoch"]) == (4, 1)


def test_the_best_weights_are_kept_and_not_the_last(tmp_path, toy_corpus, finished):
    run, summary, _ = finished
    train(settings_for(toy_corpus, tmp_path / "short", epochs=summary["best_epoch"]), spec(MESM), QUIET)
    state = load_file(tmp_path / "short" / "last" / "state.safetensors")
    kept = load_file(run / "model.safetensors")
    assert all(torch.equal(state[f"model.{name}"], value) for name, value in kept.items())


def test_a_frozen_text_encoder_stays_as_it_was(tmp_path, toy_corpus):
    settings = settings_for(toy_corpus, tmp_path / "run", epochs=2, text_learning_rate_scale=0.0)
    train(settings, spec(FE2E), QUIET)
    torch.manual_seed(settings.seed)
    fresh = models.build(**FE2E, outputs=3)
    trained = load_file(tmp_path / "run" / "last" / "state.safetensors")
    best = dict(models.load(tmp_path / "run").named_parameters())
    for name, start in fresh.named_parameters():
        if name.startswith("text."):
            assert torch.equal(best[name], start)
            assert f"model.{name}" not in trained  # frozen weights lie beside the state, written once
        if name.startswith("heads."):
            assert not torch.equal(best[name], start)
            assert not torch.equal(trained[f"model.{name}"], start)


def test_accumulating_halves_the_steps(tmp_path, toy_corpus):
    train(settings_for(toy_corpus, tmp_path / "run", epochs=1, accumulate=2), spec(FE2E), QUIET)
    assert curve(tmp_path / "run")[0]["steps"] == "2"


def test_a_class_without_positives_trains(tmp_path, corpus_writer):
    data = corpus_writer(
        tmp_path / "data",
        {"train": 4, "valid": 3},
        labels=lambda split, i: {"ang": 0.0, "hap": 1.0, "sad": float(i % 2)},
    )
    summary = train(settings_for(data, tmp_path / "run", epochs=2), spec(FE2E), QUIET)
    f1 = summary["splits"]["valid"]["metrics"]["multi_label"]["f1"]
    assert f1["per_emotion"]["ang"]["value"] is None
    assert f1["value"] is not None
    assert "single_label" not in summary["splits"]["valid"]["metrics"]


def test_a_monitor_that_valid_cannot_tell_is_an_error(tmp_path, corpus_writer):
    labels = {"train": {"ang": 1.0, "hap": 0.0, "sad": 0.0}, "valid": {"ang": 0.0, "hap": 0.0, "sad": 0.0}}
    data = corpus_writer(tmp_path / "data", {"train": 4, "valid": 3}, labels=lambda split, i: labels[split])
    with pytest.raises(ConfigError, match=r"monitor is 'f1', which is undefined on valid.*monitor=loss"):
        train(settings_for(data, tmp_path / "run"), spec(FE2E), QUIET)
    assert not (tmp_path / "run").exists()
    train(settings_for(data, tmp_path / "by loss", epochs=1, monitor="loss"), spec(FE2E), QUIET)


@pytest.mark.parametrize(
    ("monitor", "labels", "defined"),
    [
        ("f1", {"ang": 1.0, "hap": 0.0, "sad": 0.0}, True),
        ("accuracy", {"ang": 0.0, "hap": 0.0, "sad": 0.0}, True),
        ("weighted_accuracy", {"ang": 1.0, "hap": 0.0, "sad": 0.0}, False),
    ],
)
def test_which_monitor_valid_can_tell(tmp_path, corpus_writer, monitor, labels, defined):
    data = corpus_writer(tmp_path / "data", {"train": 4, "valid": 3}, labels=lambda split, i: labels)
    settings = settings_for(data, tmp_path / "run", epochs=1, monitor=monitor)
    if defined:
        assert train(settings, spec(FE2E), QUIET)["monitor"] == monitor
    else:
        with pytest.raises(ConfigError, match=f"monitor is '{monitor}', which is undefined on valid"):
            train(settings, spec(FE2E), QUIET)


def test_as_many_outputs_as_the_data_has_emotions(tmp_path, toy_corpus):
    with pytest.raises(ConfigError, match=r"outputs is 5, but .*toy has 3 emotions \(ang, hap, sad\); leave"):
        train(settings_for(toy_corpus, tmp_path / "run"), spec({**FE2E, "outputs": 5}), QUIET)
    assert not (tmp_path / "run").exists()
    assert (
        train(settings_for(toy_corpus, tmp_path / "run", epochs=1), spec({**FE2E, "outputs": 3}), QUIET)["epochs"] == 1
    )


def test_missing_data_says_which_command_makes_it(tmp_path, corpus_writer):
    with pytest.raises(DataError, match=r"no manifest.*pipeline reorganize"):
        train(settings_for(tmp_path / "nothing", tmp_path / "run"), spec(FE2E), QUIET)
    data = corpus_writer(tmp_path / "data", {"train": 4, "test": 3})
    with pytest.raises(DataError, match=r"'valid'.*test 3, train 4.*pipeline reorganize --split"):
        train(settings_for(data, tmp_path / "run"), spec(FE2E), QUIET)
    assert not (tmp_path / "run").exists()


def test_a_test_split_that_cannot_be_opened_is_found_before_training(tmp_path, corpus_writer):
    data = corpus_writer(tmp_path / "data", {"train": 3, "valid": 3, "test": 3})
    (data / "store" / "dialogue_test.safetensors").unlink()
    with pytest.raises(DataError, match=r"dialogue_test\.safetensors cannot be read"):
        train(settings_for(data, tmp_path / "run"), spec(FE2E), QUIET)
    assert not (tmp_path / "run").exists()


def test_resume_refuses_changed_labels(tmp_path, corpus_writer):
    sizes = {"train": 4, "valid": 3}
    data = corpus_writer(tmp_path / "data", sizes)
    train(settings_for(data, tmp_path / "run", epochs=1), spec(FE2E), QUIET)
    corpus_writer(data, sizes, labels=lambda split, i: {"ang": 1.0, "hap": 0.0, "sad": float(i % 2)})
    with pytest.raises(DataError, match="other utterances, labels or preprocessing"):
        train(settings_for(data, tmp_path / "run"), spec(FE2E), QUIET, resume=True)
