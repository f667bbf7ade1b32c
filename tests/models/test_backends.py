"""The rule by which `auto` chooses a backend, and settings of earlier versions."""

import json

import pytest
import torch

import models
from models import ModelError
from models.layers.sparse import backends
from models.layers.sparse.backends import auto_backend, convolve, resolve_backend
from models.layers.sparse.sparse_map import Sites, SparseMap
from models.layers.sparse.submanifold import SubmanifoldConv2d

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
TYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def chosen(device, dtype, share, sites=5000, in_channels=64):
    return auto_backend(device, dtype, sites, share, in_channels)


@pytest.fixture
def machine(monkeypatch):
    """`machine(native=..., spconv=False, triton=False)`: types that the kernels in C know, and what is installed."""

    def make(native=(), spconv=False, triton=False):
        known = {("cpu", dtype) for dtype in native}
        monkeypatch.setattr(backends, "native_is_supported", lambda device, dtype: (device.type, dtype) in known)
        monkeypatch.setattr(backends, "spconv_is_usable", lambda: spconv)
        monkeypatch.setattr(backends, "triton_is_usable", lambda: triton)

    return make


@pytest.mark.parametrize("share", [0.0, 0.4, 0.6, 0.9, 1.0])
def test_on_a_cpu_it_is_the_kernels_where_they_know_the_type(machine, share):
    machine(native=(torch.float32,))
    assert chosen(CPU, torch.float32, share) == "native"
    assert chosen(CPU, torch.bfloat16, share) == ("dense" if share > 0.5 else "torch")


@pytest.mark.parametrize(
    ("dtype", "most"), [(torch.float32, 0.8), (torch.bfloat16, 0.5), (torch.float16, 0.5), (torch.float64, 0.8)]
)
def test_without_kernels_a_share_of_active_sites_decides(machine, dtype, most):
    machine()
    shares = (0.0, most, most + 0.01, 1.0)
    assert [chosen(CPU, dtype, share) for share in shares] == ["torch", "torch", "dense", "dense"]


def test_few_sites_are_not_worth_rewriting_a_kernel_of_many_channels_in_float32(machine):
    machine(native=TYPES)
    assert {chosen(CPU, torch.float32, share, sites=1023, in_channels=512) for share in (0.4, 1.0)} == {"torch"}
    assert chosen(CPU, torch.float32, 0.4, sites=1024, in_channels=512) == "native"
    assert chosen(CPU, torch.bfloat16, 0.4, sites=1, in_channels=512) == "native"


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_on_cuda_it_is_triton_where_its_kernels_know_the_type(machine, share):
    machine(native=TYPES, spconv=True, triton=True)
    assert [chosen(CUDA, dtype, share) for dtype in TYPES] == ["triton", "triton", "triton", "dense"]
    assert chosen(CPU, torch.float32, share) == "native"


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_on_cuda_without_triton_it_is_spconv_in_float32_where_it_is_installed_and_else_dense(machine, share):
    machine(native=TYPES, spconv=True)
    assert [chosen(CUDA, dtype, share) for dtype in TYPES] == ["spconv", "dense", "dense", "dense"]
    machine(native=TYPES)
    assert {chosen(CUDA, dtype, share) for dtype in TYPES} == {"dense"}


@pytest.mark.parametrize(("active", "expected"), [(6, "torch"), (7, "dense")])
def test_the_share_is_of_active_sites_in_all_maps(machine, active, expected):
    machine()
    sites = Sites(torch.arange(8).view(2, 2, 2) < active)
    assert resolve_backend("auto", torch.ones(active, 2), sites) == expected


def test_no_maps_have_a_backend_too(machine):
    machine()
    assert resolve_backend("auto", torch.ones(0, 2), Sites(torch.zeros(0, 3, 3, dtype=torch.bool))) == "torch"


@pytest.mark.parametrize("name", ["torch", "dense", "native", "triton", "spconv", "spconv_triton"])
def test_a_backend_that_is_named_is_the_one_that_is_used(machine, name):
    machine(native=TYPES, spconv=True)
    assert resolve_backend(name, torch.ones(4, 2), Sites(torch.ones(1, 2, 2, dtype=torch.bool))) == name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("density", [0.3, 1.0])
def test_auto_has_the_bits_of_the_backend_that_it_stands_for(dtype, density):
    generator = torch.Generator().manual_seed(0)
    sites = Sites(torch.rand(9, 12, 12, generator=generator) < density)
    rows = torch.randn(len(sites), 32, generator=generator).to(dtype)
    weight = torch.randn(48, 32, 3, 3, generator=generator).to(dtype)
    found, macs = convolve(rows, weight, sites, "auto")
    expected, expected_macs = convolve(rows, weight, sites, chosen(CPU, dtype, density, len(sites), 32))
    assert torch.equal(found, expected)
    assert macs == expected_macs


def test_the_gathering_backend_of_earlier_versions_is_read_as_auto(build_small, tiny_batch, tmp_path):
    model = build_small("mesm", backend="gather").eval()
    assert model.config == build_small("mesm").config
    models.save(model, tmp_path)
    saved = json.loads((tmp_path / "model.json").read_text())
    assert saved["settings"]["backend"] == "auto"
    saved["settings"]["backend"] = "gather"
    (tmp_path / "model.json").write_text(json.dumps(saved))
    loaded = models.load(tmp_path)
    assert loaded.config.backend == "auto"
    assert torch.equal(loaded(tiny_batch).logits, model(tiny_batch).logits)
    models.start_from(build_small("mesm"), tmp_path)


def test_an_unknown_backend_is_named():
    with pytest.raises(ModelError, match="mesm.backend is 'magic'"):
        models.build("mesm", backend="magic", text_encoder="tiny")
    with pytest.raises(ModelError, match="'magic'; known: auto, torch"):
        SubmanifoldConv2d(2, 2, "magic")(SparseMap.from_dense(torch.ones(1, 2, 3, 3)))
