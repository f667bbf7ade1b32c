"""`pipeline robustness`: what it reports are the model's scores on input that a test damages itself."""

import json
import shutil
from dataclasses import replace
from statistics import fmean, pstdev

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, roc_auc_score

import models
from data_tools.damage import add_noise, drop_modalities, drop_steps
from data_tools.dataset import UtteranceDataset, collate
from data_tools.errors import DataError
from data_tools.files import folder_lock, write_json
from pipeline.cli import main
from pipeline.progress import Reporter
from pipeline.report.figures import missing_png
from pipeline.robustness import RobustnessSettings, format_robustness, robustness
from pipeline.run import RunDir
from pipeline.run_data import STANDIN_NOTICE
from pipeline.settings import ConfigError, ModelSpec
from pipeline.train import train
from pipeline.training.damage import blank_of
from pipeline.training.settings import TrainSettings

spec = ModelSpec.from_dict

QUIET = Reporter(quiet=True)
TOWERS = {"frontend": "towers", "text_encoder": "tiny", "tower_width": 4, "size": 8, "heads": 2, "layers": 1}


def settings_for(run, **changes):
    return RobustnessSettings(**({"run": run, "device": "cpu"} | changes))


def scores_of(run, toy_corpus, damage):
    """Metrics by scikit-learn of the model's answers to the whole test split in one damaged batch."""
    model = models.load(run)
    dataset = UtteranceDataset(toy_corpus, "test")
    batch = damage(collate(list(dataset), models.tokenizer_for(model)), blank_of(model))
    with torch.no_grad():
        scores = model(batch).logits.sigmoid().numpy()
    truth = batch.labels.numpy() >= 0.5
    chosen = np.array([*json.loads((run / "thresholds.json").read_text())["thresholds"].values()])
    return {
        "multi_label.f1": f1_score(truth, scores.astype(float) >= chosen, average="macro", zero_division=0),
        "multi_label.roc_auc": roc_auc_score(truth, scores, average="macro"),
        "single_label.accuracy": float((truth.argmax(1) == scores.argmax(1)).mean()),
    }


def test_each_rate_and_seed_is_the_score_on_input_damaged_by_them(run, toy_corpus):
    report = robustness(settings_for(run, rates=(0.4, 0.8), seeds=(111, 5)), QUIET)
    assert [condition["rate"] for condition in report["conditions"]] == [0.4, 0.8]
    for condition in report["conditions"]:
        assert list(condition["seeds"]) == ["111", "5"]
        for seed, found in condition["seeds"].items():

            def damage(batch, blank, rate=condition["rate"], seed=int(seed)):
                return drop_steps(batch, rate, seed, blank)

            for name, expected in scores_of(run, toy_corpus, damage).items():
                assert found[name] == pytest.approx(expected, abs=1e-6), name
    for name, expected in scores_of(run, toy_corpus, lambda batch, _: batch).items():
        assert report["undamaged"][name] == pytest.approx(expected, abs=1e-6)


def test_means_spreads_and_relative_drops_by_hand(run):
    report = robustness(settings_for(run, rates=(0.5,), seeds=(1, 2, 3)), QUIET)
    (condition,) = report["conditions"]
    losses = [scores["multi_label.loss"] for scores in condition["seeds"].values()]
    assert len(set(losses)) == 3
    before = report["undamaged"]["multi_label.loss"]
    assert condition["mean"]["multi_label.loss"] == pytest.approx(fmean(losses))
    assert condition["spread"]["multi_label.loss"] == pytest.approx(pstdev(losses))
    assert condition["relative_drop"]["multi_label.loss"] == pytest.approx((before - fmean(losses)) / before)


def test_undamaged_scores_are_those_of_metrics_json(run, trained):
    report = robustness(settings_for(run, protocol="modalities"), QUIET)
    for protocol, entries in trained[1]["splits"]["test"]["metrics"].items():
        for name, entry in entries.items():
            assert report["undamaged"][f"{protocol}.{name}"] == entry["value"]
            assert report["metrics"][f"{protocol}.{name}"] == entry["definition"]


