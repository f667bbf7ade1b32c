"""Compiling the kernels in C: once, for what the processor has, and what is said where they cannot be."""

import os
import platform
import shutil
import sys
import tempfile

import pytest
import torch
from reference import masked_convolution
from torch.nn import functional as F

from models.errors import ModelError
from models.layers import norm
from models.layers.norm import BatchNormRelu
from models.layers.sparse import attention, sparse_map, submanifold, top_p
from models.layers.sparse.attention import CrossModalAttention
from models.layers.sparse.native_convolution import convolve_native
from models.layers.sparse.sparse_map import SparseMap
from models.layers.sparse.submanifold import SparseMaxPool2d
from models.native import build
from models.native.call import kernels_support, pointer_to


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """A cache folder that is still to be made, and no library loaded from another one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CC", raising=False)
    build._library_or_why_not.cache_clear()
    yield tmp_path / "cache" / "emotion-pipeline"
    build._library_or_why_not.cache_clear()


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """A library that was really compiled, for the tests of all that happens around the compiler."""
    folder = tmp_path_factory.mktemp("compiled")
    build._compiled(["cc"], folder, "native")
    (path,) = folder.glob("native-*.so")
    return path


def _use_compiler(monkeypatch, path, script):
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("CC", str(path))


@pytest.fixture
def calls(monkeypatch, compiled):
    """Arguments of each compilation, which copies `compiled` in place of the compiler's work."""
    noted = []

    def copied(compiler, folder, name):
        path = folder / build._named(compiled, name)
        noted.append((compiler, path))
        shutil.copyfile(compiled, path)
        path.chmod(0o700)
        return build._loaded(path)

    monkeypatch.setattr(build, "_compiled", copied)
    return noted


has_compiler = pytest.mark.skipif(
    shutil.which("cc") is None or platform.machine() != "x86_64" or sys.platform != "linux",
    reason="needs a C compiler, and is written for x86",
)


@has_compiler
def test_where_there_is_a_compiler_there_are_kernels(folder, calls):
    for _ in range(2):
        build._library_or_why_not.cache_clear()
        assert build.is_available(), str(build._library_or_why_not())
    assert len(calls) == 1  # the second time they lie in the cache
    assert [path.suffix for path in folder.iterdir()] == [".so"]


@pytest.mark.usefixtures("folder")
def test_without_a_compiler_it_is_said_once_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("CC", str(tmp_path / "no-such-compiler"))
    with pytest.warns(UserWarning, match="plain torch takes the place of the kernels in C"):
        assert not build.is_available()
    assert not build.is_available()
    with pytest.raises(ModelError, match=r"needs a C compiler.*install gcc.*use backend=auto"):
        build.library()


def test_a_compiler_that_fails_is_quoted_and_leaves_nothing_behind(monkeypatch, tmp_path, folder):
    _use_compiler(monkeypatch, tmp_path / "cc", "echo 'unknown processor' >&2; exit 1")
    with pytest.warns(UserWarning, match="unknown processor"), pytest.raises(ModelError, match="unknown processor"):
        build.library()
    assert not list(folder.iterdir())


@has_compiler
def test_a_compiler_may_come_with_arguments_and_leaves_the_library_alone(monkeypatch, folder):
    monkeypatch.setenv("CC", "cc -DUNUSED=1")
    assert build.is_available(), str(build._library_or_why_not())
    assert [path.suffix for path in folder.iterdir()] == [".so"]


