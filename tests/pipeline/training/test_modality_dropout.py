"""Training that leaves modalities out: what is trained on, validated on, and the thresholds of each subset."""

import json

import pytest
import torch

import models
from data_tools.dataset import UtteranceDataset, collate
from pipeline.progress import Reporter
from pipeline.run import RunDir
from pipeline.settings import ModelSpec
from pipeline.timeline.predictor import Predictor
from pipeline.train import train
from pipeline.training.batches import EpochBatches, OrderedBatches, train_loader
from pipeline.training.damage import Changed, ModalityDropout, modality_dropout, subset_changes
from pipeline.training.scoring import task_of_run
from pipeline.training.settings import TrainSettings

QUIET = Reporter(quiet=True)
MODEL = {"name": "mesm", "text_encoder": "tiny", "width": 4, "layers": 1, "modality_dropout": 0.4}
# Every modality is taken out of its input.
FUSION = {"name": "lf-lstm", "text_encoder": "tiny", "frontend": "towers", "tower_width": 4, "size": 8}


def settings_for(corpus, run, **changes):
    values = {"data": corpus, "out": run, "epochs": 2, "batch_size": 3, "device": "cpu", "precision": "32-true"}
    return TrainSettings(**(values | changes))


@pytest.fixture(scope="module")
def run(toy_corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dropout") / "run"
    train(settings_for(toy_corpus, folder), ModelSpec.from_dict(MODEL), QUIET)
    return folder


def absent_of(batches):
    return {
        name: "".join(letter for letter in "tav" if not batch.present(letter)[i])
        for batch in batches
        for i, name in enumerate(batch.ids)
    }


def test_other_modalities_go_in_each_epoch_and_the_same_ones_of_valid(toy_corpus):
    torch.manual_seed(0)
    model = models.build(**FUSION, modality_dropout=0.4)
    split = UtteranceDataset(toy_corpus, "train")
    order = EpochBatches(len(split), 3, seed=0)
    loader = train_loader(split, order, models.tokenizer_for(model))
    changed = Changed(loader, ModalityDropout(model, 0, order))
    found = []
    for order.epoch in (1, 2, 1):
        found.append(absent_of(changed))
    assert found[0] == found[2] != found[1]
    assert "tav" not in [gone for name, gone in found[0].items() if name != "train_02"]  # which has nothing at all
    ordered = train_loader(split, OrderedBatches(len(split), 3), models.tokenizer_for(model))
    fixed = Changed(ordered, ModalityDropout(model, 0, None))
    assert absent_of(fixed) == absent_of(fixed)
    assert any(absent_of(fixed).values())
    whole = models.build(**MODEL | {"modality_dropout": 0.0})
    assert modality_dropout(whole, 0, order) is None
    assert not subset_changes(whole)


@pytest.mark.parametrize(
    ("settings", "dropped"),
    [(MODEL | {"name": "fe2e"}, ""), (MODEL, ""), (FUSION, "tav")],
    ids=["fe2e", "mesm", "lf-lstm"],
)
def test_what_no_other_part_reads_stays_in_the_input(toy_corpus, settings, dropped):
    """The parts of FE2E and MESM meet in the sum of their scores; MESM itself hides the text from its towers."""
    model = models.build(**settings | {"modality_dropout": 0.6})
    split = UtteranceDataset(toy_corpus, "train")
    order = EpochBatches(len(split), 3, seed=0)
    order.epoch = 1
    loader = train_loader(split, order, models.tokenizer_for(model))
    dropout = modality_dropout(model, 0, order)
    before, after = absent_of(loader), absent_of(loader if dropout is None else Changed(loader, dropout))
    taken = {letter for utterance, gone in after.items() for letter in gone if letter not in before[utterance]}
    assert taken == set(dropped)


def test_each_subset_has_the_thresholds_that_are_best_on_valid_without_the_rest(run, toy_corpus):
    written = json.loads((run / "thresholds.json").read_text())["by_present"]
    assert list(written) == ["t", "a", "v", "ta", "tv", "av"]
    model, task = models.load(run), task_of_run(RunDir(run))
    valid = UtteranceDataset(toy_corpus, "valid")
    assert task.settings.task == "multi-label"
    for present, change in subset_changes(model).items():
        batch = change(collate(list(valid), models.tokenizer_for(model)))
        with torch.no_grad():
            scores = model(batch).logits.sigmoid()
        for column, (name, chosen) in enumerate(written[present].items()):
            truth, own = batch.labels[:, column] >= 0.5, scores[:, column]

            def f1(threshold, truth=truth, own=own):
                said = own >= threshold
                return float(2 * (said & truth).sum() / max(int(said.sum() + truth.sum()), 1))

            best = max(f1(step / 20) for step in range(1, 20))
            assert f1(chosen) == pytest.approx(best), (present, name)
        assert RunDir(run).read_thresholds(present) == written[present]
    assert RunDir(run).read_thresholds("tav") == RunDir(run).read_thresholds()


def test_a_resumed_training_draws_the_same(run, toy_corpus, tmp_path):
    other = tmp_path / "run"
    train(settings_for(toy_corpus, other, epochs=1), ModelSpec.from_dict(MODEL), QUIET)
    train(settings_for(toy_corpus, other, epochs=2), ModelSpec.from_dict(MODEL), QUIET, resume=True)
    assert (other / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()


def test_a_run_without_a_loader_in_memory_is_the_same(run, toy_corpus, tmp_path):
    settings = settings_for(toy_corpus, tmp_path / "run", keep_on_device=False)
    train(settings, ModelSpec.from_dict(MODEL), QUIET)
    assert (tmp_path / "run/model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()


def test_a_film_without_words_gets_the_thresholds_of_sound_and_faces(run):
    predictor = Predictor(run, "cpu")
    assert predictor.thresholds == RunDir(run).read_thresholds()
    assert predictor.thresholds_of("av") == RunDir(run).read_thresholds("av")
