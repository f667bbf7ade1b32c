import csv
import json
import re
import sys
from dataclasses import replace
from statistics import median

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from listener import Listener

import models
from data_tools.batch import WAVEFORM
from data_tools.dataset import UtteranceDataset, collate
from data_tools.errors import DataError
from pipeline import cli
from pipeline.compare import CompareSettings, compare, plan
from pipeline.counting.model import multiply_adds
from pipeline.metrics.metric import mean_and_spread
from pipeline.report.comparison import as_markdown, sheet
from pipeline.report.pages import write_sheet
from pipeline.run_data import STANDIN_NOTICE
from pipeline.settings import ConfigError, configs_dir
from pipeline.study import runs as runs_module
from pipeline.study.result import _steps
from pipeline.training.loop import TrainingError

# One model of each kind, as small as they get.
PAIR = ("fe2e", "lf-lstm")
TINY = {"text_encoder": "tiny", "width": 4, "layers": 1, "size": 4, "features": "mel", "epochs": 2, "device": "cpu"}


def asked(data, out, names=PAIR, seeds=1, **values):
    known = {key: value for key, value in TINY.items() if key != "size" or "lf-lstm" in names}
    return CompareSettings(data=data, models=names, seeds=seeds, out=out, values=known | values)


def planned(data, /, *names, **values):
    return plan(CompareSettings(data=data, models=names, values=values), Listener())


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, corpus_writer):
    """As the toy corpus, but its utterances are of different lengths."""
    data = corpus_writer(tmp_path_factory.mktemp("compare") / "toy", {"train": 8, "valid": 6, "test": 5})
    path = data / "utterances.parquet"
    table = pd.read_parquet(path)
    seconds = {"test_00": 5.0, "test_01": 1.0, "test_02": 2.0, "test_03": 3.0, "test_04": 4.0}
    table["end_s"] = table["utterance_id"].map(seconds).fillna(1.0)
    table.to_parquet(path, index=False)
    return data


@pytest.fixture(scope="module")
def compared(tmp_path_factory, corpus):
    """(folder, result, lines) of two models with two seeds, on data without features."""
    out, listener = tmp_path_factory.mktemp("compared") / "out", Listener()
    result = compare(asked(corpus, out, seeds=2), listener)
    return out, result, listener.lines


