import pytest
import torch
from torch import nn

from data_tools.batch import Batch
from models.output import Output
from pipeline.config import ConfigError
from pipeline.engine import Engine, resolved_precision, start_fabric


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
    assert resolved_precision("auto", "cpu") == expected
    assert resolved_precision("32-true", "cpu") == "32-true"
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
