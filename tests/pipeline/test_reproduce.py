"""Studies of configs/studies: each is sound, runs on small data, and shows ours beside what was published."""

import json
from statistics import mean

import numpy as np
import pandas as pd
import pytest

import models
from data_tools.files import write_json
from data_tools.sequences.steps import untimed
from data_tools.sequences.store import FeatureFacts, features_path, write_facts
from data_tools.sequences.store import write_dialogue as write_features
from pipeline.cli import main
from pipeline.counting.model import count_model
from pipeline.metrics.emotions import MULTI_LABEL
from pipeline.metrics.sentiment import SENTIMENT
from pipeline.metrics.single_label import SINGLE_LABEL
from pipeline.model_configs import load_model_config
from pipeline.progress import Reporter
from pipeline.reproduce import NOT_BUILT, ReproduceSettings, reproduce
from pipeline.run_data import STANDIN_NOTICE
from pipeline.settings import ConfigError
from pipeline.study.papers import folder_of
from pipeline.study.spec import Study, load_study, study_names
from pipeline.training.settings import TrainSettings

QUIET = Reporter(quiet=True)
KNOWN = {metric.name for metric in (*MULTI_LABEL, *SINGLE_LABEL, *SENTIMENT)}
# A few of each kind in every run of the tests; the others are slow together.
OFTEN = ("emt-table-4-mosi", "ucrn-table-4", "ucrn-table-7", "cmt-table-1")


def write_toy_features(folder, name):
    table, sizes = pd.read_parquet(folder / "utterances.parquet"), {"t": 5, "a": 4, "v": 3}
    for dialogue, rows in table.groupby("dialogue_id"):
        draw = np.random.default_rng(0)
        features = {
            utterance: {
                letter: untimed(draw.normal(size=(3, size)).astype(np.float32)) for letter, size in sizes.items()
            }
            for utterance in rows["utterance_id"]
        }
        write_features(features_path(folder, name, dialogue), features, sizes, "f")
    write_facts(folder, FeatureFacts(name, sizes, {"hop": 1}, dict.fromkeys(table["dialogue_id"], "f"), None, {}))


@pytest.fixture(scope="module")
def corpora(corpus_writer, tmp_path_factory):
    """Data folders by corpus: three emotions in three sessions, and sentiment on two scales."""
    folder, sizes = tmp_path_factory.mktemp("studies"), {"train": 8, "valid": 6, "test": 5}

    def numbers(largest):
        return lambda split, i: largest * [-1.0, -0.5, 0.2, 1.0, 0.6, -0.3, 0.0, 0.4][i]

    made = {
        "iemocap": corpus_writer(folder / "iemocap", sizes),
        "mosi": corpus_writer(folder / "mosi", sizes, emotions=(), sentiment=numbers(3)),
        "sims": corpus_writer(folder / "sims", sizes, emotions=(), sentiment=numbers(1)),
        "mosei": corpus_writer(folder / "mosei", sizes, sentiment=numbers(3)),
    }
    for name, data in made.items():
        write_json(data / "dataset.json", json.loads((data / "dataset.json").read_text()) | {"dataset": name})
        path = data / "utterances.parquet"
        table = pd.read_parquet(path)
        # Of two dialogues that are left, one is for valid.
        table["session"] = table["dialogue_id"]
        table.to_parquet(path, index=False)
        for features in ("default", "words"):
            write_toy_features(data, features)
    return made


def quick(name, corpora, out, **values):
    study = load_study(name)
    data = corpora[next(iter(study.corpora), "iemocap")]
    # The toy clips are no files: CMT reads features in place of the sound.
    own = {"frontend": "features"} if name.startswith("cmt") else {}
    asked = ReproduceSettings(name=name, data=data, out=out, quick=True, device="cpu", values=own | values)
    return study, reproduce(asked, QUIET)