def files(folder):
    """Name -> bytes of all files of the runs but for their locks."""
    paths = [path for path in folder.glob("*/seed-*/**/*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_scores_are_the_mean_and_spread_of_the_runs(compared):
    out, result, _ = compared
    assert [row["model"] for row in result["models"]] == list(PAIR)
    for row in result["models"]:
        reports = [
            json.loads((out / row["model"] / f"seed-{seed}" / "metrics.json").read_text())["splits"]["test"]["metrics"]
            for seed in (0, 1)
        ]
        assert set(row["scores"]) == set(reports[0]) == {"multi_label", "single_label"}
        for protocol, metrics in row["scores"].items():
            assert list(metrics) == list(reports[0][protocol])
            for name, found in metrics.items():
                values = [report[protocol][name]["value"] for report in reports]
                assert found["values"] == values
                assert found["mean"] == pytest.approx(np.mean(values))
                assert found["spread"] == pytest.approx(np.std(values), abs=1e-12)
        by_emotion = [report["multi_label"]["accuracy"]["per_emotion"]["sad"]["value"] for report in reports]
        assert row["scores"]["multi_label"]["accuracy"]["per_emotion"]["sad"]["mean"] == pytest.approx(
            np.mean(by_emotion)
        )
        assert result["metrics"]["multi_label"]["f1"]["baseline"] == reports[0]["multi_label"]["f1"]["baseline"]
    losses = [row["scores"]["multi_label"]["loss"]["values"] for row in result["models"]]
    assert len({value for values in losses for value in values}) == 4  # every seed is another run


def test_sizes_and_times_are_those_of_the_runs(compared, corpus):
    out, result, _ = compared
    for row in result["models"]:
        folders = [out / row["model"] / f"seed-{seed}" for seed in (0, 1)]
        logs = [list(csv.DictReader((folder / "log.csv").open())) for folder in folders]
        assert row["runs"] == [
            {"seed": seed, "folder": folder.as_posix(), "epochs": len(log)}
            for seed, (folder, log) in enumerate(zip(folders, logs, strict=True))
        ]
        assert row["epoch_seconds"] == median(float(line["train_seconds"]) for log in logs for line in log)
        times = [float(line[name]) for log in logs for line in log for name in ("train_seconds", "valid_seconds")]
        assert row["seconds"] == pytest.approx(sum(times))
        weights = models.load(folders[0]).parameters()
        assert row["parameters"] == sum(parameter.numel() for parameter in weights)


def test_all_models_are_counted_on_the_utterance_of_middle_length(compared, corpus):
    out, result, _ = compared
    assert result["counted_on"] == {"utterance": "test_03", "seconds": 3.0}
    end_to_end, of_features = result["models"]
    sample = UtteranceDataset(corpus, "test")[3]
    assert end_to_end["steps"]["v"] == len(sample.faces) == 2
    assert end_to_end["steps"]["a"] == len(sample.chunks) == 2
    model = models.load(out / "fe2e" / "seed-0")
    batch = collate([sample], models.tokenizer_for(model))
    assert end_to_end["steps"]["t"] == batch.tokens.shape[1]
    computed = model(batch).computed
    assert end_to_end["multiply_adds"] == sum(computed[f"{part}.macs"].item() for part in ("face", "mel", "text"))
    steps = {letter: len(v) for letter, v in UtteranceDataset(corpus, "test", "mel")[3].features.items()}
    assert of_features["steps"] == steps


def test_steps_are_those_that_the_model_reads_and_no_others(compared, corpus):
    sample = UtteranceDataset(corpus, "test", "mel")[3]
    cmt = models.build("cmt", width=4, layers=1, heads=1, text_dim=384, audio_dim=256, outputs=6)
    read = _steps(cmt, collate([sample], models.tokenizer_for(cmt)))
    assert read == {letter: len(sample.features[letter]) for letter in "ta"}
    heard = replace(UtteranceDataset(corpus, "test")[3], features={WAVEFORM: torch.zeros(5000, 1)})
    assert _steps(cmt, collate([heard], models.tokenizer_for(cmt)))["a"] == 5000


def test_multiply_adds_of_a_fusion_model_agree_with_the_hand_count(compared, corpus):
    out, _, _ = compared
    model = models.load(out / "lf-lstm" / "seed-0")
    sample = UtteranceDataset(corpus, "test", "mel")[3]
    batch = collate([sample], models.tokenizer_for(model))
    state, expected = 4, 0
    for values in sample.features.values():
        # Two directions with four gates each, of the input and of the state.
        expected += len(values) * 2 * 4 * state * (values.shape[1] + state)
    heads = {name: m for name, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    expected += sum(layer.in_features * layer.out_features for layer in heads.values())
    assert multiply_adds(model, batch) == expected


def test_missing_features_are_extracted_and_it_is_said(compared, corpus):
    _, result, lines = compared
    assert (corpus / "features" / "mel" / "features.json").is_file()
    assert any("no extracted features 'mel'" in line and line.endswith("doing that now") for line in lines)
    end_to_end, of_features = result["models"]
    assert (end_to_end["features"], end_to_end["input"]) == (None, "end to end: words, mel chunks, faces")
    assert (of_features["features"]["name"], of_features["features"]["audio"]) == ("mel", "mel")
    assert of_features["input"] == "features mel (t 384, a 256, v 142)"


def test_the_page_names_protocol_data_set_stand_in_and_input(compared):
    out, result, _ = compared
    assert json.loads((out / "compare.json").read_text()) == result
    markdown, page = (out / "compare.md").read_text(), (out / "compare.html").read_text()
    assert markdown == as_markdown(result)
    for text in (markdown, page):
        for part in (STANDIN_NOTICE, "session:5", "toy", "5 test utterances", "features mel (t 384", "test_03 (3.0 s)"):
            assert part in text
        for row in result["models"]:
            accuracy = row["scores"]["multi_label"]["accuracy"]
            assert f"{accuracy['mean']:.3f} ± {accuracy['spread']:.3f}" in text
            assert f"{row['parameters']:,}" in text
    assert "<script" not in page
    # Each table is one header, one rule and a row a model, with as many cells everywhere.
    for block in re.findall(r"(?:^\|.*\n)+", markdown, re.MULTILINE):
        assert len({line.count(" | ") for line in block.splitlines()}) == 1


def test_the_command_on_the_page_gives_the_same_settings(compared, corpus):
    _, result, _ = compared
    assert result["command"].startswith(f"pipeline compare --data {corpus} --models fe2e,lf-lstm --seeds 2 --out ")
    assigned = dict(part.split("=", 1) for part in re.findall(r"--set (\S+)", result["command"]))
    assert {key: yaml.safe_load(value) for key, value in assigned.items()} == TINY


def test_finished_runs_are_kept_and_only_further_seeds_are_trained(tmp_path, corpus, compared):
    _, result, _ = compared
    out = tmp_path / "out"
    compare(asked(corpus, out), Listener())
    before = files(out)
    listener = Listener()
    again = compare(asked(corpus, out, seeds=2), listener)
    kept = files(out)
    assert {name: kept[name] for name in before} == before
    assert [line for line in listener.lines if line.endswith("finished, kept")] == [
        "run 1 of 4: fe2e, seed 0: finished, kept",
        "run 2 of 4: lf-lstm, seed 0: finished, kept",
    ]
    assert [row["scores"] for row in again["models"]] == [row["scores"] for row in result["models"]]
    # Once more: nothing is left to do, and the table is the same.
    assert compare(asked(corpus, out, seeds=2), Listener()) == again
    assert files(out) == kept


def test_an_interrupted_comparison_goes_on_where_it_stopped(tmp_path, corpus, compared):
    whole, _, _ = compared
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        compare(asked(corpus, out), Listener(stop_at="epoch 1/2"))
    assert not (out / "compare.json").exists()
    assert len((out / "fe2e" / "seed-0" / "log.csv").read_text().splitlines()) == 2
    listener = Listener()
    compare(asked(corpus, out), listener)
    assert not any(
        line.startswith("epoch 1/2") for line in listener.lines[: listener.lines.index("run 2 of 2: lf-lstm, seed 0")]
    )
    for name in ("model.safetensors", "metrics.json", "predictions.parquet"):
        assert (out / "fe2e" / "seed-0" / name).read_bytes() == (whole / "fe2e" / "seed-0" / name).read_bytes()


def test_several_processes_are_refused_before_anything_is_trained(tmp_path, toy_corpus):
    with pytest.raises(ConfigError, match="devices times nodes is 2 for .*a table of many runs is made by one process"):
        compare(asked(toy_corpus, tmp_path / "out", devices=2), Listener())
    assert not list((tmp_path / "out").rglob("settings.yaml"))


def test_a_folder_of_other_settings_or_other_data_is_refused(tmp_path, corpus, corpus_writer):
    out = tmp_path / "out"
    compare(asked(corpus, out, ("fe2e",)), Listener())
    with pytest.raises(ConfigError, match=r"batch_size: was 8, now 4"):
        compare(asked(corpus, out, ("fe2e",), batch_size=4), Listener())
    other = corpus_writer(tmp_path / "toy", {"train": 7, "valid": 6, "test": 5})
    with pytest.raises(DataError, match="other utterances"):
        compare(asked(other, out, ("fe2e",)), Listener())
    # More epochs are allowed, as in `pipeline train --resume`.
    result = compare(asked(corpus, out, ("fe2e",), epochs=3, patience=3), Listener())
    assert result["models"][0]["runs"][0]["epochs"] == 3


def test_a_run_that_fails_is_named_and_the_others_go_on(tmp_path, corpus, monkeypatch):
    really = runs_module.train

    def train(settings, model, reporter, resume, test):
        if model.name == "fe2e" and settings.seed == 1:
            raise TrainingError("the loss is nan in step 3")
        return really(settings, model, reporter, resume=resume, test=test)

    monkeypatch.setattr(runs_module, "train", train)
    result = compare(asked(corpus, tmp_path / "out", seeds=2, epochs=1), Listener())
    assert result["failed"] == [{"model": "fe2e", "seed": 1, "reason": "the loss is nan in step 3"}]
    assert [len(row["runs"]) for row in result["models"]] == [1, 2]
    text = as_markdown(result)
    assert "fe2e: 1 of 2 seeds finished" in text
    assert "fe2e, seed 1, failed: the loss is nan in step 3" in text
    with pytest.raises(TrainingError, match="no run finished"):
        compare(asked(corpus, tmp_path / "none", ("fe2e",), epochs=1, seed=1), Listener())


def test_all_are_those_that_the_modalities_allow_and_the_others_have_a_reason(compared, corpus):
    found = planned(corpus, "all", modalities="tav", features="mel")
    refused = {}
    for name in models.REGISTRY:
        try:
            models.config_of(name, {"modalities": "tav"})
        except models.ModelError as error:
            refused[name] = str(error)
    assert refused
    assert found.left_out == refused
    assert [model.name for model in found.planned] == [name for name in models.REGISTRY if name not in refused]
    name = next(iter(refused))
    with pytest.raises(models.ModelError, match="modalities"):
        planned(corpus, name, modalities="tav", features="mel")


def test_of_all_those_that_the_data_cannot_feed_are_left_out(tmp_path, corpus_writer):
    data = corpus_writer(tmp_path / "data", {"train": 4, "valid": 3, "test": 3})
    found = planned(data, "all", features="nobody-made-these")
    assert {model.name for model in found.planned} == {"fe2e", "mesm"}
    assert set(found.left_out) == set(models.REGISTRY) - {"fe2e", "mesm"}
    assert all("nobody-made-these" in reason for reason in found.left_out.values())


def test_without_a_test_split_there_is_nothing_to_compare(tmp_path, corpus_writer):
    data = corpus_writer(tmp_path / "data", {"train": 4, "valid": 3})
    with pytest.raises(DataError, match="no utterances in the split 'test'"):
        compare(asked(data, tmp_path / "out", ("fe2e",)), Listener())
    with pytest.raises(ConfigError, match=r"(?s)no model can be trained.*fe2e: no utterances in the split 'test'"):
        planned(data, "all", features="nobody-made-these")


@pytest.mark.parametrize(
    ("names", "values", "error", "message"),
    [
        (("mesn",), {}, ConfigError, "no models config 'mesn'.*known: .*mesm"),
        (("fe2e",), {"top_p": 0.5}, ConfigError, "top_p: a setting neither of training nor of one of these models"),
        (("fe2e",), {"data": "x"}, ConfigError, "give it as --data"),
        (("fe2e",), {"epochs": 0}, ConfigError, "epochs is 0"),
    ],
)
def test_what_cannot_be_compared_is_refused(toy_corpus, names, values, error, message):
    with pytest.raises(error, match=message):
        planned(toy_corpus, *names, **values)


def test_a_setting_reaches_the_models_that_have_it(toy_corpus):
    found = planned(toy_corpus, "fe2e", "mesm", top_p=0.25, width=8, epochs=3)
    fe2e, mesm = (model.prepared for model in found.planned)
    assert (fe2e.model.given["width"], mesm.model.given["width"]) == (8, 8)
    assert "top_p" not in fe2e.model.given
    assert mesm.model.given["top_p"] == 0.25
    assert fe2e.settings.epochs == mesm.settings.epochs == 3


def test_stand_ins_have_a_budget_and_real_data_the_models_own(tmp_path, toy_corpus, corpus_writer):
    budget = yaml.safe_load((configs_dir() / "compare.yaml").read_text())["standin"]
    (standin,) = planned(toy_corpus, "fe2e").planned
    assert standin.prepared.settings.epochs == budget["train"]["epochs"]
    assert standin.prepared.settings.learning_rate == budget["train"]["learning_rate"]
    assert standin.prepared.model.given["width"] == budget["models"]["fe2e"]["width"]
    (of_towers,) = planned(toy_corpus, "mult", frontend="towers").planned
    assert of_towers.prepared.model.given["tower_width"] == budget["model"]["tower_width"]
    data = corpus_writer(tmp_path / "real", {"train": 4, "valid": 3, "test": 3}, standin=False)
    (real,) = planned(data, "fe2e").planned
    own = yaml.safe_load((configs_dir() / "models" / "fe2e.yaml").read_text())
    assert real.prepared.model.recorded() == own["model"]
    assert (real.prepared.settings.epochs, real.prepared.settings.learning_rate) == (40, 5e-5)
    # Names and values of the budget are checked where they are used: each one is of a model that there is.
    for name, values in budget["models"].items():
        models.config_of(name, values)


def test_the_budget_wins_over_what_each_config_says_of_its_training(toy_corpus):
    budget = yaml.safe_load((configs_dir() / "compare.yaml").read_text())["standin"]["train"]
    # Losses and damage are a part of what a model is. All else that a config says has its value in the budget.
    for name in models.REGISTRY:
        own = yaml.safe_load((configs_dir() / "models" / f"{name}.yaml").read_text())["train"]
        assert set(own) - {"loss_weights", "damage"} <= set(budget)
    found = planned(toy_corpus, *models.REGISTRY, features="mel").planned
    assert [model.name for model in found] == list(models.REGISTRY)
    for model in found:
        settings = model.prepared.settings.model_dump(mode="json")
        assert {key: settings[key] for key in budget} == budget


def test_the_page_names_the_budget_and_what_is_smaller_than_in_the_configs(compared):
    out, result, _ = compared
    budget = yaml.safe_load((configs_dir() / "compare.yaml").read_text())["standin"]["train"]
    # As the runs had it: epochs and width are set by the command.
    assert result["budget"] == {"train": budget | {"epochs": 2}, "models": {"fe2e": {"width": 4}, "lf-lstm": {}}}
    for text in ((out / "compare.md").read_text(), (out / "compare.html").read_text()):
        assert "one budget, which is not that of their papers: precision 32-true, epochs 2, patience 10" in text
        assert "accumulate 1, learning_rate 0.001" in text
        assert "width 4 (fe2e)" in text
        assert "tower_width" not in text  # lf-lstm reads features


def test_the_width_of_towers_is_named_where_there_are_towers(tmp_path, corpus):
    values = {"frontend": "towers", "modalities": "a", "tower_width": 8, "epochs": 1, "size": 4}
    asked_for = CompareSettings(
        data=corpus, models=("lf-lstm", "mult"), out=tmp_path / "out", values=values | {"heads": 2}
    )
    result = compare(asked_for, Listener())
    assert result["budget"]["models"] == {"lf-lstm": {"tower_width": 8}, "mult": {"tower_width": 8}}
    assert "tower_width 8 (lf-lstm, mult)." in as_markdown(result)


def test_on_real_data_the_page_says_that_each_config_counts():
    assert "Each model was trained with the settings of its own config" in as_markdown(made([[0.5]], False))


def made(means, lower, seeds=1):
    """A result of one metric: means of three models by seed."""
    rows = [
        {
            "model": f"m{i}",
            "scores": {
                "sentiment": {"x": dict(zip(("mean", "spread"), mean_and_spread(v), strict=True)) | {"values": v}}
            },
            "input": "words",
            "steps": {"t": 3},
            "parameters": 1234567,
            "multiply_adds": 2.5e6,
            "epoch_seconds": 1.0,
            "seconds": 90.0,
            "trained_with_damage": None,
            "runs": [{"seed": 0, "folder": "f", "epochs": 4}] * seeds,
        }
        for i, v in enumerate(means)
    ]
    about = {"definition": "d", "baseline": 0.9, "baseline_definition": "b", "utterances": 9, "lower_is_better": lower}
    return {
        "command": "pipeline compare",
        "dataset": "<b>&",
        "notice": None,
        "split": "test",
        "split_protocol": "session:5",
        "utterances": {"train": 3, "valid": 2, "test": 9},
        "task": "sentiment",
        "monitor": "mae",
        "seeds": seeds,
        "budget": None,
        "spread": "deviation",
        "counted_on": {"utterance": "u", "seconds": 2.0},
        "machines": ["cpu"],
        "versions": {"torch": "2"},
        "metrics": {"sentiment": {"x": about}},
        "models": rows,
        "left_out": {"m9": "no faces"},
        "failed": [],
    }


@pytest.mark.parametrize(
    ("means", "lower", "expected"),
    [
        ([[0.5], [0.7], [0.6]], False, ["0.500", "**0.700**", "0.600"]),
        ([[0.5], [0.7], [0.6]], True, ["**0.500**", "0.700", "0.600"]),
        ([[0.70001], [0.69999], [None]], False, ["**0.700**", "**0.700**", "undefined"]),
        ([[None], [None], [None]], False, ["undefined"] * 3),
        ([[0.2, 0.4], [0.5, 0.5], [0.1, None]], False, ["0.300 ± 0.100", "**0.500 ± 0.000**", "undefined"]),
    ],
)
def test_the_best_of_a_column_stands_out_and_the_spread_where_there_is_one(means, lower, expected):
    text = as_markdown(made(means, lower, len(means[0])))
    found = [line.split(" | ")[1].removesuffix(" |") for line in text.splitlines() if re.match(r"\| m\d ", line)]
    assert found[:3] == expected
    assert f"x {'↓' if lower else '↑'}" in text
    assert "| baseline | 0.900 |" in text
    assert "m9 is left out: no faces" in text


def test_a_page_escapes_what_comes_from_files(tmp_path):
    write_sheet(tmp_path / "page.html", sheet(made([[0.5]], False)))
    assert "&lt;b&gt;&amp;" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(("model", "more"), [("fe2e", []), ("lf-lstm", ["--frontend", "towers"])])
def test_the_command_line_trains_and_prints_the_table(tmp_path, corpus, compared, monkeypatch, capsys, model, more):
    flags = [
        "--data",
        corpus,
        "--models",
        model,
        *more,
        "--modalities",
        "a",
        "--device",
        "cpu",
        "--out",
        tmp_path / "out",
    ]
    elsewhere = {"device", "features", "size" if model == "fe2e" else "width"}  # a flag, not read, of another model
    sets = [f"--set={key}={value}" for key, value in TINY.items() if key not in elsewhere]
    monkeypatch.setattr(sys, "argv", ["pipeline", "compare", *map(str, flags), *sets])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
        raise SystemExit(0)
    assert not stopped.value.code
    out = capsys.readouterr().out
    assert out.strip() == (tmp_path / "out" / "compare.md").read_text().strip()
    assert f"| {model} | {'towers' if more else 'end to end'}: mel chunks | a 2 |" in out
