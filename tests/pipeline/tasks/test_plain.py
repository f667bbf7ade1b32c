"""Unweighted binary cross-entropy, thresholds that are not tuned, and a part of train."""

import json

import pytest
import torch
from torch.nn import functional as F

from data_tools.dataset import UtteranceDataset
from pipeline.progress import Reporter
from pipeline.run import RunDir
from pipeline.run_data import DataFacts
from pipeline.settings import ConfigError, ModelSpec
from pipeline.tasks.resolve import build_task
from pipeline.train import prepare, train
from pipeline.training.settings import TrainSettings

FE2E = ModelSpec.from_dict({"name": "fe2e", "text_encoder": "tiny", "width": 4, "layers": 1, "modalities": "t"})


def settings_for(data, out=None, **changes):
    values = {"data": data, "out": out, "epochs": 1, "batch_size": 3, "device": "cpu", "precision": "32-true"}
    return TrainSettings(**values | changes)


def test_the_plain_loss_weighs_no_class_and_fixed_thresholds_are_a_half(toy_corpus, tmp_path):
    settings = settings_for(toy_corpus, tmp_path / "run", loss="bce_plain", thresholds="fixed")
    summary = train(settings, FE2E, Reporter(quiet=True))
    found = json.loads((tmp_path / "run/thresholds.json").read_text())
    assert set(found["thresholds"].values()) == {0.5}
    assert "as set before training" in json.dumps(found)
    metrics = summary["splits"]["test"]["metrics"]["multi_label"]
    assert "positives and negatives alike" in metrics["loss"]["definition"]
    run = RunDir(tmp_path / "run")
    task = build_task(run.read_settings()[0], run.facts())
    logits, labels = torch.randn(4, 3), torch.randint(0, 2, (4, 3)).float()
    torch.testing.assert_close(
        task.loss(torch.device("cpu")).against(logits, labels), F.binary_cross_entropy_with_logits(logits, labels)
    )


def test_the_plain_loss_is_multi_labels_own(toy_corpus):
    with pytest.raises(ConfigError, match="loss is 'bce_plain', which the task 'single-label' does not have"):
        prepare(settings_for(toy_corpus, task="single-label", loss="bce_plain"), FE2E)


def test_a_smaller_part_of_train_is_inside_a_larger_one(corpus_writer, tmp_path):
    data = corpus_writer(tmp_path / "data", {"train": 60, "valid": 2, "test": 1})
    parts = {
        share: prepare(settings_for(data, train_fraction=share), FE2E).train_split for share in (0.01, 0.2, 0.5, 0.8, 1)
    }
    ids = {share: set(part.table["utterance_id"]) for share, part in parts.items()}
    assert ids[0.01] <= ids[0.2] < ids[0.5] < ids[0.8] < ids[1]
    assert [bool(names) for names in ids.values()] == [True] * 5
    for share in (0.2, 0.5, 0.8):
        assert len(ids[share]) == pytest.approx(60 * share, abs=12)
    assert parts[0.2].left_out == 0
    other = prepare(settings_for(data, train_fraction=0.5, seed=1), FE2E).train_split
    assert set(other.table["utterance_id"]) == ids[0.5]
    # Nothing else changes: valid is whole, and the facts are those of the part.
    valid = UtteranceDataset(data, "valid")
    assert DataFacts.from_splits(data, parts[0.2], valid).train_utterances == len(ids[0.2])