@pytest.mark.parametrize("name", study_names())
def test_a_study_names_what_there_is(name):
    study = load_study(name)
    assert any(row.published for row in study.rows) or study.note
    for column in study.columns:
        assert column.metric is None or column.metric in KNOWN
    for row in study.rows:
        if row.config is None:
            assert row.published
            continue
        for corpus in study.corpora or (None,):
            config = load_model_config(row.config, corpus)
            known = set(models.REGISTRY[config.model["name"]][0].model_fields)
            assert set(row.set) <= known | set(TrainSettings.model_fields)
            assert set(study.set) <= known | set(TrainSettings.model_fields)
            laid = config.model | {key: value for key, value in (study.set | row.set).items() if key in known}
            models.config_of(laid.pop("name"), laid)
            train = {key: value for key, value in (study.set | row.set).items() if key in TrainSettings.model_fields}
            TrainSettings.checked(config.train | train, name)


@pytest.mark.parametrize(("name", "accuracy"), [("mesm-table-3", "Acc"), ("mesm-table-4", "WAcc")])
def test_published_averages_are_those_of_the_published_emotions(name, accuracy):
    """The paper prints both: a figure that was copied into the wrong column would part them."""
    study = load_study(name)
    labels = [column.label for column in study.columns]
    for row in study.rows:
        figures = dict(zip(labels, row.published, strict=True))
        for kind in (accuracy, "F1"):
            average = figures.pop(f"Average {kind}")
            own = [figure for label, figure in figures.items() if label.split()[-1] == kind]
            assert len(own) == 6
            # Each figure is rounded to 0.1.
            assert mean(own) == pytest.approx(average, abs=0.1 + 1e-9), (row.label, kind)


def test_every_table_of_the_papers_that_data_can_give_is_there():
    papers = {study_name.partition("-")[0] for study_name in study_names()}
    assert papers == {"mesm", "emt", "lmr", "ucrn", "cmt"}
    shown = {name.split("-")[0]: [] for name in study_names()}
    for name in study_names():
        shown[name.split("-")[0]].append(load_study(name).shows)
    for paper, tables in {"mesm": (3, 4, 5), "emt": range(4, 10), "ucrn": range(1, 8), "cmt": range(1, 5)}.items():
        for number in tables:
            assert any(f"Table {number}" in text or f" {number}," in text for text in shown[paper]), (paper, number)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in OFTEN else pytest.mark.slow) for name in study_names()]
)
def test_it_runs_on_small_data(name, corpora, tmp_path):
    study, result = quick(name, corpora, tmp_path / "out")
    assert [row["label"] for row in result["rows"]] == [row.label for row in study.rows]
    for row, asked in zip(result["rows"], study.rows, strict=True):
        assert row["published"] == (list(asked.published) or [None] * len(study.columns))
        if asked.config is None:
            assert row["reason"] == NOT_BUILT
        elif asked.starts_from is not None:
            assert f"give it as --{asked.starts_from} FOLDER" in row["reason"]
        else:
            assert not row["reason"]
            assert any(value is not None for value in row["values"])
    page = (tmp_path / "out/reproduce.html").read_text()
    assert all(row.label.partition("->")[0] in page for row in study.rows)
    if study.kind != "counts":
        assert STANDIN_NOTICE in page
        assert "Ours cannot be held against the published figures" in page
    if study.kind == "missing":
        assert "data:image/png" in page


def test_values_are_those_of_the_runs_and_what_is_finished_is_kept(corpora, tmp_path):
    study, result = quick("ucrn-table-1-emotion", corpora, tmp_path / "out", epochs=2)
    again = quick("ucrn-table-1-emotion", corpora, tmp_path / "out", epochs=2)[1]
    assert again["rows"] == result["rows"]
    for row, asked in zip(result["rows"], study.rows, strict=True):
        if asked.config is None:
            continue
        run = tmp_path / "out" / folder_of(asked.label) / "seed-0"
        metrics = json.loads((run / "metrics.json").read_text())["splits"]["test"]["metrics"]["multi_label"]
        assert row["values"][0]["mean"] == pytest.approx(100 * metrics["weighted_accuracy"]["value"])
        assert row["values"][0]["values"] == [row["values"][0]["mean"]]
        assert row["values"][5] is None  # these data have no emotion called anger
        assert len(pd.read_csv(run / "log.csv")) <= 2


