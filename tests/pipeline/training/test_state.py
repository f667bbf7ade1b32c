import os
import random
import resource
import signal
import stat

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from torch.testing import assert_close

from data_tools.errors import DataError
from models.errors import ModelError
from pipeline.training.device import seed_everything
from pipeline.training.engine import Engine, start_fabric
from pipeline.training.state import Progress, load_state, save_state


class Tied(nn.Module):
    """Two names for one weight, a frozen parameter and a buffer: what a state has to get right."""

    def __init__(self, width=3):
        super().__init__()
        self.embed, self.out = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.out.weight = self.embed.weight
        self.norm = nn.BatchNorm1d(width)
        self.frozen = nn.Parameter(torch.ones(width), requires_grad=False)

    def forward(self, x):
        return self.norm(self.out(self.embed(x)))


def engine_of(seed, width=3, **options):
    torch.manual_seed(seed)
    model = Tied(width)
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    return Engine(start_fabric("cpu"), model, torch.optim.Adam([{"name": "rest", "params": named}], lr=0.1, **options))


def step(engine):
    loss = engine.model(torch.randn(4, 3)).square().sum() * random.random() * np.random.random()
    loss.backward()
    engine.optimizer.step()
    engine.optimizer.zero_grad()


def tensors(engine):
    return [*engine.model.state_dict().values()], engine.optimizer.state_dict()["state"]


def test_what_follows_a_loaded_state_is_what_would_have_followed(tmp_path):
    original, copy = engine_of(0), engine_of(1)
    step(original)
    path, progress = tmp_path / "last" / "state.safetensors", Progress(3, 2, 0.5, 0.7, 1)
    save_state(path, original, progress)
    for _ in range(3):
        step(original)
    seed_everything(99)
    assert load_state(path, copy) == progress
    for _ in range(3):
        step(copy)
    assert_close(tensors(copy), tensors(original), rtol=0, atol=0)
    assert copy.optimizer.state_dict()["param_groups"] == original.optimizer.state_dict()["param_groups"]


@pytest.mark.parametrize("fused", [False, True])
def test_a_channels_last_weight_goes_on_as_it_would_have(tmp_path, fused):
    def engine():
        torch.manual_seed(0)
        model = nn.Conv2d(4, 8, 3).to(memory_format=torch.channels_last)
        return Engine(start_fabric("cpu"), model, torch.optim.Adam(model.named_parameters(), lr=0.1, fused=fused))

    def conv_step(engine):
        engine.model(torch.randn(2, 4, 5, 5)).square().sum().backward()
        engine.optimizer.step()
        engine.optimizer.zero_grad()

    original, copy = engine(), engine()
    conv_step(original)
    save_state(tmp_path / "state.safetensors", original, Progress())
    conv_step(original)
    load_state(tmp_path / "state.safetensors", copy)
    conv_step(copy)
    assert_close(tensors(copy), tensors(original), rtol=0, atol=0)


def test_the_same_state_gives_the_same_bytes_and_no_pickle(tmp_path):
    engine = engine_of(0)
    step(engine)
    for name in ("a", "b"):
        save_state(tmp_path / name / "state.safetensors", engine, Progress())
    first, second = ((tmp_path / name / "state.safetensors").read_bytes() for name in ("a", "b"))
    assert first == second
    with safe_open(tmp_path / "a" / "state.safetensors", framework="pt") as file:
        names = set(file.keys())
    assert {"model.embed.weight", "model.norm.running_mean", "optimizer.embed.weight|exp_avg", "random.torch"} <= names
    assert "optimizer.frozen|exp_avg" not in names


def test_frozen_weights_are_written_once_and_come_back(tmp_path):
    engine, path = engine_of(0), tmp_path / "state.safetensors"
    with torch.no_grad():
        engine.model.frozen.copy_(torch.tensor([3.0, 1.0, 2.0]))
    save_state(path, engine, Progress(1))
    with safe_open(path, framework="pt") as file:
        assert "model.frozen" not in file.keys()  # noqa: SIM118 - not a dict
    beside = path.with_name("frozen.safetensors")
    assert load_file(beside)["frozen"].tolist() == [3, 1, 2]
    written = beside.stat()
    save_state(path, engine, Progress(2))
    assert (beside.stat().st_ino, beside.stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns)
    copy = engine_of(1)
    assert load_state(path, copy) == Progress(2)
    assert copy.model.frozen.tolist() == [3, 1, 2]


