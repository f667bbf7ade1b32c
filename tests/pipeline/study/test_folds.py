"""Leave one session or speaker out: every utterance is tested once, by a model that has not met its group."""

import json
from statistics import mean, pstdev

import pandas as pd
import pytest

from data_tools.errors import DataError
from data_tools.folds import folds_of, resplit
from data_tools.manifest import read_manifest
from data_tools.splits import SplitSpec
from pipeline.cli import main
from pipeline.compare import CompareSettings, compare
from pipeline.evaluate import EvaluateSettings, evaluate
from pipeline.run import RunDir
from pipeline.settings import ConfigError, ModelSpec
from pipeline.train import train
from pipeline.training.settings import TrainSettings

TINY = {"text_encoder": "tiny", "width": 4, "layers": 1, "modalities": "t"}
VALUES = {**TINY, "epochs": 1, "batch_size": 8, "device": "cpu", "precision": "32-true", "task": "single-label"}
SESSIONS = {"dialogue_a": "1", "dialogue_b": "2", "dialogue_c": "3", "dialogue_d": "3"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, corpus_writer):
    """Four dialogues in three sessions, one speaker each; all of the manifest's own split `train`."""
    data = corpus_writer(tmp_path_factory.mktemp("folds") / "toy", {"a": 6, "b": 5, "c": 4, "d": 6})
    path = data / "utterances.parquet"
    table = pd.read_parquet(path)
    table["session"], table["speaker"] = table["dialogue_id"].map(SESSIONS), table["dialogue_id"]
    table.assign(split="train").to_parquet(path, index=False)
    return data


@pytest.fixture(scope="module")
def compared(tmp_path_factory, corpus, listener):
    out = tmp_path_factory.mktemp("compared") / "out"
    asked = CompareSettings(data=corpus, models=("fe2e",), seeds=2, out=out, folds="session", values=VALUES)
    with pytest.raises(KeyboardInterrupt):
        compare(asked, listener(stop_at="run 3 of 6"))
    reporter = listener()
    return out, compare(asked, reporter), reporter.lines


def test_every_utterance_is_tested_once_and_no_session_is_learned_from_and_tested(corpus):
    table = read_manifest(corpus)
    specs = folds_of(table, "session")
    assert [str(spec) for spec in specs] == ["session:1", "session:2", "session:3"]
    session = dict(zip(table["utterance_id"], table["session"], strict=True))
    tested = []
    for spec in specs:
        again = resplit(table, spec)
        splits = dict(zip(again["utterance_id"], again["split"], strict=True))
        assert set(splits) == set(table["utterance_id"])
        by_split = {
            split: {session[name] for name in splits if splits[name] == split} for split in set(splits.values())
        }
        assert by_split["test"] == {spec.value}
        assert not by_split["test"] & (by_split["train"] | by_split["valid"])
        tested += [name for name in splits if splits[name] == "test"]
    assert sorted(tested) == sorted(table["utterance_id"])
    assert [spec.value for spec in folds_of(table, "speaker")] == sorted(SESSIONS)


def test_scores_are_means_and_spreads_over_folds_and_seeds(compared, corpus):
    out, result, lines = compared
    assert [line for line in lines if line.endswith("finished, kept")] == [
        f"run {number} of 6: fe2e, session-{number}, seed 0: finished, kept" for number in (1, 2)
    ]
    (row,) = result["models"]
    reports = [
        json.loads((out / f"fe2e/session-{fold}/seed-{seed}/metrics.json").read_text())["splits"]["test"]
        for seed in (0, 1)
        for fold in "123"
    ]
    values = [report["metrics"]["single_label"]["accuracy"]["value"] for report in reports]
    found = row["scores"]["single_label"]["accuracy"]
    assert found["values"] == values
    assert (found["mean"], found["spread"]) == (pytest.approx(mean(values)), pytest.approx(pstdev(values), abs=1e-12))
    assert [(run["fold"], run["seed"]) for run in row["runs"]] == [
        (f"session:{fold}", seed) for seed in (0, 1) for fold in "123"
    ]
    assert [report["split_protocol"] for report in reports[:3]] == ["session:1", "session:2", "session:3"]
    assert [fold["test"] for fold in result["folds"]] == [report["utterances"] for report in reports[:3]]
    assert result["utterances"] == {"test": len(read_manifest(corpus))}
    about = result["metrics"]["single_label"]["accuracy"]
    baselines = [report["metrics"]["single_label"]["accuracy"]["baseline"] for report in reports[:3]]
    assert (about["baseline"], about["utterances"]) == (pytest.approx(mean(baselines)), len(read_manifest(corpus)))
    classes = result["metrics"]["single_label"]["binary_accuracy"]["per_emotion"]
    counts = [report["metrics"]["single_label"]["binary_accuracy"]["per_emotion"] for report in reports[:3]]
    assert classes["ang"]["positives"] == sum(count["ang"]["positives"] for count in counts)


def test_the_page_says_what_was_left_out_and_shows_each_fold_and_class(compared):
    out, result, _ = compared
    for text in ((out / "compare.md").read_text(), (out / "compare.html").read_text()):
        for part in ("each session left out once", "3 folds, 2 seeds each", "session-3", "by emotion", "by fold"):
            assert part in text
    assert "--folds session" in result["command"]


def test_a_run_is_trained_anew_for_each_fold_as_compare_does(compared, corpus, tmp_path, listener):
    out, result, _ = compared
    settings = result["models"][0]["settings"]
    train_settings = TrainSettings(**settings["train"] | {"split": "session:2"}, data=corpus, out=tmp_path / "run")
    model = ModelSpec.checked("fe2e", {key: TINY[key] for key in TINY})
    train(train_settings, model, listener())
    found = evaluate(EvaluateSettings(run=tmp_path / "run", folds="session"), listener())
    assert (
        found["models"][0]["scores"]["single_label"]["accuracy"]["values"]
        == (result["models"][0]["scores"]["single_label"]["accuracy"]["values"][:3])
    )
    for name in ("session-1", "session-3"):
        weights = (tmp_path / "run/folds-session" / name / "seed-0/model.safetensors").read_bytes()
        assert weights == (out / "fe2e" / name / "seed-0/model.safetensors").read_bytes()
    assert (tmp_path / "run/folds-session/evaluate.html").is_file()
    # The run itself is one of them: its own test is session 2.
    assert evaluate(EvaluateSettings(run=tmp_path / "run", device="cpu"), listener())["split_protocol"] == "session:2"
    assert RunDir(tmp_path / "run").read_settings()[0].split == SplitSpec("session", "2")
    with pytest.raises(ConfigError, match="leave --data, --labels and --split out"):
        evaluate(EvaluateSettings(run=tmp_path / "run", folds="session", split="valid"), listener())


def test_what_has_no_folds_is_refused(corpus, toy_corpus, tmp_path, listener, capsys):
    with pytest.raises(DataError, match="folds by session: the data have 1 .1.; to leave one out takes two"):
        compare(CompareSettings(data=toy_corpus, models=("fe2e",), folds="session", values=VALUES), listener())
    with pytest.raises(ConfigError, match="each fold has a split of its own"):
        values = VALUES | {"split": "session:1"}
        compare(CompareSettings(data=corpus, models=("fe2e",), folds="session", values=values), listener())
    with pytest.raises(DataError, match="no longer knows it"):
        resplit(read_manifest(corpus), SplitSpec("release"))
    with pytest.raises(SystemExit):
        main(["compare", "--data", str(corpus), "--models", "fe2e", "--folds", "film", "--out", str(tmp_path / "x")])
    assert "folds is 'film'" in capsys.readouterr().err
