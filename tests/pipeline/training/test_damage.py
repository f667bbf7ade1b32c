"""Training on damaged input: anew in each epoch, the same when resumed, with the complete batch beside it."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import models
from data_tools.batch import Batch
from data_tools.damage import drop_steps
from data_tools.dataset import UtteranceDataset
from models.output import Output
from pipeline.progress import Reporter
from pipeline.settings import ConfigError, ModelSpec
from pipeline.train import train
from pipeline.training.batches import EpochBatches, train_loader
from pipeline.training.damage import Changed, blank_of, damaged_for_training, damaged_for_validation
from pipeline.training.losses import Objective
from pipeline.training.settings import DamageSettings, TrainSettings

spec = ModelSpec.from_dict

QUIET = Reporter(quiet=True)
DLFR = {
    "name": "emt-dlfr",
    "frontend": "towers",
    "text_encoder": "tiny",
    "tower_width": 4,
    "size": 8,
    "heads": 2,
    "layers": 1,
}
RANDOM = {"protocol": "random", "rate": [0.2, 0.8]}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return models.build("fe2e", text_encoder="tiny", width=4, layers=1)


def batches_of(toy_corpus, model, workers=0):
    dataset = UtteranceDataset(toy_corpus, "train")
    order = EpochBatches(len(dataset), 3, seed=0)
    return order, train_loader(dataset, order, models.tokenizer_for(model), workers)


def by_id(batches):
    """Id -> whether each of its tokens is missing."""
    return {
        name: mask[: int(real.sum())].tolist()
        for batch in batches
        for name, mask, real in zip(batch.ids, batch.missing["tokens"], batch.token_mask, strict=True)
    }


def test_what_stands_for_nothing_in_a_models_input(model):
    blank = blank_of(model)
    tokens, mask = models.tokenizer_for(model)(["never a word"])
    assert blank.token in blank.kept_tokens
    assert tokens[0, 0].item() in blank.kept_tokens
    assert tokens[0, -1].item() in blank.kept_tokens
    assert not blank.kept_tokens & set(tokens[0, 1:-1].tolist())
    batch = Batch(
        faces=torch.zeros(1, 3, 48, 48, dtype=torch.uint8), face_counts=torch.tensor([1]),
        chunks=torch.randn(1, 1, 128, 32), chunk_counts=torch.tensor([1]), tokens=tokens, token_mask=mask,
        labels=torch.zeros(1, 6), sentiment=torch.zeros(1), ids=("a",),
    )  # fmt: skip
    gone = drop_steps(batch, 1.0, 0, blank)
    tower = model.towers["face"]
    assert not ((gone.faces.float() - tower.mean) / tower.deviation).any()  # nothing, after standardisation


def test_a_pretrained_tokenizer_has_its_unknown_token():
    tokenizer = models.tokenizer_for("minilm")
    assert tokenizer.unknown == 100  # [UNK] of BERT's vocabulary
    assert {101, 102} <= tokenizer.special  # [CLS] and [SEP]


def test_a_tokenizer_without_one_says_what_to_do():
    tokenizer = models.tokenizer_for("minilm")
    tokenizer.tokenizer.unk_token = None
    with pytest.raises(models.ModelError, match="no unknown token.*another text_encoder"):
        _ = tokenizer.unknown


def test_every_epoch_is_damaged_in_another_way_and_a_resumed_one_in_the_same(toy_corpus, model):
    settings = DamageSettings(**RANDOM)
    order, loader = batches_of(toy_corpus, model)
    damaged = damaged_for_training(loader, settings, model, order)
    assert len(damaged) == len(loader)
    epochs = []
    for order.epoch in (1, 2, 3):
        epochs.append(by_id(damaged))
    assert len({str(sorted(epoch.items())) for epoch in epochs}) == 3
    order, loader = batches_of(toy_corpus, model, workers=1)
    order.epoch = 2
    again = damaged_for_training(loader, settings, model, order)
    assert by_id(again) == epochs[1]
    other = damaged_for_training(loader, DamageSettings(**RANDOM, seed=1), model, order)
    assert by_id(other) != epochs[1]


@pytest.mark.parametrize("settings", [RANDOM, {"protocol": "modalities"}, {"protocol": "bernoulli"}])
def test_the_complete_batch_stands_beside_the_damaged_one(toy_corpus, model, settings):
    order, loader = batches_of(toy_corpus, model)
    plain, damaged = list(loader), list(damaged_for_training(loader, DamageSettings(**settings), model, order))
    for before, after in zip(plain, damaged, strict=True):
        assert after.ids == after.complete.ids == before.ids
        assert torch.equal(after.complete.chunks, before.chunks)
        assert after.complete.complete is None
    for what in ("chunks", "faces", "tokens"):
        assert any(not torch.equal(getattr(batch, what), getattr(batch.complete, what)) for batch in damaged)


def test_a_model_of_two_modalities_always_keeps_one_of_them(toy_corpus):
    model = models.build("fe2e", text_encoder="tiny", width=4, layers=1, modalities="ta")
    order, loader = batches_of(toy_corpus, model)
    damaged = damaged_for_training(loader, DamageSettings(protocol="modalities"), model, order)
    kept = set()
    for order.epoch in range(1, 8):
        for batch in damaged:
            sound = batch.missing["chunks"].split(batch.chunk_counts.tolist())
            words = batch.missing["tokens"]
            for i, name in enumerate(batch.ids):
                if not name.endswith("_02"):  # has neither
                    kept.add(("t" * (not words[i].any())) + ("a" * (not sound[i].any())))
    assert kept == {"t", "a", "ta"}


@pytest.mark.parametrize(("values", "message"), [
    ({"protocol": "random"}, "needs a rate"),
    ({"protocol": "random", "rate": [0.8, 0.2]}, "low <= high"),
    ({"protocol": "random", "rate": 1.5}, "damage"),
    ({"protocol": "modalities", "rate": 0.5}, "has no rate"),
    ({"protocol": "bernoulli", "rate": [0.1, 0.2]}, "takes one rate"),
    ({"protocol": "noise"}, "damage.protocol is 'noise'"),
])  # fmt: skip
def test_damage_that_makes_no_sense_is_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        TrainSettings.checked({"damage": values}, "a test")


def test_the_tasks_loss_of_another_view_is_added_to_the_loss_of_its_name():
    batch = Batch(*[torch.zeros(0)] * 6, torch.zeros(2, 1), torch.zeros(2), ("a", "b"))
    own, other = torch.tensor([[1.0], [3.0]]), torch.tensor([[5.0], [7.0]])
    output = Output(own, {"far": torch.tensor(10.0), "near": torch.tensor(2.0)}, also_scored={"far": other})
    objective = Objective("mean", lambda logits, _: logits.mean(), {"far": 0.5})
    loss = objective(output, batch)
    assert {name: value.item() for name, value in loss.parts.items()} == {"mean": 2, "far": 10 + 6, "near": 2}
    assert loss.total.item() == 2 + 0.5 * 16 + 2


def test_damaged_batches_are_the_loaders_each_damaged_once():
    items = [Batch(*[torch.full((1,), float(i))] * 8, (str(i),)) for i in range(3)]
    seen = Changed(items, lambda batch: replace(batch, chunks=batch.chunks + 1))
    for _ in range(2):
        assert [batch.chunks.item() for batch in seen] == [1, 2, 3]


def test_a_run_on_damaged_input_logs_its_losses_and_resumes_to_the_same_weights(toy_corpus, tmp_path):
    def settings(out, epochs):
        return TrainSettings(
            data=toy_corpus, out=tmp_path / out, epochs=epochs, batch_size=4, learning_rate=1e-3, device="cpu",
            precision="32-true", damage=RANDOM, loss_weights={"reconstruction": 1.0, "attraction": 0.5},
        )  # fmt: skip

    train(settings("whole", 3), spec(DLFR), QUIET)
    train(settings("broken", 1), spec(DLFR), QUIET)
    train(settings("broken", 3), spec(DLFR), QUIET, resume=True)
    whole, broken = (load_file(tmp_path / out / "model.safetensors") for out in ("whole", "broken"))
    assert all(torch.equal(value, broken[name]) for name, value in whole.items())
    log = pd.read_csv(tmp_path / "whole" / "log.csv")
    assert (log["train_reconstruction"] > 0).all()
    assert np.isfinite(log["train_attraction"]).all()
    assert (log["valid_reconstruction"] == 0).all()  # valid has no complete view beside it
    with pytest.raises(ConfigError, match="damage: was"):
        other = settings("broken", 4).model_copy(update={"damage": DamageSettings(**RANDOM, seed=1)})
        train(other, spec(DLFR), QUIET, resume=True)


def test_valid_is_damaged_as_training_is_and_alike_in_every_epoch(toy_corpus, model):
    order, loader = batches_of(toy_corpus, model)
    settings = DamageSettings(**RANDOM)
    damaged = damaged_for_validation(loader, settings, model)
    by_epoch = []
    for order.epoch in (1, 2):  # other batches, the same damage
        by_epoch.append(by_id(damaged))
    assert by_epoch[0] == by_epoch[1]
    order.epoch = 1
    assert by_id(damaged_for_training(loader, settings, model, order)) != by_epoch[0]
    gone = [missing for row in by_epoch[0].values() for missing in row]
    assert 0 < sum(gone) < len(gone)


def test_the_best_epoch_is_chosen_on_damaged_valid_unless_it_is_said_otherwise(toy_corpus, tmp_path):
    logs = {}
    for name, valid in (("damaged", True), ("clean", False)):
        damage = {"protocol": "random", "rate": 1.0, "valid": valid}
        values = {"data": toy_corpus, "epochs": 2, "batch_size": 4, "device": "cpu", "precision": "32-true"}
        train(TrainSettings(**values, learning_rate=1e-2, out=tmp_path / name, damage=damage), spec(DLFR), QUIET)
        logs[name] = pd.read_csv(tmp_path / name / "log.csv")
    assert logs["damaged"]["train_loss"].tolist() == logs["clean"]["train_loss"].tolist()
    # With nothing left of the input but its lengths, the answers to valid are worse ones.
    assert (logs["damaged"]["valid_loss"] != logs["clean"]["valid_loss"]).all()
