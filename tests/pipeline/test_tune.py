"""A search over settings: seeded, by valid alone, resumable, and its best is a config that trains."""

import json
import math

import pandas as pd
import pytest
import yaml
from listener import Listener

from pipeline.cli import main
from pipeline.model_configs import load_model_config
from pipeline.run import RunDir
from pipeline.run_data import STANDIN_NOTICE
from pipeline.settings import ConfigError
from pipeline.training.log import TrainLog
from pipeline.tune import Range, TuneSettings, drawn, tune

VALUES = {"text_encoder": "tiny", "layers": 1, "modalities": "t", "epochs": 2, "batch_size": 8, "device": "cpu"}
VALUES |= {"precision": "32-true"}
SPACE = "{learning_rate: {low: 1.0e-4, high: 1.0e-1, log: true}, width: [4, 8]}"


@pytest.fixture(scope="module")
def corpus(corpus_writer, tmp_path_factory):
    """The toy corpus, its test split damaged: whoever reads it fails."""
    data = corpus_writer(tmp_path_factory.mktemp("tune") / "toy", {"train": 8, "valid": 6, "test": 5})
    (data / "store" / "dialogue_test.safetensors").write_bytes(b"nobody may read this")
    return data


def asked(data, out, **changes):
    values = {"data": data, "model": "fe2e", "space": SPACE, "trials": 3, "seed": 5, "out": out, "values": VALUES}
    return TuneSettings(**values | changes)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory, corpus):
    out = tmp_path_factory.mktemp("tuned") / "out"
    with pytest.raises(KeyboardInterrupt):
        tune(asked(corpus, out), Listener("run 2 of 3"))
    listener = Listener()
    return out, tune(asked(corpus, out), listener), listener.lines


def test_draws_depend_on_seed_and_number_alone_and_lie_in_their_range():
    space = {"b": Range(low=1, high=9, whole=True), "a": (1, 2, 3), "c": Range(low=1e-4, high=1e-1, log=True)}
    trials = [drawn(space, 3, i) for i in range(200)]
    assert trials == [drawn(dict(reversed(space.items())), 3, i) for i in range(200)]
    assert trials != [drawn(space, 4, i) for i in range(200)]
    assert {trial["a"] for trial in trials} == {1, 2, 3}
    assert {trial["b"] for trial in trials} == set(range(1, 10))
    logs = [math.log10(trial["c"]) for trial in trials]
    assert min(logs) >= -4
    assert max(logs) <= -1
    assert [sum(low <= value < low + 1 for value in logs) > 40 for low in (-4, -3, -2)] == [True] * 3


def test_each_trial_is_a_run_and_the_best_on_valid_wins(tuned):
    out, result, lines = tuned
    assert "run 1 of 3: trial-000, seed 0: finished, kept" in lines
    for trial in result["trials"]:
        run = RunDir(out / f"trial-{trial['trial']:03d}" / "seed-0")
        settings, model = run.read_settings()
        assert trial["settings"] == {"learning_rate": settings.learning_rate, "width": model["width"]}
        rows = TrainLog.read(run.log)
        # The weights that were kept are those of the best epoch.
        assert trial["score"] == pytest.approx(max(float(row["valid_f1"]) for row in rows), abs=1e-6)
    best = result["trials"][result["best"]]
    assert best["score"] == max(trial["score"] for trial in result["trials"])


def test_test_is_never_read(tuned):
    out, _, _ = tuned
    for path in out.glob("trial-*/seed-0/metrics.json"):
        assert set(json.loads(path.read_text())["splits"]) == {"valid"}
    predictions = pd.concat(pd.read_parquet(path) for path in out.glob("trial-*/seed-0/predictions.parquet"))
    assert set(predictions["split"]) == {"valid"}


def test_the_best_is_a_config(tuned):
    out, result, _ = tuned
    best = load_model_config(str(out / "best.yaml"))
    settings = result["trials"][result["best"]]["settings"]
    assert (best.train["learning_rate"], best.model["width"]) == (settings["learning_rate"], settings["width"])
    assert best.model["name"] == "fe2e"
    assert STANDIN_NOTICE in (out / "best.yaml").read_text()
    assert yaml.safe_load((out / "best.yaml").read_text())["train"]["epochs"] == 2


def test_more_trials_go_on_with_those_that_there_are(tuned, corpus):
    out, result, _ = tuned
    listener = Listener()
    more = tune(asked(corpus, out, trials=4), listener)
    assert more["trials"][:3] == result["trials"]
    assert sum(line.endswith("finished, kept") for line in listener.lines) == 3
    page = (out / "tune.html").read_text()
    assert STANDIN_NOTICE in page
    assert "Test was not read" in " ".join(page.split())


def test_a_grid_has_every_combination_and_what_cannot_work_has_a_reason(corpus, tmp_path, capsys):
    sets = [part for key, value in VALUES.items() for part in ("--set", f"{key}={value}")]
    flags = ["--data", str(corpus), "--out", str(tmp_path / "out"), "--space", "{width: [4, 6], dropout: [0.0, 0.5]}"]
    main(["tune", "--model", "fe2e", "--grid", *flags, *sets, "--json"])
    result = json.loads(capsys.readouterr().out)
    assert [trial["settings"] for trial in result["trials"]] == [
        {"dropout": dropout, "width": width} for dropout in (0.0, 0.5) for width in (4, 6)
    ]
    assert ["multiple of 4" in trial["reason"] for trial in result["trials"]] == [False, True, False, True]
    assert [trial["score"] is None for trial in result["trials"]] == [False, True, False, True]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": "{}"}, "--space"),
        ({"space": "[1]"}, "--space"),
        ({"space": "{width: 4}"}, "give key: .values. or key"),
        ({"space": "{width: {low: 3, high: 1}}"}, "the lower one first"),
        ({"space": "{width: {low: 0, high: 1, log: true}}"}, "with log it is above 0"),
        ({"space": "{width: {low: 4, high: 8}}", "grid": True}, "--grid needs values, but width is a range"),
        ({"space": "{widht: [4]}"}, "widht.*did you mean width"),
        ({"space": "{layers: [1]}"}, "--set layers: it is searched"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(corpus, tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        tune(asked(corpus, tmp_path / "out", **changes), Listener())
    assert not (tmp_path / "out").exists()