@has_compiler
@pytest.mark.parametrize("harm", ["no library", "cut short", "one bit", "others may write to it"])
def test_a_library_that_cannot_be_trusted_is_made_again(folder, calls, compiled, harm):
    """One that is cut short would end the process with SIGBUS as soon as a missing page of it is touched."""
    folder.mkdir(parents=True, mode=0o700)
    sound = compiled.read_bytes()
    harmed = {
        "no library": b"not a library",
        "cut short": sound[: len(sound) // 2],
        "one bit": bytes([*sound[:5000], sound[5000] ^ 1, *sound[5001:]]),
        "others may write to it": sound,
    }[harm]
    path = folder / build._named(compiled, f"native-{build._digest(['cc'])}")
    path.write_bytes(harmed)
    path.chmod(0o666 if harm == "others may write to it" else 0o700)
    assert build.is_available()
    assert len(calls) == 1
    if harm == "others may write to it":
        assert calls[0][1].parent != folder  # for this process alone
    else:
        assert path.read_bytes() == sound


@has_compiler
@pytest.mark.usefixtures("folder")
def test_without_a_folder_to_keep_them_in_kernels_are_made_for_this_process(monkeypatch, tmp_path, calls):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert build.is_available()
    assert len(calls) == 1


@has_compiler
@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("before", ["nothing", "open to all", "link"])
def test_a_user_without_a_home_has_a_cache_where_nobody_else_could_put_a_library(monkeypatch, tmp_path, calls, before):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(build.Path, "home", no_home)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    guessed = tmp_path / f"cache-{os.getuid()}"
    if before == "open to all":
        guessed.mkdir()
        guessed.chmod(0o777)
    elif before == "link":
        (tmp_path / "others").mkdir(mode=0o700)
        guessed.symlink_to(tmp_path / "others")
    assert build.is_available()
    assert len(calls) == 1
    kept = list(guessed.rglob("*.so"))
    assert [path == calls[0][1] for path in kept] == [True] * (before == "nothing")
    assert guessed.lstat().st_mode & 0o777 == (0o700 if before == "nothing" else 0o777)


@has_compiler
def test_a_cache_that_is_a_link_or_another_s_is_not_used(folder, tmp_path, calls):
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.parent.mkdir(parents=True)
    folder.symlink_to(tmp_path / "elsewhere")
    assert build.is_available()
    assert len(calls) == 1
    assert not list((tmp_path / "elsewhere").iterdir())


@has_compiler
def test_the_kernels_are_what_a_cpu_really_uses(monkeypatch):
    used = []
    for place, name in (
        (norm, "NormRelu"), (norm, "normalised"), (submanifold, "MaxOfRows"), (attention, "Scores"),
        (attention, "UnitGate"), (attention, "take_rows"), (sparse_map, "take_rows"), (top_p, "_by_kernel"),
    ):  # fmt: skip
        known = getattr(place, name)
        function = known.apply if hasattr(known, "apply") else known

        def noted(*args, function=function, name=name):
            used.append(name)
            return function(*args)

        stands_in = type(name, (), {"apply": staticmethod(noted)}) if hasattr(known, "apply") else noted
        monkeypatch.setattr(place, name, stands_in)
    layer, gate = BatchNormRelu(16), CrossModalAttention(16, 5, 0.5, "straight_through")
    x = SparseMap.from_dense(torch.randn(2, 16, 6, 6, requires_grad=True), torch.rand(2, 6, 6) < 0.8)
    kept = gate(SparseMap(layer(x.features), x.sites), torch.randn(2, 5)).kept
    SparseMaxPool2d()(kept).features.sum().backward()
    with torch.no_grad():
        layer.eval()(x.features)
    assert set(used) == {"NormRelu", "normalised", "MaxOfRows", "Scores", "UnitGate", "take_rows", "_by_kernel"}


def test_a_tensor_that_a_kernel_cannot_read_is_refused():
    with pytest.raises(ValueError, match=r"strides \(1, 2\)"):
        pointer_to(torch.ones(3, 2).T)
    assert not kernels_support(torch.ones(4, 16), torch.ones(16, dtype=torch.bfloat16))
    assert not kernels_support(torch.ones(4, 16).double())
    assert not kernels_support(torch.ones(4, 15))


@has_compiler
@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("without", ["-mno-amx-bf16", "-mno-avx512f"])
def test_kernels_for_a_processor_that_has_less_agree_too(monkeypatch, tmp_path, without):
    _use_compiler(monkeypatch, tmp_path / "less", f'exec cc "$@" {without}')
    assert build.is_available()
    generator = torch.Generator().manual_seed(0)
    active = torch.rand(6, 9, 8, generator=generator) < 0.5
    dense = torch.randn(6, 48, 9, 8, generator=generator, requires_grad=True)
    weight = torch.randn(80, 48, 3, 3, generator=generator, requires_grad=True)
    sparse = SparseMap.from_dense(dense, active)
    found = SparseMap(convolve_native(sparse.features, weight, sparse.sites)[0], sparse.sites)
    expected = masked_convolution(dense, weight, active)
    torch.testing.assert_close(found.dense(), expected, rtol=1e-4, atol=1e-4)
    both = (found.dense(), expected)
    grads = [torch.autograd.grad(out.square().sum(), (dense, weight), retain_graph=True) for out in both]
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-3)
    for dtype, rounding in ((torch.float32, 1e-5), (torch.bfloat16, 1e-2)):
        rows = found.features.detach().to(dtype).requires_grad_()
        exact = rows.detach().float().requires_grad_()
        normed = BatchNormRelu(80)(rows)
        plain = F.relu(F.batch_norm(exact, None, None, training=True))
        torch.testing.assert_close(normed.float(), plain, rtol=rounding, atol=rounding)
        pooled = SparseMaxPool2d()(SparseMap(normed, sparse.sites)).dense()
        slowly = F.max_pool2d(SparseMap(plain, sparse.sites).dense(), 2)
        torch.testing.assert_close(pooled.float(), slowly, rtol=rounding, atol=rounding)
        if dtype == torch.float32:
            grads = [
                torch.autograd.grad(out.square().sum(), leaf)[0] for out, leaf in ((pooled, rows), (slowly, exact))
            ]
            torch.testing.assert_close(*grads, rtol=1e-3, atol=1e-4)
    torch.manual_seed(1)
    gate, query = CrossModalAttention(48, 5, 0.5, "soft"), torch.randn(6, 5)
    scores = gate._scores(sparse.features, query, sparse.sites)
    slow = gate.score((gate.of_map(sparse.features) + gate.of_query(query)[sparse.sites.image]).tanh())[:, 0]
    torch.testing.assert_close(scores, slow, rtol=1e-4, atol=1e-5)
    wanted = dense, *(gate.of_map.weight, gate.of_map.bias, gate.of_query.weight, gate.score.weight)
    grads = [torch.autograd.grad(out.square().sum(), wanted, retain_graph=True) for out in (scores, slow)]
    torch.testing.assert_close(*grads, rtol=1e-3, atol=1e-4)
    broken = torch.full((2, 16), float("nan"), dtype=torch.bfloat16)
    assert BatchNormRelu(16)(broken).isnan().all()
    in_half, _ = convolve_native(sparse.features.bfloat16(), weight, sparse.sites)
    assert in_half.dtype == torch.bfloat16
    assert (in_half - found.features).abs().max() < 1e-2 * found.features.abs().max()
