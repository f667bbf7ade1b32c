"""Two real processes that train together, and the arithmetic of their shares."""

import csv
import json
import os
import subprocess
import sys
from itertools import chain

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from pipeline.progress import Reporter
from pipeline.settings import ConfigError, ModelSpec
from pipeline.train import train
from pipeline.training.device import Ranks
from pipeline.training.engine import devices_started
from pipeline.training.settings import TrainSettings

spec = ModelSpec.from_dict

# Without batch norm, and without dropout (see below), nothing is left by which two processes could differ from one.
TEXT = {"name": "fe2e", "text_encoder": "tiny", "modalities": "t"}
VALUES = {"epochs": 3, "batch_size": 4, "accumulate": 2, "learning_rate": 1e-2, "device": "cpu", "precision": "32-true"}

TOGETHER = """
import models
from torch import nn
from pipeline.settings import ModelSpec
from pipeline.training.settings import TrainSettings
from pipeline.progress import Reporter
from pipeline.command import is_first_process
from pipeline.train import train

class Writing(Reporter):
    def say(self, text):
        if not self.quiet:
            print(text, flush=True)

real = models.build

def build(**settings):
    model = real(**settings)
    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        if isinstance(part, nn.MultiheadAttention):
            part.dropout = 0.0
    return model

models.build = build
settings = TrainSettings(**{settings!r})
for epochs in (2, 3):  # the second one goes on with the first
    update = {{"epochs": epochs}}
    train(settings.model_copy(update=update), ModelSpec.from_dict({model!r}), Writing(), resume=epochs == 3)
print("result" if is_first_process() else "silence", flush=True)
"""


def run_together(folder, settings, model):
    script = folder / "together.py"
    script.write_text(TOGETHER.format(settings=settings, model=model))
    kept = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT", "NODE_RANK")}
    command = [sys.executable, str(script)]
    done = subprocess.run(command, capture_output=True, check=False, cwd=folder, env=kept, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def rows_of(run):
    with (run / "log.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def both(tmp_path_factory, corpus_writer):
    """(run of one process, run of two, what the two printed); both stop once. 7 and 5 divide by neither 4 nor 2."""
    folder = tmp_path_factory.mktemp("shared")
    data = corpus_writer(folder / "data", {"train": 7, "valid": 5, "test": 3})
    values = {"data": str(data), **VALUES}
    run_together(folder, {"out": str(folder / "one"), **values}, TEXT)
    printed = run_together(folder, {"out": str(folder / "two"), "devices": 2, **values}, TEXT)
    return folder / "one", folder / "two", printed


def test_two_processes_learn_what_one_does(both):
    one, two, _ = both
    alone, together = rows_of(one), rows_of(two)
    assert len(alone) == len(together) == 3
    for a, b in zip(alone, together, strict=True):
        for name in ("train_loss", "valid_loss", "valid_f1", "text.macs", "steps"):
            assert float(b[name]) == pytest.approx(float(a[name]), abs=1e-5, rel=1e-5), name
    # Three steps moved it a hundred times further than the two may differ.
    assert float(alone[0]["train_loss"]) - float(alone[-1]["train_loss"]) > 1e-3
    ours, theirs = load_file(one / "model.safetensors"), load_file(two / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert_close(theirs, ours, rtol=1e-5, atol=1e-5)


def test_every_utterance_is_counted_once_and_in_its_place(both):
    one, two, _ = both
    alone, together = (pd.read_parquet(run / "predictions.parquet") for run in (one, two))
    assert together["utterance_id"].tolist() == alone["utterance_id"].tolist()
    assert len(together) == 8
    scores = [name for name in alone.columns if name.startswith("score_")]
    assert_close(together[scores].to_numpy(copy=True), alone[scores].to_numpy(copy=True), rtol=1e-4, atol=1e-5)


def test_the_first_process_alone_writes_and_speaks(both):
    _, two, printed = both
    assert printed.split().count("result") == printed.split().count("silence") == 1
    assert len([line for line in printed.splitlines() if line.startswith("epoch ")]) == 3
    assert [start["from_epoch"] for start in json.loads((two / "environment.json").read_text())["starts"]] == [1, 3]


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_shares_are_the_whole_once(world):
    sizes, batches, start = [4, 4, 1, 3], [], 0
    for size in sizes:
        batches.append(list(range(start, start + size)))
        start += size
    ranks = [Ranks(rank, world) for rank in range(world)]
    for batch in batches:
        own = [rank.own(batch)[: rank.counted(len(batch))] for rank in ranks]
        assert sorted(chain.from_iterable(own)) == batch
        assert all(rank.own(batch) for rank in ranks)
    places = [rank.places(sizes) for rank in ranks]
    assert sorted(chain.from_iterable(places)) == list(range(12))
    # A place is where the utterance stands in the order of a single process.
    assert places == [[p for b in batches for p in rank.own(b)[: rank.counted(len(b))]] for rank in ranks]


def test_each_process_has_random_numbers_of_its_own_and_the_first_keeps_its_stream():
    drawn = []
    for rank, epoch in ((0, 1), (1, 1), (2, 1), (1, 2), (1, 1)):
        torch.manual_seed(0)
        Ranks(rank, 3).seed_epoch(5, epoch)
        drawn.append(torch.rand(4).tolist())
    torch.manual_seed(0)
    assert drawn[0] == torch.rand(4).tolist()
    assert drawn[4] == drawn[1]
    assert len({tuple(values) for values in drawn}) == 4


def test_more_processes_than_utterances_are_refused(tmp_path, toy_corpus):
    settings = TrainSettings(data=toy_corpus, out=tmp_path / "run", batch_size=2, devices=3, device="cpu")
    with pytest.raises(ConfigError, match=r"3 processes share every batch, but batch_size is 2.*at most 2"):
        train(settings, spec(TEXT), Reporter(quiet=True))
    assert not (tmp_path / "run").exists()


def test_what_torchrun_started_is_taken(monkeypatch):
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "8"}.items():
        monkeypatch.setenv(name, value)
    assert devices_started(1, 1) == devices_started(4, 2) == (4, 2)
    with pytest.raises(
        ConfigError, match="devices is 2 and nodes 1, but torchrun has started 4 processes on each of 2"
    ):
        devices_started(2, 1)


def test_what_slurm_started_is_taken(monkeypatch):
    values = {"SLURM_NTASKS": "6", "SLURM_NNODES": "3", "SLURM_JOB_NAME": "train", "SLURM_PROCID": "0"}
    for name, value in (values | {"SLURM_STEP_ID": "0", "SLURM_SRUN_COMM_HOST": "h", "SLURM_NTASKS": "6"}).items():
        monkeypatch.setenv(name, value)
    assert devices_started(1, 1) == (2, 3)