def test_a_first_epoch_replaces_frozen_weights_that_no_state_belongs_to(tmp_path):
    path = tmp_path / "state.safetensors"
    save_state(path, engine_of(0), Progress(1))
    path.unlink()
    later = engine_of(0)
    with torch.no_grad():
        later.model.frozen.fill_(7)
    save_state(path, later, Progress(1))
    copy = engine_of(1)
    load_state(path, copy)
    assert copy.model.frozen.tolist() == [7, 7, 7]


def test_other_frozen_weights_or_none_are_refused(tmp_path):
    path, other = tmp_path / "a" / "state.safetensors", tmp_path / "b" / "state.safetensors"
    save_state(path, engine_of(0), Progress(1))
    changed = engine_of(0)
    with torch.no_grad():
        changed.model.frozen.fill_(7)
    save_state(other, changed, Progress(1))
    path.with_name("frozen.safetensors").write_bytes(other.with_name("frozen.safetensors").read_bytes())
    with pytest.raises(ModelError, match="frozen weights .* written with .*; bring back the file"):
        load_state(path, engine_of(1))
    path.with_name("frozen.safetensors").unlink()
    with pytest.raises(ModelError, match=r"(?s)frozen\.safetensors.*start anew"):
        load_state(path, engine_of(1))


def test_a_state_of_another_model_or_a_broken_one_is_refused(tmp_path):
    engine, path = engine_of(0), tmp_path / "state.safetensors"
    step(engine)
    save_state(path, engine, Progress())
    with pytest.raises(ModelError, match=r"(?s)does not fit this run.*start anew"):
        load_state(path, engine_of(0, width=4))
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"best_epoch", b"best_epocH"))
    with pytest.raises(ModelError, match=r"state\.safetensors does not fit"):
        load_state(path, engine)
    path.write_bytes(whole[:100])
    with pytest.raises(ModelError, match=r"state\.safetensors does not fit"):
        load_state(path, engine)


def test_a_state_follows_the_umask_and_an_unreadable_one_says_so(tmp_path, monkeypatch):
    engine, path = engine_of(0), tmp_path / "state.safetensors"
    before = os.umask(0o022)
    try:
        save_state(path, engine, Progress())
    finally:
        os.umask(before)
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o644}
    assert len(list(tmp_path.iterdir())) == 2

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(ModelError, match=r"state\.safetensors .*Permission denied"):
        load_state(path, engine)


def test_a_failed_writing_leaves_the_old_state(tmp_path):
    """No file may grow beyond 4 KiB, which to a writer is what a full disk is."""
    engine, path = engine_of(0), tmp_path / "state.safetensors"
    save_state(path, engine, Progress(epoch=1))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(DataError, match=r"cannot write .*state\.safetensors.*free space"):
            save_state(path, engine, Progress(epoch=2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert load_state(path, engine).epoch == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == ["frozen.safetensors", "state.safetensors"]


@pytest.mark.parametrize(
    ("lower", "scores", "losses", "best", "waited"),
    [
        (False, [0.2, 0.4, 0.3], [1, 1, 1], 2, 1),
        (True, [0.2, 0.4, 0.3], [1, 1, 1], 1, 2),
        (False, [0.3, 0.3, 0.3], [1, 1, 1], 1, 2),
        (False, [0.3, 0.3, 0.3], [3, 2, 4], 2, 1),
        (False, [0.1, 0.2, 0.3], [1, 2, 3], 3, 0),
        (False, [0.0, 0.0], [1.0, 0.5], 2, 0),
    ],
)
def test_the_best_epoch_is_the_first_with_the_best_score_and_then_loss(lower, scores, losses, best, waited):
    progress = Progress()
    for score, loss in zip(scores, losses, strict=True):
        progress = progress.after(score, loss, lower_is_better=lower)
    expected = Progress(len(scores), best, scores[best - 1], losses[best - 1], waited)
    assert progress == expected
