"""How the kernels in C are compiled: once, for what the processor has, and what is said where they cannot be."""

import platform
import shutil

import pytest
import torch
from reference import masked_convolution
from torch.nn import functional as F

from models.errors import ModelError
from models.layers.native import build
from models.layers.native.convolution import by_native, check
from models.layers.norm import BatchNormRelu
from models.layers.sparse_map import SparseMap
from models.layers.submanifold import SparseMaxPool2d


@pytest.fixture(autouse=True)
def _built_anew(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    build._library_or_why_not.cache_clear()
    yield
    build._library_or_why_not.cache_clear()


def _use_compiler(monkeypatch, path, script):
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("CC", str(path))


def test_without_a_compiler_it_is_said_once_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("CC", str(tmp_path / "no-such-compiler"))
    assert not build.is_available()
    with pytest.raises(ModelError, match=r"needs a C compiler.*install gcc.*use backend=auto"):
        build.library()


def test_a_compiler_that_fails_is_quoted_and_leaves_nothing_behind(monkeypatch, tmp_path):
    _use_compiler(monkeypatch, tmp_path / "cc", "echo 'unknown processor' >&2; exit 1")
    with pytest.raises(ModelError, match="unknown processor"):
        build.library()
    assert not list((tmp_path / "cache" / "emotion-pipeline").iterdir())


def test_the_kernels_are_compiled_once_for_a_processor(monkeypatch, tmp_path):
    if not build.is_available():
        assert "compiler" in str(build._library_or_why_not())
        return
    build._library_or_why_not.cache_clear()
    for path in (tmp_path / "cache" / "emotion-pipeline").iterdir():
        path.unlink()
    calls = []
    compiled = build._compile
    monkeypatch.setattr(build, "_compile", lambda *args: (calls.append(args), compiled(*args)))
    for _ in range(2):
        build._library_or_why_not.cache_clear()
        build.library()
    assert len(calls) == 1
    assert [path.suffix for path in (tmp_path / "cache" / "emotion-pipeline").iterdir()] == [".so"]


def test_a_damaged_library_is_said_to_be_one(tmp_path):
    folder = tmp_path / "cache" / "emotion-pipeline"
    folder.mkdir(parents=True)
    if (compiler := shutil.which("cc")) is None:
        return
    (folder / f"native-{build._digest(compiler)}.so").write_bytes(b"not a library")
    with pytest.raises(ModelError, match="cannot be compiled by 'cc' or loaded .*delete .*use backend=auto"):
        build.library()


@pytest.mark.parametrize("without", ["-mno-amx-bf16", "-mno-avx512f"])
def test_kernels_for_a_processor_that_has_less_agree_too(monkeypatch, tmp_path, without):
    if platform.machine() != "x86_64" or not build.is_available():
        return
    _use_compiler(monkeypatch, tmp_path / "less", f'exec cc "$@" {without}')
    build._library_or_why_not.cache_clear()
    assert build.is_available()
    generator = torch.Generator().manual_seed(0)
    active = torch.rand(6, 9, 8, generator=generator) < 0.5
    dense = torch.randn(6, 48, 9, 8, generator=generator, requires_grad=True)
    weight = torch.randn(80, 48, 3, 3, generator=generator, requires_grad=True)
    sparse = SparseMap.from_dense(dense, active)
    found = SparseMap(by_native(sparse.features, weight, sparse.sites)[0], sparse.sites)
    expected = masked_convolution(dense, weight, active)
    torch.testing.assert_close(found.dense(), expected, rtol=1e-4, atol=1e-4)
    grads = [torch.autograd.grad(out.square().sum(), (dense, weight)) for out in (found.dense(), expected)]
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-3)
    for dtype, rounding in ((torch.float32, 1e-5), (torch.bfloat16, 1e-2)):
        rows = found.features.detach().to(dtype)
        normed = BatchNormRelu(80)(rows)
        of_float = F.relu(F.batch_norm(rows.float(), None, None, training=True))
        torch.testing.assert_close(normed.float(), of_float, rtol=rounding, atol=rounding)
        pooled = SparseMaxPool2d()(SparseMap(normed, sparse.sites))
        whole = SparseMap(normed.float(), sparse.sites).dense()
        assert torch.equal(pooled.dense().float(), F.max_pool2d(whole, 2))
    with pytest.raises(ModelError, match="no matrix tiles"):
        check(torch.device("cpu"), torch.bfloat16)
