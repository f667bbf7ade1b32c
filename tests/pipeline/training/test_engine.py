import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

import models
from data_tools.batch import Batch, Packed
from models.output import Output
from pipeline.settings import ConfigError
from pipeline.training.device import resolve_precision
from pipeline.training.engine import Engine, start_fabric


def test_cuda_that_is_not_there_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="'cuda', but torch sees no CUDA device; use device cpu or auto"):
        start_fabric("cuda")


def test_half_precision_on_a_cpu_is_an_error():
    with pytest.raises(ConfigError, match=r"16-mixed.*bf16-mixed or 32-true"):
        start_fabric("cpu", "16-mixed")


def test_auto_takes_what_is_there():
    assert start_fabric("auto").device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert start_fabric("cpu").device.type == "cpu"


@pytest.mark.parametrize(("native", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_auto_precision_is_what_the_processor_can(monkeypatch, native, expected):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    assert resolve_precision("auto", "cpu") == expected
    assert resolve_precision("32-true", "cpu") == "32-true"
    assert start_fabric("cpu", expected).device.type == "cpu"


class Counting(nn.Module):
    """Counts more multiply-adds than float32 can hold exactly."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(1, 2)

    def forward(self, batch):
        logits = self.head(batch.sentiment[:, None])
        counts = {"face.macs": torch.tensor(2.0**24 + 1, dtype=torch.float64)}
        return Output(logits, {"size": logits.square().mean()}, counts, {"face.1": torch.ones(1, 2, 2).bool()})


def one_utterance():
    none = torch.zeros(1, dtype=torch.int64)
    return Batch(
        faces=torch.zeros(0, 3, 48, 48, dtype=torch.uint8),
        face_counts=none,
        chunks=torch.zeros(0, 1, 128, 32),
        chunk_counts=none,
        tokens=torch.zeros(1, 1, dtype=torch.int64),
        token_mask=torch.ones(1, 1, dtype=torch.bool),
        labels=torch.zeros(1, 2),
        sentiment=torch.ones(1),
        ids=("a",),
    )


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_counts_stay_float64_and_logits_are_float32(precision):
    model = Counting()
    engine = Engine(start_fabric("cpu", precision), model, torch.optim.SGD(model.parameters(), lr=0.1))
    output = engine(one_utterance())
    assert output.computed["face.macs"].item() == 2**24 + 1
    assert (output.logits.dtype, output.losses["size"].dtype) == (torch.float32, torch.float32)
    assert output.kept["face.1"].dtype == torch.bool
    engine.backward(output.losses["size"])
    assert model.head.weight.grad.abs().sum() > 0


def test_compiling_without_a_compiler_is_an_error(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match=r"'no-such-compiler' is not there.*leave --compile out"):
        Engine(start_fabric("cpu"), Counting(), compiled=True)


@pytest.mark.slow
def test_a_compiled_model_learns_the_same():
    """Batches of two sizes, forward and backward; the weights keep their names."""
    losses, weights = {}, {}
    for compiled in (False, True):
        torch.manual_seed(0)
        model = models.build("fe2e", text_encoder="tiny", width=4, layers=1, dropout=0.0, modalities="t", outputs=2)
        for part in model.modules():
            if isinstance(part, nn.Dropout):  # compiled, it draws other numbers
                part.p = 0.0
        engine = Engine(start_fabric("cpu"), model, torch.optim.SGD(model.parameters(), lr=0.1), compiled)
        losses[compiled] = []
        for size in (2, 3, 2):
            draw = torch.Generator().manual_seed(size)
            tokens = torch.randint(3, 90, (size, 4 + size), generator=draw)
            batch = replace(one_utterance(), tokens=tokens, token_mask=tokens > 0, ids=("a",) * size)
            loss = engine(batch).logits.square().mean()
            engine.backward(loss)
            engine.step(1.0)
            losses[compiled].append(loss.item())
        weights[compiled] = model.state_dict()
    assert losses[True] == pytest.approx(losses[False], rel=1e-4)
    torch.testing.assert_close(weights[True], weights[False], rtol=1e-3, atol=1e-5)


def test_every_tensor_of_a_batch_is_pinned(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: asked.append(id(tensor)) or tensor)
    none = one_utterance()
    batch = replace(none, features={"a": Packed(torch.ones(1, 2), torch.ones(1))}, missing={"a": torch.ones(1)})
    batch = replace(batch, complete=none)
    pinned = batch.pin_memory()
    assert pinned.ids == batch.ids
    assert len(asked) == 8 + 2 + 1 + 8
    assert pinned.complete.labels is none.labels


def test_fabric_adds_no_line_of_its_own():
    code = "from pipeline.training.engine import start_fabric; start_fabric('cpu', 'bf16-mixed')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