def test_seven_subsets_and_all_of_them_is_no_damage(run, toy_corpus):
    report = robustness(settings_for(run, protocol="modalities"), QUIET)
    assert [condition["name"] for condition in report["conditions"]] == ["t", "a", "v", "ta", "tv", "av", "tav"]
    assert report["conditions"][-1]["mean"] == report["undamaged"]
    for condition in report["conditions"][:-1]:

        def damage(batch, blank, kept=condition["name"]):
            return drop_modalities(batch, [kept], 0, blank)

        for name, expected in scores_of(run, toy_corpus, damage).items():
            assert condition["mean"][name] == pytest.approx(expected, abs=1e-6)
        assert condition["seeds"] == {}  # nothing is drawn
    with pytest.raises(ConfigError, match="protocol modalities has no rates"):
        robustness(settings_for(run, protocol="modalities", rates=(0.5,)), QUIET)


def test_absent_modalities_are_those_of_utterances_that_never_had_them(run, toy_corpus):
    report = robustness(settings_for(run, protocol="absent"), QUIET)
    assert [condition["name"] for condition in report["conditions"]] == ["t", "a", "v", "ta", "tv", "av", "tav"]
    assert report["conditions"][-1]["mean"] == report["undamaged"]
    for condition in report["conditions"][:-1]:

        def without(batch, _, kept=condition["name"]):
            samples = [
                replace(
                    sample,
                    text=sample.text if "t" in kept else "",
                    chunks=sample.chunks if "a" in kept else sample.chunks[:0],
                    faces=sample.faces if "v" in kept else sample.faces[:0],
                )
                for sample in UtteranceDataset(toy_corpus, "test")
            ]
            return collate(samples, models.tokenizer_for("tiny"))

        for name, expected in scores_of(run, toy_corpus, without).items():
            assert condition["mean"][name] == pytest.approx(expected, abs=1e-6)


def test_noise_with_probability_one_half_by_default(run, toy_corpus):
    report = robustness(settings_for(run, protocol="bernoulli", seeds=(7,)), QUIET)
    (condition,) = report["conditions"]
    assert condition["rate"] == 0.5
    for name, expected in scores_of(run, toy_corpus, lambda batch, blank: add_noise(batch, 0.5, 7, blank)).items():
        assert condition["seeds"]["7"][name] == pytest.approx(expected, abs=1e-6)


def test_areas_by_hand_and_only_where_the_rates_allow_them(run):
    report = robustness(settings_for(run, rates=(0.1, 0.5, 1.0), seeds=(1,)), QUIET)
    for name, first in report["undamaged"].items():
        a, b, c = (condition["mean"][name] for condition in report["conditions"])
        text = (a + b) / 2 * 0.4 + (b + c) / 2 * 0.5
        assert report["areas"]["auilc"][name] == pytest.approx(text)
        assert report["areas"]["auilc_from_zero"][name] == pytest.approx(text + (first + a) / 2 * 0.1)
    lacking = robustness(settings_for(run, rates=(0.5,), seeds=(1,)), QUIET)
    assert lacking["areas"] == {}
    assert "0.1" in lacking["areas_reason"]


def test_by_default_the_rates_of_the_paper_and_its_seeds(run):
    settings = RobustnessSettings(run="somewhere")
    assert (settings.protocol, settings.seeds, settings.split) == ("random", (111, 1111, 11111), "test")
    report = robustness(settings_for(run, seeds=(1,)), QUIET)
    assert [condition["rate"] for condition in report["conditions"]] == [i / 10 for i in range(1, 11)]


def test_on_ch_sims_half_of_the_steps_are_missing_at_most(run, toy_corpus, tmp_path):
    data = shutil.copytree(toy_corpus, tmp_path / "sims")
    write_json(data / "dataset.json", {"dataset": "sims"})
    report = robustness(settings_for(run, data=data, seeds=(1,)), QUIET)
    assert [condition["rate"] for condition in report["conditions"]] == [0.1, 0.2, 0.3, 0.4, 0.5]
    asked = robustness(settings_for(run, data=data, seeds=(1,), rates=(0.7,)), QUIET)
    assert [condition["rate"] for condition in asked["conditions"]] == [0.7]


def test_the_batch_size_changes_no_damage(run):
    one, other = (robustness(settings_for(run, rates=(0.5,), seeds=(3,), batch_size=size), QUIET) for size in (1, 5))
    for name, value in one["conditions"][0]["mean"].items():
        assert other["conditions"][0]["mean"][name] == pytest.approx(value, rel=1e-4)


