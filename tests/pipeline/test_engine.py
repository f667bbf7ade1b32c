import pytest
import torch

from pipeline.config import ConfigError
from pipeline.engine import start_fabric


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
