import pytest
import torch

from pipeline.config import ConfigError
from pipeline.engine import resolved_precision, start_fabric


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