def test_protocols_and_splits_gather_in_one_file_in_any_order(run):
    first = robustness(settings_for(run, rates=(0.5,), seeds=(1,)), QUIET)
    path = run / "robustness.json"
    picture = run / "robustness.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    second = robustness(settings_for(run, protocol="modalities"), QUIET)
    third = robustness(settings_for(run, protocol="modalities", split="valid"), QUIET)
    assert json.loads(path.read_text())["splits"] == {
        "test": {"modalities": second, "random": first}, "valid": {"modalities": third}
    }  # fmt: skip
    before = path.read_bytes()
    robustness(settings_for(run, rates=(0.5,), seeds=(1,)), QUIET)
    assert path.read_bytes() == before


def test_nothing_else_of_the_run_is_touched(run):
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    robustness(settings_for(run, protocol="bernoulli", seeds=(1,)), QUIET)
    after = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    assert after.keys() - before.keys() == {"robustness.json"}
    assert all(after[name] == content for name, content in before.items())


def test_more_training_makes_the_report_untrue(run):
    robustness(settings_for(run, rates=(0.5,), seeds=(1,)), QUIET)
    RunDir(run).reopen()
    assert not list(run.glob("robustness*"))


def test_the_report_names_protocol_split_stand_in_and_every_metric(run):
    report = robustness(settings_for(run, rates=(0.1, 0.5), seeds=(1,)), QUIET)
    text = format_robustness(report)
    first, definition, header, *rows = text.split("\n")
    assert first == f"toy test, split session:5, 5 utterances, protocol random [{STANDIN_NOTICE}]"
    assert "each time step is missing or not" in definition
    assert header.split() == ["undamaged", "0.1", "0.5", "auilc", "auilc_from_zero"]
    names = list(report["undamaged"])
    values, (between, *drops) = rows[: len(names)], rows[len(names) :]
    assert between.split() == ["relative", "drop", "0.1", "0.5"]
    assert [row.split()[0] for row in values] == [row.split()[0] for row in drops] == names
    at = names.index("multi_label.loss")
    means = [condition["mean"]["multi_label.loss"] for condition in report["conditions"]]
    found = [
        report["undamaged"]["multi_label.loss"],
        *means,
        *(area["multi_label.loss"] for area in report["areas"].values()),
    ]
    assert values[at].split()[1:] == [f"{value:.3f}" for value in found]
    falls = [condition["relative_drop"]["multi_label.loss"] for condition in report["conditions"]]
    assert drops[at].split()[1:] == [f"{fall:+.1%}" for fall in falls]
    assert report["trained_with_damage"] is None


def test_what_cannot_be_scored_says_why(run, tmp_path):
    with pytest.raises(ConfigError, match="no run at"):
        robustness(settings_for(tmp_path / "nowhere"), QUIET)
    with folder_lock(run), pytest.raises(DataError, match="another run is at work"):
        robustness(settings_for(run), QUIET)
    (run / "robustness.json").write_text('{"splits": 3}')
    with pytest.raises(DataError, match=r"robustness.json is damaged.*delete it"):
        robustness(settings_for(run, protocol="bernoulli", seeds=(1,)), QUIET)
    with pytest.raises(ConfigError, match="rates"):
        RobustnessSettings.checked({"run": run, "rates": ["1.5"]}, "flags")


@pytest.mark.parametrize("model", [
    {"name": "fe2e", "text_encoder": "tiny", "width": 4, "layers": 1, "modalities": "ta"},
    {"name": "emt-dlfr", **TOWERS},
])  # fmt: skip
def test_other_models_and_fewer_modalities(toy_corpus, tmp_path, model):
    out = tmp_path / "run"
    train(TrainSettings(data=toy_corpus, out=out, epochs=1, batch_size=8, device="cpu"), spec(model), QUIET)
    report = robustness(settings_for(out, protocol="modalities"), QUIET)
    letters = model.get("modalities", "tav")
    assert len(report["conditions"]) == 2 ** len(letters) - 1
    assert report["conditions"][-1]["mean"] == report["undamaged"]


def test_the_command_prints_the_report_as_json(run, capsys, monkeypatch):
    arguments = ["robustness", "--run", str(run), "--rates", "0.1,0.5", "--seeds", "1,2", "--device", "cpu", "--json"]
    main(arguments)
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads((run / "robustness.json").read_text())["splits"]["test"]["random"]
    assert [condition["rate"] for condition in report["conditions"]] == [0.1, 0.5]


def test_a_picture_shows_metrics_that_are_undefined_somewhere_too():
    picture = missing_png([0.0, 0.5, 1.0], {"f1": [(0.5, 0.0), None, (0.1, 0.05)], "loss": [None, None, None]})
    assert picture.startswith(b"\x89PNG")
