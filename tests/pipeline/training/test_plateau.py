"""Smaller steps where the loss stands still, beside torch's scheduler, and the same after a resume."""

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from pipeline.progress import Reporter
from pipeline.settings import ModelSpec
from pipeline.train import train
from pipeline.training.engine import lower_rates
from pipeline.training.log import TrainLog
from pipeline.training.settings import PlateauSettings, TrainSettings
from pipeline.training.state import Progress

LOSSES = [3.0, 2.0, 2.0, 1.99995, 2.5, 2.0, 1.5, 1.6, 1.7, 1.8, 1.9, 2.0, 1.0, 1.1]


@pytest.mark.parametrize("patience", [0, 1, 2, 5])
def test_rates_fall_when_torchs_do(patience):
    ours, theirs = (torch.optim.Adam(nn.Linear(1, 1).parameters(), lr=0.5) for _ in range(2))
    scheduler = ReduceLROnPlateau(theirs, factor=0.3, patience=patience)
    progress, rates = Progress(), []
    for loss in LOSSES:
        scheduler.step(loss)
        progress = lower_rates(ours, progress, loss, PlateauSettings(factor=0.3, patience=patience))
        rates.append(ours.param_groups[0]["lr"])
        assert rates[-1] == pytest.approx(theirs.param_groups[0]["lr"], rel=1e-12)
    assert (len(set(rates)) > 1) == (patience < 5)


def test_a_resumed_run_goes_on_with_the_lowered_rate(toy_corpus, tmp_path):
    model = ModelSpec.from_dict({"name": "fe2e", "text_encoder": "tiny", "width": 4, "layers": 1, "modalities": "t"})
    values = {"data": toy_corpus, "batch_size": 4, "learning_rate": 0.5, "device": "cpu", "precision": "32-true"}
    values |= {"patience": 9, "plateau": {"factor": 0.5, "patience": 0}}
    quiet = Reporter(quiet=True)
    train(TrainSettings(**values, out=tmp_path / "whole", epochs=5), model, quiet)
    train(TrainSettings(**values, out=tmp_path / "parts", epochs=2), model, quiet)
    train(TrainSettings(**values, out=tmp_path / "parts", epochs=5), model, quiet, resume=True)
    rates = [
        [row["learning_rate_rest"] for row in TrainLog.read(tmp_path / name / "log.csv")] for name in ("whole", "parts")
    ]
    assert rates[0] == rates[1]
    assert len(set(rates[0])) > 1
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts")]
    assert weights[0] == weights[1]