def test_seeds_have_a_spread_and_damage_a_relative_drop(corpora, tmp_path):
    data, out = corpora["mosei"], tmp_path / "out"
    asked = {"name": "ucrn-table-5", "data": data, "out": out, "quick": True, "seeds": 2, "device": "cpu"}
    result = reproduce(ReproduceSettings(**asked), QUIET)
    row = next(row for row in result["rows"] if row["label"] == "UCRN")
    drops = []
    for seed in (0, 1):
        report = json.loads((out / f"ucrn/seed-{seed}/robustness.json").read_text())["splits"]["test"]["bernoulli"]
        drops.append(100 * report["conditions"][0]["relative_drop"]["acc2_has0"])
    assert row["values"][0]["values"] == pytest.approx(drops)
    assert row["values"][0]["mean"] == pytest.approx(mean(drops))
    assert " ± " in (out / "reproduce.md").read_text()


def test_counts_are_those_of_flops_and_need_no_data(tmp_path):
    asked = ReproduceSettings(name="ucrn-table-7", data=tmp_path / "nowhere", out=tmp_path / "out")
    rows = {row["label"]: row for row in reproduce(asked, QUIET)["rows"]}
    assert rows["MulT"]["values"][1]["mean"] == rows["MulT"]["published"][1] == 1_071_211
    sizes = {"text_dim": 300, "audio_dim": 5, "vision_dim": 20, "outputs": 1, "modalities": "ta"}
    assert rows["UCRN, bimodal"]["values"][0]["mean"] == count_model("ucrn", sizes)["fusion_parameters"]
    assert rows["TBJE"]["reason"] == NOT_BUILT


def test_the_list_says_what_each_needs_and_how_long_it_took(capsys):
    main(["reproduce", "--list", "--json"])
    listed = {study["name"]: study for study in json.loads(capsys.readouterr().out)["studies"]}
    assert sorted(listed) == study_names()
    assert "bert-base-uncased" in listed["emt-table-6-mosi"]["needs"]
    assert listed["emt-table-6-mosi"]["seeds"] == 3
    main(["reproduce", "--list"])
    assert "emt-table-6-mosi: Sun et al. 2023" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": None}, "give the name of a study"),
        ({"name": "emt-table-60"}, "no study 'emt-table-60'; did you mean emt-table-9"),
        ({"values": {"widht": 3}}, "--set widht: a setting neither"),
        ({"values": {"task": "sentiment"}}, "no row of this study can be trained on these data"),
    ],
)
def test_what_cannot_be_reproduced_is_refused(corpora, tmp_path, changes, message):
    asked = {"name": "mesm-table-3", "data": corpora["iemocap"], "out": tmp_path / "out", "quick": True}
    with pytest.raises(ConfigError, match=message):
        reproduce(ReproduceSettings(**asked | changes), QUIET)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": [{"label": "a"}, {"label": "a"}]}, "two rows have one label"),
        ({"rows": [{"label": "a", "published": [1.0, 2.0]}]}, "another number of published figures"),
        ({"columns": [{"label": "x", "metric": "mae", "count": "parameters"}]}, "exactly one of metric"),
        ({"kind": "damage"}, "damage names a protocol"),
    ],
)
def test_a_study_of_another_form_is_refused(changes, message):
    values = {
        "paper": "p",
        "shows": "s",
        "title": "t",
        "rows": [{"label": "a"}],
        "columns": [{"label": "x", "metric": "mae"}],
    }
    with pytest.raises(ConfigError, match=message):
        Study.checked(values | changes, "a test")
