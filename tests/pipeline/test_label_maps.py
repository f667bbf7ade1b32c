"""A run scored on data whose emotions have other names."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from data_tools.corpora import crema_d, iemocap, meld, mer, ravdess
from data_tools.corpora.mosei import clips
from data_tools.dataset import UtteranceDataset
from data_tools.files import write_json
from data_tools.label_map import LabelMap
from pipeline.evaluate import EvaluateSettings, evaluate
from pipeline.progress import Reporter
from pipeline.run import RunDir
from pipeline.settings import ConfigError, config_names
from pipeline.training.label_maps import MappedAnswers, read_label_map
from pipeline.training.scoring import format_split

QUIET = Reporter(quiet=True)


def test_the_shipped_maps_name_emotions_that_the_corpora_have():
    known = {
        "iemocap": iemocap.LABEL_CODES,
        "mosei": clips.EMOTIONS,
        "meld": meld.EMOTIONS,
        "ravdess": ravdess.EMOTIONS,
        "crema-d": crema_d.EMOTIONS,
    } | dict.fromkeys(("mer2023", "mer2024", "mer2025"), mer.EMOTIONS)
    for name in config_names("labels"):
        label_map = read_label_map(name)
        assert set(label_map.corpora) == set(known)
        for corpus, counterparts in label_map.corpora.items():
            assert set(counterparts) <= set(known[corpus])


def test_a_data_set_keeps_the_samples_of_those_that_stay(tmp_path, corpus_writer):
    data = corpus_writer(tmp_path / "toy", {"test": 5})
    before = UtteranceDataset(data, "test")
    label_map = LabelMap("test", ["joy", "anger"], {"toy": {"ang": "anger", "hap": "joy"}})
    after = before.relabelled(label_map, label_map.corpora["toy"], ["joy", "anger"])
    # Emotions take turns: ang, hap, sad, ang, hap.
    assert [after[i].id for i in range(len(after))] == ["test_00", "test_01", "test_03", "test_04"]
    assert [after[i].labels.tolist() for i in range(4)] == [[0, 1], [1, 0], [0, 1], [1, 0]]
    assert [after[i].text for i in range(4)] == [before[i].text for i in (0, 1, 3, 4)]
    assert (after.mapped.left_out, before.emotions, before.mapped) == ({"sad": 1}, ["ang", "hap", "sad"], None)
    assert len(before) == 5


@pytest.fixture
def map_writer(tmp_path):
    """(emotions, corpora in YAML's flow style) -> path of a label map."""

    def write(emotions, corpora):
        path = tmp_path / "names.yaml"
        path.write_text(f"emotions: [{', '.join(emotions)}]\ncorpora:\n" + "".join(f"  {line}\n" for line in corpora))
        return str(path)

    return write


def score(run, **settings):
    return evaluate(EvaluateSettings(run=run, device="cpu", **settings), QUIET)


def values(report):
    return {name: entry["value"] for name, entry in report["metrics"]["multi_label"].items()}


def test_other_names_alone_change_no_score(run, trained, map_writer):
    names = map_writer(["joy", "grief", "anger"], ["toy: {ang: anger, hap: joy, sad: grief}"])
    before = (run / "metrics.json").read_bytes()
    report = score(run, labels=names)
    assert values(report) == pytest.approx(values(trained[1]["splits"]["test"]))
    assert report["labels"]["run"] == {"hap": "joy", "sad": "grief", "ang": "anger"}
    assert report["thresholds"]["thresholds"]["joy"] == trained[1]["splits"]["test"]["thresholds"]["thresholds"]["hap"]
    assert (run / "metrics.json").read_bytes() == before
    assert (
        len(list(run.glob("metrics-toy-names-*.json"))) == len(list(run.glob("predictions-toy-names-*.parquet"))) == 1
    )


def test_other_data_are_scored_on_the_emotions_that_both_have(run, tmp_path, corpus_writer, map_writer):
    corpora = ["toy: {ang: anger, hap: joy, sad: grief}", "elsewhere: {furious: anger, glad: joy}"]
    names = map_writer(["joy", "grief", "anger"], corpora)
    other = corpus_writer(tmp_path / "other", {"test": 9}, emotions=("furious", "glad", "bored"))
    write_json(other / "dataset.json", {"dataset": "elsewhere", "split": "random"})
    with pytest.raises(ConfigError, match=r"has the emotions .*'bored'.*--labels common"):
        score(run, data=other)
    report = score(run, data=other, labels=names)
    assert report["utterances"] == 6
    assert report["labels"] == {
        "map": "names",
        "emotions": ["joy", "anger"],
        "data": {"elsewhere": {"furious": "anger", "glad": "joy"}},
        "run": {"ang": "anger", "hap": "joy"},
        "left_out": {"bored": 3},
        "beside_others": {},
    }
    shown = format_split(report)
    assert "labels by the map names: joy, anger" in shown
    assert "furious as anger, glad as joy" in shown
    assert "left out, without counterpart: 3 with bored" in shown
    place = RunDir(run)
    assert json.loads(place.metrics(other, "names").read_text())["splits"] == {"test": report}
    table = pd.read_parquet(place.predictions(other, "names"))
    assert [name for name in table if name.startswith("label_")] == ["label_joy", "label_anger"]
    found = report["metrics"]["multi_label"]["accuracy"]["per_emotion"]
    for emotion in ("joy", "anger"):
        right = table[f"predicted_{emotion}"] == (table[f"label_{emotion}"] >= 0.5)
        assert found[emotion]["value"] == pytest.approx(right.mean())


def answers(trained, sources, task, thresholds=None):
    facts = RunDir(trained[0]).facts()
    names = list(sources)
    return MappedAnswers(names, sources, facts, {}, task, facts.emotions, thresholds or {})


def test_probabilities_of_merged_emotions_add_up_and_the_rest_is_no_choice(trained):
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    mapped = answers(trained, {"low": ["ang", "sad"], "high": ["hap"]}, "single-label").logits(logits)
    whole = logits.softmax(1)
    expected = torch.stack([whole[:, 0] + whole[:, 2], whole[:, 1]], 1)
    torch.testing.assert_close(mapped.softmax(1), expected)
    chosen = answers(trained, {"high": ["hap"], "angry": ["ang"]}, "single-label").logits(logits).softmax(1)
    torch.testing.assert_close(chosen, whole[:, [1, 0]] / whole[:, :2].sum(1, keepdim=True))


def test_a_merged_emotion_is_predicted_where_one_of_its_own_is(trained):
    logits = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    limits = {"ang": 0.35, "hap": 0.6, "sad": 0.8}
    mapped = answers(trained, {"low": ["ang", "sad"], "high": ["hap"]}, "multi-label", limits).logits(logits)
    own = logits.sigmoid().numpy() >= np.array(list(limits.values()))
    assert (mapped[:, 0] >= 0).tolist() == (own[:, 0] | own[:, 2]).tolist()
    assert torch.equal(mapped[:, 1], logits[:, 1])


def test_maps_that_cannot_be_used(run, tmp_path, map_writer):
    with pytest.raises(ConfigError, match=r"no labels config 'comon': .*known: common, four"):
        read_label_map("comon")
    with pytest.raises(ConfigError, match=r"maps to joi, which emotions does not have"):
        read_label_map(map_writer(["joy"], ["toy: {hap: joi}"]))
    with pytest.raises(ConfigError, match=r"no counterpart for any emotion of .*\(ang, hap, sad\).*corpora: toy"):
        score(run, labels=map_writer(["joy"], ["toy: {happy: joy}"]))
    (tmp_path / "odd.yaml").write_text("emotions: [joy]\ncorpora: {}\nmerge: true\n")
    with pytest.raises(ConfigError, match=r"merge: unknown"):
        read_label_map(str(tmp_path / "odd.yaml"))
